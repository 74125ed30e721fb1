//! What lies in Kafka: records of a topic, open transactions, readers that lag.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use spendfuse_bus::{KafkaConfig, PartitionRange, log_ends, read_ranges, topic_ranges};
use spendfuse_engine::audit::{StoredRecord, read_stored};
use spendfuse_tests::pause;

use crate::tape::{Tape, complete};

const PATIENCE: Duration = Duration::from_secs(30);

/// A record's place, key and value.
#[derive(Clone)]
pub struct Stored {
    pub partition: u32,
    pub offset: i64,
    /// When the broker took it, milliseconds since 1970.
    pub logged_at: i64,
    pub key: Vec<u8>,
    /// Value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
}

/// Versions of the budgets topic.
#[derive(Clone, Debug, Default)]
pub struct BudgetVersions {
    /// The one that brought each budget.
    pub first: BTreeMap<String, u64>,
    /// The newest.
    pub last: u64,
}

/// The system's topics.
#[derive(Clone)]
pub struct Logs {
    /// How to reach the broker, past the proxies.
    pub kafka: KafkaConfig,
    /// Begins all names.
    pub prefix: String,
    /// What lay in topics that do not keep it.
    pub tape: Arc<Tape>,
}

/// Topics whose records are needed after they have gone.
pub const TAPED: [&str; 2] = ["usage", "budgets"];
/// Topics of which it must be known where records were.
pub const COUNTED: [&str; 4] = ["usage.rerouted", "deltas", "rows", "rows.ledger"];

