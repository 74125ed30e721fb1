//! Why a round could not be finished.

use spendfuse_bus::BusError;
use spendfuse_engine::codec::CodecError;
use spendfuse_warehouse::WarehouseError;

/// Why a round could not be finished.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// Kafka does not answer, or not as it must.
    #[error(transparent)]
    Kafka(#[from] BusError),
    /// ClickHouse does not answer, or refuses.
    #[error(transparent)]
    Warehouse(#[from] WarehouseError),
    /// ClickHouse answered something else.
    #[error("ClickHouse answered {found:?} in column {column} where a number belongs")]
    NotANumber {
        /// The cell, where there is one.
        found: Option<String>,
        /// Its column.
        column: usize,
    },
    /// The ledger's state cannot be read.
    #[error("the ledger's changelog, partition {partition} offset {offset}: {source}")]
    Changelog {
        /// Partition.
        partition: u32,
        /// Offset.
        offset: i64,
        /// What is wrong with the record.
        source: CodecError,
    },
}
