//! What Bedrock's names say of regions and geographies.

use super::Index;
use super::find::{Found, indexes};
use crate::book::ModelPrices;
use crate::lookup::{Match, name};

const BEDROCK: &str = "bedrock";
/// In front of the names that may be served anywhere.
pub(crate) const WORLD: &str = "global";
/// The geography that has all models, and of those that cost more than the world the cheapest.
const GEOGRAPHY: &str = "us";
/// The geography of a government, which has prices of its own.
pub(super) const GOVERNMENT: &str = "us-gov";

impl Index {
    /// A geography of Bedrock's that the book does not have costs what its dearest others do, not
    /// what the name without one costs: geographies cost more than the model anywhere.
    pub(super) fn at_geography_of_bedrock(
        &self,
        models: &[ModelPrices],
        provider: &str,
        model: &str,
        found: usize,
    ) -> usize {
        let has_its_own = name::has_geography_of_bedrock(&models[found].model);
        if provider != BEDROCK || has_its_own || !name::has_geography_of_bedrock(model) {
            return found;
        }
        let bare = name::bare_forms(model)
            .into_iter()
            .next()
            .unwrap_or_default();
        let is_governments = { model.split('/') }.any(|part| part.starts_with(GOVERNMENT));
        let others = indexes(&self.bare, &bare).filter(|other| {
            let other = &models[*other];
            let is_alike = match other.model.starts_with(GOVERNMENT) {
                true => is_governments,
                false => !is_governments && name::has_geography_of_bedrock(&other.model),
            };
            other.provider == BEDROCK && is_alike
        });
        let dearest = self.dearest(models, others).map(|(dearest, _)| dearest);
        let is_dearer = |other: &usize| self.dearness[*other] > self.dearness[found];
        dearest.filter(is_dearer).unwrap_or(found)
    }

    /// A name without a geography calls one region, which costs what a geography does, where price
    /// lists have the price of the whole world for it: what such a call of `found` is charged by.
    pub(crate) fn in_region_of_bedrock(&self, models: &[ModelPrices], found: usize) -> usize {
        let entry = &models[found];
        if entry.provider != BEDROCK || name::has_region_of_bedrock(&entry.model) {
            return found;
        }
        let model = entry.model.to_ascii_lowercase();
        let at = |place: &str| self.exact(BEDROCK, &format!("{place}.{model}"));
        let (Some(world), Some(geography)) = (at(WORLD), at(GEOGRAPHY)) else {
            return found;
        };
        let [world, geography] = [world, geography].map(|index| index as usize);
        let dearness = |index: usize| self.dearness[index];
        let is_the_worlds = dearness(found) == dearness(world);
        match is_the_worlds && dearness(geography) > dearness(found) {
            true => geography,
            false => found,
        }
    }

    /// Bedrock, where the call names no provider that sells models and the name is one that only
    /// Bedrock has: with a region, or one of its own where no provider is named at all.
    pub(super) fn at_bedrock_by_region(
        &self,
        models: &[ModelPrices],
        provider: &str,
        model: &str,
    ) -> Option<Found> {
        let is_an_entry = || self.exact(BEDROCK, model).is_some();
        let is_named_so = name::has_region_of_bedrock(model)
            || (provider.is_empty() && name::has_vendor_of_bedrock(model) && is_an_entry());
        if self.sells(provider) || !is_named_so {
            return None;
        }
        let found = self.at_provider(models, BEDROCK, model)?;
        Some(Found {
            how: Match::Shortened,
            ..found
        })
    }
}
