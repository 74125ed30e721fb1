//! The decision: which budgets a call meets, how each stands, and the strictest of them.

use std::sync::Arc;

use smallvec::SmallVec;
use spendfuse_domain::budget::{Action, BudgetId, OnStale, Spend};
use spendfuse_domain::{Attribution, Nanos, Verdict};

use crate::compiled::{CompiledBudget, CompiledBudgets};
use crate::entry::Entry;
use crate::findings::OpenFindings;
use crate::freshness::{State, StateAge};

/// A call that asks whether it may go ahead.
#[derive(Clone, Debug, Default)]
pub struct CheckRequest<'a> {
    /// Who is about to spend. Only known fields are set; all may be absent.
    pub attribution: Attribution<'a>,
    /// What the call is expected to cost; zero where unknown. Not negative.
    pub estimate: Spend,
}

/// What a guard does before it has caught up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ColdStart {
    /// Decide by what is known so far.
    #[default]
    Allow,
    /// Refuse every call.
    Block,
}

/// How a call stands to one budget. Small: the check path makes no text.
pub(crate) struct Match {
    /// Place of the budget in the decision's budgets.
    pub(crate) budget: u32,
    /// Its current entry; `None` = nothing spent in the current window.
    pub(crate) entry: Option<Arc<Entry>>,
    pub(crate) verdict: Verdict,
    /// Place of the budget's step that was reached.
    pub(crate) step: Option<usize>,
    /// Whether the verdict is due to `on_stale`.
    pub(crate) by_staleness: bool,
}

/// The answer to a [`CheckRequest`].
pub struct Decision {
    pub(crate) budgets: arc_swap::Guard<Arc<CompiledBudgets>>,
    pub(crate) verdict: Verdict,
    pub(crate) matches: SmallVec<[Match; 8]>,
    /// Places of budgets whose `where` asks for fields that the request lacks.
    pub(crate) not_evaluated: SmallVec<[u32; 8]>,
    pub(crate) session_blocks: SmallVec<[Arc<Entry>; 2]>,
    pub(crate) findings: SmallVec<[OpenFindings; 2]>,
    pub(crate) state: StateAge,
    pub(crate) cold_block: bool,
}

impl Decision {
    /// The strictest verdict of all that apply; [`Verdict::Ok`] is `allow`.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// The budgets that the call counts against, with what each says, in no order.
    pub fn budgets(&self) -> impl Iterator<Item = (&BudgetId, Verdict)> {
        let id = |one: &Match| &self.budgets.budgets[one.budget as usize].budget.id;
        self.matches.iter().map(move |one| (id(one), one.verdict))
    }

    /// How old the state is that it was decided by.
    pub fn state(&self) -> StateAge {
        self.state
    }

    /// The cheaper model to use, where the decision is `downgrade`; that of the first budget by id
    /// where several ask.
    pub fn downgrade_to(&self) -> Option<&str> {
        let downgrades = |one: &&Match| one.verdict == Verdict::Downgrade;
        let first = self
            .matches
            .iter()
            .filter(downgrades)
            .min_by_key(|one| one.budget)?;
        let budget = &self.budgets.budgets[first.budget as usize].budget;
        match budget.steps.get(first.step?).map(|step| &step.action) {
            Some(Action::Downgrade(model)) => Some(model),
            _ => None,
        }
    }
}

/// How `request` stands to a budget whose scope and `where` it meets.
pub(crate) fn judge(
    compiled: &CompiledBudget,
    place: u32,
    entry: Option<Arc<Entry>>,
    request: &CheckRequest<'_>,
    state: State,
) -> Match {
    let budget = &compiled.budget;
    let spent = entry
        .as_ref()
        .map_or(0, |entry| entry.spent.against(budget.limit));
    let estimate = request.estimate.against(budget.limit);
    let ceiling = enforced_ceiling(compiled, entry.as_deref());
    let reached = budget.steps.iter().zip(&compiled.shares).enumerate();
    let strictest = reached
        .filter(|(_, (step, share))| {
            let ahead = matches!(step.action, Action::Block) && spent + estimate > **share;
            (spent >= **share || ahead) && step.action.verdict() <= ceiling
        })
        .max_by_key(|(_, (step, _))| (step.action.verdict(), step.at));
    let step = strictest.map(|(step, _)| step);
    let mut verdict = strictest.map_or(Verdict::Ok, |(_, (step, _))| match &step.action {
        Action::Downgrade(model) if *model == request.attribution.model => Verdict::Warn,
        action => action.verdict(),
    });
    let by_staleness = state == State::Stale
        && verdict < Verdict::Block
        && refused_when_stale(budget.on_stale, entry.as_deref(), request.estimate.cost);
    if by_staleness {
        verdict = Verdict::Block;
    }
    Match {
        budget: place,
        entry,
        verdict,
        step,
        by_staleness,
    }
}

/// The strictest verdict that spend may cause. Spend at a ceiling price (a model without a price)
/// only warns unless the budget says otherwise; how much of an entry that is, only its writer
/// knows, so its verdict stands as long as it judged by the same limit.
fn enforced_ceiling(compiled: &CompiledBudget, entry: Option<&Entry>) -> Verdict {
    let budget = &compiled.budget;
    match entry {
        Some(entry) if !budget.unpriced_blocks && entry.limit == Some(budget.limit) => {
            let by_spend = budget.reached(&entry.spent);
            let by_spend = by_spend.map_or(Verdict::Ok, |step| step.action.verdict());
            if by_spend > entry.verdict {
                entry.verdict
            } else {
                Verdict::Block
            }
        }
        _ => Verdict::Block,
    }
}

fn refused_when_stale(on_stale: OnStale, entry: Option<&Entry>, estimate: Nanos) -> bool {
    match on_stale {
        OnStale::Allow => false,
        OnStale::Block => true,
        OnStale::AllowUpTo(most) => {
            let spent = entry.map_or(Some(Nanos::ZERO), Entry::cost);
            // A budget in tokens or calls does not say what was spent in dollars.
            spent.is_none_or(|spent| spent + estimate > most)
        }
    }
}
