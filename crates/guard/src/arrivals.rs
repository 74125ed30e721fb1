//! How long records were under way to the guard, though nobody compares the clocks of guard and
//! broker: the quickest record says how far the clocks are apart, and each other one how much longer
//! it took.
//!
//! One for each partition of the blocklist: its records are stamped by the partition's leader.

use spendfuse_domain::UnixMillis;

use crate::freshness::Now;

/// Clocks drift apart by less than one in this many.
const DRIFT: i64 = 10_000;
/// The quickest record is that of the last time that was read to the end for this long,
/// milliseconds, and this often: a broker's clock may be set back.
const REMEMBERED_MILLIS: i64 = 60_000;
const REMEMBERED_ENDS: u32 = 20;
/// A record that is so much quicker than all before it, milliseconds, was stamped by a clock that
/// leapt ahead. Perhaps for a moment only, so that many in a row are needed to believe it.
const LEAP_MILLIS: i64 = 1_000;
const BELIEVED_LEAPS: u32 = 5;

/// Differences between the guard's monotonic clock and the log's time, of one partition.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Arrivals {
    /// The least that is known, and when it was measured.
    least: Option<Measured>,
    /// That of the newest record, until the partition has been read to its end.
    newest: Option<i64>,
    recent: Option<Recent>,
    /// The records that were too quick to be believed, while no other one comes.
    leap: Option<Leap>,
}

#[derive(Clone, Copy, Debug)]
struct Measured {
    difference: i64,
    at: i64,
}

#[derive(Clone, Copy, Debug)]
struct Leap {
    records: u32,
    /// The difference of the slowest.
    greatest: i64,
}

/// What was measured at the log's end since `began`.
#[derive(Clone, Copy, Debug)]
struct Recent {
    began: i64,
    ends: u32,
    least: i64,
}

impl Arrivals {
    /// How long a record was under way that was logged at `logged_at` and is here now, milliseconds.
    /// `follows` says whether it was read at the log's end, or from its beginning: before anything
    /// was measured there, only the wall clocks can tell.
    pub(crate) fn under_way(&mut self, logged_at: UnixMillis, now: Now, follows: bool) -> i64 {
        let difference = now.monotonic_millis.saturating_sub(logged_at.0);
        self.newest = follows.then_some(difference);
        let known = self.least.map(|least| least.at(now.monotonic_millis));
        match known {
            Some(known) if difference >= known => {
                self.leap = None;
                difference - known
            }
            Some(known) if known.saturating_sub(difference) > LEAP_MILLIS => {
                // What is usual is not to be learnt from it.
                self.newest = None;
                if follows {
                    self.leapt(difference, now.monotonic_millis);
                }
                0
            }
            None if !follows => now.wall.since(logged_at).max(0),
            _ => {
                self.leap = None;
                self.measure(difference, now.monotonic_millis);
                0
            }
        }
    }

    fn leapt(&mut self, difference: i64, at: i64) {
        let leap = self.leap.get_or_insert(Leap {
            records: 0,
            greatest: difference,
        });
        leap.records += 1;
        leap.greatest = leap.greatest.max(difference);
        let Leap { records, greatest } = *leap;
        if records >= BELIEVED_LEAPS {
            self.leap = None;
            self.measure(greatest, at);
        }
    }

    /// The partition was read to its end: its newest record says what is usual now.
    pub(crate) fn end(&mut self, monotonic_millis: i64) {
        let Some(newest) = self.newest.take() else {
            return;
        };
        let recent = self.recent.get_or_insert(Recent {
            began: monotonic_millis,
            ends: 0,
            least: newest,
        });
        recent.ends += 1;
        recent.least = recent.least.min(newest);
        let lasts = monotonic_millis.saturating_sub(recent.began);
        if lasts >= REMEMBERED_MILLIS && recent.ends >= REMEMBERED_ENDS {
            let least = recent.least;
            self.recent = None;
            self.measure(least, monotonic_millis);
        }
    }

    fn measure(&mut self, difference: i64, at: i64) {
        self.least = Some(Measured { difference, at });
    }
}

