//! Admission with a reservation: in every budget that the call meets, or in none.

use std::sync::Arc;

use smallvec::SmallVec;
use spendfuse_broken::{Break, is_broken};
use spendfuse_domain::{Nanos, Verdict};

use super::book::Open;
use super::cells::cell_of;
use super::expected::{Amounts, Asked, Expected};
use super::learned::Pair;
use super::parts::{Part, Parts, counted, give_back};
use crate::compiled::GuardedBudget;
use crate::decision::{CheckRequest, Match};
use crate::freshness::Now;
use crate::guard::Guard;
use crate::hash::EntryHash;
use crate::response::{Reasoned, Seen};

/// What was reserved for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Names it in this guard; no other ever has the same.
    pub number: u64,
    /// Dollars.
    pub cost: Nanos,
    /// It ends after so many milliseconds if nobody settles, releases or extends it.
    pub lasts_millis: i64,
}

impl Hold {
    pub(super) fn of(number: u64, hold: &Open, now_millis: i64) -> Self {
        Self {
            number,
            cost: hold.cost,
            lasts_millis: hold.until.saturating_sub(now_millis),
        }
    }
}

/// Nothing could be reserved, whatever the budgets say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReserved {
    /// More would take more memory.
    #[error(
        "{held} reservations are open or not counted yet, as many as may be; settle or release those that are over"
    )]
    Full {
        /// How many there are.
        held: usize,
    },
    /// An estimate that no call costs.
    #[error("more than a million dollars cannot be reserved for one call")]
    TooMuch,
    /// Nothing is known of the call that a hold could go by: it would hold nobody back.
    #[error(
        "reserve holds what a call may cost: give estimated_cost_usd or estimate, or name its model"
    )]
    NoEstimate,
}

/// What a call is to hold, found out once: what is learnt while it waits changes nothing about what it
/// has asked others for.
#[derive(Clone, Copy, Debug)]
pub struct Planned {
    amounts: Amounts,
    pair: Pair,
    /// A hash of the call's workspace.
    workspace: u128,
}

/// A decision about a call that asked for a reservation.
pub struct Reserving<'a> {
    /// The decision.
    pub decision: Reasoned<'a>,
    /// What the call was to hold: of the budget that refuses it, else the most of any.
    pub asked: Asked,
    /// What it holds; `None` where it is refused.
    pub hold: Option<Hold>,
}

/// How one admission goes.
pub(super) struct Admission {
    amounts: Amounts,
    pub(super) asked: Asked,
    parts: Parts,
    /// Of these others hold nothing that comes before the call.
    granted: SmallVec<[EntryHash; 4]>,
}

impl Admission {
    pub(super) fn new(planned: &Planned) -> Self {
        let amounts = planned.amounts;
        Self {
            asked: amounts.usual,
            amounts,
            parts: Parts::new(),
            granted: SmallVec::new(),
        }
    }

    /// What the call is to hold of a budget.
    pub(super) fn of(&self, budget: &GuardedBudget) -> Asked {
        self.amounts.by(budget.budget().reserve_rule)
    }

    /// The call meets a budget of which it is to hold so much.
    fn meets(&mut self, asked: Asked) {
        if self.parts.is_empty() || asked.spend.cost > self.asked.spend.cost {
            self.asked = asked;
        }
    }
}

