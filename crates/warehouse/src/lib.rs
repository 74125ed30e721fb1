//! ClickHouse: blocks of rows on their way there, migrations, the loader, queries.

pub mod block;
pub mod loader;
pub mod record;

pub use block::{
    BudgetWindowBlock, BudgetWindowKind, BudgetWindowRow, FindingBlock, FindingRow, SpendBlock,
    StageAddress, VerdictBlock, VerdictRow,
};
pub use record::{Link, RowBlock};
