//! Folding events into series: one delta entry per (series, scope, minute) and commit.

use hashbrown::HashMap;
use spendfuse_domain::budget::Spend;
use spendfuse_domain::event::Event;
use spendfuse_domain::routing::partition_of;
use spendfuse_domain::scope::{Dimension, Dimensions, scope_text};
use spendfuse_domain::{Nanos, UnixMillis};
use xxhash_rust::xxh3::xxh3_128;

use crate::book::Series;
use crate::delta::{CountedThen, DeltaEntry, Deltas};

/// Scope texts are remembered up to this many; beyond, the memory starts anew.
const MAX_INTERNED: usize = 1 << 20;

#[derive(Debug)]
struct InternedScope {
    text: String,
    ledger_partition: u32,
    /// Place of the entry to which it was added last, as long as that entry is there.
    last_entry: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct EntryKey {
    series: u32,
    scope: u32,
    minute: i64,
    is_history: bool,
}

#[derive(Debug)]
struct Sum {
    spend: Spend,
    unpriced: Nanos,
    last: EventPlace,
    time: UnixMillis,
}

/// Where `source` and `id` of an event stand among the texts of the commit.
#[derive(Clone, Copy, Debug)]
struct EventPlace {
    start: usize,
    source_bytes: usize,
    id_bytes: usize,
}

/// The sums of the running commit.
#[derive(Debug, Default)]
pub struct Fold {
    ledger_partitions: u32,
    /// Scope texts by a hash of (series, values): building a text costs more than a lookup.
    by_values: HashMap<u128, u32>,
    scopes: Vec<InternedScope>,
    sums: HashMap<EntryKey, u32>,
    /// In the order of first appearance, so that equal input gives equal records.
    entries: Vec<(EntryKey, Sum)>,
    /// What corrections change, each by itself: there are few.
    corrected: Vec<(EntryKey, Sum, CountedThen)>,
    /// `source` and `id` of every event, one after the other: a sum names its last event by its
    /// place here, since copying the texts into every sum would cost more than adding up.
    event_texts: String,
    /// Room for what is hashed.
    hashed: Vec<u8>,
}

impl Fold {
    /// An empty fold for `ledger_partitions` partitions of the ledger.
    pub fn new(ledger_partitions: u32) -> Self {
        Self {
            ledger_partitions,
            ..Self::default()
        }
    }

    /// Adds an event's spend to every series that it belongs to. History has entries of its own.
    pub fn add(
        &mut self,
        series: &[Series],
        event: &Event<'_>,
        spend: Spend,
        unpriced: Nanos,
        is_history: bool,
    ) {
        let last = self.next_place(event);
        for (index, one) in series.iter().enumerate() {
            let Some(key) = self.key_in(index, one, event, is_history) else {
                continue;
            };
            if self.event_texts.len() == last.start {
                self.event_texts.push_str(&event.source);
                self.event_texts.push_str(&event.id);
            }
            let sum = self.sum_of(key, last, event.time);
            sum.spend.add(spend);
            sum.unpriced += unpriced;
            sum.last = last;
            sum.time = event.time;
        }
    }

    /// Adds what a correction of an entry changes; `event` says against whom that counted, or counts
    /// from now on.
    pub fn correct(
        &mut self,
        series: &[Series],
        event: &Event<'_>,
        spend: Spend,
        unpriced: Nanos,
        corrects: CountedThen,
    ) {
        let last = self.next_place(event);
        self.event_texts.push_str(&event.source);
        self.event_texts.push_str(&event.id);
        for (index, one) in series.iter().enumerate() {
            let Some(key) = self.key_in(index, one, event, false) else {
                continue;
            };
            let sum = Sum {
                spend,
                unpriced,
                last,
                time: event.time,
            };
            self.corrected.push((key, sum, corrects));
        }
    }

    /// Where the texts of `event` will stand.
    fn next_place(&self, event: &Event<'_>) -> EventPlace {
        EventPlace {
            start: self.event_texts.len(),
            source_bytes: event.source.len(),
            id_bytes: event.id.len(),
        }
    }

