//! Records of the topics `spendfuse.rows` and `spendfuse.rows.ledger`: a block of one table with a
//! header that says what is in it.
//!
//! Layout: version byte, varint length of the header, header (protobuf), Native block.

use bytes::Bytes;
use prost::Message;

use super::RowFormat;
use super::columns::Columns;

/// Version byte of the records that this program writes.
pub const RECORD_VERSION: u8 = 1;

/// How a block continues the blocks before it: the numbers of the commits of one writer partition
/// form a chain, which the loader checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Partition of the writer (meter or ledger, as the topic says).
    pub partition: u32,
    /// Number of the writer's last commit that had a block of this table; 0 where there was none.
    /// A further block of the same commit and table names its own `seq`.
    pub previous: u64,
    /// Number of the commit, from 1.
    pub seq: u64,
}

/// The lowest and highest place of a block's rows within their commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexRange {
    /// Place of the first row.
    pub first: u32,
    /// Place of the last row.
    pub last: u32,
}

impl IndexRange {
    /// Takes `index` in.
    pub(crate) fn extend(range: &mut Option<Self>, index: u32) {
        *range = Some(match *range {
            None => Self {
                first: index,
                last: index,
            },
            Some(known) => Self {
                first: known.first.min(index),
                last: known.last.max(index),
            },
        });
    }
}

/// The header as it is encoded. Numbers of fields are never reused.
#[derive(Clone, PartialEq, Message)]
struct Header {
    #[prost(string, tag = "1")]
    table: String,
    #[prost(uint32, tag = "2")]
    schema_version: u32,
    #[prost(uint32, tag = "3")]
    rows: u32,
    #[prost(uint32, tag = "4")]
    partition: u32,
    #[prost(uint64, tag = "5")]
    previous: u64,
    #[prost(uint64, tag = "6")]
    seq: u64,
    #[prost(uint32, tag = "7")]
    first_index: u32,
    #[prost(uint32, tag = "8")]
    last_index: u32,
    #[prost(uint32, tag = "9")]
    epoch: u32,
}

/// A record, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowBlock {
    /// The table that the rows belong to.
    pub table: String,
    /// Version of its column list.
    pub schema_version: u32,
    /// Number of rows.
    pub rows: u32,
    /// Which set of topics the rows' addresses are of.
    pub epoch: u32,
    /// Place in the writer's chain.
    pub link: Link,
    /// Places of the rows within the commit.
    pub indexes: IndexRange,
    /// The block.
    pub native: Bytes,
}

impl RowBlock {
    /// Writes the record of `columns`, which are empty afterwards.
    pub(crate) fn write(
        columns: &mut Columns,
        format: RowFormat,
        link: Link,
        indexes: IndexRange,
    ) -> Vec<u8> {
        let schema = columns.schema();
        let rows = u32::try_from(columns.rows()).expect("a block has fewer than 2^32 rows");
        let header = Header {
            table: schema.table.to_owned(),
            schema_version: schema.version,
            rows,
            partition: link.partition,
            previous: link.previous,
            seq: link.seq,
            first_index: indexes.first,
            last_index: indexes.last,
            epoch: format.epoch(),
        };
        let mut record = start_record(&header);
        columns.write_and_clear(&mut record);
        record
    }

    /// The record's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut record = start_record(&Header {
            table: self.table.clone(),
            schema_version: self.schema_version,
            rows: self.rows,
            partition: self.link.partition,
            previous: self.link.previous,
            seq: self.link.seq,
            first_index: self.indexes.first,
            last_index: self.indexes.last,
            epoch: self.epoch,
        });
        record.extend_from_slice(&self.native);
        record
    }

    /// Takes a record apart, without a look into its block.
    ///
    /// # Errors
    /// [`RecordError`] where the bytes are no record that this version of the program knows.
    pub fn decode(record: &Bytes) -> Result<Self, RecordError> {
        match record.first() {
            Some(&RECORD_VERSION) => {}
            Some(&version) => return Err(RecordError::Version(version)),
            None => return Err(RecordError::Empty),
        }
        let mut rest = record.slice(1..);
        let header = Header::decode_length_delimited(&mut rest)?;
        if header.table.is_empty() || header.rows == 0 || rest.is_empty() {
            return Err(RecordError::Empty);
        }
        Ok(Self {
            table: header.table,
            schema_version: header.schema_version,
            rows: header.rows,
            epoch: header.epoch,
            link: Link {
                partition: header.partition,
                previous: header.previous,
                seq: header.seq,
            },
            indexes: IndexRange {
                first: header.first_index,
                last: header.last_index,
            },
            native: rest,
        })
    }
}

fn start_record(header: &Header) -> Vec<u8> {
    let mut record = Vec::with_capacity(header.encoded_len() + 3);
    record.push(RECORD_VERSION);
    header
        .encode_length_delimited(&mut record)
        .expect("a Vec grows as needed");
    record
}

/// A record that is not a block of rows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Written by another version of the program.
    #[error("row block of format version {0}; this program knows version {RECORD_VERSION}")]
    Version(u8),
    /// No header, no table or no rows.
    #[error("row block without a header, a table or rows")]
    Empty,
    /// The header cannot be read.
    #[error("row block with a broken header: {0}")]
    Header(#[from] prost::DecodeError),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block() -> RowBlock {
        RowBlock {
            table: "spend".to_owned(),
            schema_version: 1,
            rows: 7,
            epoch: 2,
            link: Link {
                partition: 3,
                previous: 41,
                seq: 42,
            },
            indexes: IndexRange { first: 2, last: 8 },
            native: Bytes::from_static(b"native"),
        }
    }

    #[test]
    fn a_record_comes_apart_as_it_was_put_together() {
        let record = Bytes::from(block().encode());
        assert_eq!(RowBlock::decode(&record).unwrap(), block());
    }

    #[test]
    fn what_is_no_record_is_refused_without_a_panic() {
        let record = Bytes::from(block().encode());
        let mut newer = record.to_vec();
        newer[0] = 9;
        assert_eq!(
            RowBlock::decode(&Bytes::from(newer)),
            Err(RecordError::Version(9))
        );
        let native_starts = record.len() - block().native.len();
        for end in 0..=native_starts {
            assert!(RowBlock::decode(&record.slice(..end)).is_err(), "{end}");
        }
    }
}
