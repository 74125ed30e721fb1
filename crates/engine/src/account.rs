//! The account of one budget in one scope and window: what is spent, what was published.
//!
//! Used by the ledger for calendar windows and by the meter for session windows. All decisions are
//! pure functions of the account, its budget and the time.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};
use serde_json::Value;
use spendfuse_domain::budget::{Compared, CompiledBudget, Spend, Step};
use spendfuse_domain::verdict::{BlocklistEntry, EventRef};
use spendfuse_domain::{Action, Amount, Figures, Nanos, Percent, UnixMillis, Verdict, Window};

use crate::codec;
use crate::recent::Recent;

/// A state that moves by spend alone is published at most this often, milliseconds.
pub const REFRESH_AT_MOST_EVERY: i64 = 100;

/// A state that moved little is published within this time above half of the limit, milliseconds.
pub const REFRESH_WITHIN: i64 = 5_000;

/// And within this time below.
pub const REFRESH_WITHIN_BELOW_HALF: i64 = 60_000;

/// A line of `budget_windows` is written at most this often unless the verdict changes,
/// milliseconds.
pub const LINE_AT_MOST_EVERY: i64 = 60_000;

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

/// What was published of an account.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Published {
    /// Place of the verdict in its order, 0 = ok.
    #[n(0)]
    pub verdict: u8,
    /// Share of the step reached, 0 = none.
    #[n(1)]
    pub step: u32,
    /// The budget's revision.
    #[n(2)]
    pub revision: u64,
    /// Spent: nano-dollars, tokens or calls, as the budget of this revision counts.
    #[n(3)]
    #[cbor(with = "codec::wide")]
    pub spent: i128,
    /// When.
    #[n(4)]
    #[cbor(with = "codec::millis")]
    pub at: UnixMillis,
    /// After this time readers ignore it.
    #[n(5)]
    #[cbor(with = "codec::optional_millis", default)]
    pub expires_at: Option<UnixMillis>,
    /// Whether it said that spend of before the count began is in.
    #[n(6)]
    #[cbor(with = "codec::only_true", has_nil)]
    pub is_whole: bool,
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

/// When an account's state must be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Readers know enough.
    Never,
    /// At once: what it means has changed.
    Now,
    /// Now, but the figure alone has moved: it may wait until others nearer to a limit are told.
    Refresh,
    /// When this time comes, unless it changes before.
    At(UnixMillis),
}

/// The concrete window and scope that an account stands for.
#[derive(Clone, Copy, Debug)]
pub struct AccountPlace<'a> {
    /// Scope text.
    pub scope: &'a str,
    /// The window's label for people.
    pub window: &'a str,
    /// The window's start.
    pub window_start: UnixMillis,
    /// When the count starts again; `None` where nothing resets.
    pub resets_at: Option<UnixMillis>,
    /// When readers must forget the entry.
    pub expires_at: Option<UnixMillis>,
    /// Whether the account's count began in this window, and holds what was spent before.
    pub is_whole: bool,
}

impl<'a> AccountPlace<'a> {
    /// `scope` in a window of the calendar.
    pub fn in_window(scope: &'a str, window: &'a Window) -> Self {
        Self {
            scope,
            window: &window.label,
            window_start: window.start,
            resets_at: window.end,
            expires_at: window.end,
            is_whole: false,
        }
    }

