//! Folding events into series: one delta entry per (series, scope, minute) and commit.

use hashbrown::HashMap;
use spendfuse_domain::budget::Spend;
use spendfuse_domain::event::Event;
use spendfuse_domain::routing::partition_of;
use spendfuse_domain::scope::{Dimension, Dimensions, scope_text};
use spendfuse_domain::{Nanos, UnixMillis};
use xxhash_rust::xxh3::Xxh3;

use crate::book::Series;
use crate::delta::{DeltaEntry, Deltas};

/// Scope texts are remembered up to this many; beyond, the memory starts anew.
const MAX_INTERNED: usize = 1 << 20;

#[derive(Debug)]
struct InternedScope {
    text: String,
    ledger_partition: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct EntryKey {
    series: u32,
    scope: u32,
    minute: i64,
}

#[derive(Debug)]
struct Sum {
    spend: Spend,
    unpriced: Nanos,
    source: String,
    id: String,
    time: UnixMillis,
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
}

impl Fold {
    /// An empty fold for `ledger_partitions` partitions of the ledger.
    pub fn new(ledger_partitions: u32) -> Self {
        Self {
            ledger_partitions,
            ..Self::default()
        }
    }

    /// Adds an event's spend to every series that it belongs to.
    pub fn add(&mut self, series: &[Series], event: &Event<'_>, spend: Spend, unpriced: Nanos) {
        for (place, one) in series.iter().enumerate() {
            if !one.filter.holds(&event.attribution) {
                continue;
            }
            let Some(scope) = self.intern(place as u32, &one.shape, &event.attribution) else {
                continue;
            };
            let key = EntryKey {
                series: place as u32,
                scope,
                minute: event.time.minute(),
            };
            self.add_to(key, event, spend, unpriced);
        }
    }

    fn add_to(&mut self, key: EntryKey, event: &Event<'_>, spend: Spend, unpriced: Nanos) {
        let next = self.entries.len() as u32;
        let place = *self.sums.entry(key).or_insert(next);
        if place == next {
            let sum = Sum {
                spend: Spend::default(),
                unpriced: Nanos::ZERO,
                source: String::new(),
                id: String::new(),
                time: event.time,
            };
            self.entries.push((key, sum));
        }
        let sum = &mut self.entries[place as usize].1;
        sum.spend.add(spend);
        sum.unpriced += unpriced;
        sum.source.clear();
        sum.source.push_str(&event.source);
        sum.id.clear();
        sum.id.push_str(&event.id);
        sum.time = event.time;
    }

    /// The scope of `values` in a series; `None` where a dimension is absent.
    fn intern<D: Dimensions>(
        &mut self,
        series: u32,
        shape: &[Dimension],
        values: &D,
    ) -> Option<u32> {
        let mut hasher = Xxh3::new();
        hasher.update(&series.to_le_bytes());
        for dimension in shape {
            let value = values.value(dimension);
            if value.is_empty() {
                return None;
            }
            hasher.update(&(value.len() as u32).to_le_bytes());
            hasher.update(value.as_bytes());
        }
        let hash = hasher.digest128();
        if let Some(known) = self.by_values.get(&hash) {
            return Some(*known);
        }
        let text = scope_text(shape, values)?;
        let scope = self.scopes.len() as u32;
        self.scopes.push(InternedScope {
            ledger_partition: partition_of(text.as_bytes(), self.ledger_partitions),
            text,
        });
        self.by_values.insert(hash, scope);
        Some(scope)
    }

    /// Ends the commit: the deltas for each ledger partition that has any, without their chain.
    pub fn take(&mut self, series: &[Series]) -> Vec<(u32, Deltas)> {
        let mut by_partition: Vec<Option<(Deltas, HashMap<u32, u32>)>> = Vec::new();
        by_partition.resize_with(self.ledger_partitions as usize, || None);
        for (key, sum) in self.entries.drain(..) {
            let scope = &self.scopes[key.scope as usize];
            let (deltas, places) =
                by_partition[scope.ledger_partition as usize].get_or_insert_default();
            let place = *places.entry(key.series).or_insert_with(|| {
                deltas.series.push(series[key.series as usize].id.clone());
                deltas.series.len() as u32 - 1
            });
            deltas.entries.push(DeltaEntry {
                series: place,
                scope: scope.text.clone(),
                minute: key.minute,
                cost: sum.spend.cost,
                unpriced: sum.unpriced,
                tokens: sum.spend.tokens,
                calls: sum.spend.calls,
                source: sum.source,
                id: sum.id,
                time: sum.time,
            });
        }
        self.sums.clear();
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
