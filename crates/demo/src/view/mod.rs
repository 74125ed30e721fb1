//! The live view on a terminal.

use crate::board::SharedBoard;
use crate::error::DemoError;
use spendfuse_bus::Shutdown;

/// Draws.
pub fn draw(_: &SharedBoard, over: &Shutdown, _: &Shutdown) -> Result<(), DemoError> {
    over.wait(std::time::Duration::from_secs(600));
    Ok(())
}

/// Columns of the terminal, if standard output is one.
pub fn width() -> Option<u16> {
    None
}
