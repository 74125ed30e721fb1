//! The meter's changelog: what is written, and how the state comes back from it.

use minicbor::{Decode, Encode};
use spendfuse_domain::UnixMillis;

use super::Meter;
use super::dedupe::RememberedIds;
use super::session::Session;
use crate::codec;
use crate::restore::RestoreError;

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
}

pub(super) fn mark_key() -> Vec<u8> {
    MARK.to_vec()
}

pub(super) fn told_key(news: &str) -> Vec<u8> {
    [TOLD_PREFIX, news.as_bytes()].concat()
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
        if let Some(news) = key.strip_prefix(TOLD_PREFIX) {
            self.told_people
                .insert(String::from_utf8_lossy(news).into_owned());
            return Ok(());
        }
        match value {
            Some(value) => {
                let session: Session = codec::decode(value).map_err(failed)?;
                self.restoring.insert(key.to_vec(), session);
            }
            None => {
                self.restoring.remove(key);
            }
        }
        Ok(())
    }

    /// Takes one record of the ids changelog.
    ///
    /// # Errors
    /// [`RestoreError`] when the record cannot be read.
    pub fn restore_ids(&mut self, value: &[u8]) -> Result<(), RestoreError> {
        let ids: RememberedIds = codec::decode(value).map_err(|source| RestoreError::Record {
            key: "ids".to_owned(),
            source,
        })?;
        for id in ids.ids {
            self.dedupe.restore(id);
        }
        Ok(())
    }

    /// Everything is restored: rebuilds what is derived from the state.
    pub fn restored(&mut self) {
        let idle = self.config.session_idle_millis;
        for session in std::mem::take(&mut self.restoring).into_values() {
            let deadline = session.last_at.plus(idle);
            let id = self.sessions.insert(session);
            self.expiry.insert((deadline, id));
        }
        self.reconsider = self.sessions.with_accounts().into();
    }

    fn restore_mark(&mut self, mark: MeterMark) -> Result<(), RestoreError> {
        if mark.told.len() != self.told.len() {
            return Err(RestoreError::Partitions {
                stored: mark.told.len(),
                configured: self.told.len(),
            });
        }
        self.now = mark.now;
        self.required_budget_version = mark.budget_version;
        self.told = mark.told;
        Ok(())
    }
}
