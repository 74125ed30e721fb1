//! The table that checks look into: a [`Digest`] for each scope, eight to a line of the processor's
//! cache.
//!
//! Open addressing: a scope is in its home line or, where that is full, in one of the next. Slots
//! are single words that one writer stores and readers load, and a scope never moves, so no reader
//! sees anything that was not written, and none ever waits. Where room is short, the writer fills
//! a new table from the full entries and swaps it in.
//!
//! A tag has 16 bits, so two scopes may fall together. Of two that are both there the writer knows,
//! and marks the slot so that readers ask the full entries. A scope that is not there may be shown
//! another's spend; as long as that is far from every step, it makes no difference, and where it is
//! not, the full entries are asked too.

use std::sync::atomic::{AtomicU64, Ordering};

use spendfuse_domain::UnixMillis;

use crate::digest::{Digest, Epoch, Glimpse, Kind, Tag};
use crate::hash::EntryHash;

const SLOTS_PER_LINE: usize = 8;
const LEAST_LINES: usize = 16;

/// A word of shared memory; a trait so that tests can put a model checker's words in its place.
pub(crate) trait Word {
    fn zero() -> Self;
    fn load(&self, ordering: Ordering) -> u64;
    fn store(&self, value: u64, ordering: Ordering);
}

impl Word for AtomicU64 {
    fn zero() -> Self {
        Self::new(0)
    }

    #[inline]
    fn load(&self, ordering: Ordering) -> u64 {
        Self::load(self, ordering)
    }

    fn store(&self, value: u64, ordering: Ordering) {
        Self::store(self, value, ordering);
    }
}

#[derive(Debug)]
#[repr(align(64))]
struct Line<W>([W; SLOTS_PER_LINE]);

/// The readers' side.
#[derive(Debug)]
pub(crate) struct Table<W = AtomicU64> {
    lines: Box<[Line<W>]>,
    epoch: Epoch,
}

/// The table has no room for another scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl<W: Word> Table<W> {
    /// An empty table, of which `entries` take two fifths.
    pub(crate) fn for_entries(entries: usize, now: UnixMillis) -> Self {
        let slots = entries * 5 / 2;
        Self::with_lines(slots.div_ceil(SLOTS_PER_LINE).max(LEAST_LINES), now)
    }

    /// An empty table of `count` lines.
    pub(crate) fn with_lines(count: usize, now: UnixMillis) -> Self {
        let line = |_| Line(std::array::from_fn(|_| W::zero()));
        Self {
            lines: (0..count).map(line).collect(),
            epoch: Epoch::new(now),
        }
    }

    /// From when ends of windows count.
    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// How many slots may ever be used, three fifths of all: lookups end at one that never was.
    fn most_used(&self) -> usize {
        self.lines.len() * SLOTS_PER_LINE * 3 / 5
    }

    /// Begins to fetch what [`get`](Self::get) will look at for `key`: the loads of several keys
    /// run at the same time, where lookups one after the other would each wait for the memory.
    #[inline]
    pub(crate) fn fetch(&self, key: EntryHash) -> u64 {
        self.lines[self.home(key)].0[0].load(Ordering::Relaxed)
    }

    /// What is known of `key` at `now`. Spend may be another scope's, where this one has none.
    #[inline]
    pub(crate) fn get(&self, key: EntryHash, now: UnixMillis) -> Glimpse {
        let tag = Tag::of(key);
        let mut line = self.home(key);
        loop {
            // All slots of a line, without a branch that the processor would have to guess.
            let mut found = 0;
            let mut least = u64::MAX;
            for slot in &self.lines[line].0 {
                // A word says all there is to say of a scope, so there is nothing to order it with;
                // what must be seen by who sees a new snapshot is ordered by the snapshot.
                let word = slot.load(Ordering::Relaxed);
                found = if tag.marks(word) { word } else { found };
                least = least.min(word);
            }
            if found != 0 {
                return Digest::read(found, self.epoch, now);
            }
            if least == 0 {
                return Glimpse::Nothing;
            }
            line = self.after(line);
        }
    }

    #[inline]
    fn home(&self, key: EntryHash) -> usize {
        let high = key >> 64;
        ((high * self.lines.len() as u128) >> 64) as usize
    }

    #[inline]
    fn after(&self, line: usize) -> usize {
        if line + 1 == self.lines.len() {
            0
        } else {
            line + 1
        }
    }
}

