//! A budget with everything that is derived from it once.
//!
//! Meter, ledger, guard and command line decide by it, so that they cannot differ in what a scope
//! is, when a window ends or which step is reached.

use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64;

use super::count_id::CountId;
use super::{Action, Budget, Spend, Step};
use crate::amount::Amount;
use crate::event::Attribution;
use crate::money::Nanos;
use crate::scope::{Dimension, Dimensions, scope_text};
use crate::time::UnixMillis;
use crate::verdict::Verdict;
use crate::window::{Window, WindowKind};

/// A budget, compiled.
#[derive(Clone, Debug)]
pub struct CompiledBudget {
    /// The budget.
    pub budget: Budget,
    /// Dimensions of its scopes in their natural order: those of a session budget name the session
    /// too.
    pub shape: Vec<Dimension>,
    /// For each step the smallest spend that reaches it, in the limit's unit.
    pub shares: SmallVec<[i128; 4]>,
    /// Changes with anything that a reader of verdicts could see.
    pub revision: u64,
    /// Changes only when a new count starts.
    pub count: CountId,
    /// Version of the budgets with which this process met that count first: entries that were counted
    /// with this version or a later one are in it.
    pub counts_since_version: u64,
    /// Version of the budgets that its record made.
    pub recorded_at: u64,
}

/// An account need not hold an entry that arrived this soon after its count began: the meter may
/// still have counted it by the budgets of before, milliseconds.
const TAKES_EFFECT_WITHIN: i64 = 60_000;

/// What is compared with the steps of a budget, in the unit of its limit.
#[derive(Clone, Copy, Debug)]
pub struct Compared {
    /// Everything spent: what warns.
    pub spent: i128,
    /// What downgrades and blocks: not what is charged at a ceiling price, where that only warns.
    pub enforced: i128,
    /// What the call that asks may cost on top.
    pub estimate: i128,
}

impl Compared {
    /// Spend of which all is enforced, before a call that is expected to cost `estimate`.
    pub fn before_call(spent: i128, estimate: i128) -> Self {
        Self {
            spent,
            enforced: spent,
            estimate,
        }
    }

    /// Blocked is what has spent the share, or would exceed it with the call (a call that uses a
    /// budget up to the last cent goes ahead); all else goes by what is spent.
    fn reaches(self, action: &Action, share: i128) -> bool {
        match action {
            Action::Warn => self.spent >= share,
            Action::Downgrade(_) => self.enforced >= share,
            Action::Block => self.enforced >= share || self.enforced + self.estimate > share,
        }
    }
}

impl CompiledBudget {
    /// Compiles `budget`.
    pub fn new(budget: Budget) -> Self {
        let shares = budget.steps.iter();
        Self {
            shape: shape(&budget),
            shares: shares
                .map(|step| step.at.of(budget.limit).number())
                .collect(),
            revision: xxh3_64(&budget.to_record()),
            count: CountId::of(&budget),
            counts_since_version: 0,
            recorded_at: 0,
            budget,
        }
    }

    /// The scope in which spend of `who` counts against the budget; `None` where it does not.
    pub fn scope_of(&self, who: &Attribution<'_>) -> Option<String> {
        let who = AsCounted::new(who, self.session_is_root());
        let counts = self.budget.scope.covers(&who) && self.budget.filter.holds(&who);
        counts.then(|| scope_text(&self.shape, &who)).flatten()
    }

    /// Whether the count contains an entry that arrived at `arrival` and was counted with
    /// `budget_version` of the budgets. Of entries of the first minute, by budgets of before this
    /// process knew any, it is assumed that it does not: what is not taken back blocks too early, not
    /// too late.
    pub fn contains(&self, budget_version: u64, arrival: UnixMillis) -> bool {
        let since = self.budget.counted_from;
        budget_version >= self.counts_since_version || arrival.since(since) >= TAKES_EFFECT_WITHIN
    }

