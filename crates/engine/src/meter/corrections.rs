//! Corrections: what stands for a counted entry from now on.
//!
//! An entry is never rewritten. A correction names it by its address, says what stood for it until
//! now and what stands from now on, and becomes rows and sums of the difference, signed, at the
//! entry's own time. The corrections of an entry form a chain: each has a number, and of two with
//! one number the first in the log stands, since the other was made without knowing of it. What was
//! applied is remembered like the identities of events, and in the same memory.
//!
//! Detectors do not judge anew: an agent did what it did.

use std::sync::Arc;

use spendfuse_domain::budget::{CompiledBudget, Spend};
use spendfuse_domain::event::{Body, Event};
use spendfuse_domain::growth::ToldCall;
use spendfuse_domain::row::{Amended, AmendedBy, Counts, MeterAddress, Origin, SpendRow};
use spendfuse_domain::{Flags, Identity, Nanos, UnixMillis};

use super::counted_call::CountedCall;
use super::dedupe::{Judgement, RememberedId};
use super::session::{MOST_ACCOUNTS, Session};
use super::session_name::SessionName;
use super::{Charge, Meter, Rows};
use crate::delta::CountedThen;

/// What stands for an entry: an event of the kind usage, and its price.
#[derive(Clone, Debug)]
pub struct Standing<'a> {
    /// What it says, and against whom.
    pub event: Event<'a>,
    /// What it costs.
    pub charge: Charge<'a>,
}

/// A correction of an entry.
#[derive(Clone, Debug)]
pub struct Correction<'a> {
    /// Its own id.
    pub id: &'a str,
    /// Of the entry and the correction's number among all of that entry.
    pub identity: Identity,
    /// Hash over what it says.
    pub content: u32,
    /// The entry.
    pub entry: MeterAddress,
    /// `id` of the entry's event.
    pub entry_id: &'a str,
    /// When the entry was counted.
    pub counted: CountedThen,
    /// Everything that was applied before this time is known to whoever made it.
    pub judged_at: UnixMillis,
    /// What stood for the entry; `None` where that was void.
    pub before: Option<Standing<'a>>,
    /// What stands for it from now on; `None` voids it.
    pub after: Option<Standing<'a>>,
    /// Who corrects, and why.
    pub reason: &'a str,
    /// Whether it is the same call at another price, among many.
    pub is_rerate: bool,
}

/// What became of a correction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Corrected {
    /// Applied: so many rows, the first at this address.
    Applied {
        /// Of the first row.
        address: MeterAddress,
        /// Rows.
        rows: u32,
    },
    /// It was applied before.
    Twice,
    /// Another correction of this entry came first, or the call has grown meanwhile.
    Conflict,
    /// Whether another one came first is not remembered for as long.
    Late,
    /// It names an entry of another partition, or of a commit that is not over.
    NoEntry,
}

