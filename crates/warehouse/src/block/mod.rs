//! Blocks of rows in ClickHouse's Native format, built column by column.
//!
//! In: [`SpendRow`](spendfuse_domain::row::SpendRow) and the rows of the ledger's tables. Out: the
//! values of records of the topics `spendfuse.rows` and `spendfuse.rows.ledger` (see
//! [`crate::record`]), which the loader inserts without decoding them. Called by the processor, once
//! for every counted event: columns are plain byte buffers that are reused, without an allocation a
//! row.

pub(crate) mod columns;
mod format;
mod ledger;
pub mod schema;
mod spend;

pub use format::RowFormat;
pub use ledger::{
    BudgetWindowBlock, BudgetWindowRow, BudgetWindows, FindingBlock, FindingChanges, FindingRow,
    StageAddress, TableBlock, TableKind, VerdictBlock, VerdictRow, Verdicts,
};
pub use spend::SpendBlock;

use std::collections::BTreeSet;
use std::sync::LazyLock;

use schema::{Address, Schema};

/// Every table and version that the loader can load.
static LOADED: LazyLock<[Schema; 8]> = LazyLock::new(|| {
    let stage_columns = |schema: &'static Schema| schema.of_version_1(schema.columns.len() - 1);
    [
        spend::SPEND.clone(),
        ledger::FINDING_CHANGES.clone(),
        ledger::VERDICTS.clone(),
        ledger::BUDGET_WINDOWS.clone(),
        spend::SPEND.of_version_1(spend::SPEND_COLUMNS_1),
        stage_columns(&ledger::FINDING_CHANGES),
        stage_columns(&ledger::VERDICTS),
        stage_columns(&ledger::BUDGET_WINDOWS),
    ]
});

impl Schema {
    /// The schema of a block's header; `None` where this version of the program does not know it.
    pub fn find(table: &str, version: u32) -> Option<&'static Self> {
        LOADED
            .iter()
            .find(|schema| schema.table == table && schema.version == version)
    }

    /// Every table whose blocks form chains, and the columns of its addresses.
    pub fn chained() -> BTreeSet<(&'static str, Address)> {
        let chains = LOADED.iter().map(|schema| (schema.table, schema.address));
        chains.collect()
    }

    /// The schema in which blocks of a table are written.
    pub(crate) fn written(table: &'static str, format: RowFormat) -> &'static Self {
        Self::find(table, format.version()).expect("every table has every version")
    }
}

/// The columns of an `INSERT` of blocks of `table` in `version`, quoted and separated by commas;
/// `None` for tables or versions that this program does not know.
pub fn insert_columns(table: &str, version: u32) -> Option<String> {
    Schema::find(table, version).map(Schema::column_list)
}
