//! How old the replica's state is, from the heartbeats of both stages.
//!
//! A meter's heartbeat says: events that the broker had accepted before W, on every input of the
//! meter, are counted or handed over to their home partition, and what that wrote was in the log by
//! the time t that the heartbeat was logged. A ledger's says: deltas logged before L are applied. So
//! spend up to W is in every figure once
//! 1. every meter has counted what was handed over to it until t: its own W lies behind t;
//! 2. every ledger has applied what the meters wrote until they said so.
//!
//! Ages are durations on the guard's own monotonic clock, counted from when a heartbeat was logged
//! (`arrivals.rs`); the wall clocks of guard and broker are never compared, except for records that
//! were logged before the guard ran.

mod heartbeats;

use spendfuse_domain::UnixMillis;

pub(crate) use heartbeats::Heartbeats;

/// The guard's clocks, read by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Wall clock, for the ends of windows.
    pub wall: UnixMillis,
    /// Milliseconds on a clock that never goes back, from any origin.
    pub monotonic_millis: i64,
}

/// How far every ledger has what a meter partition counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CountedTo {
    pub(crate) partition: u32,
    /// Its commits up to this one.
    pub(crate) seq: u64,
    /// Events of its usage partition before this offset, as far as its heartbeats say so.
    pub(crate) usage_offset: Option<i64>,
}

/// How much a replica may be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Every partition's heartbeat is fresh.
    Live,
    /// Older than `stale_after`, or of unknown age: budgets follow `on_stale`.
    Stale,
    /// Not caught up with the topics yet.
    Cold,
}

impl State {
    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Stale => "stale",
            Self::Cold => "cold",
        }
    }
}

/// The state of a replica at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateAge {
    /// How much it may be relied on.
    pub state: State,
    /// Its age in milliseconds; `None` where a partition was never heard of.
    pub age_millis: Option<u64>,
    /// Everything that the broker had accepted before this time is counted.
    pub complete_to: Option<UnixMillis>,
}

/// What readers need to tell the state at any later moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Freshness {
    pub(crate) caught_up: bool,
    complete: Option<Complete>,
}

/// A moment up to which everything is counted, on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Complete {
    /// On the broker's clock.
    to: UnixMillis,
    /// On the guard's monotonic clock.
    monotonic_millis: i64,
}

impl Freshness {
    /// Everything is counted up to this reading of the guard's own clock, where that is known.
    pub(crate) fn complete_to_millis(&self) -> Option<i64> {
        self.complete.map(|complete| complete.monotonic_millis)
    }

    pub(crate) fn at(&self, monotonic_millis: i64, stale_after_millis: u64) -> StateAge {
        let age = |complete: Complete| {
            monotonic_millis
                .saturating_sub(complete.monotonic_millis)
                .max(0) as u64
        };
        let age_millis = self.complete.map(age);
        let state = if !self.caught_up {
            State::Cold
        } else if age_millis.is_some_and(|age| age <= stale_after_millis) {
            State::Live
        } else {
            State::Stale
        };
        StateAge {
            state,
            age_millis,
            complete_to: self.complete.map(|complete| complete.to),
        }
    }
}

impl Complete {
    /// What was complete once stays so: a meter that has just begun and lags takes nothing back, on
    /// neither clock.
    fn max(self, other: Self) -> Self {
        Self {
            to: self.to.max(other.to),
            monotonic_millis: self.monotonic_millis.max(other.monotonic_millis),
        }
    }

    fn min(self, other: Self) -> Self {
        Self {
            to: self.to.min(other.to),
            monotonic_millis: self.monotonic_millis.min(other.monotonic_millis),
        }
    }
}

#[cfg(test)]
mod tests {
    use spendfuse_domain::verdict::{Heartbeat, Stage};

    use super::*;

    fn beat(to: i64, lag_ms: u64) -> Heartbeat {
        Heartbeat {
            v: 1,
            partition: 0,
            complete_to: UnixMillis(to),
            lag_ms,
            version: 1,
            usage_offset: None,
            budget_version: 0,
            openings: Vec::new(),
        }
    }

    /// Beats of two partitions; `received` on the guard's clock.
    struct Log(Heartbeats);

    impl Log {
        fn tell(
            &mut self,
            stage: Stage,
            partition: u32,
            to: i64,
            logged: i64,
            received: i64,
        ) -> StateAge {
            let beat = beat(to, 10);
            let logged = UnixMillis(logged);
            let known = self.0.beat(stage, partition, &beat, logged, 0, received);
            assert!(known);
            self.0.freshness(true).at(received, 10_000)
        }
    }

    #[test]
    fn spend_is_complete_only_where_every_ledger_has_passed_the_meters_heartbeat() {
        let mut log = Log(Heartbeats::new(2));
        for (partition, to) in [(0, 1000), (1, 990)] {
            log.tell(Stage::Meter, partition, to, 1010, 50);
        }
        // What was handed over until 1010 is counted.
        for partition in [0, 1] {
            log.tell(Stage::Meter, partition, 2000, 2010, 55);
        }
        let unknown = log.tell(Stage::Ledger, 0, 2100, 2101, 60);
        assert_eq!(unknown.state, State::Stale);
        assert_eq!(log.tell(Stage::Ledger, 1, 2005, 2101, 60).complete_to, None);
        let complete = log.tell(Stage::Ledger, 1, 2011, 2102, 70);
        assert_eq!(complete.complete_to, Some(UnixMillis(990)));
        assert_eq!(
            (complete.age_millis, complete.state),
            (Some(30), State::Live)
        );
        // Newer beats of the meters count only when both ledgers have passed them.
        log.tell(Stage::Meter, 0, 3000, 3010, 80);
        log.tell(Stage::Meter, 1, 3005, 3020, 80);
        log.tell(Stage::Ledger, 0, 3100, 3101, 90);
        let behind = log.tell(Stage::Ledger, 1, 3015, 3101, 90);
        assert_eq!(behind.complete_to, Some(UnixMillis(990)));
        let ahead = log.tell(Stage::Ledger, 1, 3021, 3102, 95);
        assert_eq!(ahead.complete_to, Some(UnixMillis(2000)));
        assert_eq!(ahead.age_millis, Some(50));
    }

