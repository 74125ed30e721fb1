//! The end of a ledger commit, the end of windows, and changed budgets.

use std::sync::Arc;

use spendfuse_domain::verdict::budget_key;
use spendfuse_domain::{UnixMillis, Window};

use super::restore::{LedgerMark, account_bytes, evaluated_key, mark_key};
use super::{AccountKey, Ledger, LedgerAccount, LedgerOutputs, WindowLine, WindowLineKind};
use crate::account::AccountPlace;
use crate::book::CompiledBudget;
use crate::codec;
use crate::settle;

impl Ledger {
    /// Ends the running commit.
    pub fn finish(&mut self) -> LedgerOutputs {
        let mut touched: Vec<_> = self.touched.drain().collect();
        touched.sort();
        for key in touched {
            self.settle(&key);
        }
        if std::mem::take(&mut self.evaluated_changed) {
            let value = codec::encode(&self.evaluated);
            self.outputs.changelog.push((evaluated_key(), Some(value)));
        }
        let mark = LedgerMark {
            now: self.now,
            budget_version: self.book.version,
            chains: self.chains.clone(),
        };
        self.outputs
            .changelog
            .push((mark_key(), Some(codec::encode(&mark))));
        self.applied = false;
        std::mem::take(&mut self.outputs)
    }

    /// Publishes what is due of an account and writes its state.
    fn settle(&mut self, key: &AccountKey) {
        let book = Arc::clone(&self.book);
        let Some(known) = self.accounts.get_mut(key) else {
            return;
        };
        let Some(compiled) = book.place_of(&key.budget).map(|place| book.budget(place)) else {
            return;
        };
        if compiled.count_id != known.count_id {
            // The sum is another count's; it waits to be judged anew.
            return;
        }
        if known.is_running(self.now) {
            let place = AccountPlace {
                scope: &known.scope,
                window: &known.label,
                window_start: known.start,
                resets_at: known.end,
                expires_at: known.end,
            };
            let settlement =
                settle::settle(&mut known.account, compiled, place, self.seq, self.now);
            if let Some(entry) = settlement.entry {
                if settlement.verdict_changed {
                    self.outputs.verdict_changes.push(entry.clone());
                }
                let line = known.line(WindowLineKind::Spent, compiled, self.now);
                self.outputs.window_lines.push(line);
                let entry_key = budget_key(&key.budget, &key.scope);
                self.outputs.blocklist.push((entry_key, Some(entry)));
                self.standing
                    .insert((key.budget.clone(), key.scope.clone()), key.start);
            }
            self.outputs.findings.extend(settlement.finding);
            self.outputs.alerts.extend(settlement.alert);
            if let Some(time) = settlement.again_at {
                self.wake_at.entry(time).or_default().insert(key.clone());
            }
        }
        let value = codec::encode(&*known);
        self.outputs
            .changelog
            .push((account_bytes(key), Some(value)));
    }

    /// The window ended: readers forget its verdict, unless the next window's already stands there.
    pub(super) fn end_window(&mut self, key: &AccountKey) {
        self.withdraw(key);
        if let Some(known) = self.accounts.get_mut(key) {
            known.account.published = None;
            let value = codec::encode(&*known);
            self.outputs
                .changelog
                .push((account_bytes(key), Some(value)));
        }
    }

    /// The grace passed: the final sum goes to the warehouse, the state goes.
    pub(super) fn close(&mut self, key: &AccountKey) {
        self.withdraw(key);
        let book = Arc::clone(&self.book);
        let Some(known) = self.accounts.remove(key) else {
            return;
        };
        if let Some(place) = book.place_of(&key.budget) {
            let line = known.line(WindowLineKind::Close, book.budget(place), self.now);
            self.outputs.window_lines.push(line);
        }
        self.outputs.changelog.push((account_bytes(key), None));
    }

    /// Tombstone and closed finding of an account that ends.
    pub(super) fn withdraw(&mut self, key: &AccountKey) {
        let book = Arc::clone(&self.book);
        let Some(known) = self.accounts.get_mut(key) else {
            return;
        };
        let compiled = book.place_of(&key.budget).map(|place| book.budget(place));
        let account = &mut known.account;
        let closed = settle::close_finding(account, &key.budget, compiled, &key.scope, self.now);
        self.outputs.findings.extend(closed);
        let reader_key = (key.budget.clone(), key.scope.clone());
        if self.standing.get(&reader_key) == Some(&key.start) {
            self.standing.remove(&reader_key);
            self.outputs
                .blocklist
                .push((budget_key(&key.budget, &key.scope), None));
        }
    }

    /// Collects the accounts of all budgets that differ from what was last evaluated over all their
    /// scopes, or from what the account itself was last judged by.
    pub(super) fn find_changed_budgets(&mut self) {
        let mut keys: Vec<_> = self
            .accounts
            .iter()
            .filter(|(key, known)| self.must_be_judged_anew(key, known))
            .map(|(key, _)| key.clone())
            .collect();
        keys.sort();
        self.reconsider = keys.into();
        if self.reconsider.is_empty() {
            self.remember_evaluated();
        }
    }

    fn must_be_judged_anew(&self, key: &AccountKey, known: &LedgerAccount) -> bool {
        let Some(place) = self.book.place_of(&key.budget) else {
            return true;
        };
        let compiled = self.book.budget(place);
        let evaluated = self.evaluated.get(key.budget.as_str());
        let published = known.account.published.as_ref();
        evaluated != Some(&compiled.revision)
            || known.count_id != compiled.count_id
            || published.is_some_and(|published| published.revision != compiled.revision)
    }

    pub(super) fn judge_anew(&mut self, key: AccountKey) {
        let Some(known) = self.accounts.get(&key) else {
            return;
        };
        let compiled = self
            .book
            .place_of(&key.budget)
            .map(|place| self.book.budget(place));
        if compiled.is_some_and(|compiled| compiled.count_id == known.count_id) {
            self.touched.insert(key);
            return;
        }
        self.withdraw(&key);
        self.accounts.remove(&key);
        self.outputs.changelog.push((account_bytes(&key), None));
    }

    pub(super) fn remember_evaluated(&mut self) {
        let budgets = self.book.budgets.iter();
        let evaluated = budgets
            .map(|compiled| (compiled.budget.id.to_string(), compiled.revision))
            .collect();
        if self.evaluated != evaluated {
            self.evaluated = evaluated;
            self.evaluated_changed = true;
        }
    }
}

impl LedgerAccount {
    fn line(&self, kind: WindowLineKind, compiled: &CompiledBudget, now: UnixMillis) -> WindowLine {
        WindowLine {
            kind,
            budget: self.budget.clone(),
            scope: self.scope.clone(),
            window: Window {
                label: self.label.clone(),
                start: self.start,
                end: self.end,
            },
            spend: self.account.spend(),
            limit: compiled.budget.limit,
            at: now,
        }
    }
}
