//! From price files to book drafts.
//!
//! What goes in: the bytes of LiteLLM's `model_prices_and_context_window.json`, of genai-prices'
//! `data.json`, or of models.dev's `api.json`. What comes out: a [`BookDraft`] and a [`Report`] that
//! names everything in the file that looks like a price and was not taken over, with the reason:
//! nothing is ignored silently. [`combine`] makes one draft of several.

mod combine;
mod decimal;
mod fields;
mod genai_prices;
mod litellm;
mod models_dev;
mod report;
mod variants;

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::value::RawValue;

pub use combine::{Added, Combined, combine};
pub use litellm::litellm;
pub use report::{Report, SkippedField};

use crate::book::{BookDraft, ModelPrices, Origins};
use crate::error::BookError;
use crate::rate::RateKey;

/// Nano-dollars in a dollar: rates of genai-prices and models.dev are dollars per million tokens.
const PER_MILLION: i32 = 9;

/// A read price file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// All prices.
    pub draft: BookDraft,
    /// What was read and what was not taken over.
    pub report: Report,
}

/// Whose file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `model_prices_and_context_window.json`.
    Litellm,
    /// `data.json`, `data_slim.json`.
    GenaiPrices,
    /// `api.json`.
    ModelsDev,
}

impl Format {
    /// The name in books and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Litellm => "litellm",
            Self::GenaiPrices => "genai-prices",
            Self::ModelsDev => "models.dev",
        }
    }

    /// What the bytes look like: a list of providers is genai-prices', an object of providers with
    /// models is models.dev's, any other object is taken for LiteLLM's.
    pub fn of(bytes: &[u8]) -> Self {
        if bytes.trim_ascii_start().starts_with(b"[") {
            return Self::GenaiPrices;
        }
        #[derive(serde::Deserialize)]
        struct Provider<'a> {
            #[serde(borrow)]
            #[allow(dead_code)] // only whether it is there
            models: BTreeMap<Cow<'a, str>, &'a RawValue>,
        }
        let entries: BTreeMap<Cow<'_, str>, &RawValue> =
            serde_json::from_slice(bytes).unwrap_or_default();
        let has_models = |raw: &&RawValue| serde_json::from_str::<Provider<'_>>(raw.get()).is_ok();
        match entries.values().next().is_some_and(has_models) {
            true => Self::ModelsDev,
            false => Self::Litellm,
        }
    }
}

/// Reads the bytes of a price file of this format. `label` begins the version's name, `source` says
/// in words where the file is from.
///
/// # Errors
/// [`BookError::Source`] where the bytes are not such a file.
pub fn read(
    format: Format,
    bytes: &[u8],
    label: &str,
    source: &str,
) -> Result<Imported, BookError> {
    match format {
        Format::Litellm => litellm(bytes, label, source),
        Format::GenaiPrices => genai_prices::read(bytes, label, source),
        Format::ModelsDev => models_dev::read(bytes, label, source),
    }
}

/// Names under which a file has what a router asks for its choice; the model that it chooses is priced
/// on top of that.
const ROUTERS: [&str; 2] = ["model-router", "model_router"];

/// Why an entry for `model` with these rates has no price of a call; `None` where it has one.
fn why_unpriced(model: &str, rates: &BTreeMap<RateKey, u64>) -> Option<&'static str> {
    if rates.is_empty() {
        Some("no price of a call")
    } else if ROUTERS.contains(&model) {
        Some("the fee of a router, without the model behind it")
    } else if rates.values().all(|nanos| *nanos == 0) {
        Some("all prices are 0; a model is only free where an operator says so")
    } else {
        None
    }
}

fn refused(reason: String) -> BookError {
    BookError::Source { reason }
}

/// The digits of a JSON number, or of a text that holds one.
fn number(raw: &RawValue) -> &str {
    raw.get().trim_matches('"')
}

impl Imported {
    fn new(label: &str, source: &str) -> Self {
        Self {
            draft: BookDraft {
                label: label.into(),
                source: source.into(),
                ..BookDraft::default()
            },
            report: Report::default(),
        }
    }

