//! When readers of the blocklist must be told what an account means, and the entry that tells them.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};
use serde_json::Value;
use spendfuse_domain::budget::CompiledBudget;
use spendfuse_domain::verdict::BlocklistEntry;
use spendfuse_domain::{Action, Figures, Percent, UnixMillis, Verdict, Window};

use super::{Account, Standing};
use crate::codec;

/// A state that moves by spend alone is published at most this often, milliseconds.
pub const REFRESH_AT_MOST_EVERY: i64 = 100;

/// A state that moved little is published within this time above half of the limit, milliseconds.
pub const REFRESH_WITHIN: i64 = 5_000;

/// And within this time below.
pub const REFRESH_WITHIN_BELOW_HALF: i64 = 60_000;

/// A line of `budget_windows` is written at most this often unless the verdict changes,
/// milliseconds.
pub const LINE_AT_MOST_EVERY: i64 = 60_000;

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
