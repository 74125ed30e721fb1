//! A price book that can still be changed.

use std::collections::{BTreeMap, BTreeSet};

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
    /// By provider and model.
    pub models: BTreeMap<(String, String), ModelPrices>,
    /// Other names.
    pub aliases: BTreeSet<Alias>,
    /// Providers and models that there are, but whose price is not known.
    pub unpriced: BTreeSet<(String, String)>,
}
