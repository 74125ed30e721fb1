//! What a call costs whose model, or one of whose units, has no price: never nothing.
//!
//! Tokens: the dearest model of the same name family (the provider's own where it has one), else
//! the 90th percentile (nearest rank) of the provider's models that talk, else the configured rate.
//! A unit: the dearest rate of that kind at the provider, else the 90th percentile of all rates of
//! that kind, else the configured rate.

use hashbrown::HashMap;
use spendfuse_domain::UnitKind;

use super::index::Dearness;
use super::name;
use crate::book::{ModelPrices, PriceBook};
use crate::policy::CeilingRates;
use crate::rate::Billable;

/// A rate for each kind of unit, in the order of [`UnitKind::ALL`].
type UnitRates = [Option<u64>; UnitKind::ALL.len()];

/// What ceilings are taken from, worked out once per book.
#[derive(Debug, Default)]
pub(crate) struct CeilingIndex {
    /// Name family → indexes of models that talk, dearest first.
    families: HashMap<String, Vec<usize>>,
    /// Provider → indexes of its models that talk, cheapest first.
    talking: HashMap<String, Vec<usize>>,
    /// Provider → its dearest unit rates.
    units: HashMap<String, UnitRates>,
    /// The 90th percentile of all unit rates.
    usual_units: UnitRates,
}

impl CeilingIndex {
    pub(super) fn new(models: &[ModelPrices], dearness: &[Dearness]) -> Self {
        let mut index = Self::default();
        let mut all_units: [Vec<u64>; UnitKind::ALL.len()] = Default::default();
        for (model, prices) in models.iter().enumerate() {
            // Zero is no ceiling.
            if prices.is_chat() && !prices.is_free() {
                let of_provider = index.talking.entry_ref(prices.provider.as_str());
                of_provider.or_default().push(model);
                let bare_forms = name::bare_forms(&prices.model);
                let family = name::family(bare_forms.last().map_or("", String::as_str));
                if !family.is_empty() {
                    index.families.entry_ref(family).or_default().push(model);
                }
            }
            for (key, nanos) in &prices.rates {
                if let Billable::Units(kind) = key.billable {
                    all_units[kind as usize].push(*nanos);
                    let of_provider = index.units.entry_ref(prices.provider.as_str());
                    let dearest = &mut of_provider.or_default()[kind as usize];
                    *dearest = Some(dearest.map_or(*nanos, |rate| rate.max(*nanos)));
                }
            }
        }
        // Of equally dear ones the first, so that the choice depends on nothing else.
        for indexes in index.families.values_mut() {
            indexes.sort_by_key(|index| (std::cmp::Reverse(dearness[*index]), *index));
        }
        for indexes in index.talking.values_mut() {
            indexes.sort_by_key(|index| (dearness[*index], *index));
        }
        index.usual_units = all_units.map(|mut rates| {
            rates.sort_unstable();
            percentile_90(&rates)
        });
        index
    }

    fn dearest_of_family(
        &self,
        models: &[ModelPrices],
        provider: &str,
        model: &str,
    ) -> Option<usize> {
        let bare_forms = name::bare_forms(model);
        let indexes = self.families.get(name::family(bare_forms.last()?))?;
        let of_provider = indexes
            .iter()
            .find(|index| models[**index].provider == provider);
        of_provider.or_else(|| indexes.first()).copied()
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
    /// The model whose token rates are charged; `None`: the configured rates.
    pub(crate) model: Option<usize>,
    /// Nano-dollars per unit, in the order of [`UnitKind::ALL`].
    units: [u64; UnitKind::ALL.len()],
}

impl Ceiling {
    /// The ceiling for a model that calls name so at `provider`.
    pub(crate) fn of(book: &PriceBook, rates: &CeilingRates, provider: &str, named: &str) -> Self {
        let provider = book.index().provider(provider);
        let index = book.index().ceilings();
        let of_provider = || percentile_90(index.talking.get(&*provider)?);
        let model = index
            .dearest_of_family(book.models(), &provider, named)
            .or_else(of_provider);
        let of_provider = index.units.get(&*provider).copied().unwrap_or_default();
        let units = UnitKind::ALL.map(|kind| {
            let usual = index.usual_units[kind as usize];
            of_provider[kind as usize].or(usual).unwrap_or(rates.unit)
        });
        Self { model, units }
    }

    /// Nano-dollars per unit of `kind`.
    pub(crate) fn unit(&self, kind: UnitKind) -> u64 {
        self.units[kind as usize]
    }
}
