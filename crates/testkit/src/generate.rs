//! Random scenarios and schedules.
//!
//! Every event, budget and edit is drawn from a single integer, so that a case is made in
//! microseconds and shrinks towards small integers: the first entry of every menu is the plainest.

mod budgets;
mod events;

use proptest::collection::vec;
use proptest::prelude::*;

use crate::pipeline::Move;
use crate::scenario::Scenario;
use spendfuse_domain::UnixMillis;

pub use budgets::{budget, rules};

/// Takes choices out of one random integer.
#[derive(Clone, Copy, Debug)]
pub struct Choices(u128);

impl Choices {
    /// Choices from `bits`.
    pub fn new(bits: u128) -> Self {
        Self(bits)
    }

    /// A number below `count`.
    pub fn below(&mut self, count: u128) -> usize {
        let choice = self.0 % count;
        self.0 /= count;
        choice as usize
    }

    /// One of `menu`.
    pub fn one_of<T: Clone>(&mut self, menu: &[T]) -> T {
        menu[self.below(menu.len() as u128)].clone()
    }

    /// Whether a chance of one in `count` hits; the plain outcome is `false`.
    pub fn one_in(&mut self, count: u128) -> bool {
        self.below(count) == count as usize - 1
    }
}

/// Times close before the boundary of windows: midnight, a month's end, changes of clocks.
const BEGINNINGS: [&str; 6] = [
    "2026-11-22T10:15:00Z",
    "2026-11-22T23:55:00Z",
    "2026-11-01T05:20:00Z",
    "2026-03-08T06:40:00Z",
    "2026-03-28T21:30:00Z",
    "2026-12-31T23:50:00Z",
];

/// A scenario with up to `max_events` events.
pub fn scenario(max_events: usize) -> impl Strategy<Value = Scenario> {
    let parts = (
        1..=3_u32,
        0..BEGINNINGS.len(),
        vec(any::<u128>(), 1..=max_events),
        vec(any::<u128>(), 0..5),
        vec(any::<u128>(), 0..4),
        vec((any::<u8>(), any::<u128>()), 0..3),
    );
    parts.prop_map(
        |(partitions, beginning, event_bits, budget_bits, rule_bits, edits)| {
            let start = UnixMillis::parse_rfc3339(BEGINNINGS[beginning]).expect("a constant time");
            let log = events::log(start, &event_bits);
            Scenario {
                partitions,
                versions: budgets::versions(&log, &budget_bits, &rule_bits, &edits),
                log,
                horizon_millis: 60 * 60_000,
                dedupe_capacity: 1000,
                idle_millis: 20 * 60_000,
                grace_millis: 90 * 60_000,
            }
        },
    )
}

/// How a scenario is processed, until the rest is simply drained.
pub fn schedule(max_moves: usize) -> impl Strategy<Value = Vec<Move>> {
    vec(any::<u64>(), 0..=max_moves).prop_map(|moves| moves.into_iter().map(one_move).collect())
}

fn one_move(bits: u64) -> Move {
    let mut choices = Choices::new(u128::from(bits));
    let kind = choices.below(8);
    let partition = choices.below(3) as u32;
    let count = 1 + choices.below(5);
    let crash = choices.one_in(4);
    let apart = choices.one_in(2);
    match kind {
        0..4 => Move::Meter {
            partition,
            events: count,
            crash,
            apart,
        },
        4..7 => Move::Ledger {
            partition,
            records: count,
            crash,
            apart,
        },
        _ => Move::Wait {
            millis: choices.one_of(&[400, 1_000, 90_000, 21 * 60_000, 2 * 3_600_000]),
        },
    }
}
