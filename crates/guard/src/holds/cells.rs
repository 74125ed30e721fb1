//! The cells by budget and scope: readers and admissions take no lock; to make or remove a cell
//! takes a short one. An empty cell stays for a while: the next call of its scope finds it.

use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::cell::{Added, Cell, Sum};
use crate::digest::Kind;
use crate::hash::EntryHash;
use crate::shards::Shards;

const SHARDS: usize = 4096;
/// So many empty cells may stay beside as many as are in use, until somebody looks for them: a shard
/// that is replaced is copied.
const MOST_EMPTY: usize = 4 * SHARDS;

/// What is held of one budget in one scope, in the unit of its limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) reserved: i64,
    pub(crate) pending: i64,
    /// By what other sidecars told.
    pub(crate) elsewhere: i64,
}

impl Held {
    /// All; never less than what the cell holds.
    pub(crate) fn total(self) -> i64 {
        let here = self.reserved.saturating_add(self.pending);
        here.saturating_add(self.elsewhere)
    }
}

/// The place of the cell of an entry's budget and scope: one for each unit, as a budget's limit may come
/// to be in another one while something is held.
pub(crate) fn cell_of(entry: EntryHash, unit: Kind) -> EntryHash {
    entry ^ unit as EntryHash
}

/// Every cell that has something in it, and others.
pub(crate) struct Cells {
    cells: Shards<Arc<Cell>>,
    /// Whoever changes the map holds it.
    making: Mutex<()>,
    /// Cells that have something in them.
    filled: AtomicI64,
}

impl Cells {
    pub(crate) fn new() -> Self {
        Self {
            cells: Shards::new(SHARDS),
            making: Mutex::new(()),
            filled: AtomicI64::new(0),
        }
    }

    /// Whether anything is held at all. Who is told no sees, in whatever is read later, what took
    /// the place of all that was held before.
    #[inline]
    pub(crate) fn is_any(&self) -> bool {
        self.filled() > 0
    }

    fn filled(&self) -> i64 {
        Sum::load(&self.filled)
    }

    /// Everything that is held for `key`.
    pub(crate) fn total(&self, key: EntryHash) -> i64 {
        self.cells.get(key).map_or(0, |cell| cell.held())
    }

    /// The same, taken apart. The two may be of neighbouring moments.
    pub(crate) fn held(&self, key: EntryHash) -> Held {
        let Some(cell) = self.cells.get(key) else {
            return Held::default();
        };
        let pending = cell.pending();
        Held {
            reserved: (cell.held() - pending).max(0),
            pending: pending.max(0),
            elsewhere: 0,
        }
    }

    /// Adds `amount` where `admits` says yes to what is held at that moment. Returns whether it did.
    pub(crate) fn admit(
        &self,
        key: EntryHash,
        amount: i64,
        mut admits: impl FnMut(i64) -> bool,
    ) -> bool {
        loop {
            let cell = match self.cells.get(key) {
                Some(cell) => cell,
                // No cell is made for who is refused anyway.
                None if !admits(0) => return false,
                None => self.make(key),
            };
            match cell.add_if(amount, &self.filled, &mut admits) {
                Added::Yes => return true,
                Added::Refused => return false,
                Added::Closed => {
                    self.make(key);
                }
            }
        }
    }

    /// Turns an amount that is in the cell into another; either may be zero. Returns which it is now.
    pub(crate) fn change(&self, key: EntryHash, from: i64, to: i64) -> i64 {
        if from == to {
            return to;
        }
        if from == 0 {
            let is_in = self.admit(key, to, |_| true);
            return if is_in { to } else { 0 };
        }
        if let Some(cell) = self.cells.get(key) {
            cell.change(to - from, &self.filled);
        }
        to
    }

    /// Takes a pending `amount` out.
    pub(crate) fn take_pending(&self, key: EntryHash, amount: i64) {
        self.change_pending(key, -amount);
        self.change(key, amount, 0);
    }

