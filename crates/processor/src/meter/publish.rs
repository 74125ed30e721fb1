//! The end of a meter batch: everything that it writes, in one transaction.

use metrics::{counter, gauge};
use spendfuse_bus::{LogicError, Outputs};
use spendfuse_domain::Topics;
use spendfuse_domain::verdict::{BlocklistEntry, Stage};
use spendfuse_engine::codec;
use spendfuse_engine::delta::Deltas;
use spendfuse_engine::meter::MeterOutputs;

use super::MeterPartition;
use crate::metrics::{
    DEDUPE_IDS, EVENTS_REJECTED, EVENTS_REROUTED, SESSION_ACCOUNTS_GIVEN_UP, SESSIONS,
    SESSIONS_ENDED_EARLY,
};
use crate::publish::Publisher;

/// A delta record holds at most this many entries; more go into further records of the same commit.
const MAX_ENTRIES: usize = 4_000;

impl MeterPartition {
    pub(super) fn publish(&mut self, outputs: &mut Outputs<'_>) -> Result<(), LogicError> {
        let partition = self.config.partition;
        self.send_aside(outputs)?;
        for record in self.rows.finished.drain(..) {
            outputs.send(&self.topics.rows, partition, None, Some(&record), &[])?;
        }
        let published = self.meter.finish();
        for (ledger_partition, deltas) in &published.deltas {
            send_deltas(outputs, &self.topics, *ledger_partition, deltas)?;
        }
        if !published.ids.ids.is_empty() {
            let ids = codec::encode(&published.ids);
            outputs.send(&self.topics.meter_ids, partition, None, Some(&ids), &[])?;
        }
        for (key, value) in &published.changelog {
            outputs.changelog(key, value.as_deref())?;
        }
        let mut publisher = Publisher {
            outputs,
            topics: &self.topics,
            rows_topic: &self.topics.rows,
            stage: Stage::Meter,
            partition,
            seq: self.seq,
        };
        publisher.blocklist(&published.blocklist)?;
        publisher.findings(&published.findings)?;
        publisher.alerts(&published.alerts)?;
        let links = &mut self.rows.links;
        publisher.finding_rows(links, &published.findings)?;
        publisher.verdict_rows(links, &session_verdicts(&published))?;
        let is_heartbeat = self.watermark.is_due();
        publisher.heartbeat(&mut self.watermark, self.meter.budget_version())?;
        self.rows.links.finish(outputs)?;
        counter!(SESSIONS_ENDED_EARLY).increment(published.sessions_ended_early);
        counter!(SESSION_ACCOUNTS_GIVEN_UP).increment(published.session_accounts_given_up);
        if is_heartbeat {
            self.export_sizes();
        }
        Ok(())
    }

    /// Events for other partitions and for the DLQ.
    fn send_aside(&mut self, outputs: &mut Outputs<'_>) -> Result<(), LogicError> {
        for handover in self.handovers.drain(..) {
            let record = &handover.record;
            let headers = record.header_refs();
            let (key, value) = (record.key.as_deref(), record.value.as_deref());
            outputs.send(&self.topics.rerouted, handover.home, key, value, &headers)?;
            counter!(EVENTS_REROUTED).increment(1);
        }
        for rejected in self.rejects.drain(..) {
            let record = &rejected.record;
            let headers = record.header_refs();
            let (key, value) = (record.key.as_deref(), record.value.as_deref());
            outputs.send(
                &self.topics.dlq,
                self.config.partition,
                key,
                value,
                &headers,
            )?;
            counter!(EVENTS_REJECTED, "reason" => rejected.reason.name()).increment(1);
        }
        Ok(())
    }

    fn export_sizes(&self) {
        let (sessions, ids) = self.meter.sizes();
        let partition = self.config.partition.to_string();
        gauge!(SESSIONS, "partition" => partition.clone()).set(sessions as f64);
        gauge!(DEDUPE_IDS, "partition" => partition).set(ids as f64);
    }
}

/// Session verdicts go to the warehouse when they say more than `ok`.
fn session_verdicts(published: &MeterOutputs) -> Vec<&BlocklistEntry> {
    let entries = published
        .blocklist
        .iter()
        .filter_map(|(_, entry)| entry.as_ref());
    entries
        .filter(|entry| entry.verdict != spendfuse_domain::Verdict::Ok)
        .collect()
}

/// One record, or several where there are many entries: the further ones follow the first within
/// the same commit, which the chain says by `prev` = `seq`.
fn send_deltas(
    outputs: &mut Outputs<'_>,
    topics: &Topics,
    ledger_partition: u32,
    deltas: &Deltas,
) -> Result<(), LogicError> {
    if deltas.entries.len() <= MAX_ENTRIES {
        let value = codec::encode(deltas);
        outputs.send(&topics.deltas, ledger_partition, None, Some(&value), &[])?;
        return Ok(());
    }
    for (place, entries) in deltas.entries.chunks(MAX_ENTRIES).enumerate() {
        let part = Deltas {
            prev: if place == 0 { deltas.prev } else { deltas.seq },
            entries: entries.to_vec(),
            series: deltas.series.clone(),
            ..*deltas
        };
        let value = codec::encode(&part);
        outputs.send(&topics.deltas, ledger_partition, None, Some(&value), &[])?;
    }
    Ok(())
}
