//! The end of a ledger commit, the end of windows, and changed budgets.

use std::collections::VecDeque;
use std::sync::Arc;

use spendfuse_domain::UnixMillis;
use spendfuse_domain::budget::CompiledBudget;
use spendfuse_domain::row::{WindowLine, WindowLineKind};
use spendfuse_domain::verdict::budget_key;

use super::Ledger;
use super::accounts::{AccountId, LedgerAccount};
use super::changelog::{
    LedgerMark, account_key, account_record, evaluated_parts, evaluated_records, mark_key,
};
use crate::account::{AccountPlace, Due};
use crate::codec;
use crate::publish::{self, Pace, Told};

/// Everything that one commit publishes.
#[derive(Debug, Default)]
pub struct LedgerOutputs {
    /// What either stage tells.
    pub told: Told,
    /// Lines of `budget_windows`.
    pub window_lines: Vec<WindowLine>,
    /// Deltas that did not follow the ones before: exactly-once is broken somewhere.
    pub broken_links: u64,
    /// Sums that had no account, because there was no room for more.
    pub without_account: u64,
}

impl Ledger {
    /// Ends the running commit.
    pub fn finish(&mut self) -> LedgerOutputs {
        let mut settled = std::mem::take(&mut self.touched);
        for id in &settled {
            self.settle(*id, Pace::InTurn);
        }
        while let Some(id) = self.refreshes.take(self.now) {
            self.take_turn(id, &mut settled);
        }
        for id in settled.drain(..) {
            self.write(id);
        }
        // Its room is used again.
        self.touched = settled;
        if std::mem::take(&mut self.evaluated_changed) {
            let records = evaluated_records(&self.evaluated, self.evaluated_parts);
            self.outputs.told.changelog.extend(records);
            self.evaluated_parts = evaluated_parts(self.evaluated.len());
        }
        self.tell_of_missing_room();
        let partition = self.config.partition;
        let place = || format!("ledger partition {partition}");
        let (told, limit) = (&mut self.outputs.told, &mut self.alert_limit);
        told.end(self.now, &mut self.stamps, limit, place);
        let mark = LedgerMark {
            now: self.now,
            budget_version: self.book.version,
            chains: self.chains.clone(),
            alert_limit: self.alert_limit.clone(),
            through: self.through.clone(),
            counts_are_kept: self.counts.are_kept,
        };
        let record = (mark_key(), Some(codec::encode(&mark)));
        self.outputs.told.changelog.push(record);
        self.applied = false;
        self.late_lines.clear();
        std::mem::take(&mut self.outputs)
    }

    /// Publishes what is due of an account.
    fn settle(&mut self, id: AccountId, pace: Pace) {
        let Some(known) = self.accounts.get_mut(id) else {
            return;
        };
        let Some(compiled) = self.book.named(&known.budget) else {
            return;
        };
        let is_whole = self.counts.is_whole(compiled, &known.window);
        if !known.goes_on_in(compiled) || !known.is_running(self.now) {
            // The sum is another count's, which waits to be judged anew; or nobody asks for it now.
            return;
        }
        if let Some(nearness) = known.waits_as.take() {
            self.refreshes.leave(nearness, id);
        }
        let place = AccountPlace::in_window(&known.scope, &known.window).whole(is_whole);
        let (seq, now) = (self.seq, self.now);
        let mut settlement = publish::settle(&mut known.account, compiled, place, seq, now, pace);
        settlement.counts_through(&self.through);
        if let Some(nearness) = settlement.waits_for_turn {
            known.waits_as = Some(nearness);
            self.refreshes.wait(nearness, id);
        }
        let is_published = settlement.entry.is_some();
        let told = &mut self.outputs.told;
        told.settled(&mut settlement, &mut self.alert_limit);
        let mut again_at = settlement.again_at;
        match known.account.line_due(settlement.verdict_changed, now) {
            Due::Now => {
                let line = known.line(WindowLineKind::Spent, compiled, now);
                self.outputs.window_lines.push(line);
                known.account.line_at = now;
            }
            Due::At(time) => again_at = again_at.into_iter().chain([time]).min(),
            Due::Never | Due::Refresh => {}
        }
        if let Some(time) = again_at
            && known.again_at != Some(time)
        {
            known.again_at = Some(time);
            self.wake_at.entry(time).or_default().push(id);
        }
        if is_published {
            self.accounts.set_standing(id);
        }
    }

    /// Tells the figure of an account that waited for its turn.
    fn take_turn(&mut self, id: AccountId, settled: &mut Vec<AccountId>) {
        let Some(known) = self.accounts.get_mut(id) else {
            debug_assert!(false, "an account that goes leaves the queue");
            return;
        };
        known.waits_as = None;
        if !std::mem::replace(&mut known.touched, true) {
            settled.push(id);
        }
        self.settle(id, Pace::AtOnce);
    }

    /// Writes the state of an account that was settled.
    fn write(&mut self, id: AccountId) {
        let Some(known) = self.accounts.get_mut(id) else {
            return;
        };
        known.touched = false;
        let compiled = self.book.named(&known.budget);
        // Another count's sum waits to be judged anew.
        if let Some(compiled) = compiled.filter(|one| known.goes_on_in(one)) {
            known.count = compiled.count;
            self.outputs.told.changelog.push(account_record(known));
        }
    }

    /// Forgets an account; readers were told before.
    pub(super) fn remove(&mut self, id: AccountId) -> Option<LedgerAccount> {
        let gone = self.accounts.remove(id)?;
        if let Some(nearness) = gone.waits_as {
            self.refreshes.leave(nearness, id);
        }
        Some(gone)
    }

