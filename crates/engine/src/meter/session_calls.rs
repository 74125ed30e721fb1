//! What the meter does with a call that belongs to a session: its budgets here, its detectors in
//! `session_detectors`.

use std::sync::Arc;

use spendfuse_domain::budget::Spend;
use spendfuse_domain::event::{Call, Event};
use spendfuse_domain::row::MeterAddress;
use spendfuse_domain::{Amount, Nanos, UnixMillis};

use super::commit::AccountEnds;
use super::session::SessionAccount;
use super::session_name::SessionName;
use super::sessions::SessionId;
use super::{Charge, Meter};
use crate::book::BudgetBook;
use crate::detect::is_generation;

impl Meter {
    pub(super) fn watch_sessions(
        &mut self,
        event: &Event<'_>,
        call: &Call<'_>,
        charge: &Charge<'_>,
        (spend, unpriced): (Spend, Nanos),
    ) {
        let Some(root) = SessionName::root_of(event) else {
            return;
        };
        let session = SessionName::of(event);
        self.make_room_for_sessions();
        // Held once for all that follows: counting up and down costs as much as a lookup.
        let book = Arc::clone(&self.book);
        let mut known = self.keep_alive(&book, session, root);
        let told = call.rare.session_limit;
        self.count_session_budgets(&book, event, &mut known, (spend, unpriced), told, None);
        match session {
            Some(session) if is_generation(&call.operation) => {
                self.run_detectors(&book, session, known, event, call, charge);
            }
            _ => self.note_recent(known, event, spend),
        }
    }

    /// A call that no detector looks at is still spend of its session.
    pub(super) fn note_recent(
        &mut self,
        known: Option<SessionId>,
        event: &Event<'_>,
        spend: Spend,
    ) {
        let now = self.now;
        if let Some(session) = known.and_then(|id| self.sessions.get_mut(id)) {
            let cost = Amount::Usd(spend.cost);
            session.recent.add(cost, event.time.minute(), now);
        }
    }

    /// `known`: the session that the event names, as soon as it is live. `told`: what its app lets it
    /// spend from now on. `grown`: of a call that has grown by `spend`, where it was counted first.
    pub(super) fn count_session_budgets(
        &mut self,
        book: &BudgetBook,
        event: &Event<'_>,
        known: &mut Option<SessionId>,
        spend: (Spend, Nanos),
        told: Option<Nanos>,
        grown: Option<MeterAddress>,
    ) {
        let (now, running) = (self.now, self.running_event());
        for index in &book.session_budgets {
            let compiled = book.budget(*index);
            let name = SessionName::counted_by(compiled, event);
            let (Some(name), Some(scope)) = (name, compiled.scope_of(&event.attribution)) else {
                continue;
            };
            let counts = match grown {
                Some(first) => {
                    self.counts_of_growth(name, (compiled, scope.as_str()), first, spend)
                }
                None => Some(spend),
            };
            let Some((spend, unpriced)) = counts else {
                continue;
            };
            let (id, session) = self.live_session(name, known.filter(|_| !name.root));
            if !name.root {
                *known = Some(id);
            }
            if let Some(told) = told.filter(|_| compiled.budget.limit_from_event) {
                session.set_limit(told);
            }
            let (opened_at, limit) = (session.opened_at, session.limit());
            let (account, outdated) = session.account_mut(compiled, scope, running);
            account.add(spend, unpriced, event, compiled.budget.limit.unit(), now);
            if let Some(outdated) = outdated {
                let gave_way = outdated.budget != account.budget || outdated.scope != account.scope;
                self.withdraw_outdated(outdated, book, name, (opened_at, limit));
                if gave_way {
                    self.tell_of_given_up_account(name);
                }
            }
            self.touch(id);
        }
    }

    /// An account of `name` gave way to that of another count, or to another one.
    pub(super) fn withdraw_outdated(
        &mut self,
        mut outdated: SessionAccount,
        book: &BudgetBook,
        name: SessionName<'_>,
        (opened_at, limit): (UnixMillis, Option<Nanos>),
    ) {
        let ends = AccountEnds {
            window: &name.window_label(),
            opened_at,
            limit,
            why: "it counts anew",
        };
        self.withdraw(&mut outdated, book, ends);
    }
}
