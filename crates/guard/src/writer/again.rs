//! Topics that are read again from their beginnings: readers keep what they have until all is read.

use hashbrown::HashSet;
use spendfuse_domain::UnixMillis;

use super::GuardWriter;
use crate::findings::{replaced, scope_of};
use crate::hash::EntryHash;

/// What readers know and the topics have not said again.
#[derive(Default)]
pub(super) struct Unconfirmed {
    pub(super) entries: HashSet<EntryHash>,
    pub(super) findings: HashSet<String>,
}

impl GuardWriter {
    /// Whether topics are read again, and readers see none of it before all is read.
    pub fn is_reading_again(&self) -> bool {
        self.unconfirmed.is_some()
    }

    /// The followed topics are about to be read again from their beginnings. Readers keep what
    /// they have until all is read: on the way there a log says what was true once. What does not
    /// come again is removed by [`caught_up`](Self::caught_up).
    pub fn begin_again(&mut self, now: UnixMillis) {
        let before = self.unconfirmed.take();
        if before.is_some() {
            // All of it comes again.
            self.entries.take();
            self.findings.take();
        } else {
            self.publish(now);
        }
        let mut unconfirmed = Unconfirmed::default();
        self.budgets.begin_again();
        let (entries, findings) = (&self.replica.entries, &self.replica.findings);
        for shard in 0..entries.shard_count() {
            entries.for_each_in(shard, |key, _| {
                unconfirmed.entries.insert(key);
            });
        }
        for shard in 0..findings.shard_count() {
            findings.for_each_in(shard, |_, open| {
                unconfirmed
                    .findings
                    .extend(open.iter().map(|one| one.key.to_string()));
            });
        }
        self.unconfirmed = Some(unconfirmed);
    }

    /// Every followed topic has been read to the end that it had at start.
    pub fn caught_up(&mut self) {
        self.budgets.caught_up();
        if let Some(gone) = self.unconfirmed.take() {
            self.forget(gone);
        }
        self.caught_up = true;
        self.heartbeats_changed = true;
    }

    fn forget(&mut self, gone: Unconfirmed) {
        for hash in gone.entries {
            if let Some(entry) = self.entries.get(&self.replica.entries, hash) {
                self.remove_entry(hash, entry.key());
            }
        }
        for key in gone.findings {
            let scope = self.replica.hasher.scope(scope_of(&key));
            let before = self.findings.get(&self.replica.findings, scope);
            self.findings.set(scope, replaced(before, &key, None));
        }
    }
}
