//! How old the replica's state is, from the heartbeats of both stages.
//!
//! A meter's heartbeat says: events that the broker had accepted before W are counted, and what
//! they spent was in the deltas topic by the time t that the heartbeat was logged. A ledger's says:
//! deltas logged before L are applied. So spend up to W is in every verdict once every ledger has
//! passed t. Ages are durations on the guard's own monotonic clock; the wall clocks of guard and
//! broker are never compared, except for records that were logged before the guard ran.

use std::collections::VecDeque;

use spendfuse_domain::UnixMillis;
use spendfuse_domain::verdict::{Heartbeat, Stage};

/// The guard's clocks, read by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Wall clock, for the ends of windows.
    pub wall: UnixMillis,
    /// Milliseconds on a clock that never goes back, from any origin.
    pub monotonic_millis: i64,
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

/// One heartbeat of a meter partition.
#[derive(Clone, Copy, Debug)]
struct MeterBeat {
    logged_at: UnixMillis,
    complete: Complete,
}

/// More beats than this are waiting for a ledger only while it stands still.
const MAX_BEATS: usize = 256;

/// The heartbeats of all partitions.
pub(crate) struct Heartbeats {
    /// Per meter partition: the last beat that every ledger has passed, and all later ones.
    meters: Vec<VecDeque<MeterBeat>>,
    ledgers: Vec<Option<UnixMillis>>,
}

impl Heartbeats {
    pub(crate) fn new(partitions: u32) -> Self {
        Self {
            meters: vec![VecDeque::new(); partitions as usize],
            ledgers: vec![None; partitions as usize],
        }
    }

    /// Takes a heartbeat that was logged at `logged_at` and then waited `transit_millis` for the
    /// guard, as far as known. Returns whether the partition exists.
    pub(crate) fn beat(
        &mut self,
        stage: Stage,
        partition: u32,
        heartbeat: &Heartbeat,
        logged_at: UnixMillis,
        transit_millis: i64,
        monotonic_millis: i64,
    ) -> bool {
        let place = partition as usize;
        if place >= self.meters.len() {
            return false;
        }
        // A log that is read again begins with heartbeats from before.
        if stage == Stage::Ledger {
            self.ledgers[place] = self.ledgers[place].max(Some(heartbeat.complete_to));
            return true;
        }
        let lag = i64::try_from(heartbeat.lag_ms).unwrap_or(i64::MAX);
        let beats = &mut self.meters[place];
        if beats.back().is_some_and(|last| last.logged_at >= logged_at) {
            return true;
        }
        // The newest gives way: the oldest is the one that ledgers are known to have passed.
        if beats.len() >= MAX_BEATS {
            beats.pop_back();
        }
        beats.push_back(MeterBeat {
            logged_at,
            complete: Complete {
                to: heartbeat.complete_to,
                monotonic_millis: monotonic_millis
                    .saturating_sub(lag)
                    .saturating_sub(transit_millis),
            },
        });
        true
    }

    /// Where the replica stands; forgets beats that no longer matter.
    pub(crate) fn freshness(&mut self, caught_up: bool) -> Freshness {
        let ledgers = self.ledgers.iter().copied();
        let applied_to = ledgers
            .reduce(|one, other| Some(one?.min(other?)))
            .flatten();
        let complete = applied_to.and_then(|applied_to| {
            let passed = self.meters.iter_mut().map(|beats| {
                while beats.get(1).is_some_and(|next| next.logged_at < applied_to) {
                    beats.pop_front();
                }
                let first = beats.front()?;
                (first.logged_at < applied_to).then_some(first.complete)
            });
            let oldest = |one: Option<Complete>, other: Option<Complete>| {
                let (one, other) = (one?, other?);
                Some(Complete {
                    to: one.to.min(other.to),
                    monotonic_millis: one.monotonic_millis.min(other.monotonic_millis),
                })
            };
            // Every partition's ring is trimmed, so no early return from the fold.
            passed.reduce(oldest).flatten()
        });
        Freshness {
            caught_up,
            complete,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beat(to: i64, lag_ms: u64) -> Heartbeat {
        Heartbeat {
            v: 1,
            partition: 0,
            complete_to: UnixMillis(to),
            lag_ms,
            version: 1,
        }
    }

    #[test]
    fn spend_is_complete_only_where_every_ledger_has_passed_the_meters_heartbeat() {
        let mut heartbeats = Heartbeats::new(2);
        let mut tell = |stage, partition, to, logged, received| {
            assert!(heartbeats.beat(
                stage,
                partition,
                &beat(to, 10),
                UnixMillis(logged),
                0,
                received
            ));
            heartbeats.freshness(true).at(received, 10_000)
        };
        for (partition, to) in [(0, 1000), (1, 990)] {
            tell(Stage::Meter, partition, to, 1010, 50);
        }
        assert_eq!(tell(Stage::Ledger, 0, 2000, 2001, 60).state, State::Stale);
        assert_eq!(tell(Stage::Ledger, 1, 1005, 2001, 60).complete_to, None);
        let complete = tell(Stage::Ledger, 1, 1011, 2002, 70);
        assert_eq!(complete.complete_to, Some(UnixMillis(990)));
        assert_eq!(
            (complete.age_millis, complete.state),
            (Some(30), State::Live)
        );
        // Newer beats of the meters count only when both ledgers have passed them.
        tell(Stage::Meter, 0, 3000, 3010, 80);
        tell(Stage::Meter, 1, 3005, 3020, 80);
        tell(Stage::Ledger, 0, 3100, 3101, 90);
        let behind = tell(Stage::Ledger, 1, 3015, 3101, 90);
        assert_eq!(behind.complete_to, Some(UnixMillis(990)));
        let ahead = tell(Stage::Ledger, 1, 3021, 3102, 95);
        assert_eq!(ahead.complete_to, Some(UnixMillis(3000)));
        assert_eq!(ahead.age_millis, Some(25));
    }

    #[test]
    fn a_silent_ledger_makes_the_state_stale_however_the_meter_beats() {
        let mut heartbeats = Heartbeats::new(1);
        heartbeats.beat(Stage::Meter, 0, &beat(1000, 0), UnixMillis(1000), 0, 0);
        heartbeats.beat(Stage::Ledger, 0, &beat(1001, 0), UnixMillis(1001), 0, 0);
        for second in 2..1000 {
            let time = second * 1000;
            heartbeats.beat(Stage::Meter, 0, &beat(time, 0), UnixMillis(time), 0, time);
        }
        let stale = heartbeats.freshness(true).at(999_000, 10_000);
        assert_eq!(
            (stale.state, stale.age_millis),
            (State::Stale, Some(999_000))
        );
        heartbeats.beat(
            Stage::Ledger,
            0,
            &beat(999_001, 0),
            UnixMillis(999_001),
            0,
            999_001,
        );
        let live = heartbeats.freshness(true).at(999_001, 10_000);
        assert_eq!((live.state, live.age_millis), (State::Live, Some(1)));
        assert_eq!(
            heartbeats.freshness(false).at(999_001, 10_000).state,
            State::Cold
        );
    }
}