impl Measured {
    fn at(self, monotonic_millis: i64) -> i64 {
        let passed = monotonic_millis.saturating_sub(self.at).max(0);
        self.difference.saturating_add(passed / DRIFT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records of a broker whose clock is an hour ahead, on the guard's own clocks.
    struct Link(Arrivals);

    impl Link {
        fn record(&mut self, logged: i64, arrives: i64) -> i64 {
            let now = Now {
                wall: UnixMillis(arrives),
                monotonic_millis: arrives,
            };
            let logged_at = UnixMillis(logged + 3_600_000);
            self.0.under_way(logged_at, now, true)
        }

        fn record_at_end(&mut self, logged: i64, arrives: i64) -> i64 {
            let under_way = self.record(logged, arrives);
            self.0.end(arrives);
            under_way
        }
    }

    #[test]
    fn a_record_that_was_held_up_is_as_old_as_it_is() {
        let mut link = Link(Arrivals::default());
        for second in 0..300 {
            assert!(link.record_at_end(second * 1_000, second * 1_000 + 5) <= 5);
        }
        // The network is gone for a minute, then all of it comes at once.
        for second in 300..360 {
            let under_way = link.record(second * 1_000, 360_000);
            assert_eq!((under_way + 500) / 1_000, 360 - second);
        }
        link.0.end(360_000);
        assert!(link.record_at_end(360_000, 360_004) <= 5);
        // Nobody writes any more: what is read an hour later is an hour old.
        let late = link.record_at_end(361_000, 361_000 + 3_600_000);
        assert!((3_599_000..=3_600_000).contains(&late), "{late}");
    }

    #[test]
    fn a_slow_link_does_not_become_the_usual_one() {
        let mut link = Link(Arrivals::default());
        link.record_at_end(0, 5);
        // Never at the end again: the guard is a minute behind and stays so.
        for second in 1..3_600 {
            let under_way = link.record(second * 1_000, second * 1_000 + 60_000);
            assert!((59_000..=60_000).contains(&under_way), "{under_way}");
        }
    }

    #[test]
    fn a_clock_that_was_set_back_is_believed_after_two_minutes() {
        let mut link = Link(Arrivals::default());
        for second in 0..200 {
            link.record_at_end(second * 1_000, second * 1_000 + 5);
        }
        assert!(link.record_at_end(190_000, 200_005) >= 9_000);
        let last = (201..330)
            .map(|second| link.record_at_end((second - 10) * 1_000, second * 1_000 + 5))
            .last();
        assert!(last.is_some_and(|under_way| under_way <= 5), "{last:?}");
    }

    #[test]
    fn a_clock_that_leaps_ahead_for_a_moment_makes_nothing_late() {
        let mut link = Link(Arrivals::default());
        for second in 0..300 {
            // One record in a while is stamped a minute ahead.
            let ahead = if second % 50 == 30 { 60_000 } else { 0 };
            let under_way = link.record_at_end(second * 1_000 + ahead, second * 1_000 + 5);
            assert!(under_way <= 5, "{under_way} at {second}");
        }
    }

    #[test]
    fn a_clock_that_was_set_ahead_is_believed_soon() {
        let mut link = Link(Arrivals::default());
        for second in 0..100 {
            link.record_at_end(second * 1_000, second * 1_000 + 5);
        }
        for second in 100..110 {
            let under_way = link.record_at_end((second + 60) * 1_000, second * 1_000 + 5);
            assert!(under_way <= 5, "{under_way} at {second}");
        }
        let held_up = link.record_at_end((110 + 60) * 1_000, 117_000);
        assert!((6_900..=7_000).contains(&held_up), "{held_up}");
    }

    #[test]
    fn before_anything_was_measured_the_wall_clock_tells() {
        let mut arrivals = Arrivals::default();
        let now = Now {
            wall: UnixMillis(1_000_000),
            monotonic_millis: 7,
        };
        assert_eq!(arrivals.under_way(UnixMillis(400_000), now, false), 600_000);
        assert_eq!(arrivals.under_way(UnixMillis(400_000), now, true), 0);
    }
}
