//! Between a check and its count: what calls under way may still cost, and what calls have cost that
//! no figure shows yet.
//!
//! A check with a reservation adds its estimate to a cell of every budget that the call meets, all or
//! none of them ([`reserve`]). The sum of a cell stands beside what the budget has spent, for every
//! check ([`cell`], [`cells`]). The [`book`] knows what each amount belongs to:
//!
//! - **Reserved**: until the call's event settles it, its caller releases it, or its time is over.
//! - **Pending**: a settled hold's cost, from the step that ends the reservation until an entry shows
//!   it. An entry that says `through` which offsets it counts shows those. For others the order of the
//!   blocklist's records tells: the meter's
//!   heartbeat says that the event's offset is counted, the ledgers' that they have what the meters
//!   had written by then, and an entry that lies behind these in the log shows it. Where none comes,
//!   the figure did not move, or not by enough: then it goes once all is read that was written until
//!   the figure had to be told again (docs/formats/blocklist.md).
//!
//! So a cost is in neither place at no moment, and in both for a moment. An amount does not know the
//! window that it counts in: what is held at midnight is held against the new day.

mod book;
mod cell;
mod cells;
mod elsewhere;
mod exceeding;
mod expected;
mod learned;
#[cfg(test)]
mod modelled;
mod parts;
mod reserve;
mod unshown;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::counter;
use spendfuse_broken::{Break, is_broken};
use spendfuse_domain::Attribution;
use spendfuse_domain::budget::{ReserveRule, Spend};

pub use elsewhere::Met;
pub use expected::{Asked, Basis, Expected};
pub use learned::Pair;
pub use reserve::{Hold, NotReserved, Planned, Reserving};

use crate::decision::{CheckRequest, Match};
use crate::digest::Kind;
use crate::entry::Entry;
use crate::freshness::{CountedTo, Now};
use crate::guard::{Guard, Replica};
use crate::hash::EntryHash;
use crate::metrics::{COSTS_FORGOTTEN, RESERVATIONS_EXPIRED};
use crate::response::Seen;
use crate::shards::Shards;
use book::Book;
use cells::{Cells, cell_of};
use learned::Learned;
use parts::{Line, Part, counted};

pub(crate) use cells::Held;

/// Figures above half of their limit are told again after five seconds, others after sixty; a second
/// is for the way.
const REFRESH_NEAR_MILLIS: i64 = 6_000;
const REFRESH_FAR_MILLIS: i64 = 61_000;

const ELSEWHERE_SHARDS: usize = 256;

/// Where the event that settles a hold is safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the usage topic.
    Log {
        /// Partition of the usage topic.
        partition: u32,
        /// Offset in it.
        offset: i64,
    },
    /// In the usage topic in another partition than that of its meter, which has counted it in this
    /// commit: entries do not say whether they show it.
    Commit {
        /// Partition of the meter.
        partition: u32,
        /// Number of the commit.
        seq: u64,
    },
    /// On the disk, to be sent later: [`Guard::replayed`] tells where it went.
    Spool {
        /// A hash of the event's bytes.
        content: u128,
    },
}

/// An entry that readers see.
pub(crate) struct Shown {
    pub(crate) key: EntryHash,
    /// The number of the record that it was read as.
    pub(crate) record: u64,
    /// `None` where it was removed, or could not be read.
    pub(crate) entry: Option<Arc<Entry>>,
}

/// Every hold of a guard.
pub(crate) struct Holds {
    pub(crate) cells: Cells,
    /// What other sidecars said they hold.
    pub(crate) elsewhere: Shards<i64>,
    book: Mutex<Book>,
    learned: Mutex<Learned>,
}

impl Holds {
    pub(crate) fn new() -> Self {
        Self {
            cells: Cells::new(),
            elsewhere: Shards::new(ELSEWHERE_SHARDS),
            book: Mutex::default(),
            learned: Mutex::default(),
        }
    }

    /// Whether anything is held, here or elsewhere; as [`Cells::is_any`].
    #[inline]
    pub(crate) fn is_any(&self) -> bool {
        self.cells.is_any() || self.elsewhere.len() > 0
    }

