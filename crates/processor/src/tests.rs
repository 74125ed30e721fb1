//! Both stages in memory: records in, batches, outputs, and what a successor restores from them.
// Clippy's exception for tests does not cover their helper functions.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use spendfuse_bus::{
    FollowerEvent, Headers, Health, InputRecord, LogicError, OutputRecord, Outputs, PartitionLogic,
    RestoreSource, StageLogic,
};
use spendfuse_domain::routing::partition_of;
use spendfuse_domain::{Nanos, Topics, UnixMillis};
use spendfuse_engine::book::BudgetBook;
use spendfuse_engine::codec;
use spendfuse_engine::delta::{DeltaEntry, Deltas};
use spendfuse_engine::ledger::LedgerConfig;
use spendfuse_engine::meter::MeterConfig;
use spendfuse_pricing::PricingPolicy;
use spendfuse_warehouse::record::RowBlock;

use crate::budget_table::BudgetTable;
use crate::follow::TableFeed;
use crate::ledger::{LedgerPartition, LedgerStage};
use crate::made_anew::Lookout;
use crate::meter::{MeterPartition, MeterStage, REROUTED, USAGE};
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
    logic.begin(seq, NOW);
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

#[test]
fn a_successor_goes_on_from_the_outputs_alone_and_counts_nothing_twice() {
    let stages = Stages::new();
    let topics = &stages.topics;
    let mut meter = stages.meter(0);
    let first = batch(&mut meter, 0, 7, &[call("r-1", "c-1", 0, 0)]);
    assert_eq!(blocks(&first, &topics.rows)[0].rows, 1);

    let mut successor = stages.meter(0);
    for record in of(&first, "changelog") {
        let key = record.key.as_deref().unwrap();
        let value = record.value.as_deref();
        let source = RestoreSource::Changelog;
        successor.restore(source, key, value, NOW).unwrap();
    }
    for record in of(&first, &topics.meter_ids) {
        let value = record.value.as_deref();
        let source = RestoreSource::History(0);
        successor.restore(source, &[], value, NOW).unwrap();
    }
    successor.restored(7).unwrap();
    assert!(successor.ready().unwrap());

    let again = batch(&mut successor, 0, 8, &[call("r-1", "c-1", 0, 1)]);
    assert_eq!(of(&again, &topics.rows), Vec::<&OutputRecord>::new());
    assert_eq!(of(&again, &topics.deltas), Vec::<&OutputRecord>::new());
    let next = batch(&mut successor, 0, 9, &[call("r-2", "c-1", 0, 2)]);
    let link = blocks(&next, &topics.rows)[0].link;
    assert_eq!((link.previous, link.seq), (7, 9), "the chain goes on");
}

#[test]
fn a_duplicate_whose_identity_the_log_has_lost_is_late_and_not_counted_again() {
    let stages = Stages::new();
    let topics = &stages.topics;
    let first = batch(&mut stages.meter(0), 0, 7, &[call("r-1", "c-1", 0, 0)]);
    let mut successor = stages.meter(0);
    for record in of(&first, "changelog") {
        let key = record.key.as_deref().unwrap();
        let value = record.value.as_deref();
        let source = RestoreSource::Changelog;
        successor.restore(source, key, value, NOW).unwrap();
    }
    assert_eq!(successor.restored_time(), Some(NOW));
    // The ids topic has nothing from before its retention any more.
    successor.history(0, NOW - 60_000);
    successor.restored(7).unwrap();
    let again = batch(&mut successor, 0, 8, &[call("r-1", "c-1", 0, 1)]);
    assert_eq!(of(&again, &topics.rows), Vec::<&OutputRecord>::new());
    let [late] = of(&again, &topics.dlq)[..] else {
        panic!("set aside: {again:?}");
    };
    assert_eq!(header(late, "spendfuse_reason"), "late");
}

