//! The end of a meter batch: everything that it writes, in one transaction.

use metrics::{counter, gauge};
use spendfuse_bus::{LogicError, Outputs};
use spendfuse_domain::verdict::Stage;
use spendfuse_engine::codec;
use spendfuse_engine::delta::Deltas;

use super::{MeterPartition, USAGE};
use crate::metrics::{
    DEDUPE_IDS, EVENTS_REJECTED, EVENTS_REROUTED, SESSION_ACCOUNTS_GIVEN_UP, SESSIONS,
    SESSIONS_ENDED_EARLY,
};
use crate::publish::Publisher;

/// A delta record holds at most this many entries and about this many bytes; more go into further
/// records of the same commit.
const MAX_ENTRIES: usize = 4_000;
const MAX_DELTA_BYTES: usize = 512 * 1024;
/// A record of the ids changelog holds at most this many identities, of about 30 bytes each.
const MAX_IDS: usize = 8 * 1024;
/// And about this many bytes about calls.
const MAX_CALL_BYTES: usize = 256 * 1024;

impl MeterPartition {
    pub(super) fn publish(&mut self, outputs: &mut Outputs<'_>) -> Result<(), LogicError> {
        let partition = self.config.partition;
        self.send_aside(outputs)?;
        for record in self.rows.finished.drain(..) {
            outputs.send(&self.topics.rows, partition, None, Some(&record), &[])?;
        }
        let settled = &mut self.settled;
        settled.send(outputs, &self.topics.inflight, partition, self.seq)?;
        self.meter.set_through(self.watermark.through(USAGE));
        let published = self.meter.finish();
        for (ledger_partition, deltas) in &published.deltas {
            for value in delta_records(deltas) {
                let topic = &self.topics.deltas;
                outputs.send(topic, *ledger_partition, None, Some(&value), &[])?;
            }
        }
        for record in published.ids.records(MAX_IDS, MAX_CALL_BYTES) {
            let (topic, value) = (&self.topics.meter_ids, record.encode());
            outputs.send(topic, partition, None, Some(&value), &[])?;
        }
        let mut publisher = Publisher {
            outputs,
            topics: &self.topics,
            rows_topic: &self.topics.rows,
            stage: Stage::Meter,
            partition,
            partitions: self.config.partitions,
            seq: self.seq,
            format: self.tables.row_format,
            links: &mut self.rows.links,
        };
        let is_heartbeat = self.watermark.is_due();
        let heartbeat = self.watermark.take(self.seq, self.meter.budget_version());
        publisher.publish(&published.told, heartbeat)?;
        self.rows.links.finish(outputs)?;
        counter!(SESSIONS_ENDED_EARLY).increment(published.sessions_ended_early);
        counter!(SESSION_ACCOUNTS_GIVEN_UP).increment(published.session_accounts_given_up);
        self.meter.take_back(published);
        if is_heartbeat {
            self.export_sizes();
        }
        Ok(())
    }

    /// Events for other partitions and for the DLQ.
    fn send_aside(&mut self, outputs: &mut Outputs<'_>) -> Result<(), LogicError> {
        for handover in self.handovers.drain(..) {
            let (topic, home) = (&self.topics.rerouted, handover.home);
            handover.record.send(outputs, topic, home)?;
            counter!(EVENTS_REROUTED).increment(1);
        }
        for rejected in self.rejects.drain(..) {
            let (topic, partition) = (&self.topics.dlq, self.config.partition);
            rejected.record.send(outputs, topic, partition)?;
            counter!(EVENTS_REJECTED, "reason" => rejected.reason.name()).increment(1);
        }
        Ok(())
    }

    fn export_sizes(&self) {
        let (sessions, ids) = self.meter.sizes();
        self.show_sizes(sessions, ids);
    }

    pub(super) fn show_sizes(&self, sessions: usize, ids: usize) {
        let partition = self.config.partition.to_string();
        gauge!(SESSIONS, "partition" => partition.clone()).set(sessions as f64);
        gauge!(DEDUPE_IDS, "partition" => partition).set(ids as f64);
    }
}

/// One record, or several where there are many entries or long names: the further ones follow the
/// first within the same commit, which the chain says by `prev` = `seq`.
fn delta_records(deltas: &Deltas) -> Vec<Vec<u8>> {
    if deltas.entries.len() <= MAX_ENTRIES && deltas.bytes_estimate() <= MAX_DELTA_BYTES {
        return vec![codec::encode(deltas)];
    }
    let parts = deltas.parts(MAX_ENTRIES, MAX_DELTA_BYTES);
    parts.iter().map(codec::encode).collect()
}