    #[test]
    fn what_a_meter_handed_over_is_complete_only_where_its_home_has_counted_it() {
        let mut log = Log(Heartbeats::new(2));
        for second in 1..=5 {
            let time = second * 1000;
            log.tell(Stage::Meter, 0, time, time + 5, time + 5);
            // The other meter's input of handed-over events stands still at 1,500.
            log.tell(Stage::Meter, 1, time.min(1_500), time + 6, time + 6);
            log.tell(Stage::Ledger, 0, time + 500, time + 500, time + 500);
            log.tell(Stage::Ledger, 1, time + 500, time + 500, time + 500);
        }
        let stuck = log.0.freshness(true).at(5_500, 10_000);
        assert_eq!(stuck.complete_to, Some(UnixMillis(1_000)));
        log.tell(Stage::Meter, 1, 6_000, 6_006, 6_006);
        log.tell(Stage::Ledger, 0, 6_500, 6_500, 6_500);
        let moved = log.tell(Stage::Ledger, 1, 6_500, 6_500, 6_500);
        assert_eq!(moved.complete_to, Some(UnixMillis(1_500)));
    }

    #[test]
    fn a_meter_that_begins_anew_takes_nothing_back() {
        let mut log = Log(Heartbeats::new(1));
        log.tell(Stage::Meter, 0, 9_000, 9_005, 9_005);
        log.tell(Stage::Meter, 0, 10_000, 10_005, 10_005);
        let known = log.tell(Stage::Ledger, 0, 11_000, 11_000, 11_000);
        assert_eq!(known.complete_to, Some(UnixMillis(9_000)));
        // A successor that knows less, and one that says that it lags.
        log.tell(Stage::Meter, 0, 1, 11_500, 11_500);
        log.tell(Stage::Meter, 0, 2, 11_600, 11_600);
        let begun = log.tell(Stage::Ledger, 0, 12_000, 12_000, 12_000);
        assert_eq!(begun.complete_to, known.complete_to);
        let lagging = [(9_400, 12_500), (9_500, 13_000)];
        for (to, logged) in lagging {
            let beat = beat(to, 60_000);
            let logged = UnixMillis(logged);
            log.0.beat(Stage::Meter, 0, &beat, logged, 0, logged.0);
        }
        let later = log.tell(Stage::Ledger, 0, 14_000, 14_000, 14_000);
        assert!(later.complete_to >= known.complete_to);
        assert_eq!(later.age_millis, known.age_millis.map(|age| age + 3_000));
    }

    #[test]
    fn a_heartbeat_that_was_stamped_a_day_ahead_does_not_silence_those_behind_it() {
        const DAY: i64 = 86_400_000;
        let mut log = Log(Heartbeats::new(1));
        for second in 1_i64..=6 {
            let time = second * 1000;
            let ahead = if second == 3 { DAY } else { 0 };
            let beat = Heartbeat {
                version: second.unsigned_abs(),
                ..beat(time, 10)
            };
            let logged = UnixMillis(time + 5 + ahead);
            log.0.beat(Stage::Meter, 0, &beat, logged, 0, time + 5);
        }
        let known = log.tell(Stage::Ledger, 0, 7_000, 7_000, 7_000);
        assert_eq!(known.complete_to, Some(UnixMillis(5_000)));
    }

    #[test]
    fn a_log_of_an_hour_is_as_fresh_as_its_end() {
        let mut log = Log(Heartbeats::new(1));
        for second in 0..3_600 {
            let time = 10_000 + second * 1000;
            log.tell(Stage::Meter, 0, time, time + 5, time + 5);
        }
        // Only now the ledger's heartbeats are read.
        let end = 10_000 + 3_600_000;
        let known = log.tell(Stage::Ledger, 0, end, end, end);
        assert_eq!(known.state, State::Live);
        assert_eq!(known.complete_to, Some(UnixMillis(end - 2_000)));
    }

    #[test]
    fn a_silent_ledger_makes_the_state_stale_however_the_meter_beats() {
        let mut log = Log(Heartbeats::new(1));
        log.tell(Stage::Meter, 0, 500, 500, 500);
        log.tell(Stage::Meter, 0, 1000, 1000, 1000);
        log.tell(Stage::Ledger, 0, 1001, 1001, 1001);
        for second in 2..1000 {
            let time = second * 1000;
            log.tell(Stage::Meter, 0, time, time, time);
        }
        let stale = log.0.freshness(true).at(999_000, 10_000);
        assert_eq!(
            (stale.state, stale.complete_to),
            (State::Stale, Some(UnixMillis(500)))
        );
        let live = log.tell(Stage::Ledger, 0, 999_001, 999_001, 999_001);
        assert_eq!(live.state, State::Live);
        assert_eq!(live.complete_to, Some(UnixMillis(998_000)));
        assert_eq!(
            log.0.freshness(false).at(999_001, 10_000).state,
            State::Cold
        );
    }
}
