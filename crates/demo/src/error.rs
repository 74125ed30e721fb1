//! Why the demo could not be played.

use std::io;

use spendfuse_bus::BusError;
use spendfuse_warehouse::WarehouseError;

/// Why the demo could not be played to its end.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// Kafka.
    #[error(transparent)]
    Bus(Box<BusError>),
    /// ClickHouse.
    #[error(transparent)]
    Warehouse(Box<WarehouseError>),
    /// ClickHouse's answer to one of the demo's questions.
    #[error("{doing}: {detail}")]
    Answer {
        /// Which question.
        doing: &'static str,
        /// What is wrong.
        detail: String,
    },
    /// The ledger's changelog.
    #[error("the ledger's changelog cannot be read: {0}")]
    Ledger(String),
    /// The roles did not come up.
    #[error("the roles were not ready after {seconds} s; run with --set log.level=info to see why")]
    NotReady {
        /// How long they had.
        seconds: u64,
    },
    /// The guard was asked and did not answer.
    #[error("the sidecar did not answer a check: {0}")]
    Check(String),
    /// Somebody asked to stop, or a role gave up.
    #[error("stopped before the end")]
    Stopped,
    /// The terminal.
    #[error("the terminal: {0}")]
    Terminal(#[from] io::Error),
}

impl From<BusError> for DemoError {
    fn from(error: BusError) -> Self {
        Self::Bus(Box::new(error))
    }
}

impl From<WarehouseError> for DemoError {
    fn from(error: WarehouseError) -> Self {
        Self::Warehouse(Box::new(error))
    }
}
