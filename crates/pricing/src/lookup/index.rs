//! The index of a book: from names to places in its list of models.

use hashbrown::{Equivalent, HashMap};

use super::Match;
use super::name;
use crate::book::{Alias, ModelPrices};
use crate::provider;
use crate::rate::{Meter, RateKey, Tier, TokenClass};

/// Places in [`crate::PriceBook::models`].
type Places = Vec<u32>;

/// The prices that a call's names led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Place in the book's models.
    pub(crate) place: usize,
    /// By which way.
    pub(crate) how: Match,
    /// Whether others of that name have other prices, or the price is another provider's.
    pub(crate) ambiguous: bool,
}

/// Provider and model in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Name {
    provider: String,
    model: String,
}

/// The same, borrowed. Must hash like [`Name`]: two texts, in this order.
#[derive(PartialEq, Eq, Hash)]
struct NameRef<'a> {
    provider: &'a str,
    model: &'a str,
}

impl Equivalent<Name> for NameRef<'_> {
    fn equivalent(&self, key: &Name) -> bool {
        self.provider == key.provider && self.model == key.model
    }
}

/// Finds models by name.
#[derive(Debug, Default)]
pub(crate) struct Index {
    exact: HashMap<Name, u32>,
    aliases: HashMap<Name, Name>,
    /// Bare names, with and without version → places, in the book's order.
    bare: HashMap<String, Places>,
    /// Family → places of models that talk.
    families: HashMap<String, Places>,
    /// How dear each model is, for comparisons.
    dearness: Vec<Dearness>,
}

/// Models priced by token come before those priced by unit: a call that names neither provider is
/// far more often a chat. Then the default rates: three input tokens to one of output, the usual
/// mix; for units the dearest.
type Dearness = (bool, u128);

impl Index {
    pub(crate) fn new(models: &[ModelPrices], aliases: &[Alias]) -> Self {
        let mut index = Self {
            exact: HashMap::with_capacity(models.len()),
            ..Self::default()
        };
        for (place, prices) in (0_u32..).zip(models) {
            index.dearness.push(dearness(prices));
            let name = Name {
                provider: prices.provider.to_ascii_lowercase(),
                model: prices.model.to_ascii_lowercase(),
            };
            index.exact.entry(name).or_insert(place);
            if is_variant(&prices.model) {
                continue;
            }
            let bare_forms = name::bare_forms(&prices.model);
            let shortest = bare_forms.last().map_or("", String::as_str);
            let family = name::family(shortest);
            if prices.is_chat() && !family.is_empty() {
                let places = index.families.entry_ref(family).or_default();
                places.push(place);
            }
            for form in bare_forms {
                index.bare.entry(form).or_default().push(place);
            }
        }
        for alias in aliases {
            let name = |provider: &str, model: &str| Name {
                provider: provider::canonical(provider).into_owned(),
                model: model.to_ascii_lowercase(),
            };
            index.aliases.insert(
                name(&alias.provider, &alias.model),
                name(&alias.to_provider, &alias.to_model),
            );
        }
        index
    }

    /// The prices of `model` at `provider`, which may be empty or unknown.
    pub(crate) fn find(
        &self,
        models: &[ModelPrices],
        provider: &str,
        model: &str,
    ) -> Option<Found> {
        let provider = provider::canonical(provider.trim());
        let forms = name::forms(model);
        let given = forms.first()?;
        let found = |place: u32, how: Match| Found {
            place: place as usize,
            how,
            ambiguous: false,
        };
        if let Some(place) = self.exact(&provider, given) {
            return Some(found(place, Match::Exact));
        }
        if let Some(place) = self.alias(&provider, given) {
            return Some(found(place, Match::Alias));
        }
        // A gateway's name that begins with the provider: `azure/gpt-4o`.
        if let Some((first, rest)) = given.split_once('/') {
            if let Some(place) = self.exact(&provider::canonical(first), rest) {
                return Some(found(place, Match::Shortened));
            }
        }
        if let Some(place) = forms.iter().find_map(|form| self.exact(&provider, form)) {
            return Some(found(place, Match::Shortened));
        }
        let bare_forms = name::bare_forms(model);
        let longer_names = |form: &String| {
            let places = self.places(form);
            self.dearest(
                models,
                places.filter(|place| models[*place].provider == provider),
            )
        };
        if let Some((place, ambiguous)) = bare_forms.iter().find_map(longer_names) {
            return Some(Found {
                place,
                how: Match::Shortened,
                ambiguous,
            });
        }
        bare_forms
            .iter()
            .find_map(|form| self.anywhere(models, &provider, form))
    }

