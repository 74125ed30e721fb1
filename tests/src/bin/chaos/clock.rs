//! The run's own time. All parts share it; it is such that windows of budgets end in the middle of the
//! run: an hour and a day always, and with them a year, its last quarter and month, or a week.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use spendfuse_domain::UnixMillis;
use spendfuse_tests::traffic;

/// How far the run's time is ahead of this machine's, milliseconds.
static AHEAD: AtomicI64 = AtomicI64::new(0);

/// 2027-01-01T00:00:00Z.
const YEAR_ENDS: UnixMillis = UnixMillis(1_798_761_600_000);
/// 2026-12-07T00:00:00Z, a Monday.
const WEEK_ENDS: UnixMillis = UnixMillis(1_796_601_600_000);

/// A moment at which windows end.
#[derive(Clone, Copy, Debug)]
pub struct Boundary {
    /// When.
    pub at: UnixMillis,
    windows: &'static [&'static str],
}

impl Boundary {
    /// That of a seed.
    pub fn of(seed: u64) -> Self {
        if seed.is_multiple_of(4) {
            Self {
                at: WEEK_ENDS,
                windows: &["hour", "day", "week"],
            }
        } else {
            Self {
                at: YEAR_ENDS,
                windows: &["hour", "day", "month", "quarter", "year"],
            }
        }
    }

    /// Sets the run's time so that this moment comes after `time`.
    pub fn comes_after(&self, time: Duration) {
        let begin = self.at.0 - i64::try_from(time.as_millis()).unwrap_or_default();
        AHEAD.store(begin - traffic::now().0, Ordering::Relaxed);
    }

    /// Whether a window that contains `time` has ended since.
    pub fn ends(&self, window: &str, time: UnixMillis) -> bool {
        time < self.at && self.windows.contains(&window)
    }
}

/// The run's time.
pub fn now() -> UnixMillis {
    traffic::now().plus(ahead())
}

/// How far it is ahead of this machine's, milliseconds.
pub fn ahead() -> i64 {
    AHEAD.load(Ordering::Relaxed)
}
