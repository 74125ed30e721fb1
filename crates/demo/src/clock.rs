//! The demo's clocks.

use std::sync::OnceLock;

use spendfuse_domain::UnixMillis;
use spendfuse_guard::Clock;

/// The time by this machine's clock.
pub fn now() -> UnixMillis {
    of_guard().now().wall
}

/// The clock of the demo's guard.
pub fn of_guard() -> Clock {
    static CLOCK: OnceLock<Clock> = OnceLock::new();
    *CLOCK.get_or_init(Clock::new)
}
