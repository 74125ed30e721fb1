//! By how much what is admitted may pass a limit all the same: calls that cost more than they hold, and
//! calls that go on after their hold has ended.

use std::collections::BTreeMap;

use hashbrown::HashMap;

use super::parts::Parts;
use crate::hash::EntryHash;

/// Holds that ended by time and whose calls may go on; beyond, the ones that ended first are taken for
/// over.
const MOST_ENDED: usize = 10_000;

/// Sums by budget and scope, in the unit of its limit.
#[derive(Debug, Default)]
pub(crate) struct Exceeding {
    sums: HashMap<EntryHash, i64>,
    /// By when their calls are taken for over, and their number.
    ended: BTreeMap<(i64, u64), Parts>,
    until: HashMap<u64, i64>,
}

impl Exceeding {
    /// The sum of a key.
    pub(crate) fn of(&self, key: EntryHash) -> i64 {
        self.sums.get(&key).copied().unwrap_or(0)
    }

    /// A call holds this.
    pub(crate) fn begins(&mut self, parts: &Parts) {
        for part in parts {
            self.change(part.key, part.excess);
        }
    }

    /// The call is settled, or not made.
    pub(crate) fn is_over(&mut self, parts: &Parts) {
        for part in parts {
            self.change(part.key, -part.excess);
        }
    }

    /// The time of hold `number` is over, and what it held is free: its call may go on until then.
    pub(crate) fn ends(&mut self, number: u64, parts: Parts, until: i64) {
        for part in &parts {
            self.change(part.key, part.amount);
        }
        self.ended.insert((until, number), parts);
        self.until.insert(number, until);
        if self.ended.len() > MOST_ENDED {
            self.forget_first();
        }
    }

    /// The event of the call has come whose hold had ended.
    pub(crate) fn has_come(&mut self, number: u64) {
        if let Some(until) = self.until.remove(&number)
            && let Some(parts) = self.ended.remove(&(until, number))
        {
            self.take(&parts);
        }
    }

    /// Calls that have lasted twice their time are taken for over.
    pub(crate) fn forget(&mut self, now_millis: i64) {
        while self
            .ended
            .first_key_value()
            .is_some_and(|((until, _), _)| *until <= now_millis)
        {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some(((_, number), parts)) = self.ended.pop_first() {
            self.until.remove(&number);
            self.take(&parts);
        }
    }

    fn take(&mut self, parts: &Parts) {
        for part in parts {
            self.change(part.key, -(part.amount + part.excess));
        }
    }

    fn change(&mut self, key: EntryHash, change: i64) {
        if change == 0 {
            return;
        }
        let sum = self.sums.entry(key).or_insert(0);
        *sum = sum.saturating_add(change);
        debug_assert!(*sum >= 0);
        if *sum == 0 {
            self.sums.remove(&key);
        }
    }
}
