//! The decision: which budgets a call meets, how each stands, and the strictest of them.

use std::sync::Arc;

use smallvec::SmallVec;
use spendfuse_domain::budget::{Action, BudgetId, Compared, OnStale, Spend, Step};
use spendfuse_domain::scope::FilterMatch;
use spendfuse_domain::{Amount, Attribution, Nanos, UnixMillis, Verdict};

use crate::compiled::{GuardedBudget, Values};
use crate::digest::{Glimpse, Kind};
use crate::entry::Entry;
use crate::freshness::{Now, State, StateAge};
use crate::guard::{Guard, Replica, Snapshot};
use crate::hash::{EntryHash, combine};
use crate::response::{AllSeen, Reasoned, Seen};
use crate::table::Table;

/// A call that asks whether it may go ahead.
#[derive(Clone, Debug, Default)]
pub struct CheckRequest<'a> {
    /// Who is about to spend. Only known fields are set; all may be absent.
    pub attribution: Attribution<'a>,
    /// What the call is expected to cost; zero where unknown. Not negative.
    pub estimate: Spend,
    /// What the app lets the call's session spend, for budgets whose limit is told so; the last that
    /// usage events told where absent.
    pub session_limit: Option<Nanos>,
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

/// Budgets that a call may meet without an allocation.
pub(crate) const AT_HAND: usize = 12;

/// The places of the entries of the budgets that a call meets.
pub(crate) type Keys = SmallVec<[EntryHash; AT_HAND]>;

/// How a call stands to one budget. Small, and no reference to anything: the check path makes no
/// text and counts no references.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Match {
    /// Index of the budget in the snapshot's budgets.
    pub(crate) budget: u32,
    pub(crate) verdict: Verdict,
    /// Index of the budget's step that was reached.
    pub(crate) step: Option<u16>,
    /// Whether the verdict is due to `on_stale`.
    pub(crate) by_staleness: bool,
    /// Whether it would not refuse but for what other calls hold.
    pub(crate) by_holds: bool,
    /// Whether it would refuse the call in a new window too: the call alone costs more than the limit.
    pub(crate) is_too_dear: bool,
}

/// The answer to a [`CheckRequest`]. Holds what it was decided by, so it is for now, not to be kept.
pub struct Decision<'guard> {
    pub(crate) replica: &'guard Replica,
    pub(crate) snapshot: arc_swap::Guard<Arc<Snapshot>>,
    pub(crate) verdict: Verdict,
    pub(crate) matches: SmallVec<[Match; AT_HAND]>,
    /// Indexes of budgets whose `where` asks for fields that the request lacks.
    pub(crate) not_evaluated: SmallVec<[u32; 8]>,
    /// Hash of the request's session as a scope, where it names one.
    pub(crate) session: Option<u128>,
    pub(crate) session_blocks: SmallVec<[Arc<Entry>; 5]>,
    pub(crate) state: StateAge,
    pub(crate) cold_block: bool,
    /// Whether anything is held for calls under way.
    is_any_held: bool,
}

impl Guard {
    /// Decides about a call. No lock, no network; no allocation as long as at most twelve budgets
    /// apply (the first check of a thread apart, which registers the thread). The cost depends on
    /// how many scope shapes budgets use, hardly on how many scopes there are, and not on how many
    /// are blocked.
    // Inlined, so that a decision is made where its caller keeps it: to copy its few hundred bytes
    // takes as long as the rest of a check.
    #[inline]
    pub fn check<'guard>(&'guard self, request: &CheckRequest<'_>, now: Now) -> Decision<'guard> {
        let mut decision = Decision::open(&self.replica, now);
        decision.decide_by_table(request, now.wall);
        decision
    }

    /// Decides as [`Guard::check`] does, by the full entries, and keeps them: for who is to be told
    /// why. Takes some microseconds.
    pub fn check_with_reasons<'a>(
        &'a self,
        request: &'a CheckRequest<'a>,
        now: Now,
    ) -> Reasoned<'a> {
        self.check_expecting(request, now, |_| request.estimate)
    }

    /// The same for a call of which each budget expects what `expected` says.
    pub(crate) fn check_expecting<'a>(
        &'a self,
        request: &'a CheckRequest<'a>,
        now: Now,
        expected: impl Fn(&GuardedBudget) -> Spend,
    ) -> Reasoned<'a> {
        let mut decision = Decision::open(&self.replica, now);
        let (replica, state) = (decision.replica, decision.state.state);
        let is_any_held = decision.is_any_held;
        let mut all_seen = AllSeen::new();
        decision.decide(request, now.wall, |_, key, budget, found| {
            let seen = Seen::at(key, replica, is_any_held, now.wall);
            let (entry, held) = (seen.entry.as_deref(), seen.held.total());
            found.judge(budget, entry, request, &expected(budget), state, held);
            all_seen.push(seen);
        });
        Reasoned {
            decision,
            seen: all_seen,
            request,
            now: now.wall,
        }
    }
}

