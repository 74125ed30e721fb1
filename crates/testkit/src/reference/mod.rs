//! The reference model: the contract, written down once more as naively as possible.
//!
//! It shares types with the engine and no logic: scope texts, dedupe, verdicts, sessions and
//! detectors are computed anew from whole histories, with no thought for speed or memory.

pub mod detectors;
mod identities;
pub mod meter;
mod session;
pub mod spend;

pub use identities::Expected;
pub use meter::MeterReference;
pub use session::ReferenceSession;
pub use spend::{SpendReference, Standing, Tally};