    /// The window ended: readers forget its verdict, unless the next window's already stands there.
    pub(super) fn end_window(&mut self, id: AccountId) {
        self.withdraw(id);
        if let Some(known) = self.accounts.get_mut(id) {
            known.account.published = None;
            if let Some(nearness) = known.waits_as.take() {
                self.refreshes.leave(nearness, id);
            }
            self.outputs.told.changelog.push(account_record(known));
        }
    }

    /// The grace passed: the final sum goes to the warehouse, the state goes.
    pub(super) fn close(&mut self, id: AccountId) {
        self.withdraw(id);
        let book = Arc::clone(&self.book);
        let known = self.accounts.get(id);
        if let Some(compiled) = known.and_then(|known| book.named(&known.budget)) {
            self.open(id, compiled);
        }
        let Some(known) = self.remove(id) else {
            return;
        };
        if let Some(compiled) = self.book.named(&known.budget) {
            let line = known.line(WindowLineKind::Close, compiled, self.now);
            self.outputs.window_lines.push(line);
        }
        self.outputs
            .told
            .changelog
            .push((account_key(&known), None));
    }

    /// Tombstone and closed finding of an account that ends.
    pub(super) fn withdraw(&mut self, id: AccountId) {
        let Some(known) = self.accounts.get_mut(id) else {
            return;
        };
        let (budget, scope) = (&known.budget, &known.scope);
        let compiled = self.book.named(budget);
        let account = &mut known.account;
        let closed = publish::close_finding(account, budget, compiled, scope, self.now);
        let has_closed = closed.is_some();
        self.outputs.told.findings.extend(closed);
        let entry_key = budget_key(budget, scope);
        if self.accounts.clear_standing(id) {
            self.outputs.told.blocklist.push((entry_key, None));
        } else if has_closed {
            self.tell_finding_again(id);
        }
    }

    /// A finding has closed under the key of the account that stands in place of the one at `ended`:
    /// where that one's is open, readers learn it after that.
    fn tell_finding_again(&mut self, ended: AccountId) {
        let standing = self.accounts.standing_instead_of(ended);
        let Some(known) = standing.and_then(|id| self.accounts.get(id)) else {
            return;
        };
        let compiled = self.book.named(&known.budget);
        if let Some(compiled) = compiled.filter(|one| known.goes_on_in(one)) {
            let open = publish::open_finding(&known.account, compiled, &known.scope, self.now);
            self.outputs.told.findings.extend(open);
        }
    }

    /// Collects the accounts of all budgets that differ from what was last evaluated over all their
    /// scopes, or from what the account itself was last judged by.
    pub(super) fn find_changed_budgets(&mut self) {
        self.openings_waiting = true;
        let mut reconsider = VecDeque::new();
        for (id, known) in self.accounts.iter() {
            if self.must_be_judged_anew(known) {
                reconsider.push_back(id);
            }
        }
        self.reconsider = reconsider;
        if self.reconsider.is_empty() {
            self.remember_evaluated();
        }
    }

    fn must_be_judged_anew(&self, known: &LedgerAccount) -> bool {
        let Some(compiled) = self.book.named(&known.budget) else {
            return !self.is_frozen(known);
        };
        let evaluated = self.evaluated.get(known.budget.as_str());
        let published = known.account.published.as_ref();
        let is_whole = self.counts.is_whole(compiled, &known.window);
        evaluated != Some(&compiled.revision)
            || !known.goes_on_in(compiled)
            || published.is_some_and(|published| {
                published.revision != compiled.revision || published.is_whole != is_whole
            })
    }

    /// Whether the account's budget is there, but nobody here can read its terms: the account and
    /// what readers know of it stay as they are.
    pub(super) fn is_frozen(&self, known: &LedgerAccount) -> bool {
        self.book.named(&known.budget).is_none() && self.book.is_unreadable(&known.budget)
    }

    pub(super) fn judge_anew(&mut self, id: AccountId) {
        let Some(known) = self.accounts.get(id) else {
            return;
        };
        if self.is_frozen(known) {
            return;
        }
        let book = Arc::clone(&self.book);
        let compiled = book.named(&known.budget);
        let goes_on = compiled.filter(|one| known.goes_on_in(one));
        if let Some(compiled) = goes_on {
            self.open(id, compiled);
        }
        let is_empty = self.accounts.get(id).is_some_and(LedgerAccount::is_empty);
        if goes_on.is_some() && !is_empty {
            self.touch(id);
            return;
        }
        let why = match (goes_on, compiled) {
            (Some(_), _) => "its opening was taken back",
            (None, Some(_)) => "it counts anew",
            (None, None) => "the budget was removed",
        };
        self.withdraw(id);
        if let Some(mut gone) = self.remove(id) {
            self.lift(&mut gone, why);
            self.outputs.told.changelog.push((account_key(&gone), None));
        }
    }

    /// An account goes before its window ends: so do its alerts.
    pub(super) fn lift(&mut self, gone: &mut LedgerAccount, why: &str) {
        if !gone.is_running(self.now) {
            return;
        }
        let place = AccountPlace::in_window(&gone.scope, &gone.window);
        let lifted = publish::lift(&mut gone.account, &gone.budget, place, why, self.now);
        self.outputs.told.alerts.extend(lifted);
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
        let (budget, spend) = (&compiled.budget, self.account.spend());
        WindowLine::new(kind, budget, &self.scope, &self.window, spend, now)
    }
}
