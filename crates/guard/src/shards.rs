//! A map that many threads read without locks while one writer replaces small parts of it.
//!
//! The map is cut into shards, each an immutable table behind an [`ArcSwap`]. Publishing rebuilds
//! only the shards that changed: with a million entries in 16,384 shards that is some 60 entries a
//! change. A reader sees each *entry* as one writer commit left it; two entries of different shards
//! may be from neighbouring publications, which is sound because every entry has its own verdict.
//! It holds what people are told; checks themselves read [`crate::table`].

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use hashbrown::{HashMap, HashTable};

use crate::hash::EntryHash;

type Shard<V> = HashTable<(EntryHash, V)>;

/// The readers' side.
pub(crate) struct Shards<V> {
    shards: Box<[ArcSwap<Shard<V>>]>,
    entries: AtomicUsize,
}

/// Changes that readers do not see yet; the last one of a key counts.
pub(crate) struct Pending<V> {
    changes: HashMap<EntryHash, Option<V>>,
}

impl<V: Clone> Shards<V> {
    /// An empty map of `count` shards, a power of two.
    pub(crate) fn new(count: usize) -> Self {
        debug_assert!(count.is_power_of_two());
        let empty = Arc::new(HashTable::new());
        let shards = (0..count).map(|_| ArcSwap::new(Arc::clone(&empty)));
        Self {
            shards: shards.collect(),
            entries: AtomicUsize::new(0),
        }
    }

    pub(crate) fn get(&self, key: EntryHash) -> Option<V> {
        let shard = self.shards[self.shard_of(key)].load();
        let found = shard.find(table_hash(key), |(known, _)| *known == key);
        found.map(|(_, value)| value.clone())
    }

    /// How many entries readers see.
    pub(crate) fn len(&self) -> usize {
        self.entries.load(Ordering::Relaxed)
    }

    /// How many shards there are.
    pub(crate) fn shard_count(&self) -> usize {
        self.shards.len()
    }

    /// Hands every entry of one shard to `visit`.
    pub(crate) fn for_each_in(&self, shard: usize, mut visit: impl FnMut(EntryHash, &V)) {
        for (key, value) in self.shards[shard].load().iter() {
            visit(*key, value);
        }
    }

    /// Shows `changes`, of which no two have the same key, to readers. Only one thread may publish.
    pub(crate) fn publish(&self, mut changes: Vec<(EntryHash, Option<V>)>) {
        changes.sort_unstable_by_key(|(key, _)| self.shard_of(*key));
        let mut rest = changes.into_iter().peekable();
        while let Some((first, _)) = rest.peek() {
            let shard = self.shard_of(*first);
            let mut table = Shard::clone(&self.shards[shard].load());
            let before = table.len();
            while let Some((key, value)) = rest.next_if(|(key, _)| self.shard_of(*key) == shard) {
                change(&mut table, key, value);
            }
            let (added, removed) = (
                table.len().saturating_sub(before),
                before.saturating_sub(table.len()),
            );
            self.entries.fetch_add(added, Ordering::Relaxed);
            self.entries.fetch_sub(removed, Ordering::Relaxed);
            self.shards[shard].store(Arc::new(table));
        }
    }

    fn shard_of(&self, key: EntryHash) -> usize {
        key as usize & (self.shards.len() - 1)
    }
}

impl<V: Clone> Pending<V> {
    pub(crate) fn new() -> Self {
        Self {
            changes: HashMap::new(),
        }
    }

    pub(crate) fn set(&mut self, key: EntryHash, value: Option<V>) {
        self.changes.insert(key, value);
    }

    /// What readers will see of `key` after the next publication.
    pub(crate) fn get(&self, published: &Shards<V>, key: EntryHash) -> Option<V> {
        match self.changes.get(&key) {
            Some(change) => change.clone(),
            None => published.get(key),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// How many changes wait.
    pub(crate) fn len(&self) -> usize {
        self.changes.len()
    }

    /// The changes, which are to be published next.
    pub(crate) fn take(&mut self) -> Vec<(EntryHash, Option<V>)> {
        self.changes.drain().collect()
    }
}

/// The half of the key that does not pick the shard.
fn table_hash(key: EntryHash) -> u64 {
    (key >> 64) as u64
}

fn change<V>(table: &mut Shard<V>, key: EntryHash, value: Option<V>) {
    let found = table.find_entry(table_hash(key), |(known, _)| *known == key);
    match (found, value) {
        (Ok(mut entry), Some(value)) => entry.get_mut().1 = value,
        (Ok(entry), None) => {
            entry.remove();
        }
        (Err(_), Some(value)) => {
            table.insert_unique(table_hash(key), (key, value), |(key, _)| table_hash(*key));
        }
        (Err(_), None) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_see_the_last_change_of_each_key_after_publication() {
        let shards = Shards::new(4);
        let mut pending = Pending::new();
        for key in 0..100_u128 {
            pending.set(key << 64 | key, Some(key));
        }
        assert_eq!(shards.get(7 << 64 | 7), None);
        shards.publish(pending.take());
        assert_eq!((shards.len(), shards.get(7 << 64 | 7)), (100, Some(7)));
        pending.set(7 << 64 | 7, None);
        pending.set(8 << 64 | 8, None);
        pending.set(8 << 64 | 8, Some(80));
        assert_eq!(pending.get(&shards, 8 << 64 | 8), Some(80));
        shards.publish(pending.take());
        assert_eq!((shards.len(), shards.get(7 << 64 | 7)), (99, None));
        assert_eq!(shards.get(8 << 64 | 8), Some(80));
    }
}
