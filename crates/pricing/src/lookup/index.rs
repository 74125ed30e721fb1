//! The index of a book: from names to indexes of its list of models.

mod bedrock;
mod find;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::OnceLock;

use hashbrown::{HashMap, HashSet};
use spendfuse_domain::UnixMillis;

use super::Match;
use super::ceiling::CeilingIndex;
use super::name::{self, Variant};
use super::names::{Names, NamesRef};
use super::regions::Regions;
use crate::book::{Alias, ModelPrices};
use crate::provider;
use crate::rate::{Billable, RateKey, Tier, TokenClass};
pub(crate) use bedrock::WORLD;
use find::Found;

/// Indexes in [`crate::PriceBook::models`].
type Indexes = Vec<u32>;

/// Finds models by name.
#[derive(Debug, Default)]
pub(crate) struct Index {
    exact: HashMap<Names, u32>,
    /// Providers with one separator for all → as the book writes them.
    providers: HashMap<String, String>,
    aliases: HashMap<Names, Names>,
    /// Bare names as they are → indexes, in the book's order.
    bare: HashMap<String, Indexes>,
    /// Bare names with less and less of date and version → indexes.
    shortened: HashMap<String, Indexes>,
    ceilings: OnceLock<CeilingIndex>,
    /// Models that there are, but whose price is not known.
    unpriced: HashSet<Names>,
    /// How dear each model is, for comparisons.
    dearness: Vec<Dearness>,
    regions: Regions,
}

/// Models priced by token come before those priced by unit: a call that names neither provider is
/// far more often a chat. Then the default rates: three input tokens to one of output, the usual
/// mix; for units the dearest.
pub(super) type Dearness = (bool, u128);

impl Index {
    pub(crate) fn new(
        models: &[ModelPrices],
        aliases: &[Alias],
        unpriced: &BTreeSet<(String, String)>,
    ) -> Self {
        let mut names = Self {
            exact: HashMap::with_capacity(models.len()),
            ..Self::default()
        };
        for (index, prices) in (0_u32..).zip(models) {
            names.dearness.push(dearness(prices));
            let name = Names {
                provider: prices.provider.to_ascii_lowercase(),
                model: prices.model.to_ascii_lowercase(),
            };
            let separated = provider::same_separators(&name.provider);
            if !names.providers.contains_key(&*separated) {
                let separated = separated.into_owned();
                names.providers.insert(separated, name.provider.clone());
            }
            names.regions.take(&name, index);
            names.exact.entry(name).or_insert(index);
            if is_variant(&prices.model) {
                continue;
            }
            let mut forms = name::bare_forms(&prices.model).into_iter();
            let full = forms.next().unwrap_or_default();
            names.bare.entry(full).or_default().push(index);
            for form in forms {
                names.shortened.entry(form).or_default().push(index);
            }
        }
        let unpriced = unpriced.iter().map(|(provider, model)| Names {
            provider: provider.to_ascii_lowercase(),
            model: model.to_ascii_lowercase(),
        });
        names.unpriced = unpriced.collect();
        for alias in aliases {
            let name = |provider: &str, model: &str| Names {
                provider: provider::canonical(provider).into_owned(),
                model: model.to_ascii_lowercase(),
            };
            names.aliases.insert(
                name(&alias.provider, &alias.model),
                name(&alias.to_provider, &alias.to_model),
            );
        }
        names
    }

    /// The book's name for `provider`, whatever separators it is written with.
    pub(super) fn provider<'n>(&'n self, provider: &'n str) -> Cow<'n, str> {
        let canonical = provider::canonical(provider.trim());
        let separated = provider::same_separators(&canonical);
        match self.providers.get(&*separated) {
            Some(known) => Cow::Borrowed(known),
            None => canonical,
        }
    }

    /// What the name says beside the model, where the book does not have it under this name.
    pub(crate) fn variant(&self, provider: &str, model: &str, found: Option<Found>) -> Variant {
        match found.map(|found| found.how) {
            Some(Match::Exact | Match::Alias) => Variant::None,
            _ => name::variant(&self.provider(provider), model),
        }
    }

    /// The regions that sell what was `found` for calls of `model` at prices of their own, each with
    /// the place of those in the book.
    pub(crate) fn regions(
        &self,
        models: &[ModelPrices],
        model: &str,
        found: usize,
    ) -> Vec<(String, usize)> {
        self.regions.of(&models[found], model)
    }

    /// What is charged for calls of `model` that was `found`: the same, or for a name of Bedrock's that
    /// says no geography what its regions charge.
    pub(crate) fn charged(&self, models: &[ModelPrices], model: &str, found: Found) -> Found {
        let index = self.in_region_of_bedrock(models, found.index);
        if index == found.index || name::has_region_of_bedrock(model) {
            return found;
        }
        Found {
            index,
            how: Match::Region,
            ..found
        }
    }

    fn exact(&self, provider: &str, model: &str) -> Option<u32> {
        self.exact.get(&NamesRef { provider, model }).copied()
    }

    fn alias(&self, provider: &str, model: &str) -> Option<u32> {
        let of_any = NamesRef {
            provider: "",
            model,
        };
        let target = self
            .aliases
            .get(&NamesRef { provider, model })
            .or_else(|| self.aliases.get(&of_any))?;
        self.exact(&target.provider, &target.model)
    }

    /// How dear each model is.
    #[cfg(test)]
    pub(super) fn dearness(&self) -> &[Dearness] {
        &self.dearness
    }

    /// What ceilings are taken from.
    pub(crate) fn ceilings(&self, models: &[ModelPrices]) -> &CeilingIndex {
        let work_out = || CeilingIndex::new(models, &self.dearness);
        self.ceilings.get_or_init(work_out)
    }
}

/// By the newest rates: what a model cost once says nothing of who is dear now.
fn dearness(prices: &ModelPrices) -> Dearness {
    let newest = |line: &RateKey| prices.in_force(line, UnixMillis(i64::MAX)).map(u128::from);
    let default_rate = |class: TokenClass| newest(&RateKey::new(Billable::Tokens(class)));
    let input = default_rate(TokenClass::Input);
    let output = default_rate(TokenClass::Output);
    if input.is_some() || output.is_some() {
        return (true, input.unwrap_or(0) * 3 + output.unwrap_or(0));
    }
    let at_default = prices.rates.keys().filter(|key| key.tier == Tier::Default);
    let dearest = at_default
        .filter_map(|key| newest(&key.without_day()))
        .max();
    (false, dearest.unwrap_or(0))
}

/// Whether `model` names a size or a number of steps in its path (`1024-x-1024/50-steps/…`): its
/// rates are also with the model proper.
fn is_variant(model: &str) -> bool {
    let names_size = |part: &str| part.contains("-x-") || part.ends_with("-steps");
    model.contains('/') && model.split('/').any(names_size)
}
