//! The live sessions of a meter partition, by number and by name.
//!
//! Every event looks its session up, so a lookup allocates nothing, and whatever waits for a
//! session (deadlines, the running commit) holds its number, never its name.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};
use slotmap::SlotMap;
use spendfuse_domain::UnixMillis;

use super::session::Session;
use super::session_name::SessionName;

slotmap::new_key_type! {
    /// Number of a live session; never that of another one, even after its end.
    pub struct SessionId;
}

/// Live sessions.
#[derive(Debug, Default)]
pub struct Sessions {
    by_id: SlotMap<SessionId, Session>,
    by_name: HashTable<SessionId>,
    hasher: DefaultHashBuilder,
}

impl Sessions {
    /// How many are live.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// The number of the session called `name`.
    pub fn find(&self, name: SessionName<'_>) -> Option<SessionId> {
        let hash = self.hasher.hash_one(name);
        let is_it = |id: &SessionId| self.by_id[*id].name() == name;
        self.by_name.find(hash, is_it).copied()
    }

    /// A new session of that name.
    pub fn begin(&mut self, name: SessionName<'_>, now: UnixMillis) -> SessionId {
        self.insert(Session::begin(name, now))
    }

    /// Takes a session whose name is new.
    pub fn insert(&mut self, session: Session) -> SessionId {
        debug_assert!(self.find(session.name()).is_none());
        let hash = self.hasher.hash_one(session.name());
        let id = self.by_id.insert(session);
        let (by_id, hasher) = (&self.by_id, &self.hasher);
        let hash_of = |id: &SessionId| hasher.hash_one(by_id[*id].name());
        self.by_name.insert_unique(hash, id, hash_of);
        id
    }

    /// Ends a session.
    pub fn remove(&mut self, id: SessionId) -> Option<Session> {
        let session = self.by_id.remove(id)?;
        let hash = self.hasher.hash_one(session.name());
        if let Ok(entry) = self.by_name.find_entry(hash, |one| *one == id) {
            entry.remove();
        }
        Some(session)
    }

    /// The session, while it is live.
    pub fn get(&self, id: SessionId) -> Option<&Session> {
        self.by_id.get(id)
    }

    /// As [`Self::get`].
    pub fn get_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.by_id.get_mut(id)
    }

    /// All, in no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = (SessionId, &Session)> {
        self.by_id.iter()
    }

    /// Those that hold accounts of session budgets, in an order that equal histories have in common.
    pub fn with_accounts(&self) -> Vec<SessionId> {
        let with_accounts = self.iter().filter(|(_, one)| !one.accounts.is_empty());
        with_accounts.map(|(id, _)| id).collect()
    }
}

impl std::ops::IndexMut<SessionId> for Sessions {
    fn index_mut(&mut self, id: SessionId) -> &mut Session {
        &mut self.by_id[id]
    }
}

impl std::ops::Index<SessionId> for Sessions {
    type Output = Session;
    fn index(&self, id: SessionId) -> &Session {
        &self.by_id[id]
    }
}
