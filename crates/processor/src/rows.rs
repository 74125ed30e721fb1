//! Blocks of rows for the warehouse, with the chain that links the commits of each table.

use std::collections::BTreeMap;

use spendfuse_bus::{LogicError, Outputs};
use spendfuse_engine::codec;
use spendfuse_warehouse::record::Link;

/// Row blocks are cut at this size, so that no record of a batch is larger than topics allow.
pub const BLOCK_BYTES: usize = 512 * 1024;
/// Changelog key of the chain.
pub const LINKS_KEY: &[u8] = b"row_links";

/// Per table, the partition's last commit that wrote a block.
#[derive(Debug, Default)]
pub struct RowLinks {
    last: BTreeMap<String, u64>,
    changed: bool,
}

impl RowLinks {
    /// Takes the chain from the changelog.
    pub fn restore(&mut self, value: &[u8]) -> Result<(), LogicError> {
        self.last = codec::decode(value).map_err(|error| {
            LogicError::Fatal(format!("changelog record \"row_links\": {error}"))
        })?;
        Ok(())
    }

    /// The link of the next block of `table` in commit `seq`.
    pub fn next(&mut self, table: &'static str, partition: u32, seq: u64) -> Link {
        self.changed = true;
        let previous = self.last.insert(table.to_owned(), seq).unwrap_or(0);
        Link {
            partition,
            previous,
            seq,
        }
    }

    /// Writes the chain to the changelog where it grew.
    pub fn finish(&mut self, outputs: &mut Outputs<'_>) -> Result<(), LogicError> {
        if std::mem::take(&mut self.changed) {
            outputs.changelog(LINKS_KEY, Some(&codec::encode(&self.last)))?;
        }
        Ok(())
    }
}
