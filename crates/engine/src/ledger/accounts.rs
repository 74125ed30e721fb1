//! The accounts of a ledger partition, by number and by what they count.
//!
//! There may be millions, so each text is kept once: whatever waits for an account (the running
//! commit, the end of a window, the blocklist) holds its number.

use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};
use slotmap::SlotMap;
use spendfuse_domain::budget::{BudgetId, CompiledBudget, CountId};
use spendfuse_domain::{UnixMillis, Window};

use crate::account::{Account, Nearness};

slotmap::new_key_type! {
    /// Number of an account; never that of another one, even after its end.
    pub(super) struct AccountId;
}

/// An account with its window.
#[derive(Debug)]
pub(super) struct LedgerAccount {
    pub(super) budget: BudgetId,
    pub(super) scope: Box<str>,
    /// Shared with all accounts of the budget in this window.
    pub(super) window: Arc<Window>,
    /// The count that it belongs to.
    pub(super) count: CountId,
    pub(super) account: Account,
    /// Whether the running commit changed it.
    pub(super) touched: bool,
    /// When it is settled again though nothing else happens.
    pub(super) again_at: Option<UnixMillis>,
    /// Its place among the figures that wait to be told, while it is there.
    pub(super) waits_as: Option<Nearness>,
}

impl LedgerAccount {
    /// An account that nothing was counted in.
    pub(super) fn begin(
        budget: BudgetId,
        scope: &str,
        window: Arc<Window>,
        count: CountId,
        account: Account,
    ) -> Self {
        Self {
            budget,
            scope: scope.into(),
            window,
            count,
            account,
            touched: false,
            again_at: None,
            waits_as: None,
        }
    }

    /// Whether the window is running: neither before its start nor ended.
    pub(super) fn is_running(&self, now: UnixMillis) -> bool {
        self.window.start <= now && self.window.end.is_none_or(|end| now < end)
    }

    /// Whether its sum is one of the count that `compiled` goes on with.
    pub(super) fn goes_on_in(&self, compiled: &CompiledBudget) -> bool {
        self.count.goes_on_in(compiled.count, self.window.start)
    }

    /// Whether there is nothing in it: neither an event nor an opening.
    pub(super) fn is_empty(&self) -> bool {
        self.account.caused_by.is_empty() && self.account.opening.is_none()
    }

    fn is(&self, budget: &str, scope: &str, start: UnixMillis) -> bool {
        self.window.start == start && self.reads_like(budget, scope)
    }

    /// Whether readers of the blocklist find both under the same key.
    fn reads_like(&self, budget: &str, scope: &str) -> bool {
        *self.scope == *scope && self.budget.as_str() == budget
    }
}

#[derive(Debug, Default)]
pub(super) struct Accounts {
    by_id: SlotMap<AccountId, LedgerAccount>,
    by_key: HashTable<AccountId>,
    /// Whose state stands on the blocklist, one for each budget and scope.
    standing: HashTable<AccountId>,
    hasher: DefaultHashBuilder,
}

impl Accounts {
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// The account of a budget in a scope, in the window that begins at `start`.
    pub(super) fn find(&self, budget: &str, scope: &str, start: UnixMillis) -> Option<AccountId> {
        let hash = self.hasher.hash_one((budget, scope, start));
        let is_it = |id: &AccountId| self.by_id[*id].is(budget, scope, start);
        self.by_key.find(hash, is_it).copied()
    }

    /// Takes an account that is not there yet.
    pub(super) fn insert(&mut self, account: LedgerAccount) -> AccountId {
        let hash = key_hash(&self.hasher, &account);
        let id = self.by_id.insert(account);
        let (by_id, hasher) = (&self.by_id, &self.hasher);
        let hash_of = |id: &AccountId| key_hash(hasher, &by_id[*id]);
        self.by_key.insert_unique(hash, id, hash_of);
        id
    }

    /// Forgets an account; readers were told before.
    pub(super) fn remove(&mut self, id: AccountId) -> Option<LedgerAccount> {
        debug_assert!(!self.stands(id));
        let account = self.by_id.remove(id)?;
        let hash = key_hash(&self.hasher, &account);
        if let Ok(entry) = self.by_key.find_entry(hash, |one| *one == id) {
            entry.remove();
        }
        Some(account)
    }

    pub(super) fn get(&self, id: AccountId) -> Option<&LedgerAccount> {
        self.by_id.get(id)
    }

    pub(super) fn get_mut(&mut self, id: AccountId) -> Option<&mut LedgerAccount> {
        self.by_id.get_mut(id)
    }

    /// All, in an order that equal histories have in common.
    pub(super) fn iter(&self) -> impl Iterator<Item = (AccountId, &LedgerAccount)> {
        self.by_id.iter()
    }

    /// Whether readers of the blocklist hold this account's state.
    fn stands(&self, id: AccountId) -> bool {
        let hash = reader_hash(&self.hasher, &self.by_id[id]);
        self.standing.find(hash, |one| *one == id).is_some()
    }

    /// The account whose state stands where this one's would.
    pub(super) fn standing_instead_of(&self, id: AccountId) -> Option<AccountId> {
        let account = &self.by_id[id];
        let hash = reader_hash(&self.hasher, account);
        let same =
            |one: &AccountId| self.by_id[*one].reads_like(account.budget.as_str(), &account.scope);
        self.standing.find(hash, same).copied()
    }

    /// Readers are told this account's state, instead of any other window's.
    pub(super) fn set_standing(&mut self, id: AccountId) {
        let (by_id, hasher) = (&self.by_id, &self.hasher);
        let account = &by_id[id];
        let hash = reader_hash(hasher, account);
        let same =
            |one: &AccountId| by_id[*one].reads_like(account.budget.as_str(), &account.scope);
        match self.standing.find_mut(hash, same) {
            Some(standing) => *standing = id,
            None => {
                let hash_of = |one: &AccountId| reader_hash(hasher, &by_id[*one]);
                self.standing.insert_unique(hash, id, hash_of);
            }
        }
    }

    /// Readers are told to forget this account's state; whether they held it.
    pub(super) fn clear_standing(&mut self, id: AccountId) -> bool {
        let hash = reader_hash(&self.hasher, &self.by_id[id]);
        match self.standing.find_entry(hash, |one| *one == id) {
            Ok(entry) => {
                entry.remove();
                true
            }
            Err(_) => false,
        }
    }
}

fn key_hash(hasher: &DefaultHashBuilder, account: &LedgerAccount) -> u64 {
    hasher.hash_one((
        account.budget.as_str(),
        &*account.scope,
        account.window.start,
    ))
}

fn reader_hash(hasher: &DefaultHashBuilder, account: &LedgerAccount) -> u64 {
    hasher.hash_one((account.budget.as_str(), &*account.scope))
}
