//! What time it is on the clock that stamps the log.
//!
//! Time that passes for a partition is compared with arrival times, and those are the broker's
//! (`LogAppendTime`). This machine's clock may be wrong or jump: two hours ahead it would end every
//! session and promise guards a completeness that is not there, and since time never goes back that
//! would last for two hours. So a worker reads the time off the log: the record that it has just
//! committed for a tick bears the broker's stamp, and from there on the monotonic clock counts.
//!
//! The broker's clock may jump as well. A stamp that lies further from the time before than the
//! monotonic clock says is not believed until stamps have been like that for [`LASTS`]; meanwhile
//! time goes on as it went before.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The two clocks drift apart by less than a second a day or so; looked at again after this time.
const VALID: Duration = Duration::from_secs(600);

/// Stamps and the monotonic clock may differ by so much, milliseconds: delays of commits, drift, a
/// machine that stood still for a moment.
const TOLERANCE: i64 = 5 * 60 * 1000;
/// Two readings that differ by no more agree, milliseconds.
const AGREE: i64 = 1_000;
/// How long stamps must have jumped before the jump is believed.
const LASTS: Duration = Duration::from_secs(300);
/// A worker that starts believes stamps up to this long after the time that its state has come to,
/// whatever this machine's clock says, milliseconds.
const SHORTLY_AFTER: i64 = 60 * 60 * 1000;

/// The broker's clock as one worker knows it, over all its lives.
#[derive(Debug, Default)]
pub(super) struct LogClock {
    read: Option<Reading>,
    /// The latest time that a restored state has come to.
    restored_millis: Option<i64>,
    doubt: Option<Doubt>,
}

#[derive(Clone, Copy, Debug)]
struct Reading {
    millis: i64,
    at: Instant,
    /// Whether the reading before said the same. What a worker writes first may not be readable yet:
    /// then the last record is its predecessor's, and the stamp is as old as the take-over was long.
    is_confirmed: bool,
    /// Whether there was none before: where a state was restored, it may be as old as nobody has counted.
    is_first: bool,
}

/// Stamps that lie elsewhere than they should.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    since: Instant,
    /// By how much, milliseconds.
    jump: i64,
}

impl LogClock {
    /// A state was restored that has come to this time.
    pub(super) fn restored(&mut self, millis: i64) {
        self.restored_millis = self.restored_millis.max(Some(millis));
    }

    /// The log was stamped with `millis` at `at` or shortly before: the clock may be behind by what
    /// a commit takes, never ahead. Returns the jump where the stamp is not believed, milliseconds.
    pub(super) fn set(&mut self, millis: i64, at: Instant) -> Option<i64> {
        let moved = self.read.map(|read| millis - read.millis_at(at));
        let is_sure = self.read.is_some_and(|read| !read.is_first);
        let jump = match moved {
            Some(moved) if is_sure || self.restored_millis.is_none() => moved,
            // Nothing was counted yet that a wrong time could spoil.
            None if self.restored_millis.is_none() => 0,
            _ => (millis - self.unread_millis()).max(0),
        };
        let same = |doubt: &Doubt| (doubt.jump - jump).abs() <= TOLERANCE;
        let doubt = self.doubt.filter(same).unwrap_or(Doubt { since: at, jump });
        if jump.abs() > TOLERANCE && at.duration_since(doubt.since) < LASTS {
            self.doubt = Some(doubt);
            return Some(jump);
        }
        self.doubt = None;
        self.read = Some(Reading {
            millis,
            at,
            is_confirmed: moved.is_some_and(|moved| moved.abs() <= AGREE),
            is_first: self.read.is_none(),
        });
        None
    }

    /// Whether it was never read, or once, or too long ago.
    pub(super) fn is_due(&self) -> bool {
        let is_good = |read: Reading| read.is_confirmed && read.at.elapsed() < VALID;
        self.doubt.is_some() || !self.read.is_some_and(is_good)
    }

    /// Milliseconds since 1970; `None` before the first reading.
    pub(super) fn known_millis(&self) -> Option<i64> {
        self.read.map(|read| read.millis_at(Instant::now()))
    }

    /// The same, from this machine's clock and the restored state until there is a better one: where
    /// nothing but delays hangs on it, and as the latest that a stamp may say.
    pub(super) fn millis(&self) -> i64 {
        self.known_millis().unwrap_or_else(|| self.unread_millis())
    }

