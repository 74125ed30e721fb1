//! The clocks that a guard asks for.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use spendfuse_domain::UnixMillis;

use crate::freshness::Now;

/// The wall clock, and a monotonic clock that begins with it and goes on while the machine sleeps:
/// reservations end and state grows old then, too.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    began: Duration,
}

impl Clock {
    /// A clock that begins now.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self {
            began: since_boot(),
        }
    }

    /// What both say.
    pub fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH);
        let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Now {
            wall: UnixMillis(wall.map_or(0, millis)),
            monotonic_millis: millis(since_boot().saturating_sub(self.began)),
        }
    }
}

/// `Instant` is CLOCK_MONOTONIC, which stands still while the machine sleeps.
#[cfg(target_os = "linux")]
fn since_boot() -> Duration {
    use nix::time::{ClockId, clock_gettime};
    // Linux has it since 2.6.39; the call fails for unknown clocks only.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

#[cfg(not(target_os = "linux"))]
fn since_boot() -> Duration {
    use std::sync::LazyLock;
    use std::time::Instant;
    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
    BEGAN.elapsed()
}
