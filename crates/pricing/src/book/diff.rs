//! What differs between two versions: what `spendfuse prices diff` shows.

use std::collections::BTreeSet;

use super::{ModelPrices, PriceBook};
use crate::rate::RateKey;

/// How a rate differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateChange {
    /// Only the newer version has it.
    Added(u64),
    /// Only the older version has it.
    Removed(u64),
    /// Both have it: before and after.
    Changed(u64, u64),
}

/// One rate that two versions do not share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateDifference {
    /// Provider.
    pub provider: String,
    /// Model.
    pub model: String,
    /// Which rate.
    pub key: RateKey,
    /// Nano-dollars per million tokens or per unit.
    pub change: RateChange,
}

impl PriceBook {
    /// The rates by which `newer` differs from this version, sorted by provider, model and key.
    pub fn diff(&self, newer: &Self) -> Vec<RateDifference> {
        let name = |prices: &ModelPrices| (prices.provider.clone(), prices.model.clone());
        let names: BTreeSet<_> = self.models.iter().chain(&newer.models).map(name).collect();
        let mut differences = Vec::new();
        for (provider, model) in names {
            let before = self.model_named(&provider, &model);
            let after = newer.model_named(&provider, &model);
            let keys_of = |prices: Option<&ModelPrices>| -> BTreeSet<RateKey> {
                prices
                    .map(|prices| prices.rates.keys().cloned().collect())
                    .unwrap_or_default()
            };
            for key in &keys_of(before) | &keys_of(after) {
                let rate = |prices: Option<&ModelPrices>| prices?.rates.get(&key).copied();
                let change = match (rate(before), rate(after)) {
                    (Some(before), Some(after)) if before != after => {
                        RateChange::Changed(before, after)
                    }
                    (Some(before), None) => RateChange::Removed(before),
                    (None, Some(after)) => RateChange::Added(after),
                    _ => continue,
                };
                differences.push(RateDifference {
                    provider: provider.clone(),
                    model: model.clone(),
                    key,
                    change,
                });
            }
        }
        differences
    }

    fn model_named(&self, provider: &str, model: &str) -> Option<&ModelPrices> {
        let name = |prices: &ModelPrices| {
            (prices.provider.as_str(), prices.model.as_str()).cmp(&(provider, model))
        };
        let index = self.models.binary_search_by(name).ok()?;
        Some(&self.models[index])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::book::{Change, Patch};

    #[test]
    fn a_diff_names_every_rate_that_a_patch_touched() {
        let base = PriceBook::snapshot();
        let (provider, model) = ("openai".to_owned(), "gpt-4o".to_owned());
        let patch = Patch {
            label: String::new(),
            changes: vec![
                Change::SetRate {
                    provider: provider.clone(),
                    model: model.clone(),
                    key: "output".parse().unwrap(),
                    nanos: 1,
                },
                Change::SetRate {
                    provider: provider.clone(),
                    model: model.clone(),
                    key: "images".parse().unwrap(),
                    nanos: 2,
                },
                Change::RemoveRate {
                    provider,
                    model,
                    key: "input:batch".parse().unwrap(),
                },
            ],
        };
        let patched = base.patched(&patch).unwrap();
        let differences = base.diff(&patched);
        let changes: Vec<(String, RateChange)> = differences
            .iter()
            .map(|difference| (difference.key.to_string(), difference.change))
            .collect();
        let expected = [
            ("input:batch", RateChange::Removed(1_250_000_000)),
            ("output", RateChange::Changed(10_000_000_000, 1)),
            ("images", RateChange::Added(2)),
        ];
        let expected = expected.map(|(key, change)| (key.to_owned(), change));
        assert_eq!(changes, expected);
        assert!(base.diff(&base).is_empty());
    }
}
