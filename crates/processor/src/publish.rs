//! What both stages publish in the same way: verdicts, findings, alerts, heartbeats, rows of them.

use serde::Serialize;
use spendfuse_bus::{BusError, LogicError, Outputs};
use spendfuse_domain::Topics;
use spendfuse_domain::finding::Finding;
use spendfuse_domain::verdict::{BlocklistEntry, Stage};
use spendfuse_engine::alert::Alert;
use spendfuse_warehouse::block::{
    FindingBlock, FindingRow, StageAddress, VerdictBlock, VerdictRow,
};

use crate::heartbeat::Watermark;
use crate::rows::RowLinks;

const FINDINGS_TABLE: &str = "finding_changes";
const VERDICTS_TABLE: &str = "verdicts";

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
        let mut block = FindingBlock::new();
        for ((_, finding), index) in findings.iter().zip(0..) {
            let address = self.address(index);
            block.push(&FindingRow { finding, address });
        }
        if findings.is_empty() {
            return Ok(());
        }
        let link = links.next(FINDINGS_TABLE, self.partition, self.seq);
        self.send_rows(block.finish_record(link))
    }

    /// Changed verdicts as rows for the warehouse.
    pub fn verdict_rows(
        &mut self,
        links: &mut RowLinks,
        entries: &[&BlocklistEntry],
    ) -> Result<(), LogicError> {
        let mut block = VerdictBlock::new();
        for (entry, index) in entries.iter().zip(0..) {
            let address = self.address(index);
            block.push(&VerdictRow { entry, address });
        }
        if entries.is_empty() {
            return Ok(());
        }
        let link = links.next(VERDICTS_TABLE, self.partition, self.seq);
        self.send_rows(block.finish_record(link))
    }

    /// A finished row block, where there is one.
    pub fn send_rows(&mut self, record: Option<Vec<u8>>) -> Result<(), LogicError> {
        if let Some(record) = record {
            self.outputs
                .send(self.rows_topic, self.partition, None, Some(&record), &[])?;
        }
        Ok(())
    }

    /// The address of the row with this place in the commit.
    pub fn address(&self, index: u32) -> StageAddress {
        StageAddress {
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
