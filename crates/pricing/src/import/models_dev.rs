//! models.dev's `api.json`: an object, a member per provider, each with its `models`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Imported, PER_MILLION, decimal, number, refused};
use crate::error::BookError;
use crate::provider;
use crate::rate::{Billable, RateKey, TokenClass};

/// Members of `cost`, dollars per million tokens, and what they price.
const CLASSES: &[(&str, TokenClass)] = &[
    ("input", TokenClass::Input),
    ("output", TokenClass::Output),
    ("reasoning", TokenClass::Reasoning),
    ("cache_read", TokenClass::CacheRead),
    ("cache_write", TokenClass::CacheWrite5m),
    ("input_audio", TokenClass::AudioInput),
    ("output_audio", TokenClass::AudioOutput),
];
/// The older way to write one threshold.
const OVER_200K: (&str, u64) = ("context_over_200k", 200_000);

type Fields<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

#[derive(Deserialize)]
struct Provider<'a> {
    #[serde(borrow)]
    models: BTreeMap<Cow<'a, str>, Model<'a>>,
}

#[derive(Deserialize)]
struct Model<'a> {
    #[serde(borrow, default)]
    cost: Option<Fields<'a>>,
    #[serde(borrow, default)]
    last_updated: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Threshold {
    size: u64,
    #[serde(rename = "type")]
    kind: String,
}

pub(super) fn read(bytes: &[u8], label: &str, source: &str) -> Result<Imported, BookError> {
    let providers: BTreeMap<Cow<'_, str>, Provider<'_>> = serde_json::from_slice(bytes)
        .map_err(|error| refused(format!("not an object of providers with models: {error}")))?;
    let mut imported = Imported::new(label, source);
    for (id, provider) in &providers {
        let name = provider::canonical(id);
        for (model, entry) in &provider.models {
            imported.report.models_read += 1;
            let named = format!("{id}/{model}");
            let cost = entry.cost.clone().unwrap_or_default();
            let rates = imported.rates_of_cost(&named, &cost);
            // It does not say what a model is for.
            imported.take_model(&name, model, "chat", day(&entry.last_updated), rates);
        }
    }
    imported.report.models_priced = imported.draft.models.len();
    Ok(imported)
}

/// A day is `2026-11-22`; some entries have the month alone, which is no day.
fn day(text: &str) -> &str {
    if text.len() == 10 { text } else { "" }
}

impl Imported {
    fn rates_of_cost(&mut self, entry: &str, cost: &Fields<'_>) -> BTreeMap<RateKey, u64> {
        let mut rates = BTreeMap::new();
        for (member, raw) in cost {
            match &**member {
                "tiers" => {
                    for tier in
                        serde_json::from_str::<Vec<Fields<'_>>>(raw.get()).unwrap_or_default()
                    {
                        let threshold = tier.get("tier").map_or("", |raw| raw.get());
                        match serde_json::from_str::<Threshold>(threshold) {
                            Ok(threshold) if threshold.kind == "context" => {
                                self.take_classes(entry, &tier, threshold.size, &mut rates);
                            }
                            _ => self.report.skip("tiers", "not by context", entry),
                        }
                    }
                }
                // Where there are tiers, they say the same once more.
                name if name == OVER_200K.0 && !cost.contains_key("tiers") => {
                    let inner = serde_json::from_str(raw.get()).unwrap_or_default();
                    self.take_classes(entry, &inner, OVER_200K.1, &mut rates);
                }
                _ => {}
            }
        }
        self.take_classes(entry, cost, 0, &mut rates);
        rates
    }

    fn take_classes(
        &mut self,
        entry: &str,
        cost: &Fields<'_>,
        above: u64,
        rates: &mut BTreeMap<RateKey, u64>,
    ) {
        for (member, raw) in cost {
            let class = CLASSES.iter().find(|(name, _)| name == member);
            let Some((_, class)) = class else {
                if !["tiers", "tier", OVER_200K.0].contains(&&**member) {
                    self.report
                        .skip(member, "unknown to this version of spendfuse", entry);
                }
                continue;
            };
            match decimal::scaled(number(raw), PER_MILLION) {
                Some(nanos) => {
                    let key = RateKey::new(Billable::Tokens(*class)).above(above);
                    rates.insert(key, nanos);
                }
                None if raw.get() == "null" => {}
                None => self.report.skip(member, "not a number", entry),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_thresholds_and_days_are_read() {
        let json = r#"{"google-vertex":{"id":"google-vertex","models":{
            "m":{"last_updated":"2026-08-06","cost":{"input":2.5,"output":10,"cache_read":0.25,"reasoning":10,
              "tiers":[{"input":5,"output":15,"tier":{"size":200000,"type":"context"}}],
              "context_over_200k":{"input":5,"output":15}}},
            "free":{"cost":{"input":0,"output":0}},
            "old":{"cost":{"input":1,"output":2,"context_over_200k":{"input":2}}},
            "none":{}}}}"#;
        let imported = read(json.as_bytes(), "t", "test").unwrap();
        let model = |name: &str| {
            let name = ("vertex_ai".to_owned(), name.to_owned());
            let prices = &imported.draft.models[&name];
            let rates = prices.rates.iter();
            let rates = rates.map(|(key, nanos)| format!("{key}={nanos}"));
            (
                rates.collect::<Vec<_>>().join(" "),
                prices.origins.date.clone(),
            )
        };
        let (rates, date) = model("m");
        assert_eq!(
            rates,
            "input=2500000000 input>200000=5000000000 cache_read=250000000 \
             output=10000000000 output>200000=15000000000"
        );
        assert_eq!(date, "2026-08-06");
        assert_eq!(
            model("old").0,
            "input=1000000000 input>200000=2000000000 output=2000000000"
        );
        assert_eq!(imported.draft.unpriced.len(), 2, "0 is no price");
    }
}
