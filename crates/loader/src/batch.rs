//! Batches: contiguous ranges of a rows partition on their way into one insert per table.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use spendfuse_broken::{Break, is_broken};
use spendfuse_domain::UnixMillis;
use spendfuse_warehouse::block::schema::Schema;
use spendfuse_warehouse::record::{Link, RowBlock};
use xxhash_rust::xxh3::Xxh3;

use crate::checkpoint::Chain;

/// How large a batch may get. A single record beyond it is a batch of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Most rows.
    pub rows: u64,
    /// Most bytes of records.
    pub bytes: usize,
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self {
            rows: 100_000,
            bytes: 32 * 1024 * 1024,
        }
    }
}

/// A record of a rows topic whose header has been read.
#[derive(Clone, Debug)]
pub struct RowsRecord {
    /// Its offset.
    pub offset: i64,
    /// When the loader got it, by its clock.
    pub received_at: UnixMillis,
    /// The record's value.
    pub value: Bytes,
    /// The value, taken apart.
    pub block: RowBlock,
    /// The columns of the block.
    pub(crate) schema: &'static Schema,
}

impl RowsRecord {
    /// The chain that the block belongs to.
    pub(crate) fn chain(&self) -> Chain {
        Chain {
            table: self.schema.table.to_owned(),
            partition: self.block.link.partition,
            epoch: self.block.epoch,
        }
    }

    /// Reads the header of a record.
    ///
    /// # Errors
    /// Why it cannot be loaded: broken, or of a table or version that this program does not know.
    pub fn read(offset: i64, received_at: UnixMillis, value: Bytes) -> Result<Self, String> {
        let block = RowBlock::decode(&value).map_err(|error| error.to_string())?;
        let schema = Schema::find(&block.table, block.schema_version).ok_or_else(|| {
            format!(
                "block of table {} in schema version {}, which this program does not know; upgrade the loader",
                block.table, block.schema_version
            )
        })?;
        Ok(Self {
            offset,
            received_at,
            value,
            block,
            schema,
        })
    }
}

/// What the token of an insert is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredKind", into = "StoredKind")]
pub enum TokenKind {
    /// `table:topic:partition:a-b`: until every program knows the other kind. After topics were made
    /// anew under the same names ClickHouse takes other rows for the ones that it has.
    #[default]
    Range,
    /// `table:epoch:topic:partition:a-b:hash`: other content is another insert.
    Content {
        /// The set of topics that the rows belong to.
        epoch: u32,
    },
}

#[derive(Clone, Serialize, Deserialize)]
struct StoredKind {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    epoch: Option<u32>,
}

impl From<TokenKind> for StoredKind {
    fn from(kind: TokenKind) -> Self {
        let epoch = match kind {
            TokenKind::Range => None,
            TokenKind::Content { epoch } => Some(epoch),
        };
        Self { epoch }
    }
}

impl From<StoredKind> for TokenKind {
    fn from(stored: StoredKind) -> Self {
        let content = stored.epoch.map(|epoch| Self::Content { epoch });
        content.unwrap_or_default()
    }
}

/// Where a writer's rows in a batch begin and end, as (commit number, place within the commit).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange {
    /// Which set of topics the writer belongs to.
    pub epoch: u32,
    /// Partition of the writer.
    pub partition: u32,
    /// The first row.
    pub first: (u64, u32),
    /// The last row.
    pub last: (u64, u32),
    /// How many rows there are.
    pub rows: u64,
    /// The writer's commit before the first that has rows of the table, 0 = none.
    pub previous: u64,
}

/// The part of a batch that goes into one table, as one insert.
#[derive(Clone, Debug)]
pub struct TableInsert {
    pub(crate) schema: &'static Schema,
    /// See [`TokenKind`].
    pub token: String,
    /// Rows of all blocks.
    pub rows: u64,
    /// Native blocks, to be sent one after another as one body.
    pub blocks: Vec<Bytes>,
    /// The rows' addresses, one range a writer partition.
    pub ranges: Vec<AddressRange>,
}

