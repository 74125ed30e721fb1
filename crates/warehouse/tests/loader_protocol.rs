//! Explores every interleaving of a few records, inserts and crashes against a model of ClickHouse
//! and of committed offsets: every row must end up in table and view exactly once.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use spendfuse_domain::UnixMillis;
use spendfuse_warehouse::loader::batch::{Batch, BatchLimits, RowsRecord};
use spendfuse_warehouse::loader::checkpoint::Checkpoint;
use spendfuse_warehouse::loader::protocol::{Action, PartitionProtocol, ProtocolRules, StopReason};
use spendfuse_warehouse::loader::recovery::TableFacts;
use spendfuse_warehouse::record::{IndexRange, Link, RowBlock};

const RULES: ProtocolRules = ProtocolRules {
    limits: BatchLimits {
        rows: 4,
        bytes: 1 << 20,
    },
    flush_interval: 10,
    deduplication_window: 1000,
    deduplication_millis: 1_000_000,
};

/// The log: offsets with gaps (markers), two tables.
fn log() -> Vec<(i64, Bytes)> {
    let record = |offset, table: &str, previous, seq, rows| {
        let block = RowBlock {
            table: table.to_owned(),
            schema_version: 1,
            rows,
            link: Link {
                partition: 0,
                previous,
                seq,
            },
            indexes: IndexRange {
                first: 0,
                last: rows - 1,
            },
            native: Bytes::from(format!("{table}@{offset}")),
        };
        (offset, Bytes::from(block.encode()))
    };
    vec![
        record(0, "spend", 0, 1, 2),
        record(1, "finding_changes", 0, 1, 1),
        record(3, "spend", 1, 2, 2),
        record(5, "spend", 2, 3, 1),
    ]
}

/// ClickHouse: an insert becomes parts (two of the table, one of its view), each of which is there
/// once per token; a crash of either side may leave any prefix of them. Rows sent again under a
/// known token are dropped, whatever they are.
#[derive(Clone, Debug, Default)]
struct Warehouse {
    parts: BTreeMap<(String, u8), Vec<Bytes>>,
}

const PARTS_PER_TABLE: u8 = 3;

impl Warehouse {
    fn insert(&mut self, batch: &Batch, parts: usize) {
        let all = batch
            .tables
            .iter()
            .flat_map(|table| (0..PARTS_PER_TABLE).map(move |part| (table, part)));
        for (table, part) in all.take(parts) {
            self.parts
                .entry((table.token.clone(), part))
                .or_insert_with(|| table.blocks.clone());
        }
    }

    fn parts_of(batch: &Batch) -> usize {
        batch.tables.len() * usize::from(PARTS_PER_TABLE)
    }

    /// How often each block is in part `part` of its table.
    fn counts(&self, part: u8) -> BTreeMap<Bytes, usize> {
        let mut counts = BTreeMap::new();
        for ((_, of), blocks) in &self.parts {
            for block in blocks.iter().filter(|_| *of == part) {
                *counts.entry(block.clone()).or_insert(0) += 1;
            }
        }
        counts
    }

    fn facts(&self, batch: &Batch) -> Vec<TableFacts> {
        let facts = batch.tables.iter().map(|table| {
            let first_part = self.counts(0);
            let there = table
                .blocks
                .iter()
                .all(|block| first_part.contains_key(block));
            TableFacts {
                found: if there { table.rows } else { 0 },
                inserts: 0,
                views_agree: true,
            }
        });
        facts.collect()
    }
}

#[derive(Clone, Debug)]
struct World {
    warehouse: Warehouse,
    committed: (i64, String),
    /// Inserts of dead loaders that ClickHouse has received but not yet carried out.
    late_inserts: Vec<Batch>,
    crashes_left: u32,
    /// The broken variants that the exploration must catch.
    fault: Fault,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    /// Recovery does not look at the intent.
    IgnoresIntent,
    /// The insert begins before its intent is committed.
    InsertsBeforeIntent,
}

/// A loader between two crashes.
struct Loader {
    protocol: PartitionProtocol,
    next_record: usize,
    pending: Option<Action>,
    now: i64,
    /// Whether time has passed since the last record: passing more changes nothing.
    waited: bool,
}

impl Loader {
    fn start(world: &World) -> Self {
        let (offset, metadata) = &world.committed;
        let mut checkpoint = Checkpoint::decode(metadata).unwrap();
        if world.fault == Fault::IgnoresIntent {
            checkpoint.intent = None;
        }
        let protocol = PartitionProtocol::start("rows", 0, RULES, *offset, checkpoint);
        Self {
            protocol,
            next_record: log().partition_point(|(at, _)| at < offset),
            pending: None,
            now: 0,
            waited: false,
        }
    }
}

