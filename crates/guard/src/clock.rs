//! The clocks that a guard asks for.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use spendfuse_domain::UnixMillis;

use crate::freshness::Now;

/// The wall clock, and a monotonic clock that begins with it.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    began: Instant,
}

impl Clock {
    /// A clock that begins now.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self {
            began: Instant::now(),
        }
    }

    /// What both say.
    pub fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH);
        let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Now {
            wall: UnixMillis(wall.map_or(0, millis)),
            monotonic_millis: millis(self.began.elapsed()),
        }
    }
}
