//! The audit: input, row blocks, warehouse, rollups, deltas, ledger and blocklist compared.
//!
//! In: where the sides are ([`Context`]). Out: what a [`Round`] of the [`Auditor`] found. The
//! arithmetic is the engine's (`spendfuse_engine::audit`); here is what reads the sides. Nothing has
//! to stand still: each comparison takes what both sides have come to, and what is not settled is
//! said and left for the next time. Called by `spendfuse audit`.

mod auditor;
mod beginning;
mod blocks;
mod budgets;
mod context;
mod deltas;
mod error;
mod input;
mod ledger;
mod look;
mod prices;
mod rollups;
mod sql;
mod tail;
mod whole_rows;
mod windows;

pub use auditor::{Auditor, Note, Round};
pub use context::Context;
pub use error::AuditError;
pub use input::{HomeSums, InputSums};
pub use sql::SeqRange;
pub use windows::Compared;
