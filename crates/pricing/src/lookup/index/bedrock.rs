//! What Bedrock's names say of regions and geographies.

use super::Index;
use super::find::{Found, indexes};
use crate::book::ModelPrices;
use crate::lookup::{Match, name};

const BEDROCK: &str = "bedrock";
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

    /// Bedrock, where the call names no provider that sells models and the name is one that only
    /// Bedrock has.
    pub(super) fn at_bedrock_by_region(
        &self,
        models: &[ModelPrices],
        provider: &str,
        model: &str,
    ) -> Option<Found> {
        if self.sells(provider) || !name::has_region_of_bedrock(model) {
            return None;
        }
        let found = self.at_provider(models, BEDROCK, model)?;
        Some(Found {
            how: Match::Shortened,
            ..found
        })
    }
}