    /// Changes how much of what is in the cell is pending.
    pub(crate) fn change_pending(&self, key: EntryHash, change: i64) {
        if let Some(cell) = self.cells.get(key) {
            cell.change_pending(change);
        }
    }

    /// A cell for `key` that is in use.
    fn make(&self, key: EntryHash) -> Arc<Cell> {
        let filled = usize::try_from(self.filled()).unwrap_or(0);
        if self.cells.len() > 2 * filled + MOST_EMPTY {
            self.sweep();
        }
        let _making = self.lock();
        // Closed ones are out of the map before the lock is given back.
        if let Some(present) = self.cells.get(key) {
            return present;
        }
        let cell = Arc::new(Cell::new());
        self.cells.publish(vec![(key, Some(Arc::clone(&cell)))]);
        cell
    }

    /// Removes the cells that nothing is in. To be called about once a second.
    pub(crate) fn sweep(&self) {
        if self.cells.len() == 0 {
            return;
        }
        for shard in 0..self.cells.shard_count() {
            let mut has_empty = false;
            self.cells
                .for_each_in(shard, |_, cell| has_empty |= cell.held() == 0);
            if !has_empty {
                continue;
            }
            let _making = self.lock();
            let mut closed = Vec::new();
            self.cells.for_each_in(shard, |key, cell| {
                closed.extend(cell.close().then_some((key, None)));
            });
            self.cells.publish(closed);
        }
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.making.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_million_refusals_and_returns_leave_nothing_behind() {
        const THREADS: u64 = 4;
        const ROUNDS: u64 = 250_000;
        const LIMIT: i64 = 3;
        let cells = Cells::new();
        let call = |thread: u64| {
            for round in 0..ROUNDS {
                // Few keys, so that cells come and go under everybody's hands.
                let key = u128::from((round * 7 + thread) % 5) << 64;
                if !cells.admit(key, 1, |held| held + 1 < LIMIT) {
                    continue;
                }
                cells.change(key, 1, 2);
                cells.change_pending(key, 2);
                cells.take_pending(key, 2);
            }
        };
        thread::scope(|scope| {
            for thread in 0..THREADS {
                scope.spawn({
                    let call = &call;
                    move || call(thread)
                });
            }
        });
        assert!(!cells.is_any());
        for key in 0..5_u128 {
            assert_eq!(cells.held(key << 64), Held::default());
        }
        cells.sweep();
        assert_eq!(cells.cells.len(), 0);
    }

    #[test]
    fn cells_that_are_swept_while_they_are_used_lose_nothing() {
        const ROUNDS: u128 = 20_000;
        const THREADS: u128 = 3;
        let cells = Cells::new();
        let call = |thread: u128| {
            for round in 0..ROUNDS {
                let key = ((round * 7 + thread) % 5) << 64;
                assert!(cells.admit(key, 1, |held| held >= 0));
                assert!(cells.is_any());
                cells.change(key, 1, 0);
            }
        };
        let is_over = AtomicI64::new(0);
        thread::scope(|scope| {
            let calls: Vec<_> = (0..THREADS)
                .map(|thread| {
                    let call = &call;
                    scope.spawn(move || call(thread))
                })
                .collect();
            scope.spawn(|| {
                while Sum::load(&is_over) == 0 {
                    cells.sweep();
                }
            });
            let ended = calls.into_iter().map(|call| call.join());
            let all_ended = ended.fold(true, |all, one| all & one.is_ok());
            is_over.add(1);
            assert!(all_ended);
        });
        assert!(!cells.is_any());
        cells.sweep();
        assert_eq!(cells.cells.len(), 0);
    }

    #[test]
    fn empty_cells_of_many_scopes_do_not_pile_up() {
        let cells = Cells::new();
        for number in 0..4 * MOST_EMPTY as u128 {
            let key = number << 64 | number;
            assert!(cells.admit(key, 1, |_| true));
            cells.change(key, 1, 0);
            assert!(cells.cells.len() <= MOST_EMPTY + 1);
        }
    }
}
