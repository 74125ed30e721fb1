//! The audit's arithmetic: what is compared with what, and what a difference is.
//!
//! Exactly-once means that input, row blocks, warehouse, deltas, ledger and blocklist tell one
//! story. Whoever reads them (`spendfuse audit`) hands the facts to the functions here and gets
//! [`Differences`] back. No I/O, no clock.

mod account;
mod chain;
mod differences;
mod event;
mod seq_sums;
mod stored;

pub use account::{AccountSums, Told, compare_account, compare_published};
pub use chain::{BrokenChain, Chains};
pub use differences::{Difference, Differences, Group, Kind, Site, Tally};
pub use event::{CountedRow, InputEvent, compare_event, identity_hash};
pub use seq_sums::SeqSums;
pub use stored::{StoredAccount, StoredRecord, read_stored};

pub use crate::account::Published;
pub use crate::ledger::changelog::LedgerMark;
