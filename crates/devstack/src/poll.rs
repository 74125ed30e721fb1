//! Waiting for a condition, the one place of this crate that sleeps.

use std::time::{Duration, Instant};

use crate::error::DevStackError;

const PAUSE: Duration = Duration::from_millis(20);

/// Asks `condition` every 20 ms until it gives a value.
///
/// # Errors
/// [`DevStackError::TimedOut`], naming `what`, once `timeout` has passed.
pub fn wait_until<T>(
    what: &str,
    timeout: Duration,
    mut condition: impl FnMut() -> Option<T>,
) -> Result<T, DevStackError> {
    let begin = Instant::now();
    loop {
        if let Some(value) = condition() {
            return Ok(value);
        }
        if begin.elapsed() >= timeout {
            return Err(DevStackError::TimedOut {
                what: what.to_owned(),
                waited: begin.elapsed(),
            });
        }
        // Neither a port that opens nor a child that ends can be awaited without a runtime.
        #[allow(clippy::disallowed_methods)]
        std::thread::sleep(PAUSE);
    }
}