#[test]
fn a_stamp_a_day_ahead_makes_nothing_late_and_ends_nothing() {
    let stages = Stages::new();
    let topics = &stages.topics;
    let mut meter = stages.meter(0);
    batch(&mut meter, 0, 1, &[call("r-1", "c-1", 0, 0)]);
    let jumped = Incoming {
        stamp_ahead: 25 * 60 * 60 * 1000,
        ..call("r-2", "c-1", 0, 1)
    };
    let told = batch(&mut meter, 0, 2, std::slice::from_ref(&jumped));
    assert_eq!(blocks(&told, &topics.rows)[0].rows, 1, "it counts");
    let alerts = of(&told, &topics.alerts);
    let is_of_clock = |record: &&OutputRecord| {
        String::from_utf8_lossy(record.value.as_deref().unwrap()).contains("\"kind\":\"clock\"")
    };
    assert_eq!(alerts.into_iter().filter(is_of_clock).count(), 1);
    let next = batch(&mut meter, 0, 3, &[call("r-3", "c-1", 0, 2)]);
    assert!(of(&next, &topics.dlq).is_empty(), "nothing is late");
    assert_eq!(blocks(&next, &topics.rows)[0].rows, 1);
    // Its duplicate is still known, and so is what came before it.
    let again = [call("r-1", "c-1", 0, 3), call("r-2", "c-1", 0, 4), jumped];
    let again = batch(&mut meter, 0, 4, &again);
    assert!(of(&again, &topics.rows).is_empty() && of(&again, &topics.dlq).is_empty());
    assert_eq!(meter.restored_time(), Some(NOW));

    let mut ledger = stages.ledger(0);
    for mut deltas in deltas_of(&told, topics) {
        deltas.stamp_ahead = 25 * 60 * 60 * 1000;
        batch(&mut ledger, 0, 1, &[deltas]);
        assert_eq!(ledger.restored_time(), Some(NOW));
    }
}

#[test]
fn an_event_is_handed_over_once_and_keeps_its_first_place() {
    let stages = Stages::new();
    let topics = &stages.topics;
    let elsewhere = batch(&mut stages.meter(0), 0, 1, &[call("r-1", "c-1", 1, 42)]);
    let [handed_over] = of(&elsewhere, &topics.rerouted)[..] else {
        panic!("handed over once: {elsewhere:?}");
    };
    assert_eq!(handed_over.partition, 1);
    assert!(of(&elsewhere, &topics.rows).is_empty() && of(&elsewhere, &topics.deltas).is_empty());

    let mut arrived = Incoming {
        topic_index: REROUTED,
        offset: 5,
        value: handed_over.value.clone().unwrap(),
        headers: handed_over.headers.clone(),
        stamp_ahead: 0,
    };
    let home = batch(&mut stages.meter(1), 1, 1, &[arrived.clone()]);
    assert_eq!(blocks(&home, &topics.rows)[0].rows, 1);
    // What is wrong with it is told of the place that its sender knows.
    arrived.value = b"{".to_vec();
    let rejected = batch(&mut stages.meter(1), 1, 1, &[arrived]);
    let [rejected] = of(&rejected, &topics.dlq)[..] else {
        panic!("set aside once: {rejected:?}");
    };
    let place = ["spendfuse_partition", "spendfuse_offset"].map(|name| header(rejected, name));
    assert_eq!(place, ["0", "42"]);
}

#[test]
fn one_bad_record_costs_no_other_its_place() {
    let stages = Stages::new();
    let topics = &stages.topics;
    let bad = Incoming {
        topic_index: USAGE,
        offset: 1,
        value: br#"{"specversion":"1.0"}"#.to_vec(),
        ..Incoming::default()
    };
    let records = [call("r-1", "c-1", 0, 0), bad, call("r-2", "c-1", 0, 2)];
    let written = batch(&mut stages.meter(0), 0, 1, &records);
    assert_eq!(blocks(&written, &topics.rows)[0].rows, 2);
    let [rejected] = of(&written, &topics.dlq)[..] else {
        panic!("set aside once: {written:?}");
    };
    assert_eq!(header(rejected, "spendfuse_offset"), "1");
}

