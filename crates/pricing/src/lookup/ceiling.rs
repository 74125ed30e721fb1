//! What a call costs whose model, or one of whose units, has no price: never nothing.
//!
//! Tokens: the dearest model of the same name family, else the 90th percentile of the provider's
//! models that talk, else the configured rate. A unit: the dearest rate of that kind at the
//! provider, else the 90th percentile of all rates of that kind, else the configured rate.

use spendfuse_domain::UnitKind;

use crate::book::{ModelPrices, PriceBook};
use crate::policy::CeilingRates;
use crate::provider;
use crate::rate::Meter;

/// The ceiling for one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ceiling {
    /// The model whose token rates are charged; `None`: the configured rates.
    pub(crate) place: Option<usize>,
    /// Nano-dollars per unit, in the order of [`UnitKind::ALL`].
    units: [u64; UnitKind::ALL.len()],
}

impl Ceiling {
    /// The ceiling for `model` at `provider`.
    pub(crate) fn of(book: &PriceBook, rates: &CeilingRates, provider: &str, model: &str) -> Self {
        let provider = provider::canonical(provider.trim());
        let models = book.models();
        let index = book.index();
        let place = index
            .dearest_of_family(models, &provider, model)
            .or_else(|| index.percentile_90(models, &provider));
        let units = UnitKind::ALL.map(|kind| {
            let of_provider = models.iter().filter(|prices| prices.provider == provider);
            let dearest = of_provider.flat_map(|prices| of_kind(prices, kind)).max();
            dearest.unwrap_or_else(|| {
                let mut all: Vec<u64> = models
                    .iter()
                    .flat_map(|prices| of_kind(prices, kind))
                    .collect();
                all.sort_unstable();
                let rank = (all.len() * 9).div_ceil(10);
                let percentile = rank.checked_sub(1).map(|place| all[place]);
                percentile.unwrap_or(rates.unit)
            })
        });
        Self { place, units }
    }

    /// Nano-dollars per unit of `kind`.
    pub(crate) fn unit(&self, kind: UnitKind) -> u64 {
        let place = UnitKind::ALL.iter().position(|other| *other == kind);
        place.map_or(0, |place| self.units[place])
    }
}

fn of_kind(prices: &ModelPrices, kind: UnitKind) -> impl Iterator<Item = u64> + '_ {
    let rates = prices.rates.iter();
    rates
        .filter(move |(key, _)| key.meter == Meter::Units(kind))
        .map(|(_, rate)| *rate)
}
