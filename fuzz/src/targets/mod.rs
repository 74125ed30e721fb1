//! Everything that reads what others wrote.

mod budgets;
mod changelog;
mod events;
mod guard;
mod rows;
mod sidecar;

pub use budgets::{BUDGET_RECORD, BUDGETS_FILE};
pub use changelog::{DELTAS, LEDGER_CHANGELOG, METER_CHANGELOG};
pub use events::EVENT;
pub use guard::REPLICA;
pub use rows::{CHECKPOINT, ROW_BLOCK};
pub use sidecar::SIDECAR;

/// A record as it is kept in a file: the key, a line break, the value; without a line break a
/// tombstone.
fn record(input: &[u8]) -> (&[u8], Option<&[u8]>) {
    match input.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&input[..end], Some(&input[end + 1..])),
        None => (input, None),
    }
}
