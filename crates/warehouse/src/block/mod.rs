//! Blocks of rows in ClickHouse's Native format, built column by column.
//!
//! In: [`SpendRow`](spendfuse_domain::row::SpendRow) and the rows of the ledger's tables. Out: the
//! values of records of the topics `spendfuse.rows` and `spendfuse.rows.ledger` (see
//! [`record`]), which the loader inserts without decoding them. Called by the processor, once
//! for every counted event: columns are plain byte buffers that are reused, without an allocation a
//! row.

pub(crate) mod columns;
mod ledger;
pub mod record;
pub mod schema;
mod spend;

pub use ledger::{
    BudgetWindowBlock, BudgetWindowRow, BudgetWindows, FindingBlock, FindingChanges, FindingRow,
    StageAddress, VerdictBlock, VerdictRow, Verdicts,
};
pub use spend::SpendBlock;

use std::collections::BTreeSet;
use std::sync::LazyLock;

use spendfuse_broken::{Break, is_broken};

use columns::{Columns, RowCursor};
use record::{IndexRange, Link, RowBlock};
use schema::{Address, Schema};

/// How blocks are written: in the old way until every program of an installation knows the new one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RowFormat {
    /// Blocks without an epoch, which is 0.
    #[default]
    Schema1,
    /// Blocks whose rows name their epoch.
    Schema2 {
        /// Which set of topics the writer belongs to.
        epoch: u32,
    },
}

impl RowFormat {
    /// The epoch of rows.
    pub fn epoch(self) -> u32 {
        match self {
            Self::Schema2 { .. } if is_broken(Break::AddressesWithoutEpoch) => 0,
            Self::Schema1 => 0,
            Self::Schema2 { epoch } => epoch,
        }
    }

    /// The version of blocks.
    pub(crate) fn version(self) -> u32 {
        match self {
            Self::Schema1 => 1,
            Self::Schema2 { .. } => 2,
        }
    }
}

/// One of the tables and how its rows are written.
pub trait TableKind {
    /// What is pushed.
    type Row<'a>;
    #[doc(hidden)]
    fn schema() -> &'static Schema;
    /// Place of the row among those of the commit; `None` where it adds none.
    #[doc(hidden)]
    fn index(row: &Self::Row<'_>) -> Option<u32>;
    #[doc(hidden)]
    fn fill(&self, row: &Self::Row<'_>, format: RowFormat, cursor: &mut RowCursor<'_>);
}

/// Rows of one table and commit as a Native block in the making; buffers are kept between blocks.
#[derive(Debug)]
pub struct TableBlock<K> {
    columns: Columns,
    format: RowFormat,
    indexes: Option<IndexRange>,
    kind: K,
}

impl<K: TableKind + Default> TableBlock<K> {
    /// An empty block.
    pub fn new(format: RowFormat) -> Self {
        Self::of(K::default(), format)
    }
}

impl<K: TableKind> TableBlock<K> {
    fn of(kind: K, format: RowFormat) -> Self {
        Self {
            columns: Columns::new(Schema::written(K::schema().table, format)),
            format,
            indexes: None,
            kind,
        }
    }

    fn kind_mut(&mut self) -> &mut K {
        &mut self.kind
    }

    /// From now on rows are written in another format. The block must be empty.
    pub fn set_format(&mut self, format: RowFormat) {
        debug_assert_eq!(self.columns.rows(), 0);
        if self.format != format {
            self.format = format;
            self.columns = Columns::new(Schema::written(K::schema().table, format));
        }
    }

    /// Adds a row.
    pub fn push(&mut self, row: &K::Row<'_>) {
        let Some(index) = K::index(row) else {
            return;
        };
        IndexRange::extend(&mut self.indexes, index);
        let mut cursor = self.columns.row();
        self.kind.fill(row, self.format, &mut cursor);
        cursor.finish();
    }

    /// Rows so far.
    pub fn rows(&self) -> usize {
        self.columns.rows()
    }

    /// About how many bytes the block takes by now.
    pub fn bytes_estimate(&self) -> usize {
        self.columns.bytes_estimate()
    }

    /// The rows so far as the value of a record of a rows topic, and an empty block again; `None`
    /// where there are no rows.
    pub fn finish_record(&mut self, link: Link) -> Option<Vec<u8>> {
        let indexes = self.indexes.take()?;
        let columns = &mut self.columns;
        Some(RowBlock::write(columns, self.format, link, indexes))
    }
}

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
