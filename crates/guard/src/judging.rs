//! How a call stands to one budget: which of its steps it reaches, and whether that refuses it.

use spendfuse_domain::budget::{Action, Compared, OnStale, Spend, Step};
use spendfuse_domain::{Amount, Attribution, Nanos, Verdict};

use crate::compiled::GuardedBudget;
use crate::decision::{CheckRequest, Match};
use crate::digest::{Glimpse, Kind};
use crate::entry::Entry;
use crate::freshness::State;

/// What is known of a scope's spend, as one budget sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Spent {
    /// In the unit of the budget's limit.
    amount: i128,
    /// In dollars, where it is known.
    cost: Option<Nanos>,
    /// Strictest step reached, as the entry's writer judged.
    verdict: Verdict,
    /// Whether the entry's writer judged by the limit that the budget has now.
    same_limit: bool,
}

impl Spent {
    fn of(entry: &Entry, limit: Amount) -> Self {
        Self {
            amount: entry.counted_by(limit).number(),
            cost: entry.cost(),
            verdict: entry.verdict,
            same_limit: entry.figures.limit == Some(limit),
        }
    }
}

impl Match {
    /// A budget that a request meets, before it is judged.
    pub(crate) fn new(budget: u32) -> Self {
        Self {
            budget,
            verdict: Verdict::Ok,
            step: None,
            by_staleness: false,
            by_holds: false,
            is_too_dear: false,
        }
    }

    /// A budget that refuses because other calls came before.
    pub(crate) fn held_up(budget: u32) -> Self {
        Self {
            verdict: Verdict::Block,
            by_holds: true,
            ..Self::new(budget)
        }
    }

    /// How a call that will cost `estimate` stands to the budget, of whose current window `entry` is
    /// known and of which other calls hold `held`.
    pub(crate) fn judge(
        &mut self,
        compiled: &GuardedBudget,
        entry: Option<&Entry>,
        request: &CheckRequest<'_>,
        estimate: &Spend,
        state: State,
        held: i64,
    ) {
        self.judge_beside(compiled, entry, request, estimate, state, held);
        if self.verdict < Verdict::Block {
            return;
        }
        self.is_too_dear =
            compiled.never_fits(compiled.limit(request.session_limit, entry), estimate);
        if held > 0 {
            let mut alone = Self::new(self.budget);
            alone.judge_beside(compiled, entry, request, estimate, state, 0);
            self.by_holds = alone.verdict < Verdict::Block;
        }
    }

    fn judge_beside(
        &mut self,
        compiled: &GuardedBudget,
        entry: Option<&Entry>,
        request: &CheckRequest<'_>,
        estimate: &Spend,
        state: State,
        held: i64,
    ) {
        let limit = compiled.limit(request.session_limit, entry);
        let spent = entry.map(|entry| Spent::of(entry, limit));
        // What others hold will have been spent when this call is: it is no more than an estimate, too.
        let expected = compiled.counted(estimate) + i128::from(held);
        let amount = spent.map_or(0, |spent| spent.amount);
        if amount + expected.max(0) >= compiled.lowest_share {
            let ceiling = enforced_ceiling(compiled, limit, spent);
            let step = compiled.strictest(limit, amount, expected, ceiling);
            self.reach(compiled, step, &request.attribution);
        }
        if state == State::Stale {
            let refused = match compiled.on_stale {
                OnStale::Allow => false,
                OnStale::Block => true,
                OnStale::AllowUpTo(most) => {
                    let cost = spent.map_or(Some(Nanos::ZERO), |spent| spent.cost);
                    // A budget in tokens or calls does not say what was spent in dollars.
                    let held = match compiled.unit {
                        Kind::Usd => Nanos::new(held.into()),
                        _ => Nanos::ZERO,
                    };
                    cost.is_none_or(|cost| cost + held + estimate.cost > most)
                }
            };
            if refused && self.verdict < Verdict::Block {
                self.by_staleness = true;
                self.verdict = Verdict::Block;
            }
        }
    }

    fn reach(&mut self, compiled: &GuardedBudget, step: Option<u16>, asking: &Attribution<'_>) {
        self.step = step;
        self.verdict = match compiled.step(step).map(|step| &step.action) {
            Some(Action::Downgrade(model)) if *model == asking.model => Verdict::Warn,
            action => action.map_or(Verdict::Ok, Action::verdict),
        };
    }
}

impl GuardedBudget {
    /// Whether anything that is spent can make it refuse calls: not where it is beyond its limit by
    /// spend that only warns.
    pub(crate) fn may_refuse(&self, request: &CheckRequest<'_>, entry: Option<&Entry>) -> bool {
        let limit = self.limit(request.session_limit, entry);
        let spent = entry.map(|entry| Spent::of(entry, limit));
        enforced_ceiling(self, limit, spent) == Verdict::Block
    }

    /// Whether a call that would spend `estimate` on top of what others hold is far from every step, as
    /// nearly every call is, by what the table says of its scope.
    #[inline]
    pub(crate) fn is_far(&self, known: Glimpse, estimate: &Spend, held: i64) -> bool {
        let spent = match known {
            Glimpse::Nothing => 0,
            Glimpse::AtMost(unit, most) if unit == self.unit => i128::from(most),
            Glimpse::AtMost(..) | Glimpse::Ask => return false,
        };
        let expected = self.counted(estimate) + i128::from(held);
        spent + expected.max(0) < self.lowest_share
    }

    /// The index of the strictest step that a call reaches which would spend `estimate` on top of
    /// `spent`, among those that are not stricter than `ceiling`.
    fn strictest(
        &self,
        limit: Amount,
        spent: i128,
        estimate: i128,
        ceiling: Verdict,
    ) -> Option<u16> {
        let compared = Compared::before_call(spent, estimate);
        let index = match self.budget().limit_from_event {
            true => self.compiled.reached_of(limit, compared, ceiling)?,
            false => self.compiled.reached(compared, ceiling)?,
        };
        u16::try_from(index).ok()
    }

    /// Whether a call that would spend `estimate` is refused where nothing is spent, and a call that
    /// spends nothing is not.
    fn never_fits(&self, limit: Amount, estimate: &Spend) -> bool {
        let step = self.strictest(limit, 0, self.counted(estimate), Verdict::Block);
        let verdict = self.step(step).map(|step| step.action.verdict());
        verdict == Some(Verdict::Block) && self.by_spend(limit, 0) < Verdict::Block
    }

    /// The strictest verdict that so much spend causes, whatever it is made of.
    fn by_spend(&self, limit: Amount, spent: i128) -> Verdict {
        let step = self.strictest(limit, spent, 0, Verdict::Block);
        self.step(step)
            .map_or(Verdict::Ok, |step| step.action.verdict())
    }

    pub(crate) fn step(&self, index: Option<u16>) -> Option<&Step> {
        self.compiled.step(usize::from(index?))
    }
}

/// The strictest verdict that spend may cause. Spend at a ceiling price (a model without a price)
/// only warns unless the budget says otherwise; how much of an entry that is, only its writer
/// knows, so its verdict stands as long as it judged by the same limit.
fn enforced_ceiling(compiled: &GuardedBudget, limit: Amount, spent: Option<Spent>) -> Verdict {
    match spent {
        Some(spent) if !compiled.budget().unpriced_blocks && spent.same_limit => {
            if compiled.by_spend(limit, spent.amount) > spent.verdict {
                spent.verdict
            } else {
                Verdict::Block
            }
        }
        _ => Verdict::Block,
    }
}
