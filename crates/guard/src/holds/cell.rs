//! What is held of one budget in one scope: a few words that any number of threads change.

use std::sync::atomic::{AtomicI64, Ordering};

/// A sum in shared memory; a trait so that tests can put a model checker's words in its place.
pub(crate) trait Sum {
    fn zero() -> Self;
    fn load(&self) -> i64;
    /// Returns what it was before.
    fn add(&self, amount: i64) -> i64;
    /// Fails with what it is instead of `current`.
    fn replace(&self, current: i64, new: i64) -> Result<(), i64>;
}

// A reader that no longer sees an amount here must see what took its place: the entry that counts
// it was published before. So everything is acquired and released.
pub(crate) const READING: Ordering = Ordering::Acquire;
pub(crate) const CHANGING: Ordering = Ordering::AcqRel;

impl Sum for AtomicI64 {
    fn zero() -> Self {
        Self::new(0)
    }

    #[inline]
    fn load(&self) -> i64 {
        Self::load(self, READING)
    }

    fn add(&self, amount: i64) -> i64 {
        self.fetch_add(amount, CHANGING)
    }

    fn replace(&self, current: i64, new: i64) -> Result<(), i64> {
        self.compare_exchange(current, new, CHANGING, READING)
            .map(|_| ())
    }
}

/// What a cell holds once it is out of use: whoever still knows it looks for its successor.
const CLOSED: i64 = i64::MIN;

/// Reserved and pending amounts, in the unit of the budget's limit.
#[derive(Debug)]
pub(crate) struct Cell<S = AtomicI64> {
    /// Both together: the one word that admission goes by.
    held: S,
    /// The pending part, for people.
    pending: S,
}

/// What became of an attempt to add to a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Added {
    Yes,
    /// By the caller's judgement, or the sum cannot be said.
    Refused,
    /// The cell is out of use.
    Closed,
}

impl<S: Sum> Cell<S> {
    pub(crate) fn new() -> Self {
        Self {
            held: S::zero(),
            pending: S::zero(),
        }
    }

    /// Everything that is held; nothing in a closed cell.
    pub(crate) fn held(&self) -> i64 {
        self.held.load().max(0)
    }

    /// The pending part of it.
    pub(crate) fn pending(&self) -> i64 {
        self.pending.load()
    }

    /// Adds `amount` where `admits` says yes to what is held at that very moment. `filled` counts the
    /// cells with something in them, at no moment too few of them.
    pub(crate) fn add_if(
        &self,
        amount: i64,
        filled: &S,
        mut admits: impl FnMut(i64) -> bool,
    ) -> Added {
        debug_assert!(amount > 0);
        let mut held = self.held.load();
        loop {
            if held == CLOSED {
                return Added::Closed;
            }
            let Some(sum) = held.checked_add(amount) else {
                return Added::Refused;
            };
            if !admits(held) {
                return Added::Refused;
            }
            let fills = held == 0;
            if fills {
                filled.add(1);
            }
            match self.held.replace(held, sum) {
                Ok(()) => return Added::Yes,
                Err(other) => held = other,
            }
            if fills {
                filled.add(-1);
            }
        }
    }

    /// Changes what is held by `change`, for who has an amount in it that stays above zero or goes;
    /// so it is not closed. `filled` as above.
    pub(crate) fn change(&self, change: i64, filled: &S) {
        let before = self.held.add(change);
        debug_assert!(before > 0 && before + change >= 0);
        if before + change == 0 {
            filled.add(-1);
        }
    }

    /// Changes how much of it is pending.
    pub(crate) fn change_pending(&self, change: i64) {
        self.pending.add(change);
    }

    /// Closes the cell where nothing is in it. Only one caller is told yes.
    pub(crate) fn close(&self) -> bool {
        self.held.replace(0, CLOSED).is_ok()
    }

    /// Whether it is out of use.
    #[cfg(test)]
    pub(crate) fn is_closed(&self) -> bool {
        self.held.load() == CLOSED
    }
}
