//! What calls cost with the snapshot of the price book, and what is told of it.

#![allow(clippy::unwrap_used)] // a panic here is a failed test

mod details;
mod golden_calls;
mod golden_usages;
mod properties;
