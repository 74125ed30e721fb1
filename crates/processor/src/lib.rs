//! The processor: the engine's state machines mounted on the bus's stage runner.
//!
//! The two stages of the design. [`meter`] reads usage events and writes rows, deltas, findings,
//! session verdicts and the DLQ; [`ledger`] reads deltas and writes verdicts and states of budgets.
//! Each worker is a thread with a consumer and a transactional producer; everything that a batch
//! causes is one Kafka transaction. [`run`] starts all workers of a process.
//!
//! Nothing here decides anything about money: bytes come in, the engine decides, bytes go out.

mod follow;
mod heartbeat;
mod ledger;
mod made_anew;
mod meter;
pub mod metrics;
mod publish;
mod run;
pub mod tables;
#[cfg(test)]
mod tests;
pub mod topics;
mod unreadable;

pub use follow::{TableFeed, follow_tables};
pub use ledger::{LedgerPartition, LedgerStage};
pub use meter::{BACKFILL, MeterPartition, MeterStage};
pub use run::{ProcessorConfig, ProcessorError, run};