    fn unread_millis(&self) -> i64 {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        let own = since_1970.map_or(0, |elapsed| elapsed.as_millis() as i64);
        let after = self.restored_millis.map(|millis| millis + SHORTLY_AFTER);
        own.max(after.unwrap_or_default())
    }
}

impl Reading {
    fn millis_at(self, at: Instant) -> i64 {
        self.millis + at.saturating_duration_since(self.at).as_millis() as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_from_the_stamp_and_not_from_this_machines_clock() {
        let mut clock = LogClock::default();
        assert!(clock.is_due() && clock.known_millis().is_none());
        clock.set(5_000, Instant::now());
        let now = clock.known_millis().expect("it was set");
        assert!((5_000..6_000).contains(&now), "{now}");
        assert!((5_000..6_000).contains(&clock.millis()));
    }

    #[test]
    fn a_first_reading_off_a_predecessors_record_is_put_right() {
        let mut clock = LogClock::default();
        let begin = Instant::now();
        let after = |seconds| begin + Duration::from_secs(seconds);
        // The own record is not readable yet: the last one is eleven seconds old.
        assert_eq!(clock.set(100_000, begin), None);
        assert!(clock.is_due(), "nothing has confirmed it");
        assert_eq!(clock.set(112_000, after(1)), None);
        assert!(clock.is_due());
        assert_eq!(clock.set(113_010, after(2)), None);
        assert!(!clock.is_due());
        assert_eq!(clock.read.map(|read| read.millis), Some(113_010));
    }

    const HOUR: i64 = 3_600_000;

    /// Nobody counted for an hour: for five minutes everything would have counted an hour ago.
    #[test]
    fn a_predecessors_stamp_of_an_hour_ago_is_put_right_at_once() {
        let own = LogClock::default().millis();
        let begin = Instant::now();
        let after = |seconds| begin + Duration::from_secs(seconds);
        let restored = || {
            let mut clock = LogClock::default();
            clock.restored(own - HOUR);
            assert_eq!(clock.set(own - HOUR, begin), None);
            assert!(clock.is_due());
            clock
        };
        let mut clock = restored();
        assert_eq!(clock.set(own + 1_000, after(1)), None);
        assert!(clock.is_due());
        assert_eq!(clock.set(own + 2_010, after(2)), None);
        assert!(!clock.is_due());
        assert_eq!(clock.read.map(|read| read.millis), Some(own + 2_010));
        // From then on it is known, and a day ahead is not believed before either.
        assert!(clock.set(own + HOUR, after(3)).is_some());
        assert!(restored().set(own + 25 * HOUR, after(1)).is_some());
    }

    #[test]
    fn a_stamp_ahead_is_not_believed_until_it_lasts() {
        let mut clock = LogClock::default();
        let begin = Instant::now();
        let after = |seconds| begin + Duration::from_secs(seconds);
        assert_eq!(clock.set(10 * HOUR, begin), None);
        assert_eq!(clock.set(35 * HOUR, after(10)), Some(25 * HOUR - 10_000));
        assert!(clock.is_due(), "it is looked at again at once");
        // One stamp alone is nothing.
        assert_eq!(clock.set(10 * HOUR + 20_000, after(20)), None);
        assert!(!clock.is_due());
        // Another jump begins its time anew.
        assert!(clock.set(35 * HOUR, after(30)).is_some());
        assert!(clock.set(60 * HOUR, after(200)).is_some());
        assert!(clock.set(60 * HOUR + 200_000, after(400)).is_some());
        assert_eq!(clock.set(60 * HOUR + 300_000, after(500)), None);
        assert_eq!(
            clock.read.map(|read| read.millis),
            Some(60 * HOUR + 300_000)
        );
        // Back is a jump as well.
        assert!(clock.set(10 * HOUR, after(510)).is_some());
    }

    #[test]
    fn at_the_start_the_restored_state_and_this_machine_are_asked() {
        let own = LogClock::default().millis();
        // Somebody's first start believes anything.
        assert_eq!(
            LogClock::default().set(own + 25 * HOUR, Instant::now()),
            None
        );
        let started = |restored, stamp| {
            let mut clock = LogClock::default();
            clock.restored(restored);
            clock.set(stamp, Instant::now())
        };
        assert!(started(own - HOUR, own + 25 * HOUR).is_some());
        // Away for a week; and a machine whose clock is two hours behind.
        assert_eq!(started(own - 168 * HOUR, own), None);
        assert_eq!(started(own + 2 * HOUR - 60_000, own + 2 * HOUR), None);
    }
}
