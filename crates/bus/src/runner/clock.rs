//! What time it is on the clock that stamps the log.
//!
//! Time that passes for a partition is compared with arrival times, and those are the broker's
//! (`LogAppendTime`). This machine's clock may be wrong or jump: two hours ahead it would end every
//! session and promise guards a completeness that is not there, and since time never goes back that
//! would last for two hours. So a worker reads the time off the log: the record that it has just
//! committed for a tick bears the broker's stamp, and from there on the monotonic clock counts.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The two clocks drift apart by less than a second a day or so; looked at again after this time.
const VALID: Duration = Duration::from_secs(600);

/// The broker's clock as one worker knows it, over all its lives.
#[derive(Debug, Default)]
pub(super) struct LogClock {
    read: Option<Reading>,
}

#[derive(Clone, Copy, Debug)]
struct Reading {
    millis: i64,
    at: Instant,
}

impl LogClock {
    /// The log was stamped with `millis` at `at` or shortly before: the clock may be behind by what
    /// a commit takes, never ahead.
    pub(super) fn set(&mut self, millis: i64, at: Instant) {
        self.read = Some(Reading { millis, at });
    }

    /// Whether it was never read, or too long ago.
    pub(super) fn is_due(&self) -> bool {
        self.read.is_none_or(|read| read.at.elapsed() >= VALID)
    }

    /// Milliseconds since 1970; `None` before the first reading.
    pub(super) fn known_millis(&self) -> Option<i64> {
        self.read
            .map(|read| read.millis + read.at.elapsed().as_millis() as i64)
    }

    /// The same, from this machine's clock until there is a better one: where nothing but delays
    /// hangs on it.
    pub(super) fn millis(&self) -> i64 {
        self.known_millis().unwrap_or_else(|| {
            let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
            since_1970.map_or(0, |elapsed| elapsed.as_millis() as i64)
        })
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
        assert!((5_000..6_000).contains(&clock.millis()) && !clock.is_due());
    }
}
