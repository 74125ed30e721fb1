//! The index of a book: from names to indexes of its list of models.

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

const BEDROCK: &str = "bedrock";
/// The geography of a government, which has prices of its own.
const GOVERNMENT: &str = "us-gov";

/// Indexes in [`crate::PriceBook::models`].
type Indexes = Vec<u32>;

/// The prices that a call's names led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Place in the book's models.
    pub(crate) index: usize,
    /// By which way.
    pub(crate) how: Match,
    /// Whether others of that name have other prices, or the price is another provider's.
    pub(crate) ambiguous: bool,
}

impl Found {
    fn new((index, ambiguous): (usize, bool), how: Match) -> Self {
        Self {
            index,
            how,
            ambiguous,
        }
    }
}

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

    /// The prices of `model` at `provider`, which may be empty or unknown.
    pub(crate) fn find(
        &self,
        models: &[ModelPrices],
        provider: &str,
        model: &str,
    ) -> Option<Found> {
        let provider = self.provider(provider);
        let spellings = name::spellings(model);
        let mut ways = spellings
            .iter()
            .map(|name| self.at_provider(models, &provider, name))
            .chain(
                spellings
                    .iter()
                    .map(|name| self.at_provider_in_front(models, &provider, name)),
            )
            .chain(
                spellings
                    .iter()
                    .map(|name| self.at_bedrock_by_region(models, &provider, name)),
            )
            .chain(
                spellings
                    .iter()
                    .map(|name| self.elsewhere(models, &provider, name)),
            );
        let found = ways.find_map(|found| found)?;
        // It is another model's price, however near its name: this one's is not known.
        let is_substitute = found.how != Match::Exact && found.how != Match::Alias;
        let is_known = |name: &String| {
            let name = NamesRef {
                provider: &provider,
                model: name,
            };
            self.unpriced.contains(&name)
        };
        Some(Found {
            ambiguous: found.ambiguous || (is_substitute && spellings.iter().any(is_known)),
            ..found
        })
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

    /// At the provider that the call names, under this name or a longer one.
    fn at_provider(&self, models: &[ModelPrices], provider: &str, model: &str) -> Option<Found> {
        let forms = name::forms(model);
        let given = forms.first()?;
        let found = |index: u32, how: Match| Found::new((index as usize, false), how);
        if let Some(index) = self.exact(provider, given) {
            return Some(found(index, Match::Exact));
        }
        if let Some(index) = self.alias(provider, given) {
            return Some(found(index, Match::Alias));
        }
        if let Some(index) = forms.iter().find_map(|form| self.exact(provider, form)) {
            let index = self.at_geography_of_bedrock(models, provider, model, index as usize);
            return Some(Found::new((index, false), Match::Shortened));
        }
        let of_provider = |(form, names): (&String, &HashMap<String, Indexes>)| {
            let indexes = indexes(names, form);
            // Commercial regions cost less, and are what names without a region mean.
            let is_meant =
                |other: &str| !other.starts_with(GOVERNMENT) || model.starts_with(GOVERNMENT);
            self.dearest(
                models,
                indexes.filter(|index| {
                    let other = &models[*index];
                    other.provider == provider && is_meant(&other.model)
                }),
            )
        };
        let bare_forms = name::bare_forms(model);
        let dearest = self.named(&bare_forms).find_map(of_provider)?;
        Some(Found::new(dearest, Match::Shortened))
    }

    /// A geography of Bedrock's that the book does not have costs what its dearest others do, not
    /// what the name without one costs: geographies cost more than the model anywhere.
    fn at_geography_of_bedrock(
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

    /// A gateway's name that begins with the provider: `azure/gpt-4o`, or has it further behind:
    /// `proxy/azure/gpt-4o`; with colons (`openai:gpt-4o`), or at the end (`gpt-4o/openai`). Where
    /// the call's own provider sells models on its own account, the price is another's.
    fn at_provider_in_front(
        &self,
        models: &[ModelPrices],
        provider: &str,
        model: &str,
    ) -> Option<Found> {
        let mut rest = model;
        while let Some((first, behind)) = rest.split_once(['/', ':']) {
            let behind = behind.trim_start_matches(':');
            if let Some(found) = self.at_named(models, provider, first, behind) {
                return Some(found);
            }
            rest = behind;
        }
        let (model, last) = model.rsplit_once('/')?;
        self.at_named(models, provider, last, model)
    }

    /// `model` at the provider that is called `named` in a name, where that sells models.
    fn at_named(
        &self,
        models: &[ModelPrices],
        provider: &str,
        named: &str,
        model: &str,
    ) -> Option<Found> {
        let named = self.provider(named);
        let found = { self.sells(&named) }.then(|| self.at_provider(models, &named, model))??;
        let is_another = *named != *provider;
        let is_resold = is_another && (self.sells(provider) || provider::resells(provider));
        // What is free at its maker is sold by others.
        if is_resold && models[found.index].is_free() {
            return None;
        }
        Some(Found {
            how: Match::Shortened,
            ambiguous: found.ambiguous || is_resold,
            ..found
        })
    }

    /// Bedrock, where the call names no provider that sells models and the name is one that only
    /// Bedrock has.
    fn at_bedrock_by_region(
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

    /// At the model's maker, else at anybody.
    fn elsewhere(&self, models: &[ModelPrices], provider: &str, model: &str) -> Option<Found> {
        let bare_forms = name::bare_forms(model);
        let priced = |names, form| {
            let indexes = indexes(names, form);
            // What is free at one provider (on somebody's own machine) says nothing of others.
            indexes.filter(|index| !models[*index].is_free())
        };
        self.named(&bare_forms)
            .find_map(|(form, names)| self.at_maker(models, provider, priced(names, form), form))
            .or_else(|| {
                self.named(&bare_forms)
                    .find_map(|(form, names)| self.anywhere(models, provider, priced(names, form)))
            })
    }

    /// Where to look for `bare_forms`: the undated name itself before the dated ones that are
    /// longer.
    fn named<'f>(
        &'f self,
        bare_forms: &'f [String],
    ) -> impl Iterator<Item = (&'f String, &'f HashMap<String, Indexes>)> {
        bare_forms
            .iter()
            .flat_map(|form| [(form, &self.bare), (form, &self.shortened)])
    }

    /// Whether the book has prices of `provider`.
    fn sells(&self, provider: &str) -> bool {
        self.providers
            .contains_key(&*provider::same_separators(provider))
    }

    /// The dearest of those `indexes` that are the maker's of models called `form`.
    fn at_maker(
        &self,
        models: &[ModelPrices],
        provider: &str,
        indexes: impl Iterator<Item = usize> + Clone,
        form: &str,
    ) -> Option<Found> {
        let makers = provider::first_parties(form).iter();
        let (index, several_prices) = makers
            .map(|maker| {
                indexes
                    .clone()
                    .filter(|index| models[*index].provider == *maker)
            })
            .find_map(|of_maker| self.dearest(models, of_maker))?;
        let ambiguous = several_prices || !provider.is_empty();
        Some(Found::new((index, ambiguous), Match::Maker))
    }

    /// The dearest of `indexes`.
    fn anywhere(
        &self,
        models: &[ModelPrices],
        provider: &str,
        indexes: impl Iterator<Item = usize> + Clone,
    ) -> Option<Found> {
        let (index, several_prices) = self.dearest(models, indexes)?;
        let ambiguous = several_prices || !provider.is_empty();
        Some(Found::new((index, ambiguous), Match::Bare))
    }

    /// The dearest of `indexes`, and whether their prices differ.
    fn dearest(
        &self,
        models: &[ModelPrices],
        indexes: impl Iterator<Item = usize> + Clone,
    ) -> Option<(usize, bool)> {
        // Of equally dear ones the first, so that the choice does not depend on anything else.
        let dearest = indexes.clone().reduce(|best, index| {
            if self.dearness[index] > self.dearness[best] {
                index
            } else {
                best
            }
        })?;
        let mut others = indexes;
        let differ = others.any(|index| models[index].rates != models[dearest].rates);
        Some((dearest, differ))
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

fn indexes<'a>(
    names: &'a HashMap<String, Indexes>,
    form: &str,
) -> impl Iterator<Item = usize> + Clone + use<'a> {
    let indexes = names.get(form).map_or(&[][..], Vec::as_slice);
    indexes.iter().map(|index| *index as usize)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::book::PriceBook;

    fn find(provider: &str, model: &str) -> Option<(String, Match, bool)> {
        let book = PriceBook::snapshot();
        let found = book.index().find(book.models(), provider, model)?;
        let prices = &book.models()[found.index];
        let name = format!("{}/{}", prices.provider, prices.model);
        Some((name, found.how, found.ambiguous))
    }

    /// Names as SDKs, agents and gateways write them.
    #[test]
    fn a_model_is_found_by_the_names_of_sdks_and_gateways() {
        let wrong: Vec<String> = include_str!("names.txt")
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .filter_map(|line| {
                let [provider, model, expected] = line.split(" | ").collect::<Vec<_>>()[..] else {
                    panic!("three columns: {line}");
                };
                let provider = if provider == "-" { "" } else { provider };
                let found = find(provider, model);
                let name = match &found {
                    Some((name, _, true)) => format!("{name} ambiguous"),
                    Some((name, _, false)) => name.clone(),
                    None => "unpriced".to_owned(),
                };
                (name != expected).then(|| format!("{line}, is {name}"))
            })
            .collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn names_are_found_in_the_documented_order() {
        for (provider, model, expected, how, ambiguous) in [
            ("openai", "gpt-4o", "openai/gpt-4o", Match::Exact, false),
            ("", "gpt-4o", "openai/gpt-4o", Match::Maker, false),
            (
                "openai",
                "GPT-4o-2031-01-31",
                "openai/gpt-4o",
                Match::Shortened,
                false,
            ),
            (
                "my-gateway",
                "azure/gpt-4o",
                "azure/gpt-4o",
                Match::Shortened,
                false,
            ),
            (
                "bedrock",
                "apac.anthropic.claude-3-5-sonnet-20241022-v2:0",
                "bedrock/anthropic.claude-3-5-sonnet-20241022-v2:0",
                Match::Shortened,
                false,
            ),
            (
                "gcp.vertex_ai",
                "publishers/anthropic/models/claude-sonnet-4-5@20250929",
                "vertex_ai/claude-sonnet-4-5@20250929",
                Match::Shortened,
                false,
            ),
            (
                "groq",
                "claude-haiku-4-5",
                "anthropic/claude-haiku-4-5",
                Match::Maker,
                true,
            ),
            (
                "",
                "llama-3.3-70b-instruct",
                "cloudferro-sherlock/meta-llama/Llama-3.3-70B-Instruct",
                Match::Bare,
                true,
            ),
        ] {
            let found = find(provider, model);
            let expected = Some((expected.to_owned(), how, ambiguous));
            assert_eq!(found, expected, "{provider} {model}");
        }
        assert_eq!(find("openai", "frobnicate"), None);
        assert_eq!(find("", ""), None);
    }
}
