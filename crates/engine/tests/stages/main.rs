//! The meter and the ledger, each driven as its stage drives it.

#![allow(clippy::unwrap_used)] // a panic here is a failed test

mod backfill;
mod codec;
mod conflicts;
mod corrections;
mod detectors;
mod estimates;
mod names;
mod openings;
mod publishing;
mod regressions;
mod session_growth;
mod steps;