#[test]
fn deltas_of_many_scopes_are_several_records_and_one_unbroken_chain() {
    let stages = Stages::new();
    let topics = &stages.topics;
    let calls: Vec<Incoming> = (0..9_000)
        .map(|number| call(&format!("r-{number}"), &format!("c-{number}"), 0, number))
        .collect();
    let written = batch(&mut stages.meter(0), 0, 3, &calls);
    let to_first: Vec<OutputRecord> = written
        .into_iter()
        .filter(|record| record.topic == topics.deltas && record.partition == 0)
        .collect();
    let chain: Vec<(u64, u64)> = to_first
        .iter()
        .map(|record| codec::decode(record.value.as_deref().unwrap()).unwrap())
        .map(|deltas: Deltas| (deltas.prev, deltas.seq))
        .collect();
    assert_eq!(chain, [(0, 3), (3, 3)]);

    let told = batch(&mut stages.ledger(0), 0, 1, &deltas_of(&to_first, topics));
    let alerts = of(&told, &topics.alerts);
    let is_broken = |record: &&OutputRecord| {
        String::from_utf8_lossy(record.value.as_deref().unwrap()).contains("delta_chain")
    };
    assert_eq!(alerts.into_iter().filter(is_broken).count(), 0);
    let blocked = of(&told, &topics.blocklist).len();
    assert!((4_001..9_000).contains(&blocked), "{blocked} scopes");
}

#[test]
fn rows_of_many_scopes_are_several_records_and_one_unbroken_chain() {
    const CUSTOMERS: u32 = 8_000;
    let stages = Stages::new();
    let topics = &stages.topics;
    let entry = |number: u32| DeltaEntry {
        series: 0,
        scope: format!("acme/customer={}{number}", "c".repeat(200)),
        minute: NOW / 60_000,
        cost: Nanos::from_dollars(1),
        unpriced: Nanos::ZERO,
        tokens: 1,
        calls: 1,
        source: "app".to_owned(),
        id: "r".repeat(256),
        time: UnixMillis(NOW),
    };
    let deltas = Deltas {
        seq: 1,
        series: vec!["/workspace=/customer=".to_owned()],
        entries: (0..CUSTOMERS).map(entry).collect(),
        ..Deltas::default()
    };
    let incoming = Incoming {
        value: codec::encode(&deltas),
        ..Incoming::default()
    };
    let written = batch(&mut stages.ledger(0), 0, 3, &[incoming]);
    let largest = written
        .iter()
        .filter_map(|record| Some(record.value.as_ref()?.len()))
        .max();
    assert!(largest < Some(1024 * 1024), "{largest:?} bytes");
    let mut chains: BTreeMap<String, Vec<(u64, u64, u32)>> = BTreeMap::new();
    for block in blocks(&written, &topics.rows_ledger) {
        let link = (block.link.previous, block.link.seq, block.rows);
        chains
            .entry(block.table.to_string())
            .or_default()
            .push(link);
    }
    let tables: Vec<&str> = chains.keys().map(String::as_str).collect();
    assert_eq!(tables, ["budget_windows", "finding_changes", "verdicts"]);
    for chain in chains.values() {
        assert!(chain.len() > 1, "{chain:?}");
        assert_eq!((chain[0].0, chain[0].1), (0, 3));
        assert!(
            chain[1..]
                .iter()
                .all(|(previous, seq, _)| (*previous, *seq) == (3, 3))
        );
        assert_eq!(chain.iter().map(|(.., rows)| rows).sum::<u32>(), CUSTOMERS);
    }
}

#[test]
fn of_what_cannot_even_be_rejected_the_place_is_told() {
    let stages = Stages::new();
    let mut meter = stages.meter(1);
    meter.begin(1, NOW);
    let bare = Incoming {
        topic_index: REROUTED,
        offset: 5,
        ..Incoming::default()
    };
    let panic = "what is wrong ".repeat(1_000_000);
    with_record(1, &bare, |record| meter.reject(record, &panic)).unwrap();
    let mut written = Vec::new();
    meter
        .finish(&mut Outputs::new(&mut written, "changelog", 1))
        .unwrap();
    let [rejected] = of(&written, &stages.topics.dlq)[..] else {
        panic!("set aside once: {written:?}");
    };
    let place = ["spendfuse_topic", "spendfuse_partition", "spendfuse_offset"];
    let place = place.map(|name| header(rejected, name));
    assert_eq!(place, [stages.topics.rerouted.as_str(), "1", "5"]);
    assert!(header(rejected, "spendfuse_detail").len() < 10_000);
}

