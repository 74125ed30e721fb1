//! The decision: which budgets a call meets, how each stands, and the strictest of them.

use std::sync::Arc;

use smallvec::SmallVec;
use spendfuse_domain::budget::{Action, BudgetId, OnStale, Spend};
use spendfuse_domain::scope::FilterMatch;
use spendfuse_domain::{Attribution, Nanos, UnixMillis, Verdict};

use crate::compiled::{GuardedBudget, Values};
use crate::digest::Glimpse;
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
            let seen = Seen::at(key, budget.unit, replica, is_any_held, now.wall);
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
            let held = replica.held(key, budget.unit, is_any_held);
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
