//! The ledger is told: records among its deltas, the last of which says that it is the last.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use spendfuse_bus::{BusError, EventProducer, EventRecord, ProducerOptions};
use spendfuse_domain::routing::partition_of;
use spendfuse_engine::codec;
use spendfuse_engine::ledger::{OPENINGS_KEY, OpeningEntry, Openings};
use spendfuse_warehouse::Warehouse;

use super::OpeningsError;
use super::asking::{Asked, Question};
use crate::LoaderConfig;

/// A record is cut at about this size, bytes.
const RECORD_BYTES: usize = 256 * 1024;
/// Numbers, lengths and times of an entry take no more than this, bytes.
const ENTRY_BYTES: usize = 96;
const PATIENCE: Duration = Duration::from_secs(30);

/// Tells ledger partitions the past of a count.
pub(super) struct Telling<'a> {
    pub(super) config: &'a LoaderConfig,
    pub(super) question: &'a Question,
    pub(super) partitions: &'a [u32],
    /// How many there are.
    pub(super) of_all: u32,
}

type Outcome = Result<(), BusError>;

impl Telling<'_> {
    /// Asks the warehouse, and tells what it says. Where that fails, what was told so far is set again
    /// by the next attempt.
    pub(super) async fn tell(&self, warehouse: &Warehouse) -> Result<Asked, OpeningsError> {
        warehouse.know_all_spend().await?;
        if self.question.versions_began_again(warehouse).await? {
            return Ok(Asked::VersionsBeganAgain);
        }
        let producer = EventProducer::open(&self.config.kafka, &ProducerOptions::default())?;
        let (acknowledged, outcomes) = channel();
        let slices = self.question.slices(warehouse).await?;
        let mut scopes = 0;
        for slice in 0..slices {
            let entries = self.question.ask(warehouse, (slice, slices)).await?;
            scopes += entries.len() as u64;
            for (partition, entries) in self.parts(entries) {
                self.send(&producer, partition, entries, false, &acknowledged)?;
            }
            arrived(&producer, &outcomes)?;
        }
        for partition in self.partitions {
            self.send(&producer, *partition, Vec::new(), true, &acknowledged)?;
        }
        arrived(&producer, &outcomes)?;
        Ok(Asked::Told { scopes })
    }

    /// What each of the partitions is told of these, in records that are not too large.
    fn parts(&self, entries: Vec<OpeningEntry>) -> Vec<(u32, Vec<OpeningEntry>)> {
        let mut full = Vec::new();
        let mut filling: BTreeMap<u32, (usize, Vec<OpeningEntry>)> = BTreeMap::new();
        for entry in entries {
            let partition = partition_of(entry.scope.as_bytes(), self.of_all);
            if !self.partitions.contains(&partition) {
                continue;
            }
            let (bytes, part) = filling.entry(partition).or_default();
            *bytes += ENTRY_BYTES + entry.scope.len();
            part.push(entry);
            if *bytes >= RECORD_BYTES {
                full.push((partition, std::mem::take(part)));
                *bytes = 0;
            }
        }
        let filling = filling.into_iter();
        full.extend(filling.map(|(partition, (_, part))| (partition, part)));
        full.retain(|(_, part)| !part.is_empty());
        full
    }

    fn send(
        &self,
        producer: &EventProducer,
        partition: u32,
        entries: Vec<OpeningEntry>,
        is_last: bool,
        acknowledged: &Sender<Outcome>,
    ) -> Result<(), BusError> {
        let question = self.question;
        let value = codec::encode(&Openings {
            budget: question.budget().to_string(),
            terms: question.count.terms,
            since: question.count.since,
            below_version: question.below_version,
            entries,
            is_last,
        });
        let record = EventRecord {
            topic: &self.config.deltas_topic,
            partition: Some(partition),
            key: Some(OPENINGS_KEY),
            value: Some(&value),
            headers: &[],
        };
        let acknowledged = acknowledged.clone();
        producer.send(&record, move |outcome| {
            // Nobody listens any more where another record has failed.
            let _ = acknowledged.send(outcome.map(|_| ()));
        })
    }
}

/// Waits until everything that was sent lies in the topic.
fn arrived(producer: &EventProducer, outcomes: &Receiver<Outcome>) -> Result<(), BusError> {
    producer.flush(PATIENCE)?;
    outcomes.try_iter().collect()
}
