//! What every held amount belongs to, and when it goes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use hashbrown::HashMap;
use smallvec::SmallVec;
use spendfuse_domain::Nanos;
use spendfuse_domain::budget::Spend;

use super::Place;
use super::cells::Cells;
use super::exceeding::Exceeding;
use super::learned::Pair;
use super::parts::{Line, Parts, counted, drop_pending, give_back};
use super::unshown::Unshown;
use crate::hash::EntryHash;

/// A call is settled milliseconds after its event was spooled; so many may leave the spool meanwhile.
const REPLAYED_KEPT: usize = 4_096;

/// The hold of a call under way.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) parts: Parts,
    pub(crate) cost: Nanos,
    /// Whose costs its own will belong to.
    pub(crate) pair: Pair,
    /// A hash of its workspace.
    pub(crate) workspace: u128,
    pub(crate) timeout_millis: i64,
    pub(crate) until: i64,
}

/// The holds, and the settled ones until they are counted.
#[derive(Debug, Default)]
pub(crate) struct Book {
    last: u64,
    open: HashMap<u64, Open>,
    /// When holds end.
    ends: BTreeSet<(i64, u64)>,
    /// By where they wait.
    uncounted: BTreeMap<Line, BTreeMap<i64, Parts>>,
    /// The same places by what an entry may show.
    places: HashMap<EntryHash, BTreeSet<(u32, i64)>>,
    /// By the content of their events, whose offsets are not known yet.
    spooled: HashMap<u128, Parts>,
    /// Where the last events went that left the spool, the newest last: the call of one of them may
    /// be settled only now.
    replayed: VecDeque<(u128, Place)>,
    /// How many there are in `uncounted` and `spooled`.
    settled: usize,
    unshown: Unshown,
    exceeding: Exceeding,
}

impl Book {
    /// How many holds there are, settled ones included.
    pub(crate) fn len(&self) -> usize {
        self.open.len() + self.settled + self.unshown.len()
    }

    pub(crate) fn open_count(&self) -> usize {
        self.open.len()
    }

    pub(crate) fn add(&mut self, hold: Open) -> u64 {
        self.last += 1;
        self.exceeding.begins(&hold.parts);
        self.ends.insert((hold.until, self.last));
        self.open.insert(self.last, hold);
        self.last
    }

    /// Lets a hold last for its time again, from `now_millis` on; never shorter than it would.
    pub(crate) fn extend(
        &mut self,
        number: u64,
        timeout_millis: Option<i64>,
        now_millis: i64,
    ) -> Option<&Open> {
        let hold = self.open.get_mut(&number)?;
        let timeout = timeout_millis.unwrap_or(hold.timeout_millis);
        let until = now_millis.saturating_add(timeout).max(hold.until);
        self.ends.remove(&(hold.until, number));
        self.ends.insert((until, number));
        hold.until = until;
        Some(hold)
    }

    fn remove(&mut self, number: u64) -> Option<Open> {
        let hold = self.open.remove(&number)?;
        self.ends.remove(&(hold.until, number));
        Some(hold)
    }

    /// Gives back what a hold holds. Returns whether there was one.
    pub(crate) fn release(&mut self, number: u64, cells: &Cells) -> bool {
        let Some(hold) = self.remove(number) else {
            return false;
        };
        self.exceeding.is_over(&hold.parts);
        give_back(&hold.parts, cells);
        true
    }

    /// By how much more than limits, held amounts and figures say a key may come to.
    pub(crate) fn may_exceed(&self, key: EntryHash) -> i64 {
        self.exceeding.of(key)
    }

    /// A hash of the workspace of an open hold.
    pub(crate) fn workspace(&self, number: u64) -> Option<u128> {
        self.open.get(&number).map(|hold| hold.workspace)
    }