    /// Whether a session without a root is its own root session.
    pub fn session_is_root(&self) -> bool {
        self.budget.window == WindowKind::RootSession
    }

    /// The index of the strictest step that is reached, among those that are not stricter than
    /// `ceiling`; among equals the highest share.
    pub fn reached(&self, compared: Compared, ceiling: Verdict) -> Option<usize> {
        self.strictest(self.shares.iter().copied(), compared, ceiling)
    }

    /// The same for a session whose limit is `limit`.
    pub fn reached_of(&self, limit: Amount, compared: Compared, ceiling: Verdict) -> Option<usize> {
        let steps = self.budget.steps.iter();
        let shares = steps.map(|step| step.at.of(limit).number());
        self.strictest(shares, compared, ceiling)
    }

    fn strictest(
        &self,
        shares: impl Iterator<Item = i128>,
        compared: Compared,
        ceiling: Verdict,
    ) -> Option<usize> {
        let steps = self.budget.steps.iter().zip(shares).enumerate();
        let reached = steps.filter(|(_, (step, share))| {
            step.action.verdict() <= ceiling && compared.reaches(&step.action, *share)
        });
        let strictest = reached.max_by_key(|(_, (step, _))| (step.action.verdict(), step.at));
        strictest.map(|(index, _)| index)
    }

    /// The limit of a session whose app told `told`.
    pub fn limit_told(&self, told: Option<Nanos>) -> Amount {
        match told {
            Some(told) if self.budget.limit_from_event => Amount::Usd(told),
            _ => self.budget.limit,
        }
    }

    /// The budget as a session has it whose app told `told`; `None` where that makes no difference.
    pub fn with_limit_told(&self, told: Option<Nanos>) -> Option<Self> {
        let limit = self.limit_told(told);
        (limit != self.budget.limit).then(|| {
            Self::new(Budget {
                limit,
                ..self.budget.clone()
            })
        })
    }

    /// The step at this index.
    pub fn step(&self, index: usize) -> Option<&Step> {
        self.budget.steps.get(index)
    }

    /// What may be spent beyond `enforced` until the next step that blocks; `None` where no such
    /// step is left.
    pub fn until_block(&self, enforced: i128) -> Option<i128> {
        let steps = self.budget.steps.iter().zip(&self.shares);
        let blocking = steps.filter(|(step, _)| step.action == Action::Block);
        let until = blocking.map(|(_, share)| share - enforced);
        until.filter(|until| *until > 0).min()
    }

    /// What the budget's own record says was spent before the count began: in the window in which it
    /// began, nothing in others.
    pub fn opening_in(&self, window: &Window) -> Option<Spend> {
        let from = self.budget.counted_from;
        let begins_in = window.start <= from && window.end.is_none_or(|end| from < end);
        let opening = self.budget.opening.filter(|_| begins_in)?;
        let mut spend = Spend::default();
        let count = |count: i128| i64::try_from(count).unwrap_or(i64::MAX);
        match opening {
            Amount::Usd(nanos) => spend.cost = nanos,
            Amount::Tokens(tokens) => spend.tokens = count(tokens),
            Amount::Calls(calls) => spend.calls = count(calls),
        }
        (spend != Spend::default()).then_some(spend)
    }

    /// The window of the calendar that contains `time`.
    ///
    /// # Panics
    /// For session budgets, whose windows are their sessions.
    pub fn window(&self, time: UnixMillis) -> Window {
        Window::containing(self.budget.window, self.budget.timezone.zone(), time)
    }
}

/// The dimensions of a budget's scopes.
fn shape(budget: &Budget) -> Vec<Dimension> {
    let mut shape = budget.scope.shape();
    let session = budget.window.session();
    if let Some(session) = session.filter(|session| !shape.contains(session)) {
        shape.push(session);
        shape.sort();
    }
    shape
}

/// Who spent, as a budget sees it: where it counts per root session, a session without a root is its
/// own.
#[derive(Clone, Copy)]
pub struct AsCounted<'a> {
    who: &'a Attribution<'a>,
    session_is_root: bool,
}