#[test]
fn a_ledger_asks_for_newer_budgets_and_takes_them_between_batches_only() {
    let stages = Stages::new();
    let mut stage = LedgerStage {
        config: stages.ledger_config(0),
        topics: Arc::clone(&stages.topics),
        tables: Arc::clone(&stages.tables),
    };
    let mut ledger = stage.open(0).unwrap();
    let told = batch(&mut stages.meter(0), 0, 1, &[call("r-1", "c-1", 0, 0)]);
    let [told] = &of(&told, &stages.topics.deltas)[..] else {
        panic!("told once");
    };
    let mut deltas: Deltas = codec::decode(told.value.as_deref().unwrap()).unwrap();
    deltas.budget_version += 1;
    let incoming = Incoming {
        value: codec::encode(&deltas),
        ..Incoming::default()
    };
    ledger.begin(1, NOW);
    let refused = process(&mut ledger, 0, &incoming);
    assert!(matches!(refused, Err(LogicError::NotYet(_))), "{refused:?}");
    let mut newer = BudgetBook::clone(&stages.tables.budgets.load());
    newer.version = deltas.budget_version;
    stages.tables.budgets.store(Arc::new(newer));
    // In the middle of a batch nothing changes.
    assert!(process(&mut ledger, 0, &incoming).is_err());
    stage.between_batches(&mut std::iter::once((0, &mut ledger)));
    ledger.begin(1, NOW);
    process(&mut ledger, 0, &incoming).unwrap();
}

#[test]
fn other_budgets_are_taken_also_where_their_version_is_the_same() {
    let stages = Stages::new();
    let (topics, tables) = (Arc::clone(&stages.topics), Arc::clone(&stages.tables));
    let config = stages.ledger_config(0);
    let mut stage = LedgerStage {
        config,
        topics,
        tables,
    };
    let (mut ledger, mut meter) = (stage.open(0).unwrap(), stages.meter(0));
    // The topic was made anew and has as many records.
    let other = BudgetBook::clone(&stages.tables.budgets.load());
    stages.tables.budgets.store(Arc::new(other));
    let in_force = stages.tables.budgets.load_full();
    stage.between_batches(&mut std::iter::once((0, &mut ledger)));
    meter.use_tables(&in_force, &stages.tables.prices.load_full());
    assert!(Arc::ptr_eq(ledger.ledger().book(), &in_force));
    assert!(Arc::ptr_eq(meter.meter().book(), &in_force));
}

#[test]
fn the_ledger_stops_rather_than_lose_spend() {
    let stages = Stages::new();
    let mut ledger = stages.ledger(0);
    ledger.begin(1, NOW);
    let garbage = Incoming {
        value: vec![0xff; 9],
        ..Incoming::default()
    };
    let refused = process(&mut ledger, 0, &garbage);
    assert!(matches!(refused, Err(LogicError::Input(_))), "{refused:?}");
    let stopped = with_record(0, &garbage, |record| ledger.reject(record, "garbage"));
    assert!(matches!(stopped, Err(LogicError::Fatal(_))), "{stopped:?}");
}