    /// Takes a model with its rates over, unless they say nothing. Of two entries for one model the
    /// dearer rates are kept.
    fn take_model(
        &mut self,
        provider: &str,
        model: &str,
        mode: &str,
        date: &str,
        mut rates: BTreeMap<RateKey, u64>,
    ) {
        litellm::drop_empty_promises(provider, &mut rates);
        self.drop_cheaper_above(&format!("{provider}/{model}"), &mut rates);
        let name = (provider.to_owned(), model.to_owned());
        if let Some(reason) = why_unpriced(model, &rates) {
            let entry = format!("{provider}/{model}");
            self.report.unpriced.insert(entry, reason.to_owned());
            self.draft.unpriced.insert(name);
            return;
        }
        if self.draft.models.contains_key(&name) {
            self.report.merged.push(format!("{provider}/{model}"));
        }
        let prices = self
            .draft
            .models
            .entry(name)
            .or_insert_with(|| ModelPrices {
                provider: provider.to_owned(),
                model: model.to_owned(),
                mode: mode.to_owned(),
                rates: BTreeMap::new(),
                factors: BTreeMap::new(),
                off_peak: None,
                origins: Origins {
                    date: date.to_owned(),
                    ..Origins::default()
                },
            });
        for (key, nanos) in rates {
            let rate = prices.rates.entry(key).or_insert(nanos);
            *rate = nanos.max(*rate);
        }
    }

    /// Nobody sells tokens cheaper in longer contexts: such a rate is a slip of the file.
    fn drop_cheaper_above(&mut self, entry: &str, rates: &mut BTreeMap<RateKey, u64>) {
        let base = |key: &RateKey| rates.get(&key.clone().above(0)).copied().unwrap_or(0);
        let cheaper = rates.iter().filter(|(key, nanos)| **nanos < base(key));
        let cheaper: Vec<RateKey> = cheaper.map(|(key, _)| key.clone()).collect();
        for key in cheaper {
            rates.remove(&key);
            let field = format!("{key}, cheaper than below the threshold");
            self.report
                .skip(&field, "taken for a slip of the file", entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_router_asks_is_no_price_of_a_call() {
        let litellm = r#"{"azure_ai/model_router":{"litellm_provider":"azure_ai","mode":"chat",
            "input_cost_per_token":1.4e-07,"output_cost_per_token":0}}"#;
        let models_dev =
            r#"{"azure_ai":{"models":{"model_router":{"cost":{"input":0.14,"output":0}}}}}"#;
        for (format, json) in [(Format::Litellm, litellm), (Format::ModelsDev, models_dev)] {
            assert_eq!(Format::of(json.as_bytes()), format);
            let imported = read(format, json.as_bytes(), "t", "test").expect("a price file");
            let name = ("azure_ai".to_owned(), "model_router".to_owned());
            assert!(imported.draft.models.is_empty());
            assert_eq!(imported.draft.unpriced, [name].into());
        }
    }

    #[test]
    fn tools_and_cached_media_of_openai_have_rates() {
        let json = r#"{"m":{"litellm_provider":"openai","mode":"responses",
            "input_cost_per_token":6e-07,"cache_read_input_token_cost":6e-08,
            "cache_read_input_audio_token_cost":3e-07,"cache_read_input_image_token_cost":8e-08},
            "openai/container":{"litellm_provider":"openai","mode":"chat","code_interpreter_cost_per_session":0.03}}"#;
        let imported = litellm(json.as_bytes(), "t", "test").expect("a price file");
        let models: Vec<&ModelPrices> = imported.draft.models.values().collect();
        let [model] = models[..] else {
            panic!("one of them is no model: {models:?}");
        };
        let rates = model.rates.iter();
        let rates: Vec<(String, u64)> = rates
            .map(|(key, nanos)| (key.to_string(), *nanos))
            .collect();
        let expected = [
            ("input", 600_000_000),
            ("cache_read", 60_000_000),
            ("code_interpreter_calls", 30_000_000),
            ("file_search_calls", 2_500_000),
            ("cached_audio_tokens", 300),
            ("cached_image_tokens", 80),
        ];
        let expected = expected.map(|(key, nanos)| (key.to_owned(), nanos));
        assert_eq!(rates, expected);
    }
}
