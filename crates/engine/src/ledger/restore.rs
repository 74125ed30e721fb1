//! The ledger's changelog: what is written, and how the state comes back from it.

use minicbor::{Decode, Encode};
use spendfuse_domain::{BudgetId, UnixMillis};

use super::{AccountKey, Ledger, LedgerAccount};
use crate::codec;
use crate::restore::RestoreError;

pub(crate) const MARK: &[u8] = b"mark";
/// Begins the keys of accounts, `account|budget|start|scope`.
pub(crate) const ACCOUNT: &str = "account|";
const EVALUATED: &[u8] = b"evaluated";

/// The partition's own state, rewritten with every commit.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct LedgerMark {
    /// Engine time.
    #[n(0)]
    #[cbor(with = "codec::millis")]
    pub now: UnixMillis,
    /// Version of the budgets in use.
    #[n(1)]
    pub budget_version: u64,
    /// Per meter partition, the `seq` of its last deltas.
    #[n(2)]
    pub chains: Vec<u64>,
}

pub(super) fn mark_key() -> Vec<u8> {
    MARK.to_vec()
}

pub(super) fn evaluated_key() -> Vec<u8> {
    EVALUATED.to_vec()
}

pub(super) fn account_bytes(key: &AccountKey) -> Vec<u8> {
    format!("{ACCOUNT}{}|{}|{}", key.budget, key.start.0, key.scope).into_bytes()
}

impl Ledger {
    /// Takes one changelog record, in log order.
    ///
    /// # Errors
    /// [`RestoreError`] when the record cannot be read or belongs to another partition count.
    pub fn restore(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), RestoreError> {
        let failed = |source| RestoreError::Record {
            key: String::from_utf8_lossy(key).into_owned(),
            source,
        };
        let Some(value) = value else {
            self.restoring.remove(key);
            return Ok(());
        };
        match key {
            MARK => {
                let mark: LedgerMark = codec::decode(value).map_err(failed)?;
                if mark.chains.len() != self.chains.len() {
                    return Err(RestoreError::Partitions {
                        stored: mark.chains.len(),
                        configured: self.chains.len(),
                    });
                }
                self.now = mark.now;
                self.required_budget_version = mark.budget_version;
                self.chains = mark.chains;
            }
            EVALUATED => self.evaluated = codec::decode(value).map_err(failed)?,
            _ => {
                let account: LedgerAccount = codec::decode(value).map_err(failed)?;
                self.restoring.insert(key.to_vec(), account);
            }
        }
        Ok(())
    }

    /// Everything is restored: rebuilds what is derived from the state.
    pub fn restored(&mut self) {
        for (_, known) in std::mem::take(&mut self.restoring) {
            let Some(budget) = BudgetId::new(&known.budget) else {
                debug_assert!(false, "account of an impossible budget id");
                continue;
            };
            let key = AccountKey {
                budget,
                scope: known.scope.clone(),
                start: known.start,
            };
            self.schedule(&key, &known);
            self.accounts.insert(key, known);
        }
        self.find_changed_budgets();
    }

    fn schedule(&mut self, key: &AccountKey, known: &LedgerAccount) {
        let closes_at = known.end.map(|end| end.plus(self.config.grace_millis));
        // Windows that run are woken at once: what waited for its time before the restart is due.
        for time in [Some(known.start), known.end, closes_at]
            .into_iter()
            .flatten()
        {
            self.wake_at.entry(time).or_default().insert(key.clone());
        }
        if known.account.published.is_some() {
            let reader_key = (key.budget.clone(), key.scope.clone());
            let latest = self.standing.entry(reader_key).or_insert(key.start);
            *latest = (*latest).max(key.start);
        }
    }
}
