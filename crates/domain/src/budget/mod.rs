//! Budgets: what may be spent by whom, in which window, and what happens on the way.
//!
//! People write a YAML file ([`mod@file`]); `apply` compares it with the records in force ([`diff`]) and
//! writes the JSON records of topic `spendfuse.budgets` ([`BudgetsRecord`]), which everybody follows.

mod compiled;
mod count_id;
mod detector_record;
pub mod diff;
mod duration;
pub mod file;
mod followed;
mod hundredths;
mod record;
mod reserve_rule;
mod wire;

use std::fmt;
use std::ops::Sub;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

use crate::amount::{Amount, Unit};
use crate::money::Nanos;
use crate::scope::{Filter, ScopeTemplate};
use crate::time::UnixMillis;
use crate::timezone::Timezone;
use crate::verdict::Verdict;
use crate::window::{Window, WindowKind};

pub use compiled::{AsCounted, Compared, CompiledBudget};
pub use count_id::CountId;
pub use duration::parse_duration;
pub use followed::FollowedBudgets;
pub use record::{BudgetsRecord, RecordError, detector_key};
pub use reserve_rule::ReserveRule;

/// A budget's name: `[a-z0-9][a-z0-9-]{0,62}`, and neither `heartbeat` nor `finding`.
/// Cheap to clone: copies share their text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BudgetId(Arc<str>);

impl BudgetId {
    /// The id with this text, `None` where it breaks the rule above.
    pub fn new(text: &str) -> Option<Self> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let first = *text.as_bytes().first()?;
        let well_formed = text.len() <= 63
            && allowed(first)
            && text.bytes().all(|byte| allowed(byte) || byte == b'-');
        let reserved = matches!(text, "heartbeat" | "finding");
        (well_formed && !reserved).then(|| Self(text.into()))
    }

    /// The id's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Serialize for BudgetId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl fmt::Display for BudgetId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

/// Spend that counts against limits of any kind. Signed, since an entry may take back what another
/// one counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Spend {
    /// Money.
    pub cost: Nanos,
    /// All tokens.
    pub tokens: i64,
    /// Model calls.
    pub calls: i64,
}

impl Spend {
    /// What one call counts that costs `cost` and has so many tokens.
    pub fn of_call(cost: Nanos, tokens: u64) -> Self {
        Self {
            cost,
            tokens: i64::try_from(tokens).unwrap_or(i64::MAX),
            calls: 1,
        }
    }

    /// Adds `other` to this spend.
    pub fn add(&mut self, other: Self) {
        self.cost += other.cost;
        self.tokens += other.tokens;
        self.calls += other.calls;
    }

    /// The part that counts against limits in `unit`.
    #[inline]
    pub fn counted(&self, unit: Unit) -> Amount {
        match unit {
            Unit::Usd => Amount::Usd(self.cost),
            Unit::Tokens => Amount::Tokens(self.tokens.into()),
            Unit::Calls => Amount::Calls(self.calls.into()),
        }
    }
}

impl Sub for Spend {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            cost: self.cost - other.cost,
            tokens: self.tokens - other.tokens,
            calls: self.calls - other.calls,
        }
    }
}

/// The most that a session may be given, dollars: what no session costs.
const MOST_OF_A_SESSION: Nanos = Nanos::from_dollars(1_000_000_000);

/// `limit` as the limit of a session, `None` where it cannot be one: negative, or a billion dollars.
pub fn session_limit(limit: Nanos) -> Option<Nanos> {
    (Nanos::ZERO..MOST_OF_A_SESSION)
        .contains(&limit)
        .then_some(limit)
}

/// A share of a limit in hundredths of a percent: `at: 80` is 8000. In JSON a number in percent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BasisPoints(pub u32);

impl BasisPoints {
    /// The whole limit.
    pub const FULL: Self = Self(10_000);

    /// The smallest spend that reaches this share of `limit`.
    pub fn of(self, limit: Amount) -> Amount {
        let exact = limit.number() * i128::from(self.0);
        limit.with(exact.div_euclid(10_000) + i128::from(exact.rem_euclid(10_000) != 0))
    }
}