/// Loads the whole log; at every point where things may go different ways, `choices` says which of
/// so many.
fn run(world: &mut World, choices: &mut impl FnMut(usize) -> usize) {
    let log = log();
    let mut loader = Loader::start(world);
    loop {
        let read_to = log
            .get(loader.next_record)
            .map_or(i64::MAX, |(offset, _)| *offset);
        if loader.pending.is_none() {
            let now = UnixMillis(loader.now);
            loader.pending = loader.protocol.next(now, read_to, &BTreeMap::new());
        }
        if !world.late_inserts.is_empty() && choices(2) == 1 {
            let batch = world.late_inserts.remove(0);
            world.warehouse.insert(&batch, usize::MAX);
            continue;
        }
        let Some(action) = loader.pending.take() else {
            if loader.next_record == log.len() {
                if loader.protocol.position() > log[log.len() - 1].0 {
                    return;
                }
                loader.now += RULES.flush_interval;
                continue;
            }
            // Flush now, or wait for the next record.
            let buffered = loader.protocol.buffered_bytes() > 0;
            if buffered && !loader.waited && choices(2) == 1 {
                loader.now += RULES.flush_interval;
                loader.waited = true;
                continue;
            }
            loader.waited = false;
            let (offset, value) = &log[loader.next_record];
            let record = RowsRecord::read(*offset, UnixMillis(loader.now), value.clone());
            assert_eq!(loader.protocol.received(*offset, record), None);
            loader.next_record += 1;
            continue;
        };
        let crashes = world.crashes_left > 0;
        match action {
            Action::Commit { offset, metadata } => {
                // 0 = done, 1 = crash before, 2 = crash after.
                let choice = if crashes { choices(3) } else { 0 };
                let intended = Checkpoint::decode(&metadata).unwrap().intent.is_some();
                if world.fault == Fault::InsertsBeforeIntent && intended && choice != 2 {
                    let mut ahead = loader.protocol;
                    let Some(Action::Insert(batch)) = ahead.committed() else {
                        unreachable!("an intent is followed by its insert");
                    };
                    world.warehouse.insert(&batch, usize::MAX);
                    loader.protocol = ahead;
                    if choice == 0 {
                        world.committed = (offset, metadata);
                        loader.pending = Some(Action::Insert(batch));
                        continue;
                    }
                }
                if choice != 1 {
                    world.committed = (offset, metadata);
                }
                if choice == 0 {
                    loader.pending = loader.protocol.committed();
                    continue;
                }
            }
            Action::Insert(batch) => {
                let parts = Warehouse::parts_of(&batch);
                // Done, crash with 0..=parts of it there, or crash with the insert under way.
                let choice = if crashes { choices(parts + 3) } else { 0 };
                if choice == 0 {
                    world.warehouse.insert(&batch, parts);
                    loader.pending = loader.protocol.inserted();
                    continue;
                }
                if choice == parts + 2 {
                    world.late_inserts.push(batch);
                } else {
                    world.warehouse.insert(&batch, choice - 1);
                }
            }
            Action::Inspect(batch) => {
                let facts = world.warehouse.facts(&batch);
                loader.pending = loader.protocol.inspected(UnixMillis(loader.now), &facts);
                continue;
            }
            Action::Stop(reason) => panic!("stopped: {reason}"),
        }
        world.crashes_left -= 1;
        loader = Loader::start(world);
    }
}

/// Explores every sequence of choices; returns how many there are and the first that counts wrongly.
fn explore(crashes: u32, fault: Fault) -> (usize, Option<Vec<usize>>) {
    let mut path: Vec<(usize, usize)> = Vec::new();
    let mut runs = 0;
    loop {
        let mut world = World {
            warehouse: Warehouse::default(),
            committed: (0, String::new()),
            late_inserts: Vec::new(),
            crashes_left: crashes,
            fault,
        };
        let mut depth = 0;
        run(&mut world, &mut |options| {
            if depth == path.len() {
                path.push((0, options));
            }
            depth += 1;
            path[depth - 1].0
        });
        for batch in std::mem::take(&mut world.late_inserts) {
            world.warehouse.insert(&batch, usize::MAX);
        }
        runs += 1;
        let all: BTreeSet<Bytes> = log()
            .iter()
            .map(|(_, value)| RowBlock::decode(value).unwrap().native)
            .collect();
        for part in 0..PARTS_PER_TABLE {
            let counts = world.warehouse.counts(part);
            let complete = counts.keys().eq(all.iter());
            if !complete || counts.values().any(|count| *count != 1) {
                return (runs, Some(path.iter().map(|(choice, _)| *choice).collect()));
            }
        }
        // The next path: the last choice that has an alternative takes it.
        while let Some((choice, options)) = path.pop() {
            if choice + 1 < options {
                path.push((choice + 1, options));
                break;
            }
        }
        if path.is_empty() {
            return (runs, None);
        }
    }
}

#[test]
fn every_row_counts_once_whenever_the_loader_or_clickhouse_crashes() {
    let (runs, wrong) = explore(2, Fault::None);
    assert_eq!(wrong, None);
    assert!(runs > 10_000, "explored only {runs} runs");
}

#[test]
fn a_loader_that_ignores_its_intent_is_caught() {
    let (_, wrong) = explore(1, Fault::IgnoresIntent);
    assert!(wrong.is_some());
}

#[test]
fn a_loader_that_inserts_before_its_intent_is_stored_is_caught() {
    let (_, wrong) = explore(1, Fault::InsertsBeforeIntent);
    assert!(wrong.is_some());
}

#[test]
fn records_that_are_no_longer_those_of_the_intent_stop_the_partition() {
    let log = log();
    let mut loader = PartitionProtocol::start("rows", 0, RULES, 0, Checkpoint::default());
    for (offset, value) in &log[..2] {
        loader.received(
            *offset,
            RowsRecord::read(*offset, UnixMillis(0), value.clone()),
        );
    }
    let due = UnixMillis(RULES.flush_interval);
    let Some(Action::Commit {
        offset: 0,
        metadata,
    }) = loader.next(due, 2, &BTreeMap::new())
    else {
        panic!("an intent comes first");
    };
    // The log lost its first record meanwhile.
    let checkpoint = Checkpoint::decode(&metadata).unwrap();
    let mut successor = PartitionProtocol::start("rows", 0, RULES, 0, checkpoint);
    let (offset, value) = &log[1];
    successor.received(
        *offset,
        RowsRecord::read(*offset, UnixMillis(0), value.clone()),
    );
    assert!(matches!(
        successor.next(due, 2, &BTreeMap::new()),
        Some(Action::Stop(StopReason::Doubt {
            start: 0,
            end: 2,
            ..
        }))
    ));
}
