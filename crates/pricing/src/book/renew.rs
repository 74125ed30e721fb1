//! A book in force and newly read prices: what of them may take its place by itself.
//!
//! What an operator set stays. A price that jumps by more than three times is more often a slip of a
//! source than a price, so its model stays as it is until somebody accepts it; so does everything,
//! where a source has lost more than a tenth of its models.

use spendfuse_domain::UnixMillis;

use super::{BookDraft, ModelPrices, OPERATOR, PriceBook};
use crate::error::BookError;
use crate::rate::RateKey;

/// A rate may rise or fall by this factor.
const LARGEST_JUMP: u64 = 3;
/// One of so many models may go.
const LARGEST_LOSS: usize = 10;

/// A price that waits for somebody to accept it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jump {
    /// Provider.
    pub provider: String,
    /// Model.
    pub model: String,
    /// Which rate, at any time.
    pub rate: RateKey,
    /// What is charged now, nano-dollars.
    pub before: u64,
    /// What the source says.
    pub after: u64,
}

/// What newly read prices make of a book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// The book to put into force; `None`: nothing changed.
    pub draft: Option<BookDraft>,
    /// What waits.
    pub jumps: Vec<Jump>,
    /// Models that the source does not have any more, where they are so many that nothing is taken.
    pub lost: usize,
}

impl PriceBook {
    /// What the prices of `read` make of this book at time `now`; with `accept` whatever they are.
    ///
    /// # Errors
    /// As [`BookDraft::finish`].
    pub fn renewed(
        &self,
        read: BookDraft,
        accept: bool,
        now: UnixMillis,
    ) -> Result<Renewal, BookError> {
        let mut draft = read;
        for (name, known) in &self.to_draft().models {
            keep_what_was_set(&mut draft, name, known);
        }
        let lost = { self.models.iter() }
            .filter(|known| {
                let name = (known.provider.clone(), known.model.clone());
                !draft.models.contains_key(&name)
            })
            .count();
        if !accept && lost * LARGEST_LOSS > self.models.len() {
            return Ok(Renewal {
                draft: None,
                jumps: Vec::new(),
                lost,
            });
        }
        let mut jumps = Vec::new();
        for known in &self.models {
            let name = (known.provider.clone(), known.model.clone());
            let Some(new) = draft.models.get_mut(&name) else {
                continue;
            };
            let own = jumps_of(known, new, now);
            if !accept && !own.is_empty() {
                new.clone_from(known);
                jumps.extend(own);
            }
        }
        let is_changed = !says_the_same(self, &draft);
        Ok(Renewal {
            draft: is_changed.then_some(draft),
            jumps,
            lost: 0,
        })
    }
}

fn keep_what_was_set(draft: &mut BookDraft, name: &(String, String), known: &ModelPrices) {
    let set = known.origins.rates.iter();
    let mut set = set.filter(|(_, source)| *source == OPERATOR).peekable();
    if set.peek().is_none() {
        return;
    }
    let prices = draft.models.entry(name.clone()).or_insert_with(|| {
        let mut unknown = known.clone();
        unknown.rates.clear();
        unknown.origins.rates.clear();
        unknown
    });
    for (key, source) in set {
        if let Some(nanos) = known.rates.get(key) {
            if let Some(off_peak) = &mut prices.off_peak {
                off_peak.rates.remove(key);
            }
            prices.rates.insert(key.clone(), *nanos);
            prices.origins.rates.insert(key.clone(), source.clone());
        }
    }
}

/// The rates by which `new` differs too much from what is charged `now`.
fn jumps_of(known: &ModelPrices, new: &ModelPrices, now: UnixMillis) -> Vec<Jump> {
    let lines = known.rates.keys().map(RateKey::without_day);
    let mut jumps: Vec<Jump> = lines
        .filter_map(|rate| {
            let before = known.in_force(&rate, now)?;
            let after = new.in_force(&rate, now)?;
            let is_jump = before.max(after) > before.min(after).saturating_mul(LARGEST_JUMP);
            is_jump.then(|| Jump {
                provider: known.provider.clone(),
                model: known.model.clone(),
                rate,
                before,
                after,
            })
        })
        .collect();
    // A line with several days is there once.
    jumps.dedup();
    jumps
}