impl TableInsert {
    /// The table.
    pub fn table(&self) -> &'static str {
        self.schema.table
    }

    /// The columns for an `INSERT`, quoted, separated by commas.
    pub fn columns(&self) -> String {
        self.schema.column_list()
    }

    fn add(&mut self, block: &RowBlock) {
        self.rows += u64::from(block.rows);
        self.blocks.push(block.native.clone());
        let Link {
            partition,
            previous,
            seq,
        } = block.link;
        let epoch = block.epoch;
        let first = (seq, block.indexes.first);
        let last = (seq, block.indexes.last);
        let rows = u64::from(block.rows);
        match self
            .ranges
            .iter_mut()
            .find(|range| (range.epoch, range.partition) == (epoch, partition))
        {
            Some(range) => {
                if first < range.first {
                    range.previous = previous;
                }
                range.first = range.first.min(first);
                range.last = range.last.max(last);
                range.rows += rows;
            }
            None => self.ranges.push(AddressRange {
                epoch,
                partition,
                first,
                last,
                rows,
                previous,
            }),
        }
    }
}

/// A contiguous range `[start, end)` of a rows partition.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The committed offset that it begins at.
    pub start: i64,
    /// Last offset + 1.
    pub end: i64,
    /// Records in it. Offsets may have gaps: transaction markers take some.
    pub records: u32,
    /// Hash over offsets and values.
    pub hash: u64,
    /// One insert a table, in the order of the tables' names.
    pub tables: Vec<TableInsert>,
}

impl Batch {
    /// The batch of `records`, which are not empty and begin at or after committed offset `start`.
    /// The same range of the same partition always gives the same inserts with the same tokens.
    pub fn of(
        topic: &str,
        partition: u32,
        start: i64,
        records: &[RowsRecord],
        tokens: TokenKind,
    ) -> Self {
        let last = records.last().expect("a batch has records");
        let end = last.offset + 1;
        let hash = hash_of(records);
        let range = format!("{topic}:{partition}:{start}-{end}");
        let token = |table: &str| match tokens {
            TokenKind::Range => format!("{table}:{range}"),
            TokenKind::Content { .. } if is_broken(Break::TokenWithoutContent) => {
                format!("{table}:{range}")
            }
            TokenKind::Content { epoch } => format!("{table}:{epoch}:{range}:{hash:016x}"),
        };
        let mut tables: BTreeMap<&'static str, TableInsert> = BTreeMap::new();
        for record in records {
            let table = record.schema.table;
            let insert = tables.entry(table).or_insert_with(|| TableInsert {
                schema: record.schema,
                token: token(table),
                rows: 0,
                blocks: Vec::new(),
                ranges: Vec::new(),
            });
            insert.add(&record.block);
        }
        Self {
            start,
            end,
            records: u32::try_from(records.len()).expect("a batch has fewer than 2^32 records"),
            hash,
            tables: tables.into_values().collect(),
        }
    }

    /// Rows of all tables.
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.rows).sum()
    }
}

/// How many of `records`, from the first on, make the next batch: as many as the limits allow, all
/// blocks of a table in the same schema version.
pub fn cut(records: &[RowsRecord], limits: BatchLimits) -> usize {
    let mut rows = 0;
    let mut bytes = 0;
    let mut versions: BTreeMap<&str, u32> = BTreeMap::new();
    for (index, record) in records.iter().enumerate() {
        rows += u64::from(record.block.rows);
        bytes += record.value.len();
        let schema = record.schema;
        let version = versions.entry(schema.table).or_insert(schema.version);
        let too_large = rows > limits.rows || bytes > limits.bytes;
        if index > 0 && (too_large || *version != schema.version) {
            return index;
        }
    }
    records.len()
}

fn hash_of(records: &[RowsRecord]) -> u64 {
    let mut hasher = Xxh3::new();
    for record in records {
        hasher.update(&record.offset.to_le_bytes());
        hasher.update(&(record.value.len() as u64).to_le_bytes());
        hasher.update(&record.value);
    }
    hasher.digest()
}
