//! Waiting for a guard.

use std::time::{Duration, Instant};

use spendfuse_bus::Shutdown;

use crate::error::DemoError;

/// Waits until a guard answers from complete tables.
///
/// # Errors
/// [`DemoError::NotReady`] after `patience`, [`DemoError::Stopped`].
pub fn until_live(
    patience: Duration,
    shutdown: &Shutdown,
    mut is_live: impl FnMut() -> bool,
) -> Result<(), DemoError> {
    let began = Instant::now();
    while !is_live() {
        if shutdown.wait(Duration::from_millis(20)) {
            return Err(DemoError::Stopped);
        }
        if began.elapsed() > patience {
            let seconds = patience.as_secs();
            return Err(DemoError::NotReady { seconds });
        }
    }
    Ok(())
}
