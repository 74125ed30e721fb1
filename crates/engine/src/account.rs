//! The account of one budget in one scope and window: what is spent and what that means; when it is
//! told is in `publishing`.
//!
//! Used by the ledger for calendar windows and by the meter for session windows. All decisions are
//! pure functions of the account, its budget and the time.

mod publishing;

use minicbor::{Decode, Encode};
use spendfuse_domain::budget::{Compared, CompiledBudget, Spend, Step};
use spendfuse_domain::verdict::EventRef;
use spendfuse_domain::{Amount, Nanos, UnixMillis, Verdict};

use crate::codec;
use crate::recent::Recent;
pub use publishing::{
    AccountPlace, Due, LINE_AT_MOST_EVERY, Published, REFRESH_AT_MOST_EVERY, REFRESH_WITHIN,
    REFRESH_WITHIN_BELOW_HALF,
};

/// How near a state is to refusing calls, for the order of refreshes: what remains in
/// ten-thousandths of the limit. Where nothing remains only a display waits, and that comes last.
pub type Nearness = u16;
const NOTHING_REMAINS: Nearness = 10_001;

/// What is known of one scope in one window of a budget.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct Account {
    /// Money spent, spend at a ceiling price included.
    #[n(0)]
    #[cbor(with = "codec::nanos")]
    pub cost: Nanos,
    /// The part of it that is charged at a ceiling, because no price is known.
    #[n(1)]
    #[cbor(with = "codec::nanos")]
    pub unpriced: Nanos,
    /// All tokens.
    #[n(2)]
    pub tokens: i64,
    /// Model calls.
    #[n(3)]
    pub calls: i64,
    /// The last event that was counted, at most one.
    #[n(4)]
    #[cbor(with = "codec::event_refs")]
    pub caused_by: Vec<EventRef>,
    /// What readers of the blocklist were told last.
    #[n(5)]
    pub published: Option<Published>,
    /// The highest share of the limit (basis points) whose alert was raised in this window.
    #[n(6)]
    pub alerted: u32,
    /// Since when spend has been at or above the limit.
    #[n(7)]
    #[cbor(with = "codec::optional_millis", default)]
    pub exceeded_since: Option<UnixMillis>,
    /// When its last line of `budget_windows` was written; 1970 for none.
    #[n(8)]
    #[cbor(with = "codec::millis", default)]
    pub line_at: UnixMillis,
    /// What was spent lately, in the limit's unit.
    #[n(9)]
    #[cbor(default)]
    pub recent: Recent,
    /// Whether the limit was reached by history, and nothing was spent since: no finding opens.
    #[n(10)]
    #[cbor(with = "codec::only_true", has_nil)]
    pub is_quiet: bool,
    /// What was spent before the count began, where anything was: beside the sums above.
    #[n(11)]
    pub opening: Option<Box<Opening>>,
}

/// What was spent in a window before the count of its account began.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct Opening {
    /// Money spent, spend at a ceiling price included.
    #[n(0)]
    #[cbor(with = "codec::nanos")]
    pub cost: Nanos,
    /// The part of it that is charged at a ceiling.
    #[n(1)]
    #[cbor(with = "codec::nanos")]
    pub unpriced: Nanos,
    /// All tokens.
    #[n(2)]
    pub tokens: i64,
    /// Model calls.
    #[n(3)]
    pub calls: i64,
    /// Whether it is the sum of rows, not what the budget's record says.
    #[n(4)]
    #[cbor(with = "codec::only_true", has_nil)]
    pub is_computed: bool,
}

impl Opening {
    /// An opening of which nothing is charged at a ceiling.
    pub fn priced(spend: Spend) -> Self {
        Self {
            cost: spend.cost,
            unpriced: Nanos::ZERO,
            tokens: spend.tokens,
            calls: spend.calls,
            is_computed: false,
        }
    }

    /// All of it.
    pub fn spend(&self) -> Spend {
        Spend {
            cost: self.cost,
            tokens: self.tokens,
            calls: self.calls,
        }
    }
}

/// What an account means under its budget.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing<'a> {
    /// The strictest step reached.
    pub step: Option<&'a Step>,
    /// Spent, in the limit's unit.
    pub spent: Amount,
    /// The limit.
    pub limit: Amount,
    /// What may be spent until the next step that blocks; `None` where no such step is left.
    pub remaining: Option<Amount>,
}

