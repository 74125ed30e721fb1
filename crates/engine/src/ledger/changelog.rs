//! The ledger's changelog: what is written, and how the state comes back from it.

use std::sync::Arc;

use hashbrown::HashMap;
use minicbor::{Decode, Encode};
use spendfuse_domain::{BudgetId, UnixMillis, Window};

use super::Ledger;
use super::accounts::{AccountId, LedgerAccount};
use crate::account::{Account, Due};
use crate::alert_limit::AlertLimit;
use crate::codec::{self, CodecError};
use crate::restore_error::RestoreError;

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
    /// What people were told in the running hour.
    #[n(3)]
    #[cbor(default)]
    pub alert_limit: AlertLimit,
}

/// An account with its window; `A` is the account, or a reference to write it.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub(crate) struct AccountRecord<'a, A> {
    #[b(0)]
    pub(crate) budget: &'a str,
    #[b(1)]
    pub(crate) scope: &'a str,
    #[b(2)]
    label: &'a str,
    #[n(3)]
    #[cbor(with = "codec::millis")]
    pub(crate) start: UnixMillis,
    #[n(4)]
    #[cbor(with = "codec::optional_millis")]
    end: Option<UnixMillis>,
    #[n(5)]
    pub(crate) count_id: u64,
    #[n(6)]
    pub(crate) account: A,
}

/// Texts that many accounts share, while they are restored.
#[derive(Debug, Default)]
pub(super) struct Shared {
    windows: HashMap<BudgetId, Vec<Arc<Window>>>,
}

impl Shared {
    /// The budget's id and the window; `None` where no budget can be called that.
    fn of<A>(&mut self, record: &AccountRecord<'_, A>) -> Option<(BudgetId, Arc<Window>)> {
        let budget = BudgetId::new(record.budget)?;
        let entry = self.windows.entry(budget);
        let budget = entry.key().clone();
        let windows = entry.or_default();
        let is_it = |window: &&Arc<Window>| {
            window.start == record.start && window.end == record.end && window.label == record.label
        };
        let window = windows.iter().rev().find(is_it).cloned();
        let window = window.unwrap_or_else(|| {
            windows.push(Arc::new(Window {
                label: record.label.to_owned(),
                start: record.start,
                end: record.end,
            }));
            Arc::clone(&windows[windows.len() - 1])
        });
        Some((budget, window))
    }
}

pub(super) fn mark_key() -> Vec<u8> {
    MARK.to_vec()
}

pub(super) fn evaluated_key() -> Vec<u8> {
    EVALUATED.to_vec()
}

/// Key and value of an account's record.
pub(super) fn account_record(known: &LedgerAccount) -> (Vec<u8>, Option<Vec<u8>>) {
    let record = AccountRecord {
        budget: known.budget.as_str(),
        scope: &known.scope,
        label: &known.window.label,
        start: known.window.start,
        end: known.window.end,
        count_id: known.count_id,
        account: &known.account,
    };
    (account_key(known), Some(codec::encode(&record)))
}

/// Key of an account's record.
pub(super) fn account_key(known: &LedgerAccount) -> Vec<u8> {
    let start = known.window.start.0;
    format!("{ACCOUNT}{}|{start}|{}", known.budget, known.scope).into_bytes()
}

/// Budget, start of the window and scope in the key of an account's record.
pub(crate) fn read_account_key(key: &[u8]) -> Option<(&str, UnixMillis, &str)> {
    let key = std::str::from_utf8(key).ok()?.strip_prefix(ACCOUNT)?;
    let mut parts = key.splitn(3, '|');
    let (budget, start) = (parts.next()?, parts.next()?.parse().ok()?);
    Some((budget, UnixMillis(start), parts.next()?))
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
            let gone = read_account_key(key);
            let gone =
                gone.and_then(|(budget, start, scope)| self.accounts.find(budget, scope, start));
            if let Some(id) = gone {
                self.accounts.remove(id);
            }
            return Ok(());
        };
        match key {
            MARK => {
                let mark: LedgerMark = codec::decode(value).map_err(failed)?;
                RestoreError::unless_same_partitions(mark.chains.len(), self.chains.len())?;
                self.now = mark.now;
                self.required_budget_version = mark.budget_version;
                self.chains = mark.chains;
                self.alert_limit = mark.alert_limit;
            }
            EVALUATED => self.evaluated = codec::decode(value).map_err(failed)?,
            _ => {
                let record = codec::decode(value).map_err(failed)?;
                self.restore_account(record).map_err(failed)?;
            }
        }
        Ok(())
    }

    fn restore_account(&mut self, record: AccountRecord<'_, Account>) -> Result<(), CodecError> {
        let found = self
            .accounts
            .find(record.budget, record.scope, record.start);
        let Some((budget, window)) = self.shared.of(&record) else {
            let what = format!("account of an impossible budget id `{}`", record.budget);
            return Err(CodecError::Damaged(what));
        };
        let AccountRecord {
            scope,
            count_id,
            account,
            ..
        } = record;
        match found.and_then(|id| self.accounts.get_mut(id)) {
            Some(known) => {
                known.window = window;
                known.count_id = count_id;
                known.account = account;
            }
            None => {
                let begun = LedgerAccount::begin(budget, scope, window, count_id, account);
                self.accounts.insert(begun);
            }
        }
        Ok(())
    }

    /// Everything is restored: rebuilds what is derived from the state.
    pub fn restored(&mut self) {
        self.shared = Shared::default();
        let ids: Vec<AccountId> = self.accounts.iter().map(|(id, _)| id).collect();
        for id in ids {
            self.schedule(id);
            if self.waits_to_be_told(id) {
                self.wake_at(self.now, id);
            }
            self.stand_where_published(id);
        }
        self.find_changed_budgets();
    }

    /// Whether the state has moved since readers or the warehouse were told, and only time was
    /// missing.
    fn waits_to_be_told(&self, id: AccountId) -> bool {
        let Some(known) = self.accounts.get(id) else {
            return false;
        };
        let Some(compiled) = self.book.named(&known.budget) else {
            return false;
        };
        let end = known.window.end;
        let account = &known.account;
        let waits = account.waits_to_be_published(compiled, end, self.now)
            || account.line_due(false, self.now) != Due::Never;
        known.is_running(self.now) && waits
    }

    /// Of several windows of one budget and scope, the latest that was published stands.
    fn stand_where_published(&mut self, id: AccountId) {
        let start = |id| self.accounts.get(id).map(|known| known.window.start);
        let published = self
            .accounts
            .get(id)
            .is_some_and(|known| known.account.published.is_some());
        let other = self.accounts.standing_instead_of(id);
        if published && other.is_none_or(|other| start(other) <= start(id)) {
            self.accounts.set_standing(id);
        }
    }
}