impl Logs {
    /// The full name of a topic.
    pub fn topic(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Every committed record that was ever written to the usage topic.
    pub fn usage(&self) -> Result<Vec<Stored>> {
        complete(self.tape.with(&self.topic("usage"), self.read("usage")?))
    }

    /// How many records of a topic retention has removed.
    pub fn removed(&self, name: &str) -> Result<u64> {
        let ranges = topic_ranges(&self.kafka, &self.topic(name), None, PATIENCE)?;
        let starts = ranges.iter().map(|range| range.from.unsigned_abs());
        Ok(starts.sum())
    }

    /// Every committed record of a topic.
    pub fn read(&self, name: &str) -> Result<Vec<Stored>> {
        patiently(|| {
            let ranges = topic_ranges(&self.kafka, &self.topic(name), None, PATIENCE)?;
            self.read_ranges(name, &ranges)
        })
    }

    fn read_ranges(&self, name: &str, ranges: &[PartitionRange]) -> Result<Vec<Stored>> {
        let mut records = Vec::new();
        read_ranges(
            &self.kafka,
            &self.topic(name),
            ranges,
            PATIENCE,
            &mut |record| {
                records.push(Stored {
                    partition: record.partition,
                    offset: record.offset,
                    logged_at: record.timestamp_millis,
                    key: record.key.unwrap_or_default().to_vec(),
                    value: record.value.map(<[u8]>::to_vec),
                });
                ControlFlow::Continue(())
            },
        )?;
        Ok(records)
    }

    /// The last value of every key of a compacted topic, as JSON.
    pub fn table(&self, name: &str) -> Result<BTreeMap<String, serde_json::Value>> {
        let mut table = BTreeMap::new();
        for record in self.read(name)? {
            let key = String::from_utf8(record.key)?;
            match record.value {
                None => drop(table.remove(&key)),
                Some(value) => {
                    table.insert(key, serde_json::from_slice(&value)?);
                }
            }
        }
        Ok(table)
    }

    /// From which version of the budgets topic on each budget was in force.
    pub fn budget_versions(&self) -> Result<BudgetVersions> {
        let mut versions = BudgetVersions::default();
        let present = self.read("budgets")?;
        for record in self.tape.with(&self.topic("budgets"), present) {
            versions.last = record.offset.unsigned_abs() + 1;
            let key = String::from_utf8(record.key)?;
            versions.first.entry(key).or_insert(versions.last);
        }
        Ok(versions)
    }

    /// The budgets of which the ledger has written down where their count begins, so that they hold
    /// what was spent before, too: those that came after the installation was finalized.
    pub fn opened_budgets(&self) -> Result<BTreeSet<String>> {
        let mut opened = BTreeSet::new();
        for record in self.read("ledger.changelog")? {
            let stored = read_stored(&record.key, record.value.as_deref())?;
            if let StoredRecord::Count(budget, count) = stored
                && count.since_version > 0
            {
                opened.insert(budget);
            }
        }
        Ok(opened)
    }

    /// Partitions whose last stable offset lies before their end: a transaction is open there.
    /// Heartbeats come all the time, so ask more than once.
    pub fn open_transactions(&self, names: &[&str]) -> Result<Vec<String>> {
        patiently(|| self.try_open_transactions(names))
    }

    fn try_open_transactions(&self, names: &[&str]) -> Result<Vec<String>> {
        let committed = self.consumer("read_committed", "chaos-check")?;
        let uncommitted = self.consumer("read_uncommitted", "chaos-check")?;
        let mut open = Vec::new();
        for name in names {
            let topic = self.topic(name);
            for partition in 0..partitions(&committed, &topic)? {
                let (_, stable) = committed.fetch_watermarks(&topic, partition, PATIENCE)?;
                let (_, end) = uncommitted.fetch_watermarks(&topic, partition, PATIENCE)?;
                if stable < end {
                    open.push(format!("{name}-{partition}: {stable} of {end}"));
                }
            }
        }
        Ok(open)
    }

    /// Where a topic's partitions end now, what open transactions have written included.
    pub fn ends(&self, name: &str) -> Result<Vec<i64>> {
        patiently(|| Ok(log_ends(&self.kafka, &self.topic(name), PATIENCE)?))
    }

    /// What a group has not got over before `ends`, for each partition that has such records or an
    /// open transaction.
    pub fn unread(&self, group: &str, name: &str, ends: &[i64]) -> Result<Vec<String>> {
        patiently(|| self.try_unread(group, name, ends))
    }

    fn try_unread(&self, group: &str, name: &str, ends: &[i64]) -> Result<Vec<String>> {
        let consumer = self.consumer("read_committed", group)?;
        let topic = self.topic(name);
        let stable = topic_ranges(&self.kafka, &topic, None, PATIENCE)?;
        let mut wanted = TopicPartitionList::new();
        for range in &stable {
            wanted.add_partition(&topic, range.partition.cast_signed());
        }
        let committed = consumer.committed_offsets(wanted, PATIENCE)?;
        let mut unread = Vec::new();
        for (range, end) in stable.into_iter().zip(ends) {
            let partition = range.partition;
            if range.to < *end {
                let place = format!("{name}-{partition}: {} of {end}", range.to);
                unread.push(format!("{place}: a transaction is open"));
                continue;
            }
            let known = committed.find_partition(&topic, partition.cast_signed());
            let from = match known.map(|element| element.offset()) {
                Some(Offset::Offset(offset)) => offset,
                _ => 0,
            };
            // What retention has removed unread is lost.
            let lost = self.tape.count(&topic, partition, from..range.from);
            let from = from.max(range.from);
            // Offsets at the end may be markers: what counts is records.
            let rest = PartitionRange {
                partition,
                from,
                to: *end,
            };
            let count = self.read_ranges(name, &[rest])?.len();
            if count + lost > 0 {
                unread.push(format!(
                    "{name}-{partition}: {count} records, {lost} lost ones"
                ));
            }
        }
        Ok(unread)
    }

    fn consumer(&self, isolation: &str, group: &str) -> Result<BaseConsumer> {
        ClientConfig::new()
            .set("bootstrap.servers", &self.kafka.brokers)
            .set("group.id", group)
            .set("isolation.level", isolation)
            .set("enable.auto.commit", "false")
            .create()
            .context("a consumer")
    }
}

/// Asks again for a while: a broker that was just started has no coordinators yet.
fn patiently<T>(mut ask: impl FnMut() -> Result<T>) -> Result<T> {
    let begin = Instant::now();
    loop {
        match ask() {
            Err(_) if begin.elapsed() < PATIENCE => pause(Duration::from_millis(500)),
            answer => return answer,
        }
    }
}

fn partitions(consumer: &BaseConsumer, topic: &str) -> Result<i32> {
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE)?;
    let count = metadata
        .topics()
        .first()
        .map_or(0, |topic| topic.partitions().len());
    Ok(i32::try_from(count)?)
}