impl Meter {
    /// Applies a correction of an entry that this partition counted.
    pub fn correct(
        &mut self,
        correction: &Correction<'_>,
        origin: Origin,
        rows: &mut impl Rows,
    ) -> Corrected {
        let counted_at = self.pass(origin);
        let entry = correction.entry;
        let is_counted = (entry.seq, entry.index) < (self.seq, self.index) && entry.seq > 0;
        if entry.partition != self.config.partition || !is_counted {
            return Corrected::NoEntry;
        }
        if correction.judged_at < self.dedupe.knows_since(self.now) {
            return Corrected::Late;
        }
        let (identity, content) = (correction.identity, correction.content);
        match self.dedupe.judged(identity, content, counted_at) {
            Judgement::Duplicate => return Corrected::Twice,
            Judgement::Conflict { .. } => return Corrected::Conflict,
            Judgement::Fresh => {}
        }
        if self.has_grown(correction) {
            return Corrected::Conflict;
        }
        self.dedupe.judge(identity, content, counted_at);
        self.ends_growing(correction);
        let id = RememberedId::new(identity, content, counted_at);
        self.outputs.ids.ids.push(id);
        let first = self.index;
        match (&correction.before, &correction.after) {
            (Some(before), Some(after)) if before.event.attribution == after.event.attribution => {
                let (by, taking_back) = match correction.is_rerate {
                    true => (AmendedBy::Rerate, AmendedBy::RerateTakingBack),
                    false => (AmendedBy::Correction, AmendedBy::TakingBack),
                };
                let mut counts = Counts::of(&before.event, before.charge.cost);
                // Whoever sums calls by where their price comes from finds each in one place.
                if correction.is_rerate && before.charge.priced != after.charge.priced {
                    let nothing = nothing_of(before);
                    self.push_row(correction, &nothing, counts, taking_back, origin, rows);
                    counts = Counts::default();
                }
                self.push_row(correction, after, counts, by, origin, rows);
                self.change_sums(correction, after, Change::between(before, after));
            }
            (before, after) => {
                if let Some(before) = before {
                    let counts = Counts::of(&before.event, before.charge.cost);
                    let nothing = nothing_of(before);
                    let by = AmendedBy::TakingBack;
                    self.push_row(correction, &nothing, counts, by, origin, rows);
                    self.change_sums(correction, before, Change::of(before).taken_back());
                }
                if let Some(after) = after {
                    let (none, by) = (Counts::default(), AmendedBy::Correction);
                    self.push_row(correction, after, none, by, origin, rows);
                    self.change_sums(correction, after, Change::of(after));
                }
            }
        }
        Corrected::Applied {
            address: MeterAddress {
                partition: entry.partition,
                seq: self.seq,
                index: first,
            },
            rows: self.index - first,
        }
    }

    /// Whether the call has grown since whoever made the correction looked.
    fn has_grown(&self, correction: &Correction<'_>) -> bool {
        let (Some(lately), Some(before)) = (&self.lately, &correction.before) else {
            return false;
        };
        let known = lately.growing(before.event.identity, self.config.partition);
        let known = known.filter(|known| known.address == correction.entry);
        let counts = Counts::of(&before.event, before.charge.cost);
        known.is_some_and(|known| known.counts() != counts)
    }

    /// What is told of a corrected call from now on is no growth.
    fn ends_growing(&mut self, correction: &Correction<'_>) {
        let (before, after) = (correction.before.as_ref(), correction.after.as_ref());
        let (Some(lately), Some(standing)) = (&mut self.lately, after.or(before)) else {
            return;
        };
        let identity = standing.event.identity;
        let known = lately.of(identity, self.config.partition);
        let known = known.filter(|known| known.address == correction.entry);
        if let (Some(known), Some(told)) = (known, ToldCall::of(&standing.event)) {
            let ended = CountedCall {
                told,
                estimated: None,
                has_ended: true,
                ..known
            };
            lately.remember(identity, &ended, &mut self.outputs.ids.calls);
        }
    }

    fn push_row(
        &mut self,
        correction: &Correction<'_>,
        standing: &Standing<'_>,
        counts: Counts,
        by: AmendedBy,
        origin: Origin,
        rows: &mut impl Rows,
    ) {
        let event = Event {
            id: correction.id.into(),
            ..standing.event.clone()
        };
        let amended = Amended {
            id: correction.entry_id,
            address: correction.entry,
            counts,
            by,
        };
        let address = self.next_address();
        let charge = &standing.charge;
        let mut flags = event.flags;
        flags.insert(charge.flags);
        rows.push(&SpendRow {
            event: &event,
            amends: Some(&amended),
            cost: charge.cost,
            priced: charge.priced,
            price_version: charge.price_version,
            priced_as: charge.priced_as,
            price_detail: correction.reason,
            budget_version: self.book.version,
            flags,
            origin,
            address,
        });
    }

    /// Changes the sums of every budget that counts the entry as `standing` says.
    fn change_sums(
        &mut self,
        correction: &Correction<'_>,
        standing: &Standing<'_>,
        change: Change,
    ) {
        let event = &standing.event;
        let Change { spend, unpriced } = change;
        self.fold.correct(
            &self.book.series,
            event,
            spend,
            unpriced,
            correction.counted,
        );
        if !event.flags.contains(Flags::BACKFILLED) {
            self.change_session_budgets(correction, event, change);
        }
    }