    /// The entry of `event` in the series at `index`; `None` where it does not belong to it.
    #[inline]
    fn key_in(
        &mut self,
        index: usize,
        series: &Series,
        event: &Event<'_>,
        is_history: bool,
    ) -> Option<EntryKey> {
        if !series.filter.holds(&event.attribution) {
            return None;
        }
        let scope = self.intern(index as u32, &series.shape, &event.attribution)?;
        Some(EntryKey {
            series: index as u32,
            scope,
            minute: event.time.minute(),
            is_history,
        })
    }

    fn sum_of(&mut self, key: EntryKey, last: EventPlace, time: UnixMillis) -> &mut Sum {
        let scope = &mut self.scopes[key.scope as usize];
        // Nearly every event lies in the same minute as the one before.
        let known = self.entries.get(scope.last_entry as usize);
        if known.is_none_or(|(known, _)| *known != key) {
            let next = self.entries.len() as u32;
            scope.last_entry = *self.sums.entry(key).or_insert(next);
            if scope.last_entry == next {
                let sum = Sum {
                    spend: Spend::default(),
                    unpriced: Nanos::ZERO,
                    last,
                    time,
                };
                self.entries.push((key, sum));
            }
        }
        &mut self.entries[scope.last_entry as usize].1
    }

    /// The scope of `values` in a series; `None` where a dimension is absent.
    fn intern<D: Dimensions>(
        &mut self,
        series: u32,
        shape: &[Dimension],
        values: &D,
    ) -> Option<u32> {
        self.hashed.clear();
        self.hashed.extend_from_slice(&series.to_le_bytes());
        for dimension in shape {
            let value = values.value(dimension);
            if value.is_empty() {
                return None;
            }
            self.hashed
                .extend_from_slice(&(value.len() as u32).to_le_bytes());
            self.hashed.extend_from_slice(value.as_bytes());
        }
        let hash = xxh3_128(&self.hashed);
        if let Some(known) = self.by_values.get(&hash) {
            return Some(*known);
        }
        let text = scope_text(shape, values)?;
        let scope = self.scopes.len() as u32;
        self.scopes.push(InternedScope {
            ledger_partition: partition_of(text.as_bytes(), self.ledger_partitions),
            text,
            last_entry: u32::MAX,
        });
        self.by_values.insert(hash, scope);
        Some(scope)
    }

    /// Ends the commit: the deltas for each ledger partition that has any, without their chain.
    pub fn take(&mut self, series: &[Series]) -> Vec<(u32, Deltas)> {
        let mut by_partition: Vec<Option<(Deltas, HashMap<u32, u32>)>> = Vec::new();
        by_partition.resize_with(self.ledger_partitions as usize, || None);
        let events = self.entries.drain(..).map(|(key, sum)| (key, sum, None));
        let corrected = self.corrected.drain(..);
        let corrected = corrected.map(|(key, sum, corrects)| (key, sum, Some(corrects)));
        for (key, sum, corrects) in events.chain(corrected) {
            let scope = &self.scopes[key.scope as usize];
            let EventPlace {
                start,
                source_bytes,
                id_bytes,
            } = sum.last;
            let id_start = start + source_bytes;
            let (deltas, indexes) =
                by_partition[scope.ledger_partition as usize].get_or_insert_default();
            let index = *indexes.entry(key.series).or_insert_with(|| {
                deltas.series.push(series[key.series as usize].id.clone());
                deltas.series.len() as u32 - 1
            });
            deltas.entries.push(DeltaEntry {
                series: index,
                scope: scope.text.clone(),
                minute: key.minute,
                cost: sum.spend.cost,
                unpriced: sum.unpriced,
                tokens: sum.spend.tokens,
                calls: sum.spend.calls,
                source: self.event_texts[start..id_start].to_owned(),
                id: self.event_texts[id_start..id_start + id_bytes].to_owned(),
                time: sum.time,
                is_history: key.is_history,
                corrects,
            });
        }
        self.sums.clear();
        self.event_texts.clear();
        if self.scopes.len() > MAX_INTERNED {
            self.forget_scopes();
        }
        let told = by_partition.into_iter().enumerate();
        told.filter_map(|(partition, deltas)| Some((partition as u32, deltas?.0)))
            .collect()
    }

    /// Forgets the interned scopes: after a change of series, whose places are part of the hash.
    pub fn forget_scopes(&mut self) {
        debug_assert!(
            self.entries.is_empty(),
            "series change between commits only"
        );
        self.by_values.clear();
        self.scopes.clear();
    }
}
