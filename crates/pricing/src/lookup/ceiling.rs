//! What a call costs whose model, or one of whose units, has no price: never nothing.
//!
//! Tokens: the highest rates, class by class and for contexts of that length, of the narrowest
//! [family] that has enough names, at any provider; else of the 90th percentile (nearest
//! rank) of the provider's models that talk; else the configured rates. What is taken from the book
//! is raised by what resellers add at most, and by what a tier or a fast mode costs that nobody in the
//! family has.
//! A unit: the dearest rate of that kind at the provider, else the 90th percentile of all rates of
//! that kind, else the configured rate. Of what models make (images, films, speech) providers have as
//! many prices as models: there the dearer one of the two.

mod highest;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use hashbrown::HashMap;
use spendfuse_domain::UnitKind;

use super::index::Dearness;
use super::{family, name};
use crate::book::{ModelPrices, PriceBook};
use crate::policy::CeilingRates;
use crate::rate::Billable;
pub(crate) use highest::TokenCeiling;
use highest::{Members, TokenCeilings};

/// A rate for each kind of unit, in the order of [`UnitKind::ALL`].
type UnitRates = [Option<u64>; UnitKind::ALL.len()];

/// What ceilings are taken from, worked out once per book, when the first is needed.
#[derive(Debug, Default)]
pub(crate) struct CeilingIndex {
    /// Families with enough names.
    families: HashMap<String, TokenCeilings>,
    /// Provider → the 90th percentile of its models that talk.
    usual: HashMap<String, TokenCeilings>,
    /// Provider → its dearest unit rates.
    units: HashMap<String, UnitRates>,
    /// The 90th percentile of all unit rates.
    usual_units: UnitRates,
}

impl CeilingIndex {
    pub(super) fn new(models: &[ModelPrices], dearness: &[Dearness]) -> Self {
        let mut index = Self::default();
        index.take_tokens(models, dearness);
        index.take_units(models);
        index
    }

    fn take_tokens(&mut self, models: &[ModelPrices], dearness: &[Dearness]) {
        let members = Members::new(models, dearness);
        for (family, models) in &members.families {
            let highest = members.of_family(models.iter().copied(), dearness);
            let highest = highest.map(|highest| (family.clone(), highest.ceilings()));
            self.families.extend(highest);
        }
        for (provider, models) in &members.talking {
            // Who names no provider may mean any.
            if provider.is_empty() {
                continue;
            }
            let usual = members.usual(models);
            self.usual
                .extend(usual.map(|usual| (provider.clone(), usual.ceilings())));
        }
    }

    fn take_units(&mut self, models: &[ModelPrices]) {
        let mut all_units: [Vec<u64>; UnitKind::ALL.len()] = Default::default();
        for prices in models {
            for (key, nanos) in &prices.rates {
                let Billable::Units(priced) = key.billable else {
                    continue;
                };
                // Seconds that a model sees cost a fraction of those that it films.
                if priced == UnitKind::VideoSeconds && prices.mode != "video_generation" {
                    continue;
                }
                // A tool that makes images has the price of an image.
                let tool = (priced == UnitKind::Images).then_some(UnitKind::ImageGenerationCalls);
                for kind in [priced].into_iter().chain(tool) {
                    all_units[kind as usize].push(*nanos);
                    if prices.provider.is_empty() {
                        continue;
                    }
                    let of_provider = self.units.entry_ref(prices.provider.as_str());
                    let dearest = &mut of_provider.or_default()[kind as usize];
                    *dearest = Some(dearest.map_or(*nanos, |rate| rate.max(*nanos)));
                }
            }
        }
        self.usual_units = all_units.map(|mut rates| {
            rates.sort_unstable();
            percentile_90(&rates)
        });
    }
}

/// Nearest rank of rising values.
fn percentile_90<T: Copy>(rising: &[T]) -> Option<T> {
    let rank = (rising.len() * 9).div_ceil(10);
    rising.get(rank.checked_sub(1)?).copied()
}

/// The ceiling for one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ceiling {
    /// `None`: the configured rates.
    pub(crate) tokens: Option<Arc<TokenCeiling>>,
    /// Nano-dollars per unit, in the order of [`UnitKind::ALL`].
    units: [u64; UnitKind::ALL.len()],
}

impl Ceiling {
    /// The ceiling for a model that calls name so at `provider`.
    pub(crate) fn of(book: &PriceBook, rates: &CeilingRates, provider: &str, named: &str) -> Self {
        let provider = book.index().provider(provider);
        let index = book.index().ceilings(book.models());
        let families = family::families(&name::bare(named));
        let of_family = families
            .iter()
            .find_map(|family| index.families.get(family));
        let highest = of_family.or_else(|| index.usual.get(&*provider));
        let of_provider = index.units.get(&*provider).copied().unwrap_or_default();
        let units = UnitKind::ALL.map(|kind| {
            let own = of_provider[kind as usize];
            let usual = index.usual_units[kind as usize];
            let rate = match kind {
                UnitKind::Images | UnitKind::VideoSeconds | UnitKind::Characters => own.max(usual),
                _ => own.or(usual),
            };
            rate.unwrap_or(rates.unit)
        });
        Self {
            tokens: highest.map(|highest| Arc::clone(highest.of(named))),
            units,
        }
    }

    /// Nano-dollars per unit of `kind`.
    pub(crate) fn unit(&self, kind: UnitKind) -> u64 {
        self.units[kind as usize]
    }
}