    /// The same in sessions that are live since before the entry was counted.
    fn change_session_budgets(
        &mut self,
        correction: &Correction<'_>,
        event: &Event<'_>,
        change: Change,
    ) {
        let book = Arc::clone(&self.book);
        let running = self.running_event();
        for index in &book.session_budgets {
            let compiled = book.budget(*index);
            let name = SessionName::counted_by(compiled, event);
            let (Some(name), Some(scope)) = (name, compiled.scope_of(&event.attribution)) else {
                continue;
            };
            let Some(id) = self.sessions.find(name) else {
                continue;
            };
            let ends_at = self.ends_at(id);
            let session = &mut self.sessions[id];
            let entry = correction.entry;
            let has_it = session.has_counted(entry) && ends_at >= self.now;
            let is_in_count =
                correction.counted.is_in(compiled) || session.counted_for(compiled, entry);
            if !has_it || !is_in_count {
                continue;
            }
            let (opened_at, limit) = (session.opened_at, session.limit());
            let is_known = session.accounts.iter().any(|one| {
                one.budget == compiled.budget.id.as_str()
                    && one.scope == scope
                    && one.count().goes_on_in(compiled.count, opened_at)
            });
            let may_begin = change.begins() && session.accounts.len() < MOST_ACCOUNTS;
            if !is_known && !may_begin {
                // It was given up for others.
                continue;
            }
            let (one, outdated) = session.account_mut(compiled, scope, running);
            let Change { spend, unpriced } = change;
            one.account
                .correct(spend, unpriced, &event.source, &event.id, event.time);
            if let Some(outdated) = outdated {
                self.withdraw_outdated(outdated, &book, name, (opened_at, limit));
            }
            self.settle_at_end(id);
        }
    }

    /// Commit of the event that is being counted, and its place among those that have rows.
    pub(super) fn running_event(&self) -> (u64, u32) {
        (self.seq, self.index.saturating_sub(1))
    }
}

impl Session {
    /// Whether the entry was counted since the session began.
    pub(super) fn has_counted(&self, entry: MeterAddress) -> bool {
        let first = self.first_event;
        first.is_some_and(|first| first <= (entry.seq, entry.index))
    }

    /// Whether the budget was counted here when the entry was: whatever its record says of when it began,
    /// an account of it is older.
    fn counted_for(&self, compiled: &CompiledBudget, entry: MeterAddress) -> bool {
        let mut accounts = self.accounts.iter();
        accounts.any(|one| {
            let goes_on = one.count().goes_on_in(compiled.count, self.opened_at);
            let is_older = one
                .first_event
                .is_some_and(|first| first <= (entry.seq, entry.index));
            one.budget == compiled.budget.id.as_str() && goes_on && is_older
        })
    }
}

/// What sums change by.
#[derive(Clone, Copy, Debug, Default)]
struct Change {
    spend: Spend,
    unpriced: Nanos,
}

impl Change {
    fn of(standing: &Standing<'_>) -> Self {
        let charge = &standing.charge;
        Self {
            spend: Counts::of(&standing.event, charge.cost).spend(),
            unpriced: charge.at_ceiling,
        }
    }

    fn taken_back(self) -> Self {
        Self::default().minus(self)
    }

    fn between(before: &Standing<'_>, after: &Standing<'_>) -> Self {
        Self::of(after).minus(Self::of(before))
    }

    fn minus(self, other: Self) -> Self {
        Self {
            spend: self.spend - other.spend,
            unpriced: self.unpriced - other.unpriced,
        }
    }

    /// Whether it is an entry that was not there.
    fn begins(self) -> bool {
        self.spend.calls > 0
    }
}

/// An entry against the same, for nothing.
fn nothing_of<'a>(before: &Standing<'a>) -> Standing<'a> {
    let mut event = before.event.clone();
    if let Body::Usage(call) = &mut event.body {
        call.tokens = Default::default();
        call.units.entries.clear();
        call.tool_calls = 0;
        call.reported_cost = None;
        call.latency_ms = None;
    }
    Standing {
        event,
        charge: Charge {
            cost: Default::default(),
            at_ceiling: Nanos::ZERO,
            ..before.charge
        },
    }
}