impl Standing<'_> {
    /// The verdict.
    pub fn verdict(&self) -> Verdict {
        self.step.map_or(Verdict::Ok, |step| step.action.verdict())
    }

    /// How near it is to a step that blocks.
    pub fn nearness(&self) -> Nearness {
        let limit = self.limit.number().max(1);
        let share = |remaining: Amount| remaining.number().saturating_mul(10_000) / limit;
        self.remaining.map_or(NOTHING_REMAINS, |remaining| {
            Nearness::try_from(share(remaining)).map_or(10_000, |share| share.min(10_000))
        })
    }

    fn share(&self) -> u32 {
        self.step.map_or(0, |step| step.at.0)
    }
}

impl Account {
    /// Adds spend, last of the event (`source`, `id`, `time`); `unpriced` is the part of its cost
    /// that is charged at a ceiling.
    pub fn add(&mut self, spend: Spend, unpriced: Nanos, source: &str, id: &str, time: UnixMillis) {
        self.cost += spend.cost;
        self.unpriced += unpriced;
        self.tokens += spend.tokens;
        self.calls += spend.calls;
        match self.caused_by.first_mut() {
            Some(last) => {
                // In place: this happens with every event.
                source.clone_into(&mut last.source);
                id.clone_into(&mut last.id);
                last.time = Some(time);
            }
            None => {
                // By itself it would make room for four.
                self.caused_by.reserve_exact(1);
                self.caused_by.push(EventRef {
                    source: source.to_owned(),
                    id: id.to_owned(),
                    time: Some(time),
                });
            }
        }
    }

    /// Adds spend of history: the steps and the limit that it reaches hold, but nobody is told, now
    /// or later. What `event` names is the last of it.
    pub fn add_history(
        &mut self,
        compiled: &CompiledBudget,
        spend: Spend,
        unpriced: Nanos,
        event: (&str, &str, UnixMillis),
    ) {
        let reached = |account: &Self| {
            let standing = account.standing(compiled);
            // A limit of nothing is reached by nothing, but not told of before something is spent.
            match (account.calls, &account.opening) {
                (0, None) => (0, false),
                _ => (standing.share(), standing.spent >= standing.limit),
            }
        };
        let (share_before, exceeded_before) = reached(self);
        let (source, id, time) = event;
        self.add(spend, unpriced, source, id, time);
        let (share, exceeds) = reached(self);
        // What was spent just before, in the same commit, is still to be told of.
        if share_before <= self.alerted {
            self.alerted = self.alerted.max(share);
        }
        self.is_quiet |= exceeds && !exceeded_before;
    }

    /// Adds what a correction changes of the entry (`source`, `id`, `time`): nothing was spent now, so
    /// neither the last event nor the pace moves.
    pub fn correct(
        &mut self,
        spend: Spend,
        unpriced: Nanos,
        source: &str,
        id: &str,
        time: UnixMillis,
    ) {
        let last = self.caused_by.pop();
        self.add(spend, unpriced, source, id, time);
        if let Some(last) = last {
            self.caused_by[0] = last;
        }
    }

    /// Everything spent, the opening included.
    pub fn spend(&self) -> Spend {
        let mut spend = Spend {
            cost: self.cost,
            tokens: self.tokens,
            calls: self.calls,
        };
        if let Some(opening) = &self.opening {
            spend.add(opening.spend());
        }
        spend
    }

    /// The part of the cost that is charged at a ceiling.
    fn unpriced(&self) -> Nanos {
        let opening = self.opening.as_ref();
        self.unpriced + opening.map_or(Nanos::ZERO, |opening| opening.unpriced)
    }

    /// How the account stands. Spend at a ceiling price reaches only warnings, unless the budget
    /// says `count_unpriced: block`.
    pub fn standing<'a>(&self, compiled: &'a CompiledBudget) -> Standing<'a> {
        let budget = &compiled.budget;
        let whole = self.spend();
        let enforced = Spend {
            cost: if budget.unpriced_blocks {
                whole.cost
            } else {
                whole.cost - self.unpriced()
            },
            ..whole
        };
        let unit = budget.limit.unit();
        let (spent, enforced) = (whole.counted(unit), enforced.counted(unit));
        let compared = Compared {
            spent: spent.number(),
            enforced: enforced.number(),
            estimate: 0,
        };
        let reached = compiled.reached(compared, Verdict::Block);
        let remaining = compiled.until_block(compared.enforced);
        Standing {
            step: reached.and_then(|index| compiled.step(index)),
            spent,
            limit: budget.limit,
            remaining: remaining.map(|remaining| spent.with(remaining)),
        }
    }
}