    /// What is held of `key` in the unit of its limit, to be read before its entry.
    pub(crate) fn held(&self, key: EntryHash, unit: Kind) -> Held {
        Held {
            elsewhere: self.elsewhere(key),
            ..self.cells.held(cell_of(key, unit))
        }
    }

    /// What other sidecars hold of it.
    pub(crate) fn elsewhere(&self, key: EntryHash) -> i64 {
        match self.elsewhere.len() {
            0 => 0,
            _ => self.elsewhere.get(key).unwrap_or(0),
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn learned(&self) -> MutexGuard<'_, Learned> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the holds whose time is over. Returns how many there are now, settled ones included.
    fn expire(&self, now_millis: i64) -> usize {
        let mut book = self.book();
        let expired = book.expire(now_millis, &self.cells);
        let held = book.len();
        drop(book);
        // To look the counter up takes longer than to see that nothing is over.
        if expired > 0 {
            counter!(RESERVATIONS_EXPIRED).increment(expired);
        }
        held
    }

    /// Every ledger has what was counted so far; known by record number `record` of the blocklist.
    pub(crate) fn counted(
        &self,
        counted: impl Iterator<Item = CountedTo>,
        record: u64,
        now_millis: i64,
    ) {
        let mut book = self.book();
        for one in counted {
            let (usage, meter) = (Line::Usage(one.partition), Line::Meter(one.partition));
            let seq = i64::try_from(one.seq).unwrap_or(i64::MAX);
            book.counted(meter, seq.saturating_add(1), record, now_millis);
            if let Some(offset) = one.usage_offset {
                book.counted(usage, offset, record, now_millis);
            }
        }
    }

    /// Readers see these entries now.
    pub(crate) fn shown(&self, entries: &[Shown]) {
        let mut book = self.book();
        for shown in entries {
            let through = shown.entry.iter().flat_map(|entry| entry.through());
            book.shown(shown.key, shown.record, through, &self.cells);
        }
    }
}

impl Replica {
    /// Tells whether readers see an entry of the key that says it counts the event at this place of
    /// the usage topic, by the entry and by the table. Whoever holds the book misses none: readers see
    /// an entry before the book learns of it.
    fn is_shown(&self) -> impl Fn(EntryHash, u32, i64) -> bool {
        |key, partition, offset| {
            let entry = self.entries.get(key);
            is_broken(Break::PendingDroppedTooEarly)
                || entry.is_some_and(|entry| entry.counts(partition, offset))
                // Asked behind the entry. The book learns of those that are being published.
                && !self.is_publishing.load(Ordering::SeqCst)
        }
    }

    /// Readers see everything that was written until `read_to_millis` of the guard's own clock.
    pub(crate) fn drop_refreshed(&self, read_to_millis: i64) {
        let refresh = |key| match self.entries.get(key) {
            Some(entry) if is_above_half(&entry) => REFRESH_NEAR_MILLIS,
            _ => REFRESH_FAR_MILLIS,
        };
        let holds = &self.holds;
        holds
            .book()
            .refreshed(read_to_millis, refresh, &holds.cells);
    }
}

fn is_above_half(entry: &Entry) -> bool {
    let figures = &entry.figures;
    figures
        .limit
        .is_some_and(|limit| entry.counted_by(limit).number() * 2 > limit.number())
}

impl Guard {
    /// Whose costs a call of `model` belongs to: those of the same workspace and feature.
    pub fn pair(&self, who: &Attribution<'_>, model: &str) -> Pair {
        let workspace = self.replica.hasher.text(&who.workspace);
        self.pair_in(workspace, &who.feature, model)
    }

    /// The same for a workspace with this hash.
    fn pair_in(&self, workspace: u128, feature: &str, model: &str) -> Pair {
        let hash = |text: &str| self.replica.hasher.text(text);
        Pair(hash(model) ^ workspace.rotate_left(43) ^ hash(feature).rotate_left(87))
    }

    /// A call has really cost `spend`, by which the next of the same pair are judged.
    pub fn learn(&self, pair: Pair, spend: &Spend, monotonic_millis: i64) {
        let forgotten = self
            .replica
            .holds
            .learned()
            .learn(pair, spend, monotonic_millis);
        if forgotten > 0 {
            counter!(COSTS_FORGOTTEN).increment(forgotten as u64);
        }
    }

    /// Whether calls may have to hold what the longest answer of their models costs.
    pub fn holds_longest_answers(&self) -> bool {
        let replica = &self.replica;
        replica.config.reserve_rule == ReserveRule::Max
            || replica.snapshot.load().budgets.holds_longest_answers
    }

    /// A call has cost `spend`, and its event is safe at `place`: what it held becomes pending.
    /// Returns whose costs the call belongs to, as it was asked for; `None` where the hold is not
    /// known.
    pub fn settle(&self, number: u64, spend: &Spend, place: Place) -> Option<Pair> {
        let holds = &self.replica.holds;
        let is_shown = self.replica.is_shown();
        holds
            .book()
            .settle(number, spend, place, &holds.cells, is_shown)
    }

    /// The event with this content was taken from the spool to this place in the usage topic.
    pub fn replayed(&self, content: u128, partition: u32, offset: i64) {
        let holds = &self.replica.holds;
        let mut book = holds.book();
        let is_shown = self.replica.is_shown();
        book.replayed(content, partition, offset, &holds.cells, is_shown);
    }

    /// A call of `who` that holds nothing has cost `spend`, and its event waits on the disk with this
    /// content: it is pending in every budget that it meets until the event is counted. Returns false
    /// where more would leave less than half of the room to reservations.
    pub fn owe(&self, who: &Attribution<'_>, spend: &Spend, content: u128, now: Now) -> bool {
        let request = CheckRequest {
            attribution: who.clone(),
            ..CheckRequest::default()
        };
        let reasoned = self.check_with_reasons(&request, now);
        let matches = reasoned.decision.matches.iter().zip(&reasoned.seen);
        let part = |(found, seen): (&Match, &Seen)| {
            let unit = reasoned.decision.compiled(found.budget).unit;
            Part {
                key: seen.key,
                unit,
                amount: counted(unit, spend),
                excess: 0,
            }
        };
        let parts = matches.map(part).filter(|part| part.amount > 0).collect();
        let holds = &self.replica.holds;
        let mut book = holds.book();
        let has_room = book.len() < self.replica.config.hold_capacity / 2;
        if has_room {
            book.owe(content, parts, &holds.cells, self.replica.is_shown());
        }
        has_room
    }

    /// The call is not made: gives back what it held. Returns whether the hold was known.
    pub fn release(&self, number: u64) -> bool {
        let holds = &self.replica.holds;
        holds.book().release(number, &holds.cells)
    }

    /// Whether a call of `workspace` has this hold.
    pub fn holds_in(&self, number: u64, workspace: &str) -> bool {
        let found = self.replica.holds.book().workspace(number);
        found == Some(self.replica.hasher.text(workspace))
    }

    /// Lets a hold last for `timeout_millis` from now on, or for its own time again. `None` where it
    /// is not known.
    pub fn extend(
        &self,
        number: u64,
        timeout_millis: Option<i64>,
        monotonic_millis: i64,
    ) -> Option<Hold> {
        let mut book = self.replica.holds.book();
        let hold = book.extend(number, timeout_millis, monotonic_millis)?;
        Some(Hold::of(number, hold, monotonic_millis))
    }

    /// Ends the holds whose time is over, and looks after what ended ones leave behind. To be called
    /// about once a second.
    pub fn expire_holds(&self, monotonic_millis: i64) {
        // Shown from the first time on.
        counter!(RESERVATIONS_EXPIRED).increment(0);
        self.replica.holds.expire(monotonic_millis);
        self.replica.holds.cells.sweep();
    }

    /// How many calls under way hold something, and how many holds there are with the settled ones
    /// that no figure shows yet.
    pub fn hold_counts(&self) -> (usize, usize) {
        let book = self.replica.holds.book();
        (book.open_count(), book.len())
    }
}
