//! LiteLLM's `model_prices_and_context_window.json`: one object, a member per model.

mod rates;

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::value::RawValue;
use spendfuse_domain::UnitKind;

use super::{Imported, refused, variants};
use crate::book::{ModelPrices, Origins};
use crate::error::BookError;
use crate::provider;
use crate::rate::{Billable, RateKey, Tier, TokenClass};

/// The entry that documents the format.
const EXAMPLE_ENTRY: &str = "sample_spec";
/// Providers whose models run on the user's own machine and do cost nothing.
const FREE_PROVIDERS: &[&str] = &["ollama", "lemonade", "searxng"];
/// Models, by the beginnings of their names, that their providers publish as free: Google's Gemma
/// (ai.google.dev/gemini-api/docs/pricing), Z.ai's flash models (docs.z.ai/guides/overview/pricing),
/// OpenAI's moderation (developers.openai.com/api/docs/guides/moderation). All other zeros mean
/// "not known".
const FREE_MODELS: &[(&str, &str)] = &[
    ("gemini", "gemma-"),
    ("openai", "omni-moderation-"),
    ("zai", "glm-4.5-flash"),
    ("zai", "glm-4.7-flash"),
];
/// Providers whose zero for tokens from the cache is a price, and not "not known".
const FREE_CACHE_PROVIDERS: &[&str] = &["tensormesh"];
/// A model at its larger sizes, as an entry of its own.
const HIGH_RESOLUTION: (&str, [&str; 2]) = ("-high-res", ["1024x1792", "1792x1024"]);
/// Special classes whose own rate says nothing where it equals the plain one; taken over it would
/// hide the plain class's tiers and thresholds.
const REDUNDANT: &[(TokenClass, TokenClass)] = &[
    (TokenClass::AudioInput, TokenClass::Input),
    (TokenClass::ImageInput, TokenClass::Input),
    (TokenClass::VideoInput, TokenClass::Input),
    (TokenClass::Reasoning, TokenClass::Output),
    (TokenClass::AudioOutput, TokenClass::Output),
    (TokenClass::ImageOutput, TokenClass::Output),
];

type Fields<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

/// Reads the bytes of a LiteLLM price file. `label` begins the version's name, `source` says in
/// words where the file is from.
///
/// # Errors
/// [`BookError::Source`] where the bytes are not a JSON object of objects.
pub fn litellm(bytes: &[u8], label: &str, source: &str) -> Result<Imported, BookError> {
    let entries: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_slice(bytes)
        .map_err(|error| refused(format!("not an object with a member per model: {error}")))?;
    let mut imported = Imported::new(label, source);
    let mut named_twice = Vec::new();
    for (name, raw) in &entries {
        let fields: Fields<'_> = serde_json::from_str(raw.get())
            .map_err(|error| refused(format!("entry \"{name}\": {error}")))?;
        let provider = text(&fields, "litellm_provider");
        if name == EXAMPLE_ENTRY || provider.is_empty() {
            continue;
        }
        let mode = text(&fields, "mode");
        let entry = Entry {
            name,
            provider: provider::canonical(&provider).into_owned(),
            mode: if mode.is_empty() { "chat" } else { &mode },
        };
        imported.report.models_read += 1;
        imported.take(&entry, &fields);
        let model = entry.model(name);
        if model != &**name && entry.model(model) != model && entries.contains_key(model) {
            named_twice.push((entry.provider.clone(), model.to_owned()));
        }
    }
    for (provider, model) in named_twice {
        imported.keep_dearer_of_both(&provider, &model);
    }
    imported.report.models_priced = imported.draft.models.len();
    Ok(imported)
}

/// The text in field `name`; empty where there is none.
fn text(fields: &Fields<'_>, name: &str) -> String {
    let raw = fields.get(name).map_or("\"\"", |raw| raw.get());
    serde_json::from_str(raw).unwrap_or_default()
}

struct Entry<'a> {
    name: &'a str,
    provider: String,
    mode: &'a str,
}

impl Entry<'_> {
    /// Whether zeros are its price.
    fn may_be_free(&self) -> bool {
        let model = self.model(self.name);
        let is_published = |(provider, beginning): &(&str, &str)| {
            self.provider == *provider && model.starts_with(beginning)
        };
        FREE_PROVIDERS.contains(&self.provider.as_str()) || FREE_MODELS.iter().any(is_published)
    }

    /// The name without the provider in front of it.
    fn model<'n>(&self, name: &'n str) -> &'n str {
        match name.split_once('/') {
            Some((first, rest)) if provider::canonical(first) == self.provider => rest,
            _ => name,
        }
    }
}

