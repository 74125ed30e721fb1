//! What both stages publish in the same way: verdicts, findings, alerts, heartbeats, rows of them.

use serde::Serialize;
use spendfuse_bus::{BusError, LogicError, Outputs};
use spendfuse_domain::Topics;
use spendfuse_domain::finding::Finding;
use spendfuse_domain::verdict::{BlocklistEntry, Stage};
use spendfuse_engine::alert::Alert;
use spendfuse_warehouse::block::{
    FindingChanges, FindingRow, RowFormat, StageAddress, TableBlock, TableKind, VerdictRow,
    Verdicts,
};

use crate::heartbeat::Watermark;
use crate::rows::{BLOCK_BYTES, RowLinks};

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
    /// Which commit.
    pub seq: u64,
    /// How rows are written.
    pub format: RowFormat,
}

impl Publisher<'_, '_> {
    /// Entries and tombstones of the blocklist, in order.
    pub fn blocklist(
        &mut self,
        entries: &[(String, Option<BlocklistEntry>)],
    ) -> Result<(), LogicError> {
        for (key, entry) in entries {
            let value = entry.as_ref().map(json);
            self.send(&self.topics.blocklist, key, value.as_deref())?;
        }
        Ok(())
    }

    /// Findings, in order.
    pub fn findings(&mut self, findings: &[(String, Finding)]) -> Result<(), LogicError> {
        for (key, finding) in findings {
            self.send(&self.topics.findings, key, Some(&json(finding)))?;
        }
        Ok(())
    }

    /// Alerts for people.
    pub fn alerts(&mut self, alerts: &[Alert]) -> Result<(), LogicError> {
        for alert in alerts {
            self.send(&self.topics.alerts, &alert.key, Some(&json(alert)))?;
        }
        Ok(())
    }

    /// The partition's heartbeat, where one is due.
    pub fn heartbeat(
        &mut self,
        watermark: &mut Watermark,
        budget_version: u64,
    ) -> Result<(), LogicError> {
        if let Some((key, heartbeat)) = watermark.take(self.seq, budget_version) {
            self.send(&self.topics.blocklist, &key, Some(&json(&heartbeat)))?;
        }
        Ok(())
    }

    /// Findings as rows for the warehouse.
    pub fn finding_rows(
        &mut self,
        links: &mut RowLinks,
        findings: &[(String, Finding)],
    ) -> Result<(), LogicError> {
        self.rows::<FindingChanges, _>(links, findings, |(_, finding), address| FindingRow {
            finding,
            address,
        })
    }

    /// Changed verdicts as rows for the warehouse.
    pub fn verdict_rows(
        &mut self,
        links: &mut RowLinks,
        entries: &[&BlocklistEntry],
    ) -> Result<(), LogicError> {
        self.rows::<Verdicts, _>(links, entries, |entry, address| VerdictRow {
            entry,
            address,
        })
    }

    /// One row of table `K` for each of `items`, in as many blocks as they need: a window that ends
    /// for all customers at once fills more than a record may hold.
    pub fn rows<'r, K: TableKind, T>(
        &mut self,
        links: &mut RowLinks,
        items: &'r [T],
        row: impl Fn(&'r T, StageAddress) -> K::Row<'r>,
    ) -> Result<(), LogicError> {
        if items.is_empty() {
            return Ok(());
        }
        let mut block = TableBlock::<K>::new(self.format);
        for (item, index) in items.iter().zip(0..) {
            block.push(&row(item, self.address(index)));
            if block.bytes_estimate() >= BLOCK_BYTES {
                self.send_block(links, &mut block)?;
            }
        }
        self.send_block(links, &mut block)
    }

    fn send_block<K: TableKind>(
        &mut self,
        links: &mut RowLinks,
        block: &mut TableBlock<K>,
    ) -> Result<(), LogicError> {
        if block.rows() == 0 {
            return Ok(());
        }
        let link = links.next(K::schema().table, self.partition, self.seq);
        if let Some(record) = block.finish_record(link) {
            self.outputs
                .send(self.rows_topic, self.partition, None, Some(&record), &[])?;
        }
        Ok(())
    }

    /// The address of the row with this place in the commit.
    pub fn address(&self, index: u32) -> StageAddress {
        StageAddress {
            epoch: self.format.epoch(),
            stage: self.stage,
            partition: self.partition,
            seq: self.seq,
            index,
        }
    }

    fn send(&mut self, topic: &str, key: &str, value: Option<&[u8]>) -> Result<(), BusError> {
        self.outputs
            .send(topic, self.partition, Some(key.as_bytes()), value, &[])
    }
}

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    // A blocklist entry fits: growing step by step would cost more than the encoding.
    let mut bytes = Vec::with_capacity(1024);
    serde_json::to_writer(&mut bytes, value)
        .expect("records have string keys and finite numbers only");
    bytes
}