    /// Gives back what is held for longer than was asked for; how many holds that were.
    pub(crate) fn expire(&mut self, now_millis: i64, cells: &Cells) -> u64 {
        let mut expired = 0;
        while let Some(&(until, number)) = self.ends.first()
            && until <= now_millis
        {
            let Some(hold) = self.remove(number) else {
                break;
            };
            give_back(&hold.parts, cells);
            let gone = until.saturating_add(hold.timeout_millis);
            self.exceeding.ends(number, hold.parts, gone);
            expired += 1;
        }
        self.exceeding.forget(now_millis);
        expired
    }

    /// The call has cost `spend`: what it held becomes pending, each amount in one step, unless what
    /// readers see counts it already.
    pub(crate) fn settle(
        &mut self,
        number: u64,
        spend: &Spend,
        place: Place,
        cells: &Cells,
        is_shown: impl Fn(EntryHash, u32, i64) -> bool,
    ) -> Option<Pair> {
        let Some(mut hold) = self.remove(number) else {
            self.exceeding.has_come(number);
            return None;
        };
        self.exceeding.is_over(&hold.parts);
        hold.parts.retain(|part| {
            part.amount = cells.change(part.cell(), part.amount, counted(part.unit, spend));
            cells.change_pending(part.cell(), part.amount);
            part.amount > 0
        });
        self.put(place, hold.parts, cells, is_shown);
        Some(hold.pair)
    }

    /// The event with this content was taken from the spool to this place.
    pub(crate) fn replayed(
        &mut self,
        content: u128,
        partition: u32,
        offset: i64,
        cells: &Cells,
        is_shown: impl Fn(EntryHash, u32, i64) -> bool,
    ) {
        let place = Place::Log { partition, offset };
        if let Some(parts) = self.spooled.remove(&content) {
            self.settled -= 1;
            self.put(place, parts, cells, is_shown);
            return;
        }
        if self.replayed.len() >= REPLAYED_KEPT {
            self.replayed.pop_front();
        }
        self.replayed.push_back((content, place));
    }

    /// A call that holds nothing has cost these amounts, and its event waits on the disk: they are
    /// pending.
    pub(crate) fn owe(
        &mut self,
        content: u128,
        mut parts: Parts,
        cells: &Cells,
        is_shown: impl Fn(EntryHash, u32, i64) -> bool,
    ) {
        if self.spooled.contains_key(&content) {
            return;
        }
        parts.retain(|part| {
            part.amount = cells.change(part.cell(), 0, part.amount);
            cells.change_pending(part.cell(), part.amount);
            part.amount > 0
        });
        if !parts.is_empty() {
            self.put(Place::Spool { content }, parts, cells, is_shown);
        }
    }

    fn put(
        &mut self,
        place: Place,
        mut parts: Parts,
        cells: &Cells,
        is_shown: impl Fn(EntryHash, u32, i64) -> bool,
    ) {
        let place = self.place_now(place);
        // Two events at one place: only one of them can be counted.
        let replaced = match place {
            Place::Log { partition, offset } => self.take(partition, offset),
            Place::Commit { .. } => None,
            Place::Spool { content } => {
                let replaced = self.spooled.remove(&content);
                self.settled -= usize::from(replaced.is_some());
                replaced
            }
        };
        drop_pending(&replaced.unwrap_or_default(), cells);
        if let Place::Log { partition, offset } = place {
            parts.retain(|part| {
                let shown = is_shown(part.key, partition, offset);
                if shown {
                    cells.take_pending(part.cell(), part.amount);
                }
                !shown
            });
        }
        if parts.is_empty() {
            return;
        }
        self.settled += 1;
        match place {
            Place::Log { partition, offset } => {
                for part in &parts {
                    let places = self.places.entry(part.key).or_default();
                    places.insert((partition, offset));
                }
                let line = self.uncounted.entry(Line::Usage(partition)).or_default();
                line.insert(offset, parts);
            }
            Place::Commit { partition, seq } => {
                let seq = i64::try_from(seq).unwrap_or(i64::MAX);
                let line = self.uncounted.entry(Line::Meter(partition)).or_default();
                let waiting = line.entry(seq).or_default();
                self.settled -= usize::from(!waiting.is_empty());
                waiting.extend(parts);
            }
            Place::Spool { content } => {
                self.spooled.insert(content, parts);
            }
        }
    }

