//! What happens to accounts by time alone: windows begin, end and close, figures have their turn, and
//! changed budgets are judged anew.

use std::sync::Arc;

use spendfuse_domain::UnixMillis;

use super::accounts::AccountId;
use super::{HOUR_MILLIS, Ledger};

/// Accounts reconsidered or ended in one commit for other reasons than a delta, at most.
const SLICE: usize = 5_000;

impl Ledger {
    /// Time passes: windows begin, end and close; states that waited are published; changed budgets
    /// are judged anew, a slice at a time.
    pub fn advance(&mut self, time: UnixMillis) {
        self.now = self.now.max(time);
        self.begin_what_is_new();
        for _ in 0..SLICE {
            let Some(mut entry) = self.wake_at.first_entry() else {
                break;
            };
            if *entry.key() > self.now {
                break;
            }
            let next = entry.get_mut().pop();
            if entry.get().is_empty() {
                entry.remove();
            }
            if let Some(id) = next {
                self.wake(id);
            }
        }
        let waiting = self.reconsider.len().min(SLICE);
        let ids: Vec<AccountId> = self.reconsider.drain(..waiting).collect();
        for id in ids {
            self.judge_anew(id);
        }
        if waiting > 0 && self.reconsider.is_empty() {
            self.remember_evaluated();
        }
    }

    /// Notes where the counts of new budgets begin, and what their records say was spent before.
    pub(super) fn begin_what_is_new(&mut self) {
        if std::mem::take(&mut self.openings_waiting) {
            self.begin_counts();
            self.begin_opened();
        }
    }

    fn wake(&mut self, id: AccountId) {
        let Some(known) = self.accounts.get_mut(id) else {
            return;
        };
        known.again_at = None;
        match known.window.end {
            Some(end) if end.plus(self.config.grace_millis) <= self.now => {
                self.close_unless_frozen(id);
            }
            Some(end) if end <= self.now => self.end_window(id),
            _ => self.touch(id),
        }
    }

    /// The last line of a window names the limit, so an account waits for its budget to be readable.
    fn close_unless_frozen(&mut self, id: AccountId) {
        let known = self.accounts.get(id);
        let Some(known) = known.filter(|known| self.is_frozen(known)) else {
            self.close(id);
            return;
        };
        if known.account.published.is_some() {
            self.end_window(id);
        }
        self.wake_at(self.now.plus(HOUR_MILLIS), id);
    }

    /// When something is due by time alone.
    pub fn next_due(&self) -> Option<UnixMillis> {
        let woken = self.wake_at.first_key_value().map(|(time, _)| *time);
        let turn = self.refreshes.next_turn();
        woken.into_iter().chain(turn).min()
    }

    /// Notes what happens to an account by time alone. A window that runs already has nothing to be
    /// woken for before its end, and one that has ended nothing before it closes, unless readers hold
    /// something of it.
    pub(super) fn schedule(&mut self, id: AccountId) {
        let Some(known) = self.accounts.get(id) else {
            return;
        };
        let window = Arc::clone(&known.window);
        let begins_at = (window.start > self.now).then_some(window.start);
        let account = &known.account;
        let is_known = account.published.is_some() || account.exceeded_since.is_some();
        let ends_at = window.end.filter(|end| *end > self.now || is_known);
        let closes_at = window.end.map(|end| end.plus(self.config.grace_millis));
        for time in [begins_at, ends_at, closes_at].into_iter().flatten() {
            self.wake_at(time, id);
        }
    }

    pub(super) fn wake_at(&mut self, time: UnixMillis, id: AccountId) {
        self.wake_at.entry(time).or_default().push(id);
    }
}