impl Imported {
    fn take(&mut self, entry: &Entry<'_>, fields: &Fields<'_>) {
        let variant = variants::of(entry.name);
        let mut rates = self.rates(entry, fields, variant.as_ref());
        drop_empty_promises(&entry.provider, &mut rates);
        self.drop_rates_above_nothing(entry, &mut rates);
        self.drop_cheaper_above(entry.name, &mut rates);
        let may_be_free = !rates.is_empty() && entry.may_be_free();
        let why = super::why_unpriced(entry.model(entry.name), &rates);
        if let Some(reason) = why.filter(|_| !may_be_free) {
            let unpriced = &mut self.report.unpriced;
            unpriced.insert(entry.name.to_owned(), reason.to_owned());
            let known = (entry.provider.clone(), entry.model(entry.name).to_owned());
            self.draft.unpriced.insert(known);
            return;
        }
        if let Some(variant) = variant {
            let images = RateKey::new(Billable::Units(UnitKind::Images));
            if let Some(nanos) = rates.get(&images) {
                let key = images.with_attributes(&variant.quality, &variant.size);
                let model = entry.model(&variant.model).to_owned();
                self.merge(entry, &model, BTreeMap::from([(key, *nanos)]));
            }
        }
        let model = entry.model(entry.name).to_owned();
        let (ending, sizes) = HIGH_RESOLUTION;
        if let Some(usual) = model.strip_suffix(ending) {
            let sized = sizes.into_iter().flat_map(|size| {
                let rates = rates.iter();
                rates.map(move |(key, nanos)| (key.clone().with_attributes("", size), *nanos))
            });
            let by_unit = sized.filter(|(key, _)| matches!(key.billable, Billable::Units(_)));
            self.merge(entry, usual, by_unit.collect());
        }
        let factors = self.factors(entry, fields);
        let off_peak = self.off_peak(entry, fields);
        let is_second = self.merge(entry, &model, rates);
        if let Some(prices) = self.draft.models.get_mut(&(entry.provider.clone(), model)) {
            prices.factors.extend(factors);
            prices.off_peak = off_peak.or(prices.off_peak.take());
        }
        if is_second {
            self.report.merged.push(entry.name.to_owned());
        }
    }

    /// `model` is the whole name of one entry, and that of another without the provider in front
    /// (`perplexity/sonar`, `perplexity/perplexity/sonar`): nobody knows which of them a call means.
    fn keep_dearer_of_both(&mut self, provider: &str, model: &str) {
        let Some((_, inner)) = model.split_once('/') else {
            return;
        };
        let name = |model: &str| (provider.to_owned(), model.to_owned());
        let other = self.draft.models.get(&name(inner));
        let rates = other.map(|prices| prices.rates.clone()).unwrap_or_default();
        if let Some(prices) = self.draft.models.get_mut(&name(model)) {
            // A cache that one of them has alone would be cheaper than the other's input.
            let is_of_both = |key: &RateKey| match key.billable {
                Billable::Tokens(_) => rates.contains_key(key),
                Billable::Units(_) => true,
            };
            prices.rates.retain(|key, _| is_of_both(key));
            let common: Vec<RateKey> = prices.rates.keys().cloned().collect();
            for (key, nanos) in rates {
                let is_unit = matches!(key.billable, Billable::Units(_));
                if is_unit || common.contains(&key) {
                    let rate = prices.rates.entry(key).or_insert(nanos);
                    *rate = nanos.max(*rate);
                }
            }
        }
    }

    /// A rate above a threshold for a class that has none below it is a slip of the file.
    fn drop_rates_above_nothing(&mut self, entry: &Entry<'_>, rates: &mut BTreeMap<RateKey, u64>) {
        let has_base = |key: &RateKey| {
            let same_billable =
                |other: &RateKey| other.billable == key.billable && other.above == 0;
            rates.keys().any(same_billable)
        };
        let baseless: Vec<RateKey> = rates
            .keys()
            .filter(|key| key.above > 0 && !has_base(key))
            .cloned()
            .collect();
        for key in baseless {
            rates.remove(&key);
            let field = format!("{key}, where there is no rate below the threshold");
            self.report
                .skip(&field, "taken for a slip of the file", entry.name);
        }
    }

