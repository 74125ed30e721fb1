//! The ledger's changelog: what is written, and how the state comes back from it.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;
use minicbor::{Decode, Encode};
use spendfuse_domain::budget::CountId;
use spendfuse_domain::{BudgetId, UnixMillis, Window};

use super::Ledger;
use super::accounts::{AccountId, LedgerAccount};
use super::counts::read_count_key;
use crate::account::{Account, AccountPlace, Due};
use crate::alert_limit::AlertLimit;
use crate::codec::{self, CodecError};
use crate::restore_error::RestoreError;

pub(crate) const MARK: &[u8] = b"mark";
/// Begins the keys of accounts, `account|budget|start|scope`.
pub(crate) const ACCOUNT: &str = "account|";
const EVALUATED: &str = "evaluated";
/// More budgets than that are written in further records, `evaluated|1` and so on. A budget's id has
/// at most 63 bytes, so a record stays below the largest that topics allow; binaries before this
/// one knew one record alone, and could not write more than fits into it.
const EVALUATED_AT_MOST: usize = 100_000;

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
    /// Per meter partition, the last event of the usage topic that is counted here.
    #[n(4)]
    #[cbor(with = "codec::offsets", has_nil)]
    pub through: BTreeMap<u32, i64>,
    /// Whether it is written down where each count begins.
    #[n(5)]
    #[cbor(with = "codec::only_true", has_nil)]
    pub counts_are_kept: bool,
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
    count_terms: u64,
    #[n(6)]
    pub(crate) account: A,
    #[n(7)]
    #[cbor(default, with = "codec::optional_millis")]
    count_since: Option<UnixMillis>,
}

impl<A> AccountRecord<'_, A> {
    /// The count that the account belongs to.
    pub(crate) fn count(&self) -> CountId {
        CountId {
            terms: self.count_terms,
            since: self.count_since,
        }
    }
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

/// The records of what was evaluated, and tombstones for those of the `parts_before` records that
/// are not needed any more.
pub(super) fn evaluated_records(
    evaluated: &BTreeMap<String, u64>,
    parts_before: usize,
) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let all: Vec<(&String, &u64)> = evaluated.iter().collect();
    let parts = evaluated_parts(evaluated.len()).max(parts_before);
    let record = |number: usize| {
        let from = (number * EVALUATED_AT_MOST).min(all.len());
        let to = (from + EVALUATED_AT_MOST).min(all.len());
        let part: BTreeMap<&String, &u64> = all[from..to].iter().copied().collect();
        let value = (number == 0 || from < to).then(|| codec::encode(&part));
        (evaluated_key(number), value)
    };
    (0..parts).map(record).collect()
}

/// In how many records so many budgets are written.
pub(super) fn evaluated_parts(budgets: usize) -> usize {
    budgets.div_ceil(EVALUATED_AT_MOST).max(1)
}

fn evaluated_key(number: usize) -> Vec<u8> {
    match number {
        0 => EVALUATED.into(),
        _ => format!("{EVALUATED}|{number}").into_bytes(),
    }
}

/// The number of the record of evaluated budgets whose key it is.
fn read_evaluated_key(key: &[u8]) -> Option<usize> {
    match std::str::from_utf8(key).ok()?.strip_prefix(EVALUATED)? {
        "" => Some(0),
        number => number.strip_prefix('|')?.parse().ok(),
    }
}

/// Key and value of an account's record.
pub(super) fn account_record(known: &LedgerAccount) -> (Vec<u8>, Option<Vec<u8>>) {
    let record = AccountRecord {
        budget: known.budget.as_str(),
        scope: &known.scope,
        label: &known.window.label,
        start: known.window.start,
        end: known.window.end,
        count_terms: known.count.terms,
        account: &known.account,
        count_since: known.count.since,
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
        if let Some(number) = read_evaluated_key(key) {
            match value {
                Some(value) => {
                    let part = codec::decode(value).map_err(failed)?;
                    self.restoring_evaluated.insert(number, part);
                }
                None => {
                    self.restoring_evaluated.remove(&number);
                }
            }
            return Ok(());
        }
        if let Some(id) = read_count_key(key) {
            return self.restore_count(id, value).map_err(failed);
        }
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
                self.through = mark.through;
                self.alert_limit = mark.alert_limit;
                self.counts.are_kept = mark.counts_are_kept;
                self.is_of_before = true;
            }
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
        let count = record.count();
        let AccountRecord { scope, account, .. } = record;
        match found.and_then(|id| self.accounts.get_mut(id)) {
            Some(known) => {
                known.window = window;
                known.count = count;
                known.account = account;
            }
            None => {
                let begun = LedgerAccount::begin(budget, scope, window, count, account);
                self.accounts.insert(begun);
            }
        }
        Ok(())
    }

    /// Everything is restored: rebuilds what is derived from the state.
    pub fn restored(&mut self) {
        self.shared = Shared::default();
        let parts = std::mem::take(&mut self.restoring_evaluated);
        self.evaluated_parts = parts.len();
        self.evaluated = parts.into_values().flatten().collect();
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
        let account = &known.account;
        let is_whole = self.counts.is_whole(compiled, &known.window);
        let place = AccountPlace::in_window(&known.scope, &known.window).whole(is_whole);
        let waits = account.waits_to_be_published(compiled, place, self.now)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::book::BudgetBook;
    use crate::ledger::LedgerConfig;

    #[test]
    fn what_was_evaluated_is_cut_into_records_that_a_topic_takes() {
        let longest = |number: u64| format!("{}{number:07}", "b".repeat(56));
        let evaluated: BTreeMap<String, u64> = (0..250_000)
            .map(|number| (longest(number), u64::MAX - number))
            .collect();
        let records = evaluated_records(&evaluated, 0);
        assert_eq!(records.len(), 3);
        for (_, value) in &records {
            assert!(
                value
                    .as_ref()
                    .is_some_and(|value| value.len() < 8 * 1024 * 1024)
            );
        }
        let config = LedgerConfig {
            partition: 0,
            partitions: 1,
            grace_millis: 0,
            publish_rate: 1,
            account_capacity: 10,
        };
        let mut ledger = Ledger::new(config, Arc::new(BudgetBook::default()));
        for (key, value) in &records {
            ledger
                .restore(key, value.as_deref())
                .expect("it can be read");
        }
        let parts = ledger.restoring_evaluated.values().flatten();
        assert!(parts.eq(evaluated.iter()));
        // All budgets are gone: so are the further records.
        ledger.restored();
        let written = ledger.finish().told.changelog;
        let of = |number| {
            let key = evaluated_key(number);
            written
                .iter()
                .find(|(written, _)| *written == key)
                .map(|(_, value)| value.is_some())
        };
        assert_eq!(
            [of(0), of(1), of(2)],
            [Some(true), Some(false), Some(false)]
        );
    }
}
