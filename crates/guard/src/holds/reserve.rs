//! Admission with a reservation: in every budget that the call meets, or in none.

use spendfuse_domain::{Nanos, Verdict};

use super::book::{MOST, Open, Part, Parts, counted, give_back};
use crate::decision::{CheckRequest, Match};
use crate::freshness::Now;
use crate::guard::Guard;
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
}

impl Guard {
    /// Decides as [`Guard::check_with_reasons`] does, and where the call may go ahead, holds its
    /// estimate in every budget that it meets for `timeout_millis`. Of any number of threads that
    /// ask at the same time only as many are admitted as there is room for.
    ///
    /// # Errors
    /// [`NotReserved`]: nothing is decided and nothing held.
    pub fn reserve<'a>(
        &'a self,
        request: &'a CheckRequest<'a>,
        timeout_millis: i64,
        now: Now,
    ) -> Result<(Reasoned<'a>, Option<Hold>), NotReserved> {
        if request.estimate.cost.get() > i128::from(MOST) {
            return Err(NotReserved::TooMuch);
        }
        self.expire_holds(now.monotonic_millis);
        self.room()?;
        let mut reasoned = self.check_with_reasons(request, now);
        let Some(parts) = self.admit(&mut reasoned) else {
            return Ok((reasoned, None));
        };
        let hold = Open {
            parts,
            cost: request.estimate.cost,
            timeout_millis,
            until: now.monotonic_millis.saturating_add(timeout_millis),
        };
        let holds = &self.replica.holds;
        let mut book = holds.book();
        // Others may have been faster.
        if book.len() >= self.replica.config.hold_capacity {
            give_back(&hold.parts, &holds.cells);
            return Err(NotReserved::Full { held: book.len() });
        }
        let (cost, lasts_millis) = (hold.cost, timeout_millis);
        let hold = Hold {
            number: book.add(hold),
            cost,
            lasts_millis,
        };
        Ok((reasoned, Some(hold)))
    }

    fn room(&self) -> Result<(), NotReserved> {
        let held = self.replica.holds.book().len();
        let has_room = held < self.replica.config.hold_capacity;
        has_room.then_some(()).ok_or(NotReserved::Full { held })
    }

    /// Holds the request's estimate in every budget that it meets; `None` where one of them, or
    /// anything else, refuses the call.
    fn admit(&self, reasoned: &mut Reasoned<'_>) -> Option<Parts> {
        if reasoned.verdict() == Verdict::Block {
            return None;
        }
        let (replica, request, now) = (&*self.replica, reasoned.request, reasoned.now);
        let state = reasoned.decision.state.state;
        let cells = &replica.holds.cells;
        let mut parts = Parts::new();
        let mut verdict = Verdict::Ok;
        let matches = reasoned.decision.matches.iter_mut();
        for (found, seen) in matches.zip(&mut reasoned.seen) {
            let budget = &reasoned.decision.snapshot.budgets.budgets[found.budget as usize];
            let amount = counted(budget.unit, &request.estimate);
            if amount > 0 {
                let admitted = cells.admit(seen.key, amount, |held| {
                    // What is held was read before: an amount that has left it since is in this entry.
                    seen.entry = replica.current(seen.key, now);
                    *found = Match::new(found.budget);
                    found.judge(budget, seen.entry.as_deref(), request, state, held);
                    found.verdict < Verdict::Block
                });
                *seen = Seen::at(seen.key, replica, true, now);
                if !admitted {
                    give_back(&parts, cells);
                    found.verdict = Verdict::Block;
                    reasoned.decision.verdict = Verdict::Block;
                    return None;
                }
            }
            verdict = verdict.max(found.verdict);
            parts.push(Part {
                key: seen.key,
                unit: budget.unit,
                amount,
            });
        }
        reasoned.decision.verdict = verdict;
        Some(parts)
    }
}