    /// The bare name `form` at its maker, else the dearest anywhere.
    fn anywhere(&self, models: &[ModelPrices], provider: &str, form: &str) -> Option<Found> {
        for maker in provider::first_parties(form) {
            let places = self.places(form);
            let at_maker = places.filter(|place| models[*place].provider == *maker);
            if let Some((place, ambiguous)) = self.dearest(models, at_maker) {
                return Some(Found {
                    place,
                    how: Match::Maker,
                    ambiguous,
                });
            }
        }
        let (place, several_prices) = self.dearest(models, self.places(form))?;
        Some(Found {
            place,
            how: Match::Bare,
            ambiguous: several_prices || !provider.is_empty(),
        })
    }

    /// The dearest of `places`, and whether their prices differ.
    fn dearest(
        &self,
        models: &[ModelPrices],
        places: impl Iterator<Item = usize> + Clone,
    ) -> Option<(usize, bool)> {
        // Of equally dear ones the first, so that the choice does not depend on anything else.
        let dearest = places.clone().reduce(|best, place| {
            if self.dearness[place] > self.dearness[best] {
                place
            } else {
                best
            }
        })?;
        let mut others = places;
        let differ = others.any(|place| models[place].rates != models[dearest].rates);
        Some((dearest, differ))
    }

    fn exact(&self, provider: &str, model: &str) -> Option<u32> {
        self.exact.get(&NameRef { provider, model }).copied()
    }

    fn alias(&self, provider: &str, model: &str) -> Option<u32> {
        let of_any = NameRef {
            provider: "",
            model,
        };
        let target = self
            .aliases
            .get(&NameRef { provider, model })
            .or_else(|| self.aliases.get(&of_any))?;
        self.exact(&target.provider, &target.model)
    }

    fn places(&self, form: &str) -> impl Iterator<Item = usize> + Clone {
        let places = self.bare.get(form).map_or(&[][..], Vec::as_slice);
        places.iter().map(|place| *place as usize)
    }

    /// The dearest model that talks of the name family of `model`: at `provider` where it has one.
    pub(super) fn dearest_of_family(
        &self,
        models: &[ModelPrices],
        provider: &str,
        model: &str,
    ) -> Option<usize> {
        let bare_forms = name::bare_forms(model);
        let family = name::family(bare_forms.last()?);
        let places = self.families.get(family)?;
        let places = places.iter().map(|place| *place as usize);
        let of_provider = places
            .clone()
            .filter(|place| models[*place].provider == provider);
        let found = self.dearest(models, of_provider);
        found
            .or_else(|| self.dearest(models, places))
            .map(|(place, _)| place)
    }

    /// The model that talks at the 90th percentile (nearest rank) of `provider`'s, by dearness.
    pub(super) fn percentile_90(&self, models: &[ModelPrices], provider: &str) -> Option<usize> {
        let mut places: Vec<usize> = (0..models.len())
            .filter(|place| models[*place].provider == provider && models[*place].is_chat())
            .collect();
        places.sort_by_key(|place| (self.dearness[*place], *place));
        let rank = (places.len() * 9).div_ceil(10);
        places.get(rank.checked_sub(1)?).copied()
    }
}

fn dearness(prices: &ModelPrices) -> Dearness {
    let default_rate = |class: TokenClass| {
        let key = RateKey::new(Meter::Tokens(class));
        prices.rates.get(&key).map(|rate| u128::from(*rate))
    };
    let input = default_rate(TokenClass::Input);
    let output = default_rate(TokenClass::Output);
    if input.is_some() || output.is_some() {
        return (true, input.unwrap_or(0) * 3 + output.unwrap_or(0));
    }
    let at_default = prices
        .rates
        .iter()
        .filter(|(key, _)| key.tier == Tier::Default);
    let dearest = at_default.map(|(_, rate)| u128::from(*rate)).max();
    (false, dearest.unwrap_or(0))
}

/// Whether `model` names a size or a number of steps in its path (`1024-x-1024/50-steps/…`): its
/// rates are also with the model proper.
fn is_variant(model: &str) -> bool {
    let names_size = |part: &str| part.contains("-x-") || part.ends_with("-steps");
    model.contains('/') && model.split('/').any(names_size)
}