    /// Adds rates to a model, keeping the dearer where there are two; whether the model was there.
    fn merge(&mut self, entry: &Entry<'_>, model: &str, rates: BTreeMap<RateKey, u64>) -> bool {
        let name = (entry.provider.clone(), model.to_owned());
        let known = self.draft.models.contains_key(&name);
        let prices = self
            .draft
            .models
            .entry(name)
            .or_insert_with(|| ModelPrices {
                provider: entry.provider.clone(),
                model: model.to_owned(),
                mode: entry.mode.to_owned(),
                rates: BTreeMap::new(),
                factors: BTreeMap::new(),
                off_peak: None,
                origins: Origins::default(),
            });
        for (key, nanos) in rates {
            let rate = prices.rates.entry(key).or_insert(nanos);
            *rate = nanos.max(*rate);
        }
        known
    }
}

/// Takes away what says nothing: units and cached tokens at 0 beside other prices (price files write
/// 0 for "not known"), and special classes that cost what the plain class costs.
pub(super) fn drop_empty_promises(provider: &str, rates: &mut BTreeMap<RateKey, u64>) {
    if rates.values().all(|nanos| *nanos == 0) {
        return;
    }
    rates.retain(|key, nanos| {
        let may_be_free = match key.billable {
            Billable::Tokens(TokenClass::CacheRead) => FREE_CACHE_PROVIDERS.contains(&provider),
            Billable::Tokens(class) => {
                !matches!(class, TokenClass::CacheWrite5m | TokenClass::CacheWrite1h)
            }
            Billable::Units(_) => false,
        };
        *nanos > 0 || may_be_free
    });
    let is_token = |key: &RateKey| matches!(key.billable, Billable::Tokens(_));
    let sold_by_token = rates.iter().any(|(key, nanos)| is_token(key) && *nanos > 0);
    if !sold_by_token {
        // Tokens at 0 beside a price per unit: sold by unit, not free by token.
        rates.retain(|key, _| !is_token(key));
    }
    for (special, plain) in REDUNDANT {
        let rate = |class: TokenClass, tier: Tier, above: u64| {
            let key = RateKey::new(Billable::Tokens(class))
                .in_tier(tier)
                .above(above);
            rates.get(&key).copied()
        };
        let special_keys = rates
            .keys()
            .filter(|key| key.billable == Billable::Tokens(*special));
        let all_equal = special_keys
            .clone()
            .all(|key| rates.get(key).copied() == rate(*plain, key.tier, key.above));
        if all_equal {
            rates.retain(|key, _| key.billable != Billable::Tokens(*special));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn import(json: &str) -> Imported {
        litellm(json.as_bytes(), "t", "test").unwrap()
    }

    fn rates(imported: &Imported, provider: &str, model: &str) -> Vec<(String, u64)> {
        let prices = &imported.draft.models[&(provider.to_owned(), model.to_owned())];
        let rates = prices.rates.iter();
        rates
            .map(|(key, nanos)| (key.to_string(), *nanos))
            .collect()
    }

    #[test]
    fn prices_are_read_exactly_and_unknown_ones_reported() {
        let imported = import(
            r#"{"sample_spec":{"litellm_provider":"x","input_cost_per_token":1},
            "azure/gpt-x":{"litellm_provider":"azure","mode":"chat","input_cost_per_token":2.5e-06,
              "output_cost_per_token":1e-05,"output_cost_per_reasoning_token":1e-05,
              "cache_read_input_token_cost":0.0,"cost_per_smile":3,
              "search_context_cost_per_query":{"search_context_size_low":0.005,"search_context_size_medium":0.008,"search_context_size_high":0.012}}}"#,
        );
        let expected = [
            ("input", 2_500_000_000),
            ("output", 10_000_000_000),
            ("web_search_calls", 8_000_000),
            ("web_search_calls[high,]", 12_000_000),
            ("web_search_calls[low,]", 5_000_000),
            ("web_search_calls[medium,]", 8_000_000),
        ];
        let expected = expected.map(|(key, nanos)| (key.to_owned(), nanos));
        assert_eq!(rates(&imported, "azure", "gpt-x"), expected);
        assert_eq!(imported.report.models_read, 1);
        assert_eq!(imported.report.skipped_fields["cost_per_smile"].count, 1);
    }

    #[test]
    fn ranges_and_inclusive_thresholds_become_thresholds() {
        let imported = import(
            r#"{"dashscope/q":{"litellm_provider":"dashscope","mode":"chat","tiered_pricing":[
              {"input_cost_per_token":5e-08,"output_cost_per_token":4e-07,"range":[0,256000.0]},
              {"input_cost_per_token":2.5e-07,"output_cost_per_token":2e-06,"range":[256000.0,1000000.0]}]},
            "xai/g":{"litellm_provider":"xai","mode":"chat","input_cost_per_token":2e-6,"input_cost_per_token_above_200k_tokens":4e-6}}"#,
        );
        let tiered = rates(&imported, "dashscope", "q");
        assert!(
            tiered.contains(&("output>256000".into(), 2_000_000_000)),
            "{tiered:?}"
        );
        let inclusive = rates(&imported, "xai", "g");
        assert!(
            inclusive.contains(&("input>199999".into(), 4_000_000_000)),
            "{inclusive:?}"
        );
    }

    #[test]
    fn sizes_in_names_become_attributes_of_the_model() {
        let imported = import(
            r#"{"azure/hd/1024-x-1024/d":{"litellm_provider":"azure","mode":"image_generation","input_cost_per_pixel":1.9073486328125e-08,"output_cost_per_token":0.0}}"#,
        );
        let sized = ("images[hd,1024x1024]".to_owned(), 20_000_000);
        assert!(rates(&imported, "azure", "d").contains(&sized));
    }

    #[test]
    fn cheaper_hours_are_read_with_the_zone_of_their_weekdays() {
        let hours = |zone: &str| {
            let imported = import(&format!(
                r#"{{"m":{{"litellm_provider":"deepseek","mode":"chat","input_cost_per_token":2e-6,
                "off_peak_pricing":{{"input_cost_per_token":1e-6,"weekday_timezone":"{zone}",
                "windows":[{{"hours_utc":["20:00-00:00"],"weekdays":[6]}}]}}}}}}"#
            ));
            let prices = &imported.draft.models[&("deepseek".to_owned(), "m".to_owned())];
            let off_peak = prices.off_peak.as_ref()?;
            assert_eq!(off_peak.rates[&"input".parse().unwrap()], 1_000_000_000);
            Some(off_peak.windows[0].to_string())
        };
        assert_eq!(hours("UTC").unwrap(), "6 20:00-24:00");
        assert_eq!(hours("Asia/Shanghai").unwrap(), "5 20:00-24:00");
        assert_eq!(hours("Mars/Olympus"), None, "the usual rates stand");
    }

    #[test]
    fn a_name_that_two_entries_mean_has_the_dearer_rates() {
        let prices = |input: &str, output: &str| {
            format!(
                r#"{{"litellm_provider":"perplexity","mode":"chat","input_cost_per_token":{input},"output_cost_per_token":{output}}}"#
            )
        };
        let (one, other) = (prices("1e-6", "1e-6"), prices("2.5e-7", "2.5e-6"));
        let cache = r#","cache_read_input_token_cost":6e-8}"#;
        let other = other.replace('}', cache);
        let json = format!(r#"{{"perplexity/perplexity/sonar":{other},"perplexity/sonar":{one}}}"#);
        let imported = import(&json);
        let dearer = [("input", 1_000_000_000), ("output", 2_500_000_000)];
        let dearer = dearer.map(|(key, nanos)| (key.to_owned(), nanos));
        assert_eq!(rates(&imported, "perplexity", "perplexity/sonar"), dearer);
        let own = [("input", 1_000_000_000), ("output", 1_000_000_000)];
        let own = own.map(|(key, nanos)| (key.to_owned(), nanos));
        assert_eq!(rates(&imported, "perplexity", "sonar"), own);
    }

    #[test]
    fn a_model_at_zero_is_unpriced_unless_it_runs_at_home() {
        let zero = r#""mode":"chat","input_cost_per_token":0,"output_cost_per_token":0.0"#;
        let imported = import(&format!(
            r#"{{"a":{{"litellm_provider":"gigachat",{zero}}},"ollama/b":{{"litellm_provider":"ollama",{zero}}}}}"#
        ));
        assert!(imported.report.unpriced.contains_key("a"));
        let known = ("gigachat".to_owned(), "a".to_owned());
        assert_eq!(imported.draft.unpriced, [known].into());
        assert_eq!(imported.report.models_priced, 1);
    }
}
