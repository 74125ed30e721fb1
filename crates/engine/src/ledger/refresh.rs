//! Figures that moved and wait to be told: nearest to a limit first, so many a second.
//!
//! What a state means (its verdict, limit, action, end) is told at once and never waits here. With a
//! million scopes that all spend, telling every figure as often as it moves would cost guards more
//! than the figures are worth; those near a limit decide about calls, so they come first.

use std::collections::BTreeSet;

use spendfuse_domain::UnixMillis;

use super::accounts::AccountId;
use crate::account::Nearness;

/// Turns that nobody took are kept for this long, milliseconds.
const SAVED_UP: i64 = 1_000;
/// While figures wait, turns are given this often, milliseconds.
const TURN_EVERY: i64 = 100;

/// The figures that wait. Nothing of it is stored: after a restart accounts whose figures moved
/// come again.
#[derive(Debug)]
pub(super) struct Refreshes {
    per_second: u32,
    waiting: BTreeSet<(Nearness, AccountId)>,
    /// Turns that may be taken, in thousandths.
    turns: i64,
    counted_at: UnixMillis,
}

impl Refreshes {
    /// At most `per_second` figures a second.
    pub(super) fn new(per_second: u32) -> Self {
        Self {
            per_second,
            waiting: BTreeSet::new(),
            turns: 0,
            counted_at: UnixMillis::default(),
        }
    }

    pub(super) fn wait(&mut self, nearness: Nearness, id: AccountId) {
        self.waiting.insert((nearness, id));
    }

    pub(super) fn leave(&mut self, nearness: Nearness, id: AccountId) {
        self.waiting.remove(&(nearness, id));
    }

    /// When the next turn may be taken; `None` where nobody waits.
    pub(super) fn next_turn(&self) -> Option<UnixMillis> {
        (!self.waiting.is_empty()).then(|| self.counted_at.plus(TURN_EVERY))
    }

    /// The account whose turn it is at `now`, if any may be told.
    pub(super) fn take(&mut self, now: UnixMillis) -> Option<AccountId> {
        let passed = now.since(self.counted_at).clamp(0, SAVED_UP);
        let rate = i64::from(self.per_second);
        self.turns = (self.turns + passed * rate).min(SAVED_UP * rate);
        self.counted_at = self.counted_at.max(now);
        if self.turns < 1_000 {
            return None;
        }
        let (_, id) = self.waiting.pop_first()?;
        self.turns -= 1_000;
        Some(id)
    }
}
