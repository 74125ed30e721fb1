//! ClickHouse: blocks of rows on their way there, migrations, queries.
//!
//! The processor builds [`block`]s and publishes them as [`record`]s; the crate `loader` brings them
//! into the tables that [`migrations`] create, exactly once; commands ask a [`Warehouse`]. Only this
//! crate speaks to ClickHouse.

pub mod block;
mod broken;
pub mod client;
mod comments;
pub mod conditions;
pub mod config;
mod epochs;
pub mod error;
mod escapes;
pub mod gaps;
pub mod migrations;
pub mod query;
mod reader;
mod schema_2;
mod server_run;
mod tls;

pub use block::record::{self, Link, RowBlock};
pub use block::{
    BudgetWindowBlock, BudgetWindowRow, FindingBlock, FindingRow, RowFormat, SpendBlock,
    StageAddress, VerdictBlock, VerdictRow,
};
pub use client::{Table, Warehouse};
pub use config::WarehouseConfig;
pub use epochs::TopicSet;
pub use error::WarehouseError;
pub use query::{AuditSum, EventKey, PriceRow, Totals};