impl<'a> AsCounted<'a> {
    /// `who` as budgets see it for which [`CompiledBudget::session_is_root`] holds or not.
    pub fn new(who: &'a Attribution<'a>, session_is_root: bool) -> Self {
        Self {
            who,
            session_is_root,
        }
    }
}

impl Dimensions for AsCounted<'_> {
    #[inline]
    fn value(&self, dimension: &Dimension) -> &str {
        let own = self.who.value(dimension);
        if self.session_is_root && own.is_empty() && *dimension == Dimension::RootSession {
            return self.who.value(&Dimension::Session);
        }
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(record: &str) -> CompiledBudget {
        let record = format!(
            r#"{{"v":1,{record},"steps":[{{"at":50,"do":"warn"}},{{"at":80,"do":"downgrade","to":"m"}},{{"at":100,"do":"block"}}],"counted_from":"2026-01-01T00:00:00Z"}}"#
        );
        let budget = Budget::from_record("b", record.as_bytes());
        CompiledBudget::new(budget.expect("a good record"))
    }

    fn who<'a>(session: &'a str, root_session: &'a str) -> Attribution<'a> {
        Attribution {
            workspace: "acme".into(),
            session: session.into(),
            root_session: root_session.into(),
            ..Attribution::default()
        }
    }

    #[test]
    fn a_session_without_a_root_is_its_own_root_wherever_a_budget_looks() {
        let per_root =
            budget(r#""scope":{"workspace":"acme"},"limit":"1.00","window":"root_session""#);
        let of_one = budget(
            r#""scope":{"workspace":"acme","root_session":"s-1"},"where":{"root_session":"s-1"},"limit":"1.00","window":"root_session""#,
        );
        let scope = Some("acme/root_session=s-1".to_owned());
        for budget in [&per_root, &of_one] {
            assert_eq!(budget.scope_of(&who("s-1", "")), scope);
            assert_eq!(budget.scope_of(&who("s-2", "s-1")), scope);
            assert_eq!(budget.scope_of(&who("", "")), None);
        }
        assert_eq!(of_one.scope_of(&who("s-2", "")), None);

        let per_session =
            budget(r#""scope":{"workspace":"acme"},"limit":"1.00","window":"session""#);
        let scope = Some("acme/session=s-2".to_owned());
        assert_eq!(per_session.scope_of(&who("s-2", "s-1")), scope);
        assert_eq!(per_session.scope_of(&who("", "s-1")), None);
        // In a window of the calendar a root session is a name like any other.
        let a_day = budget(
            r#""scope":{"workspace":"acme","root_session":"*"},"limit":"1.00","window":"day""#,
        );
        assert_eq!(a_day.scope_of(&who("s-1", "")), None);
    }

    #[test]
    fn steps_are_reached_by_what_they_go_by() {
        let calls = budget(r#""scope":{},"limit_calls":10,"window":"lifetime""#);
        let reached = |spent, enforced, estimate, ceiling| {
            let compared = Compared {
                spent,
                enforced,
                estimate,
            };
            calls.reached(compared, ceiling)
        };
        let any = Verdict::Block;
        assert_eq!(reached(4, 4, 0, any), None);
        assert_eq!(reached(5, 0, 0, any), Some(0));
        assert_eq!(reached(8, 8, 2, any), Some(1));
        assert_eq!(reached(8, 8, 3, any), Some(2));
        assert_eq!(reached(10, 10, 0, any), Some(2));
        assert_eq!(reached(10, 8, 0, any), Some(1));
        assert_eq!(reached(10, 10, 0, Verdict::Warn), Some(0));
        assert_eq!(
            (calls.until_block(7), calls.until_block(10)),
            (Some(3), None)
        );

        let nothing = budget(r#""scope":{},"limit":"0","window":"lifetime""#);
        assert_eq!(nothing.reached(Compared::before_call(0, 0), any), Some(2));
    }
}
