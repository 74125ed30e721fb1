//! Both stages in memory: records in, batches, outputs, and what a successor restores from them.
// Clippy's exception for tests does not cover their helper functions.
#![allow(clippy::unwrap_used)]

mod budgets;
mod ledger;
mod meter;
mod reservations;

use std::sync::Arc;

use bytes::Bytes;
use spendfuse_bus::{
    FollowerEvent, Headers, Health, InputRecord, LogicError, OutputRecord, Outputs, PartitionLogic,
    RestoreSource, StageLogic,
};
use spendfuse_domain::Topics;
use spendfuse_domain::routing::partition_of;
use spendfuse_engine::ledger::LedgerConfig;
use spendfuse_engine::meter::MeterConfig;
use spendfuse_pricing::PricingPolicy;
use spendfuse_warehouse::record::RowBlock;

use crate::follow::TableFeed;
use crate::ledger::{LedgerPartition, LedgerStage};
use crate::meter::{MeterPartition, MeterStage};
use crate::tables::Tables;

const PARTITIONS: u32 = 2;
const DAY_MILLIS: i64 = 24 * 60 * 60 * 1000;
/// 2026-11-22, 12:00 UTC.
const NOW: i64 = 1_795_348_800_000;
const EACH_CUSTOMER: &str = r#"{"v":1,"scope":{"workspace":"acme","customer":"*"},"limit":"0.01","window":"day","steps":[{"at":100,"do":"block"}],"counted_from":"2026-11-01T00:00:00Z"}"#;

/// What arrives at a partition.
#[derive(Clone, Default)]
struct Incoming {
    topic_index: usize,
    offset: i64,
    value: Vec<u8>,
    headers: Vec<(String, Vec<u8>)>,
    /// By how much the broker's clock has jumped, milliseconds.
    stamp_ahead: i64,
}

struct Stages {
    topics: Arc<Topics>,
    tables: Arc<Tables>,
}

impl Stages {
    /// With one budget for each customer.
    fn new() -> Self {
        let stages = Self::without_budgets();
        let mut feed = stages.feed();
        budget(&mut feed, 0, Some(EACH_CUSTOMER));
        feed.handle(FollowerEvent::CaughtUp);
        stages
    }

    fn without_budgets() -> Self {
        Self {
            topics: Arc::new(Topics::new("test.")),
            tables: Arc::new(Tables::new(PricingPolicy::default())),
        }
    }

    fn feed(&self) -> TableFeed {
        TableFeed::new(Arc::clone(&self.tables), Health::default().part("tables"))
    }

    fn meter(&self, partition: u32) -> MeterPartition {
        let config = MeterConfig {
            partition,
            partitions: PARTITIONS,
            dedupe_horizon_millis: DAY_MILLIS,
            dedupe_capacity: 100_000,
            session_idle_millis: 60 * 60 * 1000,
            session_capacity: 10_000,
        };
        let (topics, tables) = (Arc::clone(&self.topics), Arc::clone(&self.tables));
        let mut stage = MeterStage {
            config,
            topics,
            tables,
        };
        stage.open(partition).unwrap()
    }

    fn ledger_config(&self, partition: u32) -> LedgerConfig {
        LedgerConfig {
            partition,
            partitions: PARTITIONS,
            grace_millis: 2 * DAY_MILLIS,
            publish_rate: 2_000,
            account_capacity: 100_000,
        }
    }

    fn ledger(&self, partition: u32) -> LedgerPartition {
        let config = self.ledger_config(partition);
        let (topics, tables) = (Arc::clone(&self.topics), Arc::clone(&self.tables));
        let mut stage = LedgerStage {
            config,
            topics,
            tables,
        };
        stage.open(partition).unwrap()
    }
}

/// A record of budget `each`, which is also the end of its topic.
fn budget(feed: &mut TableFeed, offset: i64, value: Option<&str>) {
    feed.handle(FollowerEvent::Record(InputRecord {
        topic_index: 0,
        partition: 0,
        offset,
        timestamp_millis: NOW,
        key: Some(b"each"),
        value: value.map(str::as_bytes),
        headers: Headers::from_slice(&[]),
    }));
    end_of_budgets(feed, offset + 1);
}