/// What a step of a budget does.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "do", content = "to")]
pub enum Action {
    /// Tell, but let calls through.
    Warn,
    /// Ask callers to use this cheaper model.
    Downgrade(String),
    /// Refuse calls.
    Block,
}

impl Action {
    /// The verdict of a scope that has reached this action's step.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Warn => Verdict::Warn,
            Self::Downgrade(_) => Verdict::Downgrade,
            Self::Block => Verdict::Block,
        }
    }
}

/// One step on the way to the limit and beyond: `{"at":80,"do":"warn"}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Step {
    /// The share of the limit at which it takes effect.
    pub at: BasisPoints,
    /// What it does.
    #[serde(flatten)]
    pub action: Action,
}

/// What a guard does when its state is older than `stale_after`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnStale {
    /// Decide by the last known state.
    #[default]
    Allow,
    /// Refuse.
    Block,
    /// Let through until spent plus estimate exceed this much.
    AllowUpTo(Nanos),
}

/// One budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Its name.
    pub id: BudgetId,
    /// Whose spend counts.
    pub scope: ScopeTemplate,
    /// Which of it counts.
    pub filter: Filter,
    /// How much may be spent.
    pub limit: Amount,
    /// Whether each session may be given another limit by its app (`limit_from: event`): then `limit`
    /// is that of sessions of which none is told.
    pub limit_from_event: bool,
    /// The period that it counts in.
    pub window: WindowKind,
    /// IANA time zone of the window's boundaries.
    pub timezone: Timezone,
    /// Steps, ascending by share.
    pub steps: Vec<Step>,
    /// Behaviour of guards with old state.
    pub on_stale: OnStale,
    /// How much a call holds of it; `None` = as the sidecar's settings say.
    pub reserve_rule: Option<ReserveRule>,
    /// Whether spend at a ceiling price may block (`count_unpriced: block`); else it only warns.
    pub unpriced_blocks: bool,
    /// Lowest share of the limit from which states without a verdict are published.
    pub publish_from: BasisPoints,
    /// Text for the person whose call is refused.
    pub message: Option<String>,
    /// Where that person can get more.
    pub help_url: Option<String>,
    /// Who is told when a step is reached: names of channels or `mailto:` addresses, the next one
    /// where the one before is not reached. Empty = as the notifier's routes say.
    pub alert: Vec<String>,
    /// What was spent before the count began, in the window in which it began, as whoever wrote the
    /// budget says; for budgets with one scope.
    pub opening: Option<Amount>,
    /// Since when this count runs: set by `budgets apply` when the budget is new or its scope,
    /// `where`, window or timezone changed. Another time is another count ([`CountId`]).
    pub counted_from: UnixMillis,
}

impl Budget {
    /// The window in which the count began: the one that the opening counts in. `None` where sessions
    /// are the windows.
    pub fn window_of_opening(&self) -> Option<Window> {
        let is_session = self.window.is_session();
        (!is_session)
            .then(|| Window::containing(self.window, self.timezone.zone(), self.counted_from))
    }

    /// Whether both budgets count the same spend in the same windows, so that a change from one to
    /// the other keeps what was counted: then the new record says the same `counted_from`.
    pub fn counts_like(&self, other: &Self) -> bool {
        self.scope == other.scope
            && self.filter == other.filter
            && self.window == other.window
            && self.timezone == other.timezone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_the_rule() {
        for good in ["a", "0", "cap-per-customer", &"x".repeat(63)] {
            assert!(BudgetId::new(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "-a",
            "A",
            "a_b",
            "heartbeat",
            "finding",
            &"x".repeat(64),
        ] {
            assert!(BudgetId::new(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_share_is_reached_at_its_exact_amount_rounded_up() {
        let of = |share: BasisPoints, limit| share.of(Amount::Calls(limit)).number();
        assert_eq!(of(BasisPoints(8000), 10), 8);
        assert_eq!(of(BasisPoints(3333), 10), 4);
        assert_eq!(of(BasisPoints::FULL, 0), 0);
    }
}