/// Whether all calls cost the same by both; days of sources and their names do not count.
fn says_the_same(book: &PriceBook, draft: &BookDraft) -> bool {
    let same = |(known, new): (&ModelPrices, &ModelPrices)| {
        (&known.provider, &known.model, &known.rates) == (&new.provider, &new.model, &new.rates)
            && (&known.factors, &known.off_peak) == (&new.factors, &new.off_peak)
    };
    let unpriced = { draft.unpriced.iter() }.filter(|name| !draft.models.contains_key(*name));
    book.models.len() == draft.models.len()
        && book.models.iter().zip(draft.models.values()).all(same)
        && book.aliases.iter().eq(&draft.aliases)
        && book.unpriced.iter().eq(unpriced)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::book::{Change, Patch};

    const NOW: UnixMillis = UnixMillis(1_796_000_000_000);

    fn key(text: &str) -> RateKey {
        text.parse().unwrap()
    }

    fn gpt_4o(draft: &mut BookDraft) -> &mut ModelPrices {
        let name = ("openai".to_owned(), "gpt-4o".to_owned());
        draft.models.get_mut(&name).unwrap()
    }

    #[test]
    fn the_same_prices_of_another_day_make_no_version() {
        let book = PriceBook::snapshot();
        let mut read = book.to_draft();
        read.source = "today's".into();
        gpt_4o(&mut read).origins.date = "2026-11-28".into();
        assert_eq!(book.renewed(read, false, NOW).unwrap().draft, None);
    }

    #[test]
    fn a_jump_waits_and_all_else_goes_into_force() {
        let book = PriceBook::snapshot();
        let mut read = book.to_draft();
        gpt_4o(&mut read).rates.insert(key("input"), 7_500_000_001);
        let other = ("openai".to_owned(), "gpt-4o-mini".to_owned());
        let mini = read.models.get_mut(&other).unwrap();
        mini.rates.insert(key("input"), 300_000_000);
        let renewal = book.renewed(read.clone(), false, NOW).unwrap();
        let mut renewed = renewal.draft.unwrap();
        assert_eq!(gpt_4o(&mut renewed).rates[&key("input")], 2_500_000_000);
        assert_eq!(renewed.models[&other].rates[&key("input")], 300_000_000);
        let jump = &renewal.jumps[0];
        assert_eq!((jump.before, jump.after), (2_500_000_000, 7_500_000_001));
        assert_eq!(renewal.jumps.len(), 1);
        let accepted = book.renewed(read, true, NOW).unwrap();
        let mut accepted = accepted.draft.unwrap();
        assert_eq!(gpt_4o(&mut accepted).rates[&key("input")], 7_500_000_001);
    }

    #[test]
    fn what_an_operator_set_stays() {
        let set = |model: &str| Change::SetRate {
            provider: "openai".into(),
            model: model.into(),
            key: key("output"),
            nanos: 42,
        };
        let patch = Patch {
            label: "ours".into(),
            changes: vec![set("gpt-4o"), set("house-model")],
        };
        let snapshot = PriceBook::snapshot();
        let book = snapshot.patched(&patch).unwrap();
        let renewal = book.renewed(snapshot.to_draft(), false, NOW).unwrap();
        assert_eq!(renewal.draft, None, "nothing is left to change");
    }

    #[test]
    fn a_source_that_lost_its_models_is_not_taken() {
        let book = PriceBook::snapshot();
        let mut read = book.to_draft();
        while read.models.len() > 100 {
            read.models.pop_last();
        }
        let renewal = book.renewed(read.clone(), false, NOW).unwrap();
        assert_eq!((renewal.draft, renewal.lost > 4_000), (None, true));
        assert!(book.renewed(read, true, NOW).unwrap().draft.is_some());
    }
}
