//! When heartbeats look at what a holder has told: of the most it told ten minutes ago that it holds
//! nothing, and there is nothing to be seen.

use std::collections::BTreeSet;

use hashbrown::HashMap;

use super::super::Key;

/// The next look at each key.
#[derive(Debug, Default)]
pub(super) struct Looks {
    at: HashMap<Key, i64>,
    due: BTreeSet<(i64, Key)>,
}

impl Looks {
    /// The next heartbeat looks at it.
    pub(super) fn now(&mut self, key: &Key) {
        self.at(key, i64::MIN);
    }

    /// The first heartbeat from `at` on does, milliseconds.
    pub(super) fn at(&mut self, key: &Key, at: i64) {
        let before = self.at.insert(key.clone(), at);
        if before == Some(at) {
            return;
        }
        if let Some(before) = before {
            self.due.remove(&(before, key.clone()));
        }
        self.due.insert((at, key.clone()));
    }

    /// The keys that a heartbeat looks at now; none of them is looked at again unless that is said.
    pub(super) fn take(&mut self, now: i64) -> Vec<Key> {
        let mut taken = Vec::new();
        let is_due = |(at, _): &(i64, Key)| *at <= now;
        while self.due.first().is_some_and(is_due)
            && let Some((_, key)) = self.due.pop_first()
        {
            self.at.remove(&key);
            taken.push(key);
        }
        taken
    }
}