#[test]
fn while_the_tables_are_read_again_what_was_in_force_stays() {
    let stages = Stages::without_budgets();
    let tables = &stages.tables;
    let in_force = || {
        let book = tables.budgets.load();
        let limits = book.budgets.iter();
        let limits: Vec<_> = limits.map(|one| one.budget.limit.to_string()).collect();
        (book.version, limits)
    };
    let old = EACH_CUSTOMER.replace("0.01", "5.00");
    let mut feed = stages.feed();
    budget(&mut feed, 0, Some(&old));
    assert_eq!(in_force().0, 0, "the rest of the log may say otherwise");
    budget(&mut feed, 4, Some(EACH_CUSTOMER));
    feed.handle(FollowerEvent::CaughtUp);
    let known = in_force();
    assert_eq!((known.0, known.1.len()), (5, 1));

    feed.handle(FollowerEvent::Reset);
    assert_eq!(in_force(), known);
    budget(&mut feed, 0, Some(&old));
    assert_eq!(in_force(), known);
    budget(&mut feed, 4, Some(EACH_CUSTOMER));
    feed.handle(FollowerEvent::CaughtUp);
    assert_eq!(in_force(), known);
    budget(&mut feed, 5, None);
    assert_eq!(in_force(), (6, vec![]));
    // The tombstone is the last record, and compaction removes it in the end.
    feed.handle(FollowerEvent::Reset);
    end_of_budgets(&mut feed, 6);
    feed.handle(FollowerEvent::CaughtUp);
    assert_eq!(in_force(), (6, vec![]));
    assert!(tables.need_budgets(6));
}

