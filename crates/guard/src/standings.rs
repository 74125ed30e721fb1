//! The writer's side of the table: what checks need of the changed entries.

use std::sync::Arc;

use hashbrown::HashSet;
use spendfuse_domain::{UnixMillis, Verdict};

use crate::digest::Digest;
use crate::entry::Entry;
use crate::guard::Replica;
use crate::hash::EntryHash;
use crate::table::{Change, Filling, Full, Table};

/// Keeps the table in step with the full entries.
#[derive(Default)]
pub(crate) struct Standings {
    filling: Filling,
    /// Scopes of the sessions whose blocks have changed.
    sessions: HashSet<u128>,
}

/// Changes of full entries, with what the table has to take over from them.
pub(crate) struct Noted {
    changes: Vec<Change>,
    /// Scopes of sessions, and whether the table knows them as blocked.
    sessions: Vec<(u128, bool)>,
}

impl Standings {
    /// A block of the session with this scope has changed.
    pub(crate) fn session_changed(&mut self, scope: u128) {
        self.sessions.insert(scope);
    }

    /// Notes what `changes` mean for `table`, before they are made.
    pub(crate) fn note(
        &mut self,
        changes: &[(EntryHash, Option<Arc<Entry>>)],
        table: &Table,
        replica: &Replica,
    ) -> Noted {
        let of_budget = |entry: &Arc<Entry>| entry.detector().is_none();
        let mut noted = Vec::with_capacity(changes.len());
        for (key, entry) in changes {
            let before = replica.entries.get(*key);
            let entry = entry.as_ref().filter(|entry| of_budget(entry));
            noted.push(Change {
                key: *key,
                was_there: before.is_some_and(|before| of_budget(&before)),
                digest: entry.map(|entry| Digest::of(entry, table.epoch())),
            });
        }
        let sessions = self.sessions.drain();
        Noted {
            changes: noted,
            sessions: sessions
                .map(|scope| (scope, is_blocked(replica, scope)))
                .collect(),
        }
    }

    /// Takes over what was noted, once the full entries have changed. Returns the table that
    /// readers are to use: the same, or a new one where that has no room or is too old.
    pub(crate) fn publish(
        &mut self,
        noted: Noted,
        table: Arc<Table>,
        replica: &Replica,
        now: UnixMillis,
    ) -> Arc<Table> {
        let sessions = noted.sessions.into_iter().map(|(scope, was_there)| Change {
            key: replica.any_block(scope),
            was_there,
            digest: is_blocked(replica, scope).then_some(Digest::ASK),
        });
        for change in noted.changes.into_iter().chain(sessions) {
            if self.filling.make(&table, change) == Err(Full) {
                return self.filled_anew(replica, now);
            }
        }
        if table.epoch().is_worn(now) {
            return self.filled_anew(replica, now);
        }
        table
    }

    fn filled_anew(&mut self, replica: &Replica, now: UnixMillis) -> Arc<Table> {
        let table = Table::for_entries(replica.entries.len(), now);
        let mut filling = Filling::default();
        let mut sessions = HashSet::new();
        let mut add = |key, digest| {
            let change = Change {
                key,
                was_there: false,
                digest: Some(digest),
            };
            let made = filling.make(&table, change);
            debug_assert_eq!(made, Ok(()), "a new table has room for all entries");
        };
        for shard in 0..replica.entries.shard_count() {
            replica.entries.for_each_in(shard, |key, entry| {
                if entry.detector().is_none() {
                    add(key, Digest::of(entry, table.epoch()));
                    return;
                }
                let scope = replica.hasher.scope(entry.scope());
                if is_blocked(replica, scope) && sessions.insert(scope) {
                    add(replica.any_block(scope), Digest::ASK);
                }
            });
        }
        self.filling = filling;
        Arc::new(table)
    }
}

/// Whether a detector's entry blocks the session with this scope, were it not for the time.
fn is_blocked(replica: &Replica, scope: u128) -> bool {
    replica
        .detector_entries(scope)
        .any(|entry| entry.verdict == Verdict::Block)
}
