//! What both stages publish in the same way: state, verdicts, findings, alerts, heartbeats, and rows
//! with the chain that links the commits of each table.

use std::collections::BTreeMap;

use serde::Serialize;
use spendfuse_bus::{BusError, LogicError, Outputs};
use spendfuse_domain::Topics;
use spendfuse_domain::routing::partition_of;
use spendfuse_domain::verdict::{Heartbeat, Stage};
use spendfuse_engine::codec;
use spendfuse_engine::publish::Told;
use spendfuse_warehouse::block::{
    FindingChanges, FindingRow, RowFormat, StageAddress, TableBlock, TableKind, VerdictRow,
    Verdicts,
};
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

/// Writes the outputs of one commit of one partition.
pub struct Publisher<'a, 'o> {
    /// The transaction.
    pub outputs: &'a mut Outputs<'o>,
    /// Where to.
    pub topics: &'a Topics,
    /// The stage's topic of row blocks.
    pub rows_topic: &'a str,
    /// Which stage.
    pub stage: Stage,
    /// Which partition.
    pub partition: u32,
    /// How many there are.
    pub partitions: u32,
    /// Which commit.
    pub seq: u64,
    /// How rows are written.
    pub format: RowFormat,
    /// The chains of the partition's rows.
    pub links: &'a mut RowLinks,
}

impl Publisher<'_, '_> {
    /// What a commit tells, and the partition's heartbeat where one is due.
    pub fn publish(
        &mut self,
        told: &Told,
        heartbeat: Option<(String, Heartbeat)>,
    ) -> Result<(), LogicError> {
        for (key, value) in &told.changelog {
            self.outputs.changelog(key, value.as_deref())?;
        }
        for (key, entry) in &told.blocklist {
            let value = entry.as_ref().map(json);
            self.send(&self.topics.blocklist, key, value.as_deref())?;
        }
        for (key, finding) in &told.findings {
            self.send(&self.topics.findings, key, Some(&json(finding)))?;
        }
        for alert in &told.alerts {
            let (key, value) = (alert.key.as_bytes(), alert.to_record());
            let partition = match alert.kind.is_found_by_several() {
                true => partition_of(key, self.partitions),
                false => self.partition,
            };
            let topic = &self.topics.alerts;
            self.outputs
                .send(topic, partition, Some(key), Some(&value), &[])?;
        }
        if let Some((key, heartbeat)) = heartbeat {
            self.send(&self.topics.blocklist, &key, Some(&json(&heartbeat)))?;
        }
        self.rows::<FindingChanges, _>(&told.findings, |(_, finding), address| FindingRow {
            finding,
            address,
        })?;
        self.rows::<Verdicts, _>(&told.verdict_changes, |entry, address| VerdictRow {
            entry,
            address,
        })
    }

    /// One row of table `K` for each of `items`, in as many blocks as they need: a window that ends
    /// for all customers at once fills more than a record may hold.
    pub fn rows<'r, K: TableKind + Default, T>(
        &mut self,
        items: &'r [T],
        row: impl Fn(&'r T, StageAddress) -> K::Row<'r>,
    ) -> Result<(), LogicError> {
        if items.is_empty() {
            return Ok(());
        }
        let mut block = TableBlock::<K>::new(self.format);
        for (item, index) in items.iter().zip(0..) {
            let address = StageAddress {
                epoch: self.format.epoch(),
                stage: self.stage,
                partition: self.partition,
                seq: self.seq,
                index,
            };
            block.push(&row(item, address));
            if block.bytes_estimate() >= BLOCK_BYTES {
                self.send_block(&mut block)?;
            }
        }
        self.send_block(&mut block)
    }

    fn send_block<K: TableKind>(&mut self, block: &mut TableBlock<K>) -> Result<(), LogicError> {
        if block.rows() == 0 {
            return Ok(());
        }
        let link = self.links.next(K::schema().table, self.partition, self.seq);
        if let Some(record) = block.finish_record(link) {
            self.outputs
                .send(self.rows_topic, self.partition, None, Some(&record), &[])?;
        }
        Ok(())
    }

    fn send(&mut self, topic: &str, key: &str, value: Option<&[u8]>) -> Result<(), BusError> {
        self.outputs
            .send(topic, self.partition, Some(key.as_bytes()), value, &[])
    }
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

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    // A blocklist entry fits: growing step by step would cost more than the encoding.
    let mut bytes = Vec::with_capacity(1024);
    serde_json::to_writer(&mut bytes, value)
        .expect("records have string keys and finite numbers only");
    bytes
}