#[test]
fn a_budget_whose_record_cannot_be_read_is_not_gone() {
    let stages = Stages::new();
    let topics = &stages.topics;
    let counted = batch(&mut stages.meter(0), 0, 1, &[call("r-1", "c-1", 0, 0)]);
    let partition = of(&counted, &topics.deltas)[0].partition;
    let mut ledger = stages.ledger(partition);
    let told = batch(&mut ledger, partition, 1, &deltas_of(&counted, topics));
    let [verdict] = of(&told, &topics.blocklist)[..] else {
        panic!("one customer is blocked: {told:?}");
    };
    let value = String::from_utf8_lossy(verdict.value.as_deref().unwrap()).into_owned();
    assert!(value.contains(r#""verdict":"block""#), "{value}");

    // Who has read the budget before goes on with what it said.
    let newer = EACH_CUSTOMER.replace(r#""v":1"#, r#""v":2"#);
    let mut feed = stages.feed();
    budget(&mut feed, 0, Some(EACH_CUSTOMER));
    feed.handle(FollowerEvent::CaughtUp);
    budget(&mut feed, 1, Some(&newer));
    assert_eq!(stages.tables.budgets.load().budgets.len(), 1);
    feed.handle(FollowerEvent::Reset);
    budget(&mut feed, 1, Some(&newer));
    feed.handle(FollowerEvent::CaughtUp);
    assert_eq!(stages.tables.budgets.load().budgets.len(), 1);

    // Who has not leaves alone what is counted and blocked.
    let restarted = Stages::without_budgets();
    let mut feed = restarted.feed();
    budget(&mut feed, 1, Some(&newer));
    feed.handle(FollowerEvent::CaughtUp);
    let mut successor = restarted.ledger(partition);
    for record in of(&told, "changelog") {
        let key = record.key.as_deref().unwrap();
        let source = RestoreSource::Changelog;
        successor
            .restore(source, key, record.value.as_deref(), NOW)
            .unwrap();
    }
    successor.restored(1).unwrap();
    assert!(successor.ready().unwrap());
    successor.tick(NOW + 60_000, &[]);
    let later = batch(&mut successor, partition, 2, &[]);
    let entries = of(&later, &topics.blocklist);
    let taken_back = entries.iter().filter(|record| record.value.is_none());
    assert_eq!(taken_back.count(), 0, "{later:?}");
    let accounts = of(&later, "changelog");
    assert!(
        accounts.iter().all(|record| record.value.is_some()),
        "{later:?}"
    );
}

#[test]
fn a_budgets_topic_that_was_made_anew_is_found_out_and_used_once_there_are_budgets() {
    let stages = Stages::without_budgets();
    let tables = &stages.tables;
    let health = Health::default();
    let lookout = Lookout::new("test.budgets", health.part("budgets topic"), || Ok(3));
    tables.set_lookout(lookout.patient_for(Duration::ZERO));
    let mut feed = stages.feed();
    feed.handle(FollowerEvent::CaughtUp);
    assert!(
        !tables.need_budgets(57),
        "accounts would end without budgets"
    );
    let said = health.report().reasons.join("\n");
    assert!(
        said.contains("made anew") && said.contains("budgets apply"),
        "{said}"
    );
    budget(&mut feed, 1, Some(EACH_CUSTOMER));
    assert!(tables.need_budgets(57));
    assert!(health.report().is_ready);
    assert!(tables.know_budgets(57), "nobody asks again");

    // The same while a process runs: what was in force stays until there are others.
    let running = Stages::without_budgets();
    let mut feed = running.feed();
    budget(&mut feed, 56, Some(EACH_CUSTOMER));
    feed.handle(FollowerEvent::CaughtUp);
    feed.handle(FollowerEvent::Reset);
    feed.handle(FollowerEvent::CaughtUp);
    assert_eq!(running.tables.budgets.load().version, 57);
    budget(&mut feed, 0, Some(EACH_CUSTOMER));
    assert_eq!(running.tables.budgets.load().version, 1);
    assert!(running.tables.need_budgets(57));
}

#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "the wait is what is tested: it has a clock of its own"
)]
fn each_version_of_the_budgets_is_waited_for_by_itself() {
    let stages = Stages::without_budgets();
    let tables = &stages.tables;
    let health = Health::default();
    let lookout = Lookout::new("test.budgets", health.part("budgets topic"), || Ok(7));
    let patience = Duration::from_millis(200);
    tables.set_lookout(lookout.patient_for(patience));
    health.part("budgets topic").ready();
    let mut feed = stages.feed();
    budget(&mut feed, 4, Some(EACH_CUSTOMER));
    feed.handle(FollowerEvent::CaughtUp);
    // A worker hears of a version before the follower does.
    assert!(!tables.need_budgets(6));
    budget(&mut feed, 5, Some(EACH_CUSTOMER));
    assert!(tables.need_budgets(6));
    std::thread::sleep(patience);
    assert!(!tables.need_budgets(7));
    assert!(health.report().is_ready, "{:?}", health.report());
    // This one takes long.
    std::thread::sleep(patience);
    assert!(!tables.need_budgets(7));
    assert!(!health.report().is_ready);
    budget(&mut feed, 6, Some(EACH_CUSTOMER));
    assert_eq!(health.report().reasons, [""; 0]);
    assert!(tables.need_budgets(7));
}

#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "the wait is what is tested: it has a clock of its own"
)]
fn workers_that_wait_for_versions_of_their_own_all_learn_that_the_topic_is_gone() {
    let stages = Stages::without_budgets();
    let tables = &stages.tables;
    let health = Health::default();
    let lookout = Lookout::new("test.budgets", health.part("budgets topic"), || Ok(1));
    let patience = Duration::from_millis(50);
    tables.set_lookout(lookout.patient_for(patience));
    let mut feed = stages.feed();
    budget(&mut feed, 0, Some(EACH_CUSTOMER));
    feed.handle(FollowerEvent::CaughtUp);
    assert!(!tables.need_budgets(56) && !tables.need_budgets(57));
    std::thread::sleep(patience);
    assert!(tables.need_budgets(56) && tables.need_budgets(57));
    assert!(!tables.know_budgets(3), "that is one of the new topic");
    assert!(health.report().is_ready);
}

#[test]
fn what_was_known_of_a_budget_stays_where_a_newer_record_of_it_cannot_be_read() {
    let mut table = BudgetTable::default();
    let newer = EACH_CUSTOMER.replace(r#""v":1"#, r#""v":2"#);
    table
        .accept(0, "each", Some(EACH_CUSTOMER.as_bytes()))
        .unwrap();
    table.caught_up();
    assert_eq!(table.take_book().unwrap().budgets.len(), 1);
    // It comes while the position is lost.
    table.begin_again();
    assert!(table.accept(5, "each", Some(newer.as_bytes())).is_err());
    table.caught_up();
    assert_eq!(table.take_book().unwrap().budgets.len(), 1);
}
