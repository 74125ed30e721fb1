//! The meter's changelog: what is written, and how the state comes back from it.

use hashbrown::HashMap;
use minicbor::{Decode, Encode};
use spendfuse_broken::{Break, is_broken};
use spendfuse_domain::UnixMillis;
use xxhash_rust::xxh3::xxh3_128;

use super::Meter;
use super::commit::budget_of;
use super::dedupe::RememberedIds;
use super::session::{Session, SessionAccount, account_place};
use super::sessions::SessionId;
use crate::alert_limit::AlertLimit;
use crate::codec;
use crate::restore_error::RestoreError;

const MARK: &[u8] = b"mark";
const TOLD_PREFIX: &[u8] = b"told|";

/// The partition's own state, rewritten with every commit.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub(super) struct MeterMark {
    /// Engine time.
    #[n(0)]
    #[cbor(with = "codec::millis")]
    pub now: UnixMillis,
    /// Version of the budgets in use.
    #[n(1)]
    pub budget_version: u64,
    /// Per ledger partition, the last commit that told it anything.
    #[n(2)]
    pub told: Vec<u64>,
    /// Version of the budgets by which all sessions were last settled.
    #[n(3)]
    #[cbor(default)]
    pub settled_version: u64,
    /// What people were told in the running hour.
    #[n(4)]
    #[cbor(default)]
    pub alert_limit: AlertLimit,
    /// Everything that arrived since then is in the ids changelog; older versions did not say.
    #[n(5)]
    #[cbor(with = "codec::millis", default)]
    pub remembers_since: UnixMillis,
}

pub(super) fn mark_key() -> Vec<u8> {
    MARK.to_vec()
}

pub(super) fn told_key(key: &str) -> Vec<u8> {
    [TOLD_PREFIX, key.as_bytes()].concat()
}

impl Meter {
    /// Takes one record of the state changelog, in log order.
    ///
    /// # Errors
    /// [`RestoreError`] when the record cannot be read or belongs to another partition count.
    pub fn restore(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), RestoreError> {
        let failed = |source| RestoreError::Record {
            key: String::from_utf8_lossy(key).into_owned(),
            source,
        };
        if key == MARK {
            let Some(value) = value else { return Ok(()) };
            let mark: MeterMark = codec::decode(value).map_err(failed)?;
            return self.restore_mark(mark);
        }
        if let Some(alert) = key.strip_prefix(TOLD_PREFIX) {
            let alert = String::from_utf8_lossy(alert).into_owned();
            match value {
                // Older versions wrote down that people were told, not when.
                Some(value) => self
                    .told_people
                    .insert(alert, codec::decode(value).unwrap_or_default()),
                None => self.told_people.remove(&alert),
            }
            return Ok(());
        }
        let hash = xxh3_128(key);
        let Some(value) = value else {
            let gone = self.restoring.remove(&hash);
            gone.and_then(|id| self.sessions.remove(id));
            return Ok(());
        };
        let mut session: Session = codec::decode(value).map_err(failed)?;
        session.shrink();
        let known = self.restoring.get(&hash).copied();
        match known.and_then(|id| self.sessions.get_mut(id)) {
            Some(known) => *known = session,
            None => {
                let id = self.sessions.insert(session);
                self.restoring.insert(hash, id);
            }
        }
        Ok(())
    }

    /// Takes one record of the ids changelog.
    ///
    /// # Errors
    /// [`RestoreError`] when the record cannot be read.
    pub fn restore_ids(&mut self, value: &[u8]) -> Result<(), RestoreError> {
        let failed = |source| RestoreError::Record {
            key: "ids".to_owned(),
            source,
        };
        let ids: RememberedIds = codec::decode(value).map_err(failed)?;
        for id in ids.ids {
            self.dedupe.restore(id);
        }
        let Some(lately) = &mut self.lately else {
            return Ok(());
        };
        lately.restore(&ids.calls).map_err(failed)
    }

    /// Of identities that arrived before `time` some may be missing in the ids changelog.
    pub fn remembers_since(&mut self, time: UnixMillis) {
        if !is_broken(Break::DedupeClaimsMore) {
            self.dedupe.complete_since(time);
        }
    }

    /// Everything is restored: rebuilds what is derived from the state.
    pub fn restored(&mut self) {
        self.restoring = HashMap::default();
        self.expiry.clear();
        let live: Vec<SessionId> = self.sessions.iter().map(|(id, _)| id).collect();
        live.into_iter().for_each(|id| self.look_again(id));
        // Where budgets changed meanwhile, every session is settled; else those that only waited
        // for their time.
        let has_changed = self.settled_version != self.book.version;
        let unsettled = self.sessions.iter().filter(|(_, session)| {
            let mut accounts = session.accounts.iter();
            accounts.any(|one| has_changed || self.waits_to_be_published(session, one))
        });
        self.reconsider = unsettled.map(|(id, _)| id).collect();
    }

    /// Whether the state has moved since it was published.
    fn waits_to_be_published(&self, session: &Session, one: &SessionAccount) -> bool {
        let Some(compiled) = budget_of(one, session.opened_at, &self.book) else {
            return true;
        };
        let expires_at = self.published_expiry(session.last_at);
        let place = account_place(&one.scope, "", session.opened_at, expires_at);
        one.account.waits_to_be_published(compiled, place, self.now)
    }

    fn restore_mark(&mut self, mark: MeterMark) -> Result<(), RestoreError> {
        RestoreError::unless_same_partitions(mark.told.len(), self.told.len())?;
        self.now = mark.now;
        self.required_budget_version = mark.budget_version;
        self.settled_version = mark.settled_version;
        self.told = mark.told;
        self.alert_limit = mark.alert_limit;
        self.remembers_since(mark.remembers_since);
        Ok(())
    }
}
