//! A price book that can still be changed.

use std::collections::{BTreeMap, BTreeSet};

use spendfuse_domain::UnixMillis;

use crate::off_peak::OffPeak;
use crate::rate::{Billable, RateKey};

/// All rates of one model at one provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelPrices {
    /// Provider, as in [`crate::provider::canonical`].
    pub provider: String,
    /// Model, as the provider calls it.
    pub model: String,
    /// What the model is for: `chat`, `embedding`, `image_generation`, …
    pub mode: String,
    /// Nano-dollars per million tokens or per unit, by key.
    pub rates: BTreeMap<RateKey, u64>,
    /// Factors on the token rates of calls that are served in a special way, in millionths: by name
    /// as in [`crate::factor`].
    pub factors: BTreeMap<String, u32>,
    /// Other rates at some hours of the week.
    pub off_peak: Option<OffPeak>,
    /// Who says so.
    pub origins: Origins,
}

/// Who says what a model costs: names of [`Source`]s.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins {
    /// Of all rates but those below; empty: the book's only source.
    pub model: String,
    /// Of single rates.
    pub rates: BTreeMap<RateKey, String>,
    /// The day of the source's entry (`2026-11-22`), where it says one; empty: the source's day.
    pub date: String,
}

/// One of the sources that a book is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// What rates name it by: `litellm`.
    pub name: String,
    /// The day of its prices, where it is known: `2026-11-22`.
    pub date: String,
    /// In words, with licence.
    pub text: String,
}

impl ModelPrices {
    /// Whether any token class has a rate.
    pub fn has_token_rates(&self) -> bool {
        let is_token = |key: &RateKey| matches!(key.billable, Billable::Tokens(_));
        self.rates.keys().any(is_token)
    }

    /// Whether every rate is zero, as of models on one's own machine.
    pub fn is_free(&self) -> bool {
        self.rates.values().all(|nanos| *nanos == 0)
    }

    /// The rate of `line`, a key without a day, that is in force at `at`; before the first one, that.
    pub fn in_force(&self, line: &RateKey, at: UnixMillis) -> Option<u64> {
        let of_line = self.rates.iter();
        let mut of_line = of_line.filter(|(key, _)| key.without_day() == *line);
        let first = of_line.next()?;
        let begun = of_line.take_while(|(key, _)| key.from <= at);
        Some(*begun.last().unwrap_or(first).1)
    }

    /// When another rate takes the place of this one; `None`: not as far as is known.
    pub fn effective_to(&self, key: &RateKey) -> Option<UnixMillis> {
        let is_later = |other: &&RateKey| {
            let mut same_time = (*other).clone();
            same_time.from = key.from;
            other.from > key.from && same_time == *key
        };
        { self.rates.keys() }
            .filter(is_later)
            .map(|later| later.from)
            .min()
    }

    /// Whether it talks: what the 90th percentile of a provider is taken of.
    pub fn is_chat(&self) -> bool {
        matches!(self.mode.as_str(), "chat" | "responses" | "completion") && self.has_token_rates()
    }
}

/// Another name for a model.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alias {
    /// Provider that the call names; empty = any.
    pub provider: String,
    /// Model that the call names.
    pub model: String,
    /// Provider whose price it has.
    pub to_provider: String,
    /// Model whose price it has.
    pub to_model: String,
}

/// A price book that can still be changed; [`BookDraft::finish`] makes a version of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BookDraft {
    /// Beginning of the version's name.
    pub label: String,
    /// Where the prices come from, in words.
    pub source: String,
    /// What the rates name; empty where all are from one source.
    pub sources: Vec<Source>,
    /// By provider and model.
    pub models: BTreeMap<(String, String), ModelPrices>,
    /// Other names.
    pub aliases: BTreeSet<Alias>,
    /// Providers and models that there are, but whose price is not known.
    pub unpriced: BTreeSet<(String, String)>,
}