    /// The same, where it is known whether the account holds what was spent before its count began.
    #[must_use]
    pub fn whole(self, is_whole: bool) -> Self {
        Self { is_whole, ..self }
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

    /// The verdict that readers hold at `now`; `ok` where nothing unexpired was published.
    pub fn published_verdict(&self, now: UnixMillis) -> Verdict {
        let published = self.unexpired(now);
        published.map_or(Verdict::Ok, |told| Verdict::from_number(told.verdict))
    }

    fn unexpired(&self, now: UnixMillis) -> Option<&Published> {
        self.published
            .as_ref()
            .filter(|published| published.expires_at.is_none_or(|end| end > now))
    }

    /// When the state must be published, as `docs/formats/blocklist.md` says.
    pub fn due(
        &self,
        compiled: &CompiledBudget,
        standing: &Standing<'_>,
        place: AccountPlace<'_>,
        now: UnixMillis,
    ) -> Due {
        let Some(published) = self.unexpired(now) else {
            let floor = compiled.budget.publish_from.of(standing.limit);
            let silent = standing.step.is_none() && standing.spent < floor;
            return if silent { Due::Never } else { Due::Now };
        };
        let changed = published.verdict != standing.verdict() as u8
            || published.step != standing.share()
            || published.revision != compiled.revision
            || published.expires_at != place.expires_at
            || published.is_whole != place.is_whole;
        if changed {
            return Due::Now;
        }
        let (spent, limit) = (standing.spent.number(), standing.limit.number());
        let remaining = standing.remaining.unwrap_or(standing.limit).number();
        let moved = (spent - published.spent).abs();
        if moved == 0 {
            return Due::Never;
        }
        let wait = if moved.saturating_mul(100) >= remaining {
            REFRESH_AT_MOST_EVERY
        } else if spent.saturating_mul(2) > limit {
            REFRESH_WITHIN
        } else {
            REFRESH_WITHIN_BELOW_HALF
        };
        let time = published.at.plus(wait);
        if time <= now {
            Due::Refresh
        } else {
            Due::At(time)
        }
    }

    /// When a line of `budget_windows` must be written, after what was published was published.
    pub fn line_due(&self, verdict_changed: bool, now: UnixMillis) -> Due {
        let is_told = |published: &Published| published.at <= self.line_at;
        if verdict_changed {
            return Due::Now;
        }
        if self.published.as_ref().is_none_or(is_told) {
            return Due::Never;
        }
        let time = self.line_at.plus(LINE_AT_MOST_EVERY);
        if time <= now { Due::Now } else { Due::At(time) }
    }

    /// Whether the state must be published, now or when its time comes.
    pub fn waits_to_be_published(
        &self,
        compiled: &CompiledBudget,
        place: AccountPlace<'_>,
        now: UnixMillis,
    ) -> bool {
        let standing = self.standing(compiled);
        self.due(compiled, &standing, place, now) != Due::Never
    }

    /// The blocklist entry for this state; remembers that it was published.
    pub fn publish(
        &mut self,
        compiled: &CompiledBudget,
        place: AccountPlace<'_>,
        seq: u64,
        now: UnixMillis,
    ) -> BlocklistEntry {
        let standing = self.standing(compiled);
        self.published = Some(Published {
            verdict: standing.verdict() as u8,
            step: standing.share(),
            revision: compiled.revision,
            spent: standing.spent.number(),
            at: now,
            expires_at: place.expires_at,
            is_whole: place.is_whole,
        });
        let budget = &compiled.budget;
        let (counted_from, count_since) = match place.is_whole {
            true => (place.window_start, Some(budget.counted_from)),
            false => (budget.counted_from.max(place.window_start), None),
        };
        let shown = standing.step.or(budget.steps.last());
        BlocklistEntry {
            v: 1,
            budget: budget.id.to_string(),
            scope: place.scope.to_owned(),
            filter: budget.filter.to_json().map(Value::Object),
            verdict: standing.verdict(),
            action: shown
                .map_or("warn", |step| step.action.verdict().name())
                .to_owned(),
            figures: Figures::new(standing.spent, standing.limit),
            percent: Percent::of(standing.spent, standing.limit),
            window: place.window.to_owned(),
            window_start: place.window_start,
            resets_at: place.resets_at,
            expires_at: place.expires_at,
            counted_from,
            count_since,
            downgrade_to: match standing.step.map(|step| &step.action) {
                Some(Action::Downgrade(model)) => Some(model.clone()),
                _ => None,
            },
            version: seq,
            decided_at: now,
            caused_by: self.caused_by.first().cloned(),
            through: BTreeMap::new(),
        }
    }
}
