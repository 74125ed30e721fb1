//! Waiting for conditions, always with an end.

use std::time::{Duration, Instant};

/// Only what hangs takes longer, on a loaded machine, too. What is promised to be quicker is waited
/// for by its own time.
pub const PATIENCE: Duration = Duration::from_secs(60);
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(50);

/// Asks `attempt` until it gives a value.
///
/// # Panics
/// Once `patience` has passed, with `what` and the last attempt's reason.
pub fn eventually<T>(
    what: &str,
    patience: Duration,
    mut attempt: impl FnMut() -> Result<T, String>,
) -> T {
    let begin = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(reason) if begin.elapsed() >= patience => {
                panic!("{what}: not within {patience:?}: {reason}");
            }
            Err(_) => pause(BETWEEN_ATTEMPTS),
        }
    }
}

/// Lets time pass where time itself is the point: pacing, and showing that nothing more comes.
pub fn pause(time: Duration) {
    #[allow(clippy::disallowed_methods)]
    std::thread::sleep(time);
}