    /// Takes what waits at a place of the usage topic, if anything does.
    fn take(&mut self, partition: u32, offset: i64) -> Option<Parts> {
        let line = Line::Usage(partition);
        let waiting = self.uncounted.get_mut(&line)?;
        let parts = waiting.remove(&offset)?;
        if waiting.is_empty() {
            self.uncounted.remove(&line);
        }
        self.settled -= 1;
        for part in &parts {
            self.leave(part.key, partition, offset);
        }
        Some(parts)
    }

    /// Nothing of `key` waits at this place any more.
    fn leave(&mut self, key: EntryHash, partition: u32, offset: i64) {
        if let Some(places) = self.places.get_mut(&key) {
            places.remove(&(partition, offset));
            if places.is_empty() {
                self.places.remove(&key);
            }
        }
    }

    /// Where an event is that was on the disk a moment ago.
    fn place_now(&mut self, place: Place) -> Place {
        let Place::Spool { content } = place else {
            return place;
        };
        let mut newest_first = self.replayed.iter().rev();
        let gone = newest_first.find(|(known, _)| *known == content);
        gone.map_or(place, |(_, place)| *place)
    }

    /// Every ledger has what the events that stand in `line` before `next` cost.
    pub(crate) fn counted(&mut self, line: Line, next: i64, record: u64, now_millis: i64) {
        let Some(waiting) = self.uncounted.get_mut(&line) else {
            return;
        };
        let later = waiting.split_off(&next);
        let done = std::mem::replace(waiting, later);
        if waiting.is_empty() {
            self.uncounted.remove(&line);
        }
        self.settled -= done.len();
        let parts = done
            .into_iter()
            .flat_map(|(offset, parts)| parts.into_iter().map(move |part| (offset, part)));
        for (offset, part) in parts {
            if let Line::Usage(partition) = line {
                self.leave(part.key, partition, offset);
            }
            self.unshown.add(&part, record, now_millis);
        }
    }

    /// An entry of `key`, read as number `record`, is what readers see now; it counts the usage
    /// topic's events `through` these offsets, where it says.
    pub(crate) fn shown(
        &mut self,
        key: EntryHash,
        record: u64,
        through: impl Iterator<Item = (u32, i64)>,
        cells: &Cells,
    ) {
        self.unshown.shown(key, record, cells);
        for (partition, last) in through {
            self.drop_through(key, partition, last, cells);
        }
    }

    fn drop_through(&mut self, key: EntryHash, partition: u32, last: i64, cells: &Cells) {
        let Some(places) = self.places.get(&key) else {
            return;
        };
        let range = (partition, i64::MIN)..=(partition, last);
        let offsets: SmallVec<[i64; 16]> = places.range(range).map(|place| place.1).collect();
        for offset in offsets {
            self.leave(key, partition, offset);
            let waiting = self.uncounted.get_mut(&Line::Usage(partition));
            let Some(parts) = waiting.and_then(|waiting| waiting.get_mut(&offset)) else {
                debug_assert!(false, "what has a place waits there");
                continue;
            };
            parts.retain(|part| {
                let is_it = part.key == key;
                if is_it {
                    cells.take_pending(part.cell(), part.amount);
                }
                !is_it
            });
            if parts.is_empty() {
                self.take(partition, offset);
            }
        }
    }

    /// As [`Unshown::refreshed`].
    pub(crate) fn refreshed(
        &mut self,
        read_to_millis: i64,
        refresh_millis: impl Fn(EntryHash) -> i64,
        cells: &Cells,
    ) {
        self.unshown
            .refreshed(read_to_millis, refresh_millis, cells);
    }
}