impl<'guard> Decision<'guard> {
    /// A decision about which nothing is known but the replica that it is made by.
    #[inline]
    fn open(replica: &'guard Replica, now: Now) -> Self {
        // Before the snapshot: what is no longer held is in what is read after this.
        let is_any_held = replica.holds.is_any();
        let snapshot = replica.snapshot.load();
        let stale_after = replica.config.stale_after_millis;
        let state = snapshot.freshness.at(now.monotonic_millis, stale_after);
        Self {
            replica,
            snapshot,
            verdict: Verdict::Ok,
            matches: SmallVec::new(),
            not_evaluated: SmallVec::new(),
            session: None,
            session_blocks: SmallVec::new(),
            state,
            cold_block: state.state == State::Cold && replica.config.cold_start == ColdStart::Block,
            is_any_held,
        }
    }

    /// Decides by the table where that leaves nothing open, else by full entries.
    fn decide_by_table(&mut self, request: &CheckRequest<'_>, now: UnixMillis) {
        let (replica, state, is_any_held) = (self.replica, self.state.state, self.is_any_held);
        self.decide(request, now, |table, key, budget, found| {
            // With old state, `on_stale` may ask for what is spent exactly.
            let is_exact = state == State::Stale && budget.on_stale != OnStale::Allow;
            let held = replica.held(key, is_any_held);
            let known = match is_any_held {
                false => table.get(key, now),
                // This table may be an older one than shows what was held before.
                true => replica.snapshot.load().table.get(key, now),
            };
            if is_exact || !budget.is_far(known, &request.estimate, held) {
                let entry = replica.current(key, now);
                let (entry, estimate) = (entry.as_deref(), &request.estimate);
                found.judge(budget, entry, request, estimate, state, held);
            }
        });
    }

    /// Finds the budgets and session blocks that apply to `request`, has each budget judged, and
    /// takes the strictest.
    #[inline]
    fn decide(
        &mut self,
        request: &CheckRequest<'_>,
        now: UnixMillis,
        mut judge: impl FnMut(&Table, EntryHash, &GuardedBudget, &mut Match),
    ) {
        let (budgets, table) = (&*self.snapshot.budgets, &*self.snapshot.table);
        let mut values = Values::default();
        budgets.hash(&request.attribution, &self.replica.hasher, &mut values);
        self.session = values.session_scope();
        let session_key = self.session.map(|scope| self.replica.any_block(scope));
        // All that is needed from memory is fetched at once, and read only then.
        let mut fetched = session_key.map_or(0, |key| table.fetch(key));
        let mut keys = Keys::new();
        for group in &budgets.groups {
            let Some(candidates) = group.candidates(&values) else {
                continue;
            };
            let asking = group.asking(&request.attribution);
            for &index in candidates.members {
                let budget = &budgets.budgets[index as usize];
                match budget.filter(asking) {
                    FilterMatch::Contradicts => {}
                    FilterMatch::Unknown => self.not_evaluated.push(index),
                    FilterMatch::Holds => {
                        let key = combine(budget.id_hash, candidates.scope);
                        fetched ^= table.fetch(key);
                        keys.push(key);
                        self.matches.push(Match::new(index));
                    }
                }
            }
        }
        std::hint::black_box(fetched);
        for (key, found) in keys.iter().zip(&mut self.matches) {
            judge(table, *key, &budgets.budgets[found.budget as usize], found);
            self.verdict = self.verdict.max(found.verdict);
        }
        // What detectors say of a session never fits into a digest: there is something or nothing.
        if let (Some(scope), Some(key)) = (self.session, session_key)
            && table.get(key, now) != Glimpse::Nothing
        {
            self.session_blocks = self.replica.session_blocks(scope, now);
        }
        if self.cold_block || !self.session_blocks.is_empty() {
            self.verdict = Verdict::Block;
        }
    }
}

impl Decision<'_> {
    /// The strictest verdict of all that apply; [`Verdict::Ok`] is `allow`.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// The budgets that the call counts against, with what each says, in no order.
    pub fn budgets(&self) -> impl Iterator<Item = (&BudgetId, Verdict)> {
        let id = |one: &Match| &self.compiled(one.budget).budget().id;
        self.matches.iter().map(move |one| (id(one), one.verdict))
    }

    /// How old the state is that it was decided by.
    pub fn state(&self) -> StateAge {
        self.state
    }

    /// Whether it refuses whatever its budgets say.
    pub(crate) fn is_stopped(&self) -> bool {
        self.cold_block || !self.session_blocks.is_empty()
    }

    /// The cheaper model to use, where the decision is `downgrade`; that of the first budget by id
    /// where several ask.
    pub fn downgrade_to(&self) -> Option<&str> {
        let matches = self.matches.iter();
        let downgrades = matches.filter(|one| one.verdict == Verdict::Downgrade);
        let first = downgrades.min_by_key(|one| one.budget)?;
        let step = self.compiled(first.budget).step(first.step);
        match step.map(|step| &step.action) {
            Some(Action::Downgrade(model)) => Some(model),
            _ => None,
        }
    }

    pub(crate) fn compiled(&self, index: u32) -> &GuardedBudget {
        &self.snapshot.budgets.budgets[index as usize]
    }
}

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
    fn is_far(&self, known: Glimpse, estimate: &Spend, held: i64) -> bool {
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

    fn step(&self, index: Option<u16>) -> Option<&Step> {
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
