//! The ways from a call's names to a model, in the order that `lookup` tells.

use hashbrown::HashMap;

use super::bedrock::GOVERNMENT;
use super::{Index, Indexes};
use crate::book::ModelPrices;
use crate::lookup::names::NamesRef;
use crate::lookup::{Match, name};
use crate::provider;

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

impl Index {
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

    /// At the provider that the call names, under this name or a longer one.
    pub(super) fn at_provider(
        &self,
        models: &[ModelPrices],
        provider: &str,
        model: &str,
    ) -> Option<Found> {
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
    pub(super) fn sells(&self, provider: &str) -> bool {
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
    pub(super) fn dearest(
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
}

pub(super) fn indexes<'a>(
    names: &'a HashMap<String, Indexes>,
    form: &str,
) -> impl Iterator<Item = usize> + Clone + use<'a> {
    let indexes = names.get(form).map_or(&[][..], Vec::as_slice);
    indexes.iter().map(|index| *index as usize)
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
        let wrong: Vec<String> = include_str!("../names.txt")
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
