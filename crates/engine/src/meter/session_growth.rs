//! What the budgets of a session count of a call that has grown.
//!
//! What the call is more is spend of the session that is live now, as that of any call is that is told
//! of late: the one that the call began in may have ended, and its budgets with it. What it is less is
//! taken back only where it was counted, from accounts that were there when the call's first event
//! came: else a session would begin with less than nothing, and could spend more than its limit.

use std::sync::Arc;

use spendfuse_domain::Nanos;
use spendfuse_domain::budget::{CompiledBudget, Spend};
use spendfuse_domain::event::Event;
use spendfuse_domain::row::MeterAddress;

use super::Meter;
use super::session::Session;
use super::session_name::SessionName;
use crate::account::Account;

impl Meter {
    /// A call that was counted first at `first` has grown by `more`: its session's budgets count that,
    /// and detectors have seen the call.
    pub(super) fn count_growth_in_sessions(
        &mut self,
        event: &Event<'_>,
        first: MeterAddress,
        more: (Spend, Nanos),
    ) {
        let Some(root) = SessionName::root_of(event) else {
            return;
        };
        self.make_room_for_sessions();
        let book = Arc::clone(&self.book);
        let mut known = self.keep_alive(&book, SessionName::of(event), root);
        self.count_session_budgets(&book, event, &mut known, more, None, Some(first));
        let session = known.and_then(|id| self.sessions.get(id));
        let (mut spend, _) = more;
        if !session.is_some_and(|session| session.has_counted(first)) {
            spend.cost = spend.cost.max(Nanos::ZERO);
        }
        self.note_recent(known, event, spend);
    }

    /// What a budget's account in a scope counts of it, and the part of that at a ceiling; `None` where
    /// that is nothing. A session that was idle for too long has ended before.
    pub(super) fn counts_of_growth(
        &self,
        name: SessionName<'_>,
        (compiled, scope): (&CompiledBudget, &str),
        first: MeterAddress,
        more: (Spend, Nanos),
    ) -> Option<(Spend, Nanos)> {
        let id = self.sessions.find(name);
        let session = id.and_then(|id| self.sessions.get(id));
        let holds_it = session.and_then(|session| session.account_at(compiled, scope, first));
        let counts = part_of_growth(holds_it, more);
        (counts != (Spend::default(), Nanos::ZERO)).then_some(counts)
    }
}

impl Session {
    /// The budget's account in `scope`, where it was there when the entry was counted. Of those that
    /// older versions began that is not known.
    fn account_at(
        &self,
        compiled: &CompiledBudget,
        scope: &str,
        entry: MeterAddress,
    ) -> Option<&Account> {
        let mut accounts = self.accounts.iter();
        let found = accounts.find(|one| {
            let began = one.first_event;
            let was_there = began.is_some_and(|began| began <= (entry.seq, entry.index));
            one.budget == compiled.budget.id.as_str()
                && one.scope == scope
                && was_there
                && one.count().goes_on_in(compiled.count, self.opened_at)
        });
        found.map(|one| &one.account)
    }
}

/// What is counted of `more` in an account that holds the call, or in one that does not. Neither money,
/// nor tokens, nor the money at a price become less than nothing: the first event may have named another
/// session or scope, or have been history.
fn part_of_growth(
    holds_it: Option<&Account>,
    (more, at_ceiling): (Spend, Nanos),
) -> (Spend, Nanos) {
    let nothing = Account::default();
    let held = holds_it.unwrap_or(&nothing);
    let spend = Spend {
        cost: more.cost.max(-held.cost),
        tokens: more.tokens.max(-held.tokens),
        calls: more.calls.max(-held.calls),
    };
    let priced = held.cost + spend.cost - held.unpriced;
    (spend, at_ceiling.max(-held.unpriced).min(priced))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(cost: i128, unpriced: i128, tokens: i64) -> Account {
        Account {
            cost: Nanos::new(cost),
            unpriced: Nanos::new(unpriced),
            tokens,
            calls: 1,
            ..Account::default()
        }
    }

    fn counted(holds_it: Option<&Account>, cost: i128, unpriced: i128, tokens: i64) -> [i128; 3] {
        let more = Spend {
            cost: Nanos::new(cost),
            tokens,
            calls: 0,
        };
        let (spend, unpriced) = part_of_growth(holds_it, (more, Nanos::new(unpriced)));
        assert_eq!(spend.calls, 0);
        [spend.cost.get(), unpriced.get(), spend.tokens.into()]
    }

    #[test]
    fn what_is_less_is_taken_from_what_holds_it_and_not_below_nothing() {
        let held = account(10, 10, 100);
        assert_eq!(counted(Some(&held), -4, -10, -60), [-4, -10, -60]);
        assert_eq!(counted(Some(&held), -14, -10, -160), [-10, -10, -100]);
        let priced = account(10, 0, 100);
        assert_eq!(counted(Some(&priced), -4, 6, 0), [-4, 6, 0]);
        assert_eq!(counted(Some(&priced), -8, 9, 0), [-8, 2, 0]);
    }

    #[test]
    fn elsewhere_only_what_is_more_counts() {
        assert_eq!(counted(None, -4, -10, -60), [0, 0, 0]);
        assert_eq!(counted(None, 5, -10, 7), [5, 0, 7]);
        assert_eq!(counted(None, 5, 20, -7), [5, 5, 0]);
        assert_eq!(counted(None, -5, 5, 0), [0, 0, 0]);
    }
}
