//! Openings: what was spent in a window before the count of its account began.
//!
//! A budget's record says it for the window in which its count began. It is derived from the record
//! alone and set, not added, so that whoever reads the record again, after a crash or with another
//! figure, comes to the same.

use std::sync::Arc;

use spendfuse_domain::budget::CompiledBudget;
use spendfuse_domain::routing::partition_of;
use spendfuse_domain::row::{WindowLine, WindowLineKind};

use super::Ledger;
use super::accounts::AccountId;
use crate::account::Opening;

impl Ledger {
    /// Begins the accounts of openings that budgets name: a limit holds before anything more is spent.
    pub(super) fn begin_opened(&mut self) {
        let book = Arc::clone(&self.book);
        let opened = book.budgets.iter();
        for compiled in opened.filter(|compiled| compiled.budget.opening.is_some()) {
            let budget = &compiled.budget;
            let (Some(scope), Some(window)) = (budget.scope.single(), budget.window_of_opening())
            else {
                debug_assert!(false, "records of such budgets are refused");
                continue;
            };
            let is_here =
                partition_of(scope.as_bytes(), self.config.partitions) == self.config.partition;
            let closes_at = window.end.map(|end| end.plus(self.config.grace_millis));
            if is_here && closes_at.is_none_or(|closes_at| closes_at > self.now) {
                let id = self.account_of(compiled, &scope, Arc::new(window));
                self.open(id, compiled);
            }
        }
    }

    /// Gives an account the opening that its budget names for its window, or none.
    pub(super) fn open(&mut self, id: AccountId, compiled: &CompiledBudget) {
        let Some(known) = self.accounts.get_mut(id) else {
            return;
        };
        let spend = compiled.opening_in(&known.window);
        let opening = &mut known.account.opening;
        let is_computed = opening.as_ref().is_some_and(|one| one.is_computed);
        if is_computed && spend.is_none() {
            return;
        }
        if spend == opening.as_ref().map(|opening| opening.spend()) {
            return;
        }
        *opening = spend.map(|spend| Box::new(Opening::priced(spend)));
        self.outputs.window_lines.push(WindowLine::new(
            WindowLineKind::Opening,
            &compiled.budget,
            &known.scope,
            &known.window,
            spend.unwrap_or_default(),
            self.now,
        ));
        self.touch(id);
    }
}
