//! What differs between two versions: what `spendfuse prices diff` shows.

use std::collections::{BTreeMap, BTreeSet};

use spendfuse_domain::UnixMillis;

use super::{ModelPrices, PriceBook};
use crate::error::BookError;
use crate::provider::same_separators;
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

/// All that two books say of the same, and of each other's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// The rates that they do not share, sorted by provider, model and key.
    pub differences: Vec<RateDifference>,
    /// Rates that are the same in both.
    pub equal: usize,
    /// Models that both have.
    pub models_in_both: usize,
    /// Models that only the older one has.
    pub models_removed: usize,
    /// Models that only the newer one has.
    pub models_added: usize,
}

impl PriceBook {
    /// The rates by which `newer` differs from this version, sorted by provider, model and key.
    pub fn diff(&self, newer: &Self) -> Vec<RateDifference> {
        self.compare(newer).differences
    }

    /// What `newer` says as this version does, and what it says otherwise. Models are compared under
    /// one name where providers are spelt with other separators.
    pub fn compare(&self, newer: &Self) -> Comparison {
        let mut compared = Comparison::default();
        let [olders, newers] = [self, newer].map(by_name);
        let names: BTreeSet<_> = olders.keys().chain(newers.keys()).cloned().collect();
        for name in names {
            let before = olders.get(&name).copied();
            let after = newers.get(&name).copied();
            let (provider, model) = name;
            match (before, after) {
                (Some(_), Some(_)) => compared.models_in_both += 1,
                (Some(_), None) => compared.models_removed += 1,
                _ => compared.models_added += 1,
            }
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
                    _ => {
                        compared.equal += 1;
                        continue;
                    }
                };
                compared.differences.push(RateDifference {
                    provider: provider.clone(),
                    model: model.clone(),
                    key,
                    change,
                });
            }
        }
        compared
    }

    /// This book with the rates alone that were in force at `at`, as if there were no other days.
    ///
    /// # Errors
    /// As [`BookDraft::finish`](super::BookDraft::finish).
    pub fn at(&self, at: UnixMillis) -> Result<Self, BookError> {
        let mut draft = self.to_draft();
        for prices in draft.models.values_mut() {
            let lines: BTreeSet<RateKey> = prices.rates.keys().map(RateKey::without_day).collect();
            let in_force = lines.into_iter().filter_map(|line| {
                let nanos = prices.in_force(&line, at)?;
                Some((line, nanos))
            });
            prices.rates = in_force.collect();
            prices.origins.rates.clear();
        }
        draft.finish()
    }
}

/// Models by provider, in one spelling, and name.
fn by_name(book: &PriceBook) -> BTreeMap<(String, String), &ModelPrices> {
    let models = book.models.iter();
    models
        .map(|prices| {
            let provider = same_separators(&prices.provider).into_owned();
            ((provider, prices.model.clone()), prices)
        })
        .collect()
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
        let compared = base.compare(&patched);
        assert_eq!(compared.models_in_both, base.models().len());
        let rates = base.models().iter().map(|prices| prices.rates.len());
        assert_eq!(compared.equal, rates.sum::<usize>() - 2);
        assert!(base.diff(&base).is_empty());
    }

    #[test]
    fn a_book_of_a_day_has_the_rates_of_that_day() {
        let text = "{\"spendfuse_prices\":1,\"label\":\"t\",\"source\":\"\",\"models\":1,\"aliases\":0}\n\
                    {\"provider\":\"p\",\"model\":\"m\",\"mode\":\"chat\",\"rates\":\
                    {\"input\":10,\"input@2026-03-01T00:00:00Z\":7}}\n";
        let book = PriceBook::parse(text).unwrap();
        let day = |day: &str| UnixMillis::parse_rfc3339(&format!("{day}T00:00:00Z")).unwrap();
        let [before, after] = ["2026-02-01", "2026-04-01"].map(|at| book.at(day(at)).unwrap());
        let changes = before.diff(&after);
        assert_eq!(changes.len(), 1);
        assert_eq!(changes[0].change, RateChange::Changed(10, 7));
    }
}
