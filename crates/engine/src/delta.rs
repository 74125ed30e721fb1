//! Deltas: what one commit of a meter partition tells one ledger partition.

use hashbrown::HashMap;
use minicbor::{Decode, Encode};
use spendfuse_domain::budget::CompiledBudget;
use spendfuse_domain::{Nanos, UnixMillis};

use crate::codec;

/// The record of topic `spendfuse.deltas`.
///
/// `prev` and `seq` chain the records of one (meter partition, ledger partition): the ledger checks
/// that each `prev` is the `seq` before, so that a lost or doubled record is seen at once.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct Deltas {
    /// The partition that counted.
    #[n(0)]
    pub meter_partition: u32,
    /// The commit in which it last told this ledger partition anything; 0 = never.
    #[n(1)]
    pub prev: u64,
    /// The commit in which it tells this.
    #[n(2)]
    pub seq: u64,
    /// Ids of the series that the entries belong to.
    #[n(3)]
    pub series: Vec<String>,
    /// What was added up.
    #[n(4)]
    pub entries: Vec<DeltaEntry>,
    /// Version of the budgets that the series come from. A ledger with older budgets would not know
    /// who counts an entry, so it waits for this version first.
    #[n(5)]
    #[cbor(default)]
    pub budget_version: u64,
    /// The last event of the meter's partition of the usage topic that is counted with this record
    /// and those before it, by its offset. Not in all but the last record of a commit.
    #[n(6)]
    pub through: Option<i64>,
}

/// Spend of one scope in one UTC minute of the events' own time, summed over a commit.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct DeltaEntry {
    /// Place in [`Deltas::series`].
    #[n(0)]
    pub series: u32,
    /// Scope text.
    #[n(1)]
    pub scope: String,
    /// Minutes since 1970.
    #[n(2)]
    pub minute: i64,
    /// Money.
    #[n(3)]
    #[cbor(with = "codec::nanos")]
    pub cost: Nanos,
    /// The part charged at a ceiling.
    #[n(4)]
    #[cbor(with = "codec::nanos")]
    pub unpriced: Nanos,
    /// All tokens.
    #[n(5)]
    pub tokens: i64,
    /// Model calls.
    #[n(6)]
    pub calls: i64,
    /// `source` of the last event.
    #[n(7)]
    pub source: String,
    /// `id` of the last event.
    #[n(8)]
    pub id: String,
    /// Its own time.
    #[n(9)]
    #[cbor(with = "codec::millis")]
    pub time: UnixMillis,
    /// Whether it is history: counted, but nobody is told of the steps that it reaches.
    #[n(10)]
    #[cbor(with = "codec::only_true", has_nil)]
    pub is_history: bool,
    /// Of a correction: which entry it corrects.
    #[n(11)]
    pub corrects: Option<CountedThen>,
}

/// When an entry was counted that a correction changes: a budget's count that does not contain the
/// entry is not corrected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CountedThen {
    /// Version of the budgets that it was counted with.
    #[n(0)]
    pub budget_version: u64,
    /// When it arrived.
    #[n(1)]
    #[cbor(with = "codec::millis")]
    pub arrival: UnixMillis,
}

impl CountedThen {
    /// Whether the budget's count contains the entry.
    pub fn is_in(self, compiled: &CompiledBudget) -> bool {
        compiled.contains(self.budget_version, self.arrival)
    }
}

/// Numbers, lengths and times of an entry take no more than this, bytes.
const ENTRY_BYTES: usize = 128;

impl Deltas {
    /// About how many bytes the record takes, rather too many.
    pub fn bytes_estimate(&self) -> usize {
        let series: usize = self.series.iter().map(String::len).sum();
        let entries: usize = self.entries.iter().map(DeltaEntry::bytes_estimate).sum();
        series + entries
    }

    /// The same in several records, each with at most `most_entries` entries, about `most_bytes`
    /// and the series that its own entries belong to. The first follows what this one follows, the
    /// others follow it within its commit.
    pub fn parts(&self, most_entries: usize, most_bytes: usize) -> Vec<Self> {
        let mut parts: Vec<Self> = Vec::new();
        let mut places: HashMap<u32, u32> = HashMap::new();
        let mut bytes = 0;
        for entry in &self.entries {
            let series = &self.series[entry.series as usize];
            let named = if places.contains_key(&entry.series) {
                0
            } else {
                series.len()
            };
            let takes = entry.bytes_estimate() + named;
            let is_full =
                |part: &Self| part.entries.len() >= most_entries || bytes + takes > most_bytes;
            if parts.last().is_none_or(is_full) {
                // More follows.
                if let Some(part) = parts.last_mut() {
                    part.through = None;
                }
                parts.push(Self {
                    prev: if parts.is_empty() {
                        self.prev
                    } else {
                        self.seq
                    },
                    series: Vec::new(),
                    entries: Vec::new(),
                    ..*self
                });
                places.clear();
                bytes = 0;
            }
            let last = parts.len() - 1;
            let part = &mut parts[last];
            let place = *places.entry(entry.series).or_insert_with(|| {
                bytes += series.len();
                part.series.push(series.clone());
                part.series.len() as u32 - 1
            });
            bytes += entry.bytes_estimate();
            part.entries.push(DeltaEntry {
                series: place,
                ..entry.clone()
            });
        }
        parts
    }
}

impl DeltaEntry {
    fn bytes_estimate(&self) -> usize {
        ENTRY_BYTES + self.scope.len() + self.source.len() + self.id.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_hold_everything_once_with_the_series_that_they_need() {
        let long = "s".repeat(2_000);
        let entry = |number: u32| DeltaEntry {
            series: number,
            scope: format!("acme/customer={long}{number}"),
            minute: 7,
            cost: Nanos::new(i128::from(number)),
            unpriced: Nanos::ZERO,
            tokens: 1,
            calls: 1,
            source: "app".to_owned(),
            id: format!("r-{number}"),
            time: UnixMillis(420_000),
            is_history: false,
            corrects: None,
        };
        let whole = Deltas {
            meter_partition: 3,
            prev: 5,
            seq: 9,
            series: (0..500).map(|number| format!("{long}|{number}")).collect(),
            entries: (0..500).map(entry).collect(),
            budget_version: 2,
            through: Some(41),
        };
        const MOST: usize = 64 * 1024;
        assert!(codec::encode(&whole).len() > 20 * MOST);
        let parts = whole.parts(4_000, MOST);
        assert!(parts.iter().all(|part| codec::encode(part).len() <= MOST));
        let chain: Vec<(u64, u64)> = parts.iter().map(|part| (part.prev, part.seq)).collect();
        assert_eq!(chain[0], (5, 9));
        assert!(chain[1..].iter().all(|link| *link == (9, 9)));
        let (last, others) = parts.split_last().expect("there are many");
        assert!(others.iter().all(|part| part.through.is_none()));
        assert_eq!(last.through, Some(41));
        let named = |part: &Deltas| -> Vec<(String, DeltaEntry)> {
            let name = |entry: &DeltaEntry| part.series[entry.series as usize].clone();
            let bare = |entry: &DeltaEntry| DeltaEntry {
                series: 0,
                ..entry.clone()
            };
            part.entries
                .iter()
                .map(|entry| (name(entry), bare(entry)))
                .collect()
        };
        let told: Vec<_> = parts.iter().flat_map(named).collect();
        assert_eq!(told, named(&whole));
        let by_number = whole.parts(100, usize::MAX);
        assert!(
            by_number
                .iter()
                .all(|part| part.entries.len() == 100 && part.series.len() == 100)
        );
    }
}
