//! The demo's clocks.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use spendfuse_domain::UnixMillis;
use spendfuse_guard::Now;

/// The time by this machine's clock.
pub fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    UnixMillis(since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }))
}

/// Both clocks that a guard asks for.
pub fn guard_now() -> Now {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    let since = ORIGIN.get_or_init(Instant::now).elapsed().as_millis();
    Now {
        wall: now(),
        monotonic_millis: i64::try_from(since).unwrap_or(i64::MAX),
    }
}