impl Guard {
    /// Decides as [`Guard::check_with_reasons`] does, by what the call is expected to cost and the
    /// budgets' reserve rules, not by the request's estimate; and where the call may go ahead, holds
    /// that in every budget that it meets for `timeout_millis`. Of any number of threads that ask at
    /// the same time only as many are admitted as there is room for.
    ///
    /// # Errors
    /// [`NotReserved`]: nothing is decided and nothing held.
    pub fn reserve<'a>(
        &'a self,
        request: &'a CheckRequest<'a>,
        expected: Expected,
        timeout_millis: i64,
        now: Now,
    ) -> Result<Reserving<'a>, NotReserved> {
        let planned = self.plan(request, expected, now)?;
        self.reserve_granted(request, &planned, timeout_millis, &[], now)
    }

    /// Which amounts the call is to hold.
    ///
    /// # Errors
    /// [`NotReserved::TooMuch`], [`NotReserved::NoEstimate`].
    pub fn plan(
        &self,
        request: &CheckRequest<'_>,
        expected: Expected,
        now: Now,
    ) -> Result<Planned, NotReserved> {
        let who = &request.attribution;
        let workspace = self.replica.hasher.text(&who.workspace);
        let pair = self.pair_in(workspace, &who.feature, &who.model);
        let mut learned = self.replica.holds.learned();
        let known = learned.known(pair, now.monotonic_millis);
        drop(learned);
        let rule = self.replica.config.reserve_rule;
        let amounts = Amounts::new(expected, known, rule)?;
        Ok(Planned {
            amounts,
            pair,
            workspace,
        })
    }

    /// The same, where it is settled already that the call, with what was planned for it, comes before
    /// what other sidecars hold of these keys (`{budget}|{scope}`).
    ///
    /// # Errors
    /// [`NotReserved::Full`].
    pub fn reserve_granted<'a>(
        &'a self,
        request: &'a CheckRequest<'a>,
        planned: &Planned,
        timeout_millis: i64,
        granted: &[Arc<str>],
        now: Now,
    ) -> Result<Reserving<'a>, NotReserved> {
        let holds = &self.replica.holds;
        let mut admission = Admission::new(planned);
        for key in granted {
            admission.granted.push(self.replica.hasher.key(key));
        }
        let held = holds.expire(now.monotonic_millis);
        if held >= self.replica.config.hold_capacity {
            return Err(NotReserved::Full { held });
        }
        let mut decision = self.check_expecting(request, now, |budget| admission.of(budget).spend);
        if !self.admit(&mut decision, &mut admission) {
            return Ok(Reserving {
                decision,
                asked: admission.asked,
                hold: None,
            });
        }
        let (asked, cost) = (admission.asked, admission.asked.spend.cost);
        let hold = Open {
            parts: admission.parts,
            cost,
            pair: planned.pair,
            workspace: planned.workspace,
            timeout_millis,
            until: now.monotonic_millis.saturating_add(timeout_millis),
        };
        let mut book = holds.book();
        // Others may have been faster.
        if book.len() >= self.replica.config.hold_capacity {
            give_back(&hold.parts, &holds.cells);
            return Err(NotReserved::Full { held: book.len() });
        }
        let hold = Hold {
            number: book.add(hold),
            cost,
            lasts_millis: timeout_millis,
        };
        Ok(Reserving {
            decision,
            asked,
            hold: Some(hold),
        })
    }

    /// Holds what the call is to hold in every budget that it meets. Returns false where one of
    /// them, or anything else, refuses the call.
    fn admit(&self, reasoned: &mut Reasoned<'_>, admission: &mut Admission) -> bool {
        let (replica, request, now) = (&*self.replica, reasoned.request, reasoned.now);
        let budgets = &reasoned.decision.snapshot.budgets.budgets;
        // Before those that hold something of a key that is granted, the call came.
        let mut matches = reasoned.decision.matches.iter().zip(&reasoned.seen);
        let refusing = matches.find(|(found, seen)| {
            let is_settled = found.by_holds && admission.granted.contains(&seen.key);
            found.verdict == Verdict::Block && !is_settled
        });
        if let Some((found, _)) = refusing {
            admission.asked = admission.of(&budgets[found.budget as usize]);
            return false;
        }
        if reasoned.decision.is_stopped() {
            return false;
        }
        let state = reasoned.decision.state.state;
        let cells = &replica.holds.cells;
        let mut verdict = Verdict::Ok;
        let matches = reasoned.decision.matches.iter_mut();
        for (found, seen) in matches.zip(&mut reasoned.seen) {
            let budget = &budgets[found.budget as usize];
            let asked = admission.of(budget);
            let amount = counted(budget.unit, &asked.spend);
            if amount > 0 {
                let elsewhere = match admission.granted.contains(&seen.key) {
                    true => 0,
                    false => replica.holds.elsewhere(seen.key),
                };
                let mut held_before = 0;
                let admitted = cells.admit(cell_of(seen.key, budget.unit), amount, |held| {
                    // What is held was read before: an amount that has left it since is in this entry.
                    seen.entry = replica.current(seen.key, now);
                    held_before = held;
                    *found = Match::new(found.budget);
                    let entry = seen.entry.as_deref();
                    let held = held.saturating_add(elsewhere);
                    found.judge(budget, entry, request, &asked.spend, state, held);
                    found.verdict < Verdict::Block
                });
                let here = held_before.saturating_add(amount);
                seen.held.reserved = here.saturating_sub(seen.held.pending).max(0);
                if !admitted {
                    *seen = Seen::at(seen.key, budget.unit, replica, true, now);
                    if !is_broken(Break::RollbackForgotten) {
                        give_back(&admission.parts, cells);
                    }
                    admission.asked = asked;
                    found.verdict = Verdict::Block;
                    reasoned.decision.verdict = Verdict::Block;
                    return false;
                }
            }
            verdict = verdict.max(found.verdict);
            admission.meets(asked);
            admission.parts.push(Part {
                key: seen.key,
                unit: budget.unit,
                amount,
                excess: (counted(budget.unit, &admission.amounts.worst()) - amount).max(0),
            });
        }
        reasoned.decision.verdict = verdict;
        true
    }
}
