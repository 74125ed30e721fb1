//! The pure core of spendfuse: what follows from an event, and from a sum.
//!
//! Two state machines. The [`meter`] counts events where their session lives: duplicates, sessions,
//! detectors, session budgets, rows. The [`ledger`] adds up what all meter partitions tell it in
//! [`delta`]s and judges every other budget. Both take inputs and the time as arguments and return
//! everything that must be written; whoever drives them writes all of it in one transaction
//! together with the input positions, or none of it and drops the state.
//!
//! No clock, no I/O, no randomness: equal inputs give equal outputs.

pub mod account;
pub mod alert;
pub mod alert_limit;
pub mod audit;
pub mod book;
pub mod codec;
pub mod delta;
pub mod detect;
pub mod ledger;
pub mod meter;
pub mod publish;
pub mod recent;
pub mod restore_error;
pub mod stamps;