fn end_of_budgets(feed: &mut TableFeed, offset: i64) {
    feed.handle(FollowerEvent::EndOfPartition {
        topic_index: 0,
        partition: 0,
        offset,
    });
}

/// One batch, as the runner drives it.
fn batch(
    logic: &mut impl PartitionLogic,
    partition: u32,
    seq: u64,
    records: &[Incoming],
) -> Vec<OutputRecord> {
    batch_at(NOW, logic, partition, seq, records)
}

fn batch_at(
    now: i64,
    logic: &mut impl PartitionLogic,
    partition: u32,
    seq: u64,
    records: &[Incoming],
) -> Vec<OutputRecord> {
    logic.begin(seq, now);
    for incoming in records {
        process(logic, partition, incoming).unwrap();
    }
    let mut written = Vec::new();
    let mut outputs = Outputs::new(&mut written, "changelog", partition);
    logic.finish(&mut outputs).unwrap();
    written
}

fn process(
    logic: &mut impl PartitionLogic,
    partition: u32,
    incoming: &Incoming,
) -> Result<(), LogicError> {
    with_record(partition, incoming, |record| logic.process(record))
}

fn with_record<T>(
    partition: u32,
    incoming: &Incoming,
    work: impl FnOnce(&InputRecord<'_>) -> T,
) -> T {
    let headers: Vec<(&str, &[u8])> = incoming
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_slice()))
        .collect();
    work(&InputRecord {
        topic_index: incoming.topic_index,
        partition,
        offset: incoming.offset,
        timestamp_millis: NOW + incoming.stamp_ahead,
        key: None,
        value: Some(&incoming.value),
        headers: Headers::from_slice(&headers),
    })
}

/// A call for a customer, of a session whose home is `home`.
fn call(id: &str, customer: &str, home: u32, offset: i64) -> Incoming {
    let sessions = (0..).map(|number| format!("s-{number}"));
    let session = { sessions }
        .find(|session| partition_of(session.as_bytes(), PARTITIONS) == home)
        .unwrap();
    let event = serde_json::json!({
        "specversion": "1.0", "type": "spendfuse.usage", "source": "app", "id": id,
        "time": "2026-11-22T11:59:59Z",
        "data": {"workspace": "acme", "customer": customer, "session": session,
                 "provider": "openai", "model": "gpt-4o",
                 "usage": {"input_tokens": 10_000, "output_tokens": 0}},
    });
    Incoming {
        offset,
        value: serde_json::to_vec(&event).unwrap(),
        ..Incoming::default()
    }
}

fn of<'r>(written: &'r [OutputRecord], topic: &str) -> Vec<&'r OutputRecord> {
    let is_there = |record: &&OutputRecord| record.topic == topic;
    written.iter().filter(is_there).collect()
}

fn blocks(written: &[OutputRecord], topic: &str) -> Vec<RowBlock> {
    let records = of(written, topic).into_iter();
    records
        .map(|record| RowBlock::decode(&Bytes::from(record.value.clone().unwrap())).unwrap())
        .collect()
}

fn header(record: &OutputRecord, name: &str) -> String {
    let found = record.headers.iter().find(|(known, _)| known == name);
    String::from_utf8(found.unwrap().1.clone()).unwrap()
}

/// Deltas as the ledger receives them.
fn deltas_of(written: &[OutputRecord], topics: &Topics) -> Vec<Incoming> {
    let records = of(written, &topics.deltas).into_iter().zip(0..);
    records
        .map(|(record, offset)| Incoming {
            offset,
            value: record.value.clone().unwrap(),
            ..Incoming::default()
        })
        .collect()
}

/// What a successor reads in the changelog.
fn restore_changelog(successor: &mut impl PartitionLogic, written: &[OutputRecord]) {
    for record in of(written, "changelog") {
        let key = record.key.as_deref().unwrap();
        let value = record.value.as_deref();
        let source = RestoreSource::Changelog;
        successor.restore(source, key, value, NOW).unwrap();
    }
}
