//! The sidecar's clocks.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use spendfuse_domain::UnixMillis;
use spendfuse_guard::Now;

/// Wall clock and a monotonic clock that begins with the sidecar.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    began: Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
        }
    }

    pub(crate) fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH);
        let millis =
            |duration: std::time::Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Now {
            wall: UnixMillis(wall.map_or(0, millis)),
            monotonic_millis: millis(self.began.elapsed()),
        }
    }
}
