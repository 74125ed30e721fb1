//! The deltas of a meter commit, from the check of their chain to the accounts that hold them.

use std::sync::Arc;

use spendfuse_domain::budget::{CompiledBudget, Spend};
use spendfuse_domain::{UnixMillis, Window};

use super::accounts::{AccountId, LedgerAccount};
use super::{AccountKey, Ledger, WindowLine, WindowLineKind};
use crate::account::Account;
use crate::alert::{Alert, AlertDetails, AlertKind};
use crate::delta::{DeltaEntry, Deltas};

impl Ledger {
    /// Adds the deltas of one meter commit; `arrival` is when the broker took them.
    pub fn apply(&mut self, deltas: &Deltas, arrival: UnixMillis) {
        self.now = self.now.max(self.stamps.believed(arrival, self.now));
        self.applied = true;
        // Nothing is counted before it is known where counts begin. Judging anew has time: what comes
        // here may change it once more.
        self.begin_what_is_new();
        self.check_link(deltas);
        if let Some(offset) = deltas.through {
            self.through.insert(deltas.meter_partition, offset);
        }
        let book = Arc::clone(&self.book);
        for entry in &deltas.entries {
            let Some(series) = deltas.series.get(entry.series as usize) else {
                debug_assert!(false, "delta entry names a series that its record lacks");
                continue;
            };
            for index in book.counting(series, &entry.scope) {
                let compiled = book.budget(index);
                if self.counts(index, compiled, deltas.budget_version, entry) {
                    self.add(index, compiled, entry);
                }
            }
        }
    }

    fn check_link(&mut self, deltas: &Deltas) {
        let Some(last) = self.chains.get_mut(deltas.meter_partition as usize) else {
            debug_assert!(false, "deltas of a partition that does not exist");
            return;
        };
        let expected = std::mem::replace(last, deltas.seq);
        if deltas.prev == expected {
            return;
        }
        self.outputs.broken_links += 1;
        let meter = deltas.meter_partition;
        let kind = if deltas.prev > expected {
            "gap"
        } else {
            "overlap"
        };
        self.tell(Alert {
            v: 1,
            key: format!("delta_chain|{meter}|{}|{}", self.config.partition, deltas.seq),
            kind: AlertKind::DeltaChain,
            severity: spendfuse_domain::Severity::Critical,
            scope: "*".to_owned(),
            subject: format!("meter partition {meter}"),
            message: format!(
                "{kind} in the deltas of meter partition {meter} to ledger partition {}: expected to follow commit {expected}, but commit {} follows {}",
                self.config.partition, deltas.seq, deltas.prev
            ),
            at: self.now,
            count: None,
            details: AlertDetails::default(),
        });
    }

    fn add(&mut self, index: u32, compiled: &CompiledBudget, entry: &DeltaEntry) {
        let window = self.window_of(index, compiled, UnixMillis::from_minute(entry.minute));
        let closes_at = window.end.map(|end| end.plus(self.config.grace_millis));
        if closes_at.is_some_and(|closes_at| closes_at <= self.now) {
            self.add_without_account(compiled, entry, &window);
            return;
        }
        let is_new = || {
            let (budget, scope) = (compiled.budget.id.as_str(), &entry.scope);
            self.accounts.find(budget, scope, window.start).is_none()
        };
        if self.accounts.len() >= self.config.account_capacity && is_new() {
            // What is counted already stays.
            self.add_without_account(compiled, entry, &window);
            self.outputs.without_account += 1;
            return;
        }
        if entry.takes_back() && is_new() && !self.waits_for_opening(index, compiled) {
            // What is taken back was counted when there was no room for an account.
            self.add_without_account(compiled, entry, &window);
            return;
        }
        let id = self.account_of(compiled, &entry.scope, window);
        let Some(known) = self.accounts.get_mut(id) else {
            return;
        };
        known.account.take(compiled, entry, self.now);
        self.touch(id);
    }

