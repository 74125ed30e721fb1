//! What was written to topics whose records do not stay: retention and compaction remove them in
//! seconds. A reader of the harness's own, past the proxies, keeps them all.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use crate::events::PARTITIONS;
use crate::logs::Stored;

const POLL: Duration = Duration::from_millis(200);
/// A client that hears nothing for so long may have forgotten its brokers for good, as the product's
/// clients would without what looks after them (`crates/bus/src/native/kept.rs`): another one goes on.
const DEAF_AFTER: Duration = Duration::from_secs(4);

/// The next offset of each topic's partitions.
type Positions = BTreeMap<(String, u32), i64>;

/// Every committed record of some topics, by topic, partition and offset.
type Records = BTreeMap<(String, u32, i64), Stored>;

/// A reader that keeps everything. Dropped, it stops.
pub struct Tape {
    records: Arc<Mutex<Records>>,
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl Tape {
    /// Begins with the first record of these topics, named with how many partitions they have. Of
    /// `counted` it keeps only where records were.
    pub fn start(brokers: &str, topics: &[(String, u32)], counted: Vec<String>) -> Result<Self> {
        let mut next = BTreeMap::new();
        for (topic, partitions) in topics {
            next.extend((0..*partitions).map(|partition| ((topic.clone(), partition), 0)));
        }
        let brokers = brokers.to_owned();
        let mut consumer = open(&brokers, &next)?;
        let (records, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let (kept, is_over) = (Arc::clone(&records), Arc::clone(&stop));
        let reader = thread::spawn(move || {
            let mut heard_at = Instant::now();
            while !is_over.load(Ordering::Relaxed) {
                // A broker that is down is a fault of the run.
                if let Some(Ok(message)) = consumer.poll(POLL) {
                    heard_at = Instant::now();
                    let place = (
                        message.topic().to_owned(),
                        message.partition().cast_unsigned(),
                    );
                    next.insert(place, message.offset() + 1);
                    let is_whole = !counted.iter().any(|name| name == message.topic());
                    keep(&kept, &message, is_whole);
                } else if heard_at.elapsed() > DEAF_AFTER
                    && let Ok(another) = open(&brokers, &next)
                {
                    heard_at = Instant::now();
                    consumer = another;
                }
            }
        });
        Ok(Self {
            records,
            stop,
            reader: Some(reader),
        })
    }

    /// How many records a partition had at these offsets.
    pub fn count(&self, topic: &str, partition: u32, offsets: Range<i64>) -> usize {
        if offsets.is_empty() {
            return 0;
        }
        let place = |offset| (topic.to_owned(), partition, offset);
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let found = records.range(place(offsets.start)..place(offsets.end));
        found.count()
    }

    /// What it has of a topic, and what still lies there and it may not have read yet.
    pub fn with(&self, topic: &str, present: Vec<Stored>) -> Vec<Stored> {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        for record in present {
            let place = (topic.to_owned(), record.partition, record.offset);
            records.entry(place).or_insert(record);
        }
        let of_topic = records.iter().filter(|((name, ..), _)| name == topic);
        of_topic.map(|(_, record)| record.clone()).collect()
    }
}

/// Records of a topic without transactions, none of which may be missing.
pub fn complete(records: Vec<Stored>) -> Result<Vec<Stored>> {
    let mut next = vec![0; PARTITIONS as usize];
    for record in &records {
        let next = &mut next[record.partition as usize];
        if record.offset != *next {
            let place = format!("{}@{}", record.partition, *next);
            return Err(anyhow!(
                "the harness did not read the record at {place} in time"
            ));
        }
        *next += 1;
    }
    Ok(records)
}

/// A reader that goes on from `next`; where that is gone already, from the first record that is there.
fn open(brokers: &str, next: &Positions) -> Result<BaseConsumer> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "chaos-tape")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .create()
        .context("a consumer")?;
    let mut wanted = TopicPartitionList::new();
    for ((topic, partition), offset) in next {
        let partition = partition.cast_signed();
        wanted.add_partition_offset(topic, partition, Offset::Offset(*offset))?;
    }
    consumer.assign(&wanted)?;
    Ok(consumer)
}

fn keep(records: &Mutex<Records>, message: &impl Message, is_whole: bool) {
    let partition = message.partition().cast_unsigned();
    let stored = Stored {
        partition,
        offset: message.offset(),
        logged_at: message.timestamp().to_millis().unwrap_or_default(),
        key: message.key().unwrap_or_default().to_vec(),
        value: message.payload().filter(|_| is_whole).map(<[u8]>::to_vec),
    };
    let place = (message.topic().to_owned(), partition, message.offset());
    let mut records = records.lock().unwrap_or_else(PoisonError::into_inner);
    records.insert(place, stored);
}

impl Drop for Tape {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}