/// One change of a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    pub(crate) key: EntryHash,
    /// Whether the table knows the scope before this change.
    pub(crate) was_there: bool,
    /// `None` removes it.
    pub(crate) digest: Option<Digest>,
}

/// The writer's side of one table. There must be only one.
#[derive(Debug, Default)]
pub(crate) struct Filling {
    /// Slots that are or were used.
    used: usize,
}

impl Filling {
    /// Makes one change. Readers see a scope as it was before or after.
    ///
    /// # Errors
    /// [`Full`]: nothing was changed, and the table is to be replaced.
    pub(crate) fn make<W: Word>(&mut self, table: &Table<W>, change: Change) -> Result<(), Full> {
        if !change.was_there && change.digest.is_none() {
            return Ok(());
        }
        let tag = Tag::of(change.key);
        let mut line = table.home(change.key);
        let mut removed = None;
        loop {
            for slot in &table.lines[line].0 {
                let word = slot.load(Ordering::Relaxed);
                if word == 0 {
                    return self.insert(table, removed.unwrap_or(slot), change);
                }
                let kind = Digest::kind_of(word);
                if tag.marks(word) {
                    if kind == Kind::Removed {
                        return self.insert(table, slot, change);
                    }
                    // Where this scope was not there, the slot is another's.
                    let digest = if kind == Kind::Shared || !change.was_there {
                        Digest::SHARED
                    } else {
                        change.digest.unwrap_or(Digest::REMOVED)
                    };
                    slot.store(digest.word(tag), Ordering::Release);
                    return Ok(());
                }
                if kind == Kind::Removed && removed.is_none() {
                    removed = Some(slot);
                }
            }
            line = table.after(line);
        }
    }

    /// Gives a slot that is nobody's to a scope.
    fn insert<W: Word>(&mut self, table: &Table<W>, slot: &W, change: Change) -> Result<(), Full> {
        let Some(digest) = change.digest else {
            return Ok(());
        };
        if slot.load(Ordering::Relaxed) == 0 {
            if self.used == table.most_used() {
                return Err(Full);
            }
            self.used += 1;
        }
        slot.store(digest.word(Tag::of(change.key)), Ordering::Release);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Entry;
    use spendfuse_domain::Verdict;

    const NOW: UnixMillis = UnixMillis(1_000_000);

    #[test]
    fn a_table_shows_of_each_scope_what_a_map_has_or_says_that_it_cannot() {
        let table: Table = Table::with_lines(10, NOW);
        let mut filling = Filling::default();
        let mut map = hashbrown::HashMap::new();
        let (mut random, mut asked, mut seen) = (1_u128, 0, 0);
        let full = loop {
            random = random.wrapping_mul(0x2360_ED05_1FC6_5DA4_4385_DF64_9FCC_F645) + 99;
            // Few tags, few places, and few enough scopes that each comes and goes.
            let number = (random >> 100) % 400;
            let key = (number % 7) << 120 | number << 64 | (number % 80) << 48;
            let spent = i64::from((random >> 64) as u16);
            let entry = Entry::of_spend(&format!("0.{spent:09}"), Verdict::Ok, None);
            let digest = Digest::of(&entry, table.epoch());
            let wanted = (random >> 98 & 3 != 0).then_some(digest);
            let change = Change {
                key,
                was_there: map.contains_key(&key),
                digest: wanted,
            };
            if filling.make(&table, change) == Err(Full) {
                break key;
            }
            match wanted {
                Some(_) => map.insert(key, spent),
                None => map.remove(&key),
            };
        };
        assert!(!map.contains_key(&full));
        for (key, spent) in map {
            match table.get(key, NOW) {
                Glimpse::AtMost(_, most) => {
                    seen += 1;
                    assert_eq!(most, spent);
                }
                Glimpse::Ask => asked += 1,
                Glimpse::Nothing => panic!("{key:x} is lost"),
            }
        }
        assert!(asked > 0 && seen > 0, "asked {asked} seen {seen}");
    }
}