    /// The warehouse alone keeps what no account holds, beside the sums of accounts: a line for each
    /// window and commit, since history comes by the month.
    fn add_without_account(
        &mut self,
        compiled: &CompiledBudget,
        entry: &DeltaEntry,
        window: &Window,
    ) {
        let (late, budget) = (WindowLineKind::Late, &compiled.budget);
        let key = AccountKey {
            budget: budget.id.clone(),
            scope: entry.scope.clone(),
            start: window.start,
        };
        let lines = &mut self.outputs.window_lines;
        let place = *self.late_lines.entry(key).or_insert(lines.len());
        match lines.get_mut(place) {
            Some(line) => line.spend.add(entry.spend()),
            None => {
                let (scope, spend) = (&entry.scope, entry.spend());
                lines.push(WindowLine::new(
                    late, budget, scope, window, spend, self.now,
                ));
            }
        }
    }

    /// The account, begun where it is new or holds another count's sum.
    pub(super) fn account_of(
        &mut self,
        compiled: &CompiledBudget,
        scope: &str,
        window: Arc<Window>,
    ) -> AccountId {
        let (budget, count) = (&compiled.budget.id, compiled.count);
        let found = self.accounts.find(budget.as_str(), scope, window.start);
        if let Some(id) = found {
            if self
                .accounts
                .get(id)
                .is_some_and(|known| known.goes_on_in(compiled))
            {
                return id;
            }
            // Not judged anew yet: readers forget what they know first.
            self.withdraw(id);
            if let Some(mut gone) = self.remove(id) {
                self.lift(&mut gone, "it counts anew");
            }
        }
        let empty = Account::default();
        let begun = LedgerAccount::begin(budget.clone(), scope, window, count, empty);
        let id = self.accounts.insert(begun);
        self.schedule(id);
        self.open(id, compiled);
        id
    }

    /// Notes that the running commit settles an account.
    pub(super) fn touch(&mut self, id: AccountId) {
        if let Some(known) = self.accounts.get_mut(id)
            && !std::mem::replace(&mut known.touched, true)
        {
            self.touched.push(id);
        }
    }

    /// The budget's window at `time`. Most entries lie in the same one as the entry before, and
    /// looking at the calendar costs more than all the rest.
    fn window_of(
        &mut self,
        index: u32,
        compiled: &CompiledBudget,
        time: UnixMillis,
    ) -> Arc<Window> {
        let holds =
            |window: &&Arc<Window>| window.start <= time && window.end.is_none_or(|end| time < end);
        if let Some(window) = self.last_windows.get(&index).filter(holds) {
            return Arc::clone(window);
        }
        let window = compiled.window(time);
        let window = Arc::new(window);
        self.last_windows.insert(index, Arc::clone(&window));
        window
    }
}

impl Account {
    fn take(&mut self, compiled: &CompiledBudget, entry: &DeltaEntry, now: UnixMillis) {
        let (spend, unpriced) = (entry.spend(), entry.unpriced);
        if entry.corrects.is_some() {
            self.correct(spend, unpriced, &entry.source, &entry.id, entry.time);
            return;
        }
        if entry.is_history {
            let event = (&*entry.source, &*entry.id, entry.time);
            self.add_history(compiled, spend, unpriced, event);
            return;
        }
        self.is_quiet = false;
        self.add(spend, unpriced, &entry.source, &entry.id, entry.time);
        let amount = spend.counted(compiled.budget.limit.unit());
        self.recent.add(amount, entry.minute, now);
    }
}

impl DeltaEntry {
    /// Whether it corrects what was counted here, not what is to be counted here from now on.
    fn takes_back(&self) -> bool {
        self.corrects.is_some() && self.calls <= 0
    }

    fn spend(&self) -> Spend {
        Spend {
            cost: self.cost,
            tokens: self.tokens,
            calls: self.calls,
        }
    }
}
