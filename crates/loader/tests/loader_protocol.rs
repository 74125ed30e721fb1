//! Explores every interleaving of a few records, inserts and crashes against a model of ClickHouse
//! and of committed offsets: every row must end up in table and view exactly once. Where a loader
//! was away for so long that ClickHouse has forgotten its inserts, the partition may stop instead,
//! but never count a row twice.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use bytes::Bytes;
use spendfuse_domain::UnixMillis;
use spendfuse_loader::batch::{Batch, BatchLimits, RowsRecord, TokenKind};
use spendfuse_loader::checkpoint::{Checkpoint, Links, Unsynced};
use spendfuse_loader::protocol::{Action, PartitionProtocol, ProtocolRules, StopReason};
use spendfuse_loader::recovery::TableFacts;
use spendfuse_loader::region::Region;
use spendfuse_warehouse::record::{IndexRange, Link, RowBlock};

const RULES: ProtocolRules = ProtocolRules {
    limits: BatchLimits {
        rows: 4,
        bytes: 1 << 20,
    },
    flush_interval: 10,
    deduplication_window: 1000,
    deduplication_millis: 1_000_000,
    epoch: 0,
    content_tokens: true,
};

/// The log: offsets with gaps (markers), two tables.
fn log() -> Vec<(i64, Bytes)> {
    let record = |offset, table: &str, previous, seq, rows| {
        let block = RowBlock {
            table: table.to_owned(),
            schema_version: 1,
            rows,
            epoch: 0,
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

/// ClickHouse: an insert becomes parts, each of which is there once per token; a crash of either
/// side may leave any prefix of them, and of ClickHouse the next one's token without its rows. Rows
/// sent again under a known token are dropped, whatever they are.
#[derive(Clone, Debug, Default)]
struct Warehouse {
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
struct Part {
    token: String,
    kind: PartKind,
    blocks: Vec<Bytes>,
    /// Whether an insert with the same token would be dropped.
    remembered: bool,
    /// Whether there is more than the token.
    has_rows: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum PartKind {
    /// Of the table.
    First,
    /// Of another of the table's partitions; where there is but one row, there is none.
    Second,
    /// Of the table's view.
    View,
}

/// The parts that an insert makes, in this order.
fn parts_of(batch: &Batch) -> Vec<(String, PartKind, Vec<Bytes>)> {
    let mut parts = Vec::new();
    for table in &batch.tables {
        let mut add = |kind| parts.push((table.token.clone(), kind, table.blocks.clone()));
        add(PartKind::First);
        if table.rows > 1 {
            add(PartKind::Second);
        }
        add(PartKind::View);
    }
    parts
}

/// How far an insert got.
#[derive(Clone, Copy)]
struct Progress {
    /// Parts with their rows.
    parts: usize,
    /// Whether the next one's token is there as well.
    and_a_token: bool,
}

const ALL: Progress = Progress {
    parts: usize::MAX,
    and_a_token: false,
};

impl Progress {
    /// The ways in which an insert of so many parts can be torn.
    fn ways(parts: usize) -> usize {
        2 * parts + 1
    }

    fn nth(way: usize) -> Self {
        Self {
            parts: way / 2,
            and_a_token: way % 2 == 1,
        }
    }
}

impl Warehouse {
    fn insert(&mut self, batch: &Batch, progress: Progress) {
        let taken = progress
            .parts
            .saturating_add(usize::from(progress.and_a_token));
        for (index, (token, kind, blocks)) in parts_of(batch).into_iter().take(taken).enumerate() {
            let mut known = self.parts.iter();
            if known.any(|part| part.token == token && part.kind == kind && part.remembered) {
                continue;
            }
            self.parts.push(Part {
                token,
                kind,
                blocks,
                remembered: true,
                has_rows: index < progress.parts,
            });
        }
    }

    /// Puts in what is missing of a batch, whatever is remembered.
    fn make_whole(&mut self, batch: &Batch) {
        for (token, kind, blocks) in parts_of(batch) {
            let mut known = self.parts.iter();
            if !known.any(|part| part.blocks == blocks && part.kind == kind && part.has_rows) {
                self.parts.push(Part {
                    token,
                    kind,
                    blocks,
                    remembered: false,
                    has_rows: true,
                });
            }
        }
    }

    fn forget_tokens(&mut self) {
        for part in &mut self.parts {
            part.remembered = false;
        }
    }

    fn count(&self, block: &Bytes, kind: PartKind) -> usize {
        let parts = self
            .parts
            .iter()
            .filter(|part| part.kind == kind && part.has_rows);
        parts.filter(|part| part.blocks.contains(block)).count()
    }

    /// What the loader's queries find: the rows with addresses of the batch, and whether the view
    /// has as many.
    fn facts(&self, batch: &Batch) -> Vec<TableFacts> {
        let facts = batch.tables.iter().map(|table| {
            let (mut found, mut in_view) = (0, 0);
            let parts = self.parts.iter().filter(|part| part.has_rows);
            for part in parts.filter(|part| part.blocks == table.blocks) {
                let first = table.rows.div_ceil(2);
                match part.kind {
                    PartKind::First => found += first,
                    PartKind::Second => found += table.rows - first,
                    PartKind::View => in_view += table.rows,
                }
            }
            TableFacts {
                found,
                others: 0,
                inserts: 0,
                views_agree: found == in_view,
            }
        });
        facts.collect()
    }

    /// Whether each row of the log is in table and view: `None` = some row is there twice.
    fn is_complete(&self) -> Option<bool> {
        let mut complete = true;
        for (_, value) in log() {
            let block = RowBlock::decode(&value).unwrap().native;
            let counts = [PartKind::First, PartKind::Second, PartKind::View]
                .map(|kind| self.count(&block, kind));
            if counts.iter().any(|count| *count > 1) {
                return None;
            }
            let second = self.parts.iter().any(|part| {
                part.kind == PartKind::First && part.blocks.contains(&block) && has_second(part)
            });
            complete &= counts == [1, usize::from(second), 1];
        }
        Some(complete)
    }
}

/// Whether the table's rows of an insert had two partitions, as [`parts_of`] says.
fn has_second(part: &Part) -> bool {
    let rows = |native: &Bytes| {
        let log = log()
            .into_iter()
            .map(|(_, value)| RowBlock::decode(&value).unwrap());
        let mut blocks = log.filter(|block| block.native == *native);
        blocks.next().map_or(0, |block| block.rows)
    };
    part.blocks.iter().map(rows).sum::<u32>() > 1
}

#[derive(Clone, Debug)]
struct World {
    warehouse: Warehouse,
    committed: (i64, String),
    /// Inserts of dead loaders that ClickHouse has received but not yet carried out.
    late_inserts: Vec<Batch>,
    crashes_left: u32,
    /// Inserts whose answer gets lost, so that they are sent again.
    lost_answers_left: u32,
    /// Whether a restart may come after ClickHouse has forgotten all tokens.
    may_age: bool,
    has_aged: bool,
    now: i64,
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
    /// An old intent is replayed as if ClickHouse still knew its token.
    TrustsOldTokens,
    /// What ClickHouse says it has is not looked at.
    TrustsTokens,
}

/// A loader between two crashes.
struct Loader {
    protocol: PartitionProtocol,
    next_record: usize,
    pending: Option<Action>,
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
        let mut rules = RULES;
        if world.fault == Fault::TrustsOldTokens {
            rules.deduplication_millis = i64::MAX;
        }
        let protocol = PartitionProtocol::start("rows", 0, rules, *offset, checkpoint);
        Self {
            protocol,
            next_record: log().partition_point(|(at, _)| at < offset),
            pending: None,
            waited: false,
        }
    }
}

/// Loads the whole log, or until the protocol stops; at every point where things may go different
/// ways, `choices` says which of so many.
fn run(world: &mut World, choices: &mut impl FnMut(usize) -> usize) -> Option<StopReason> {
    let log = log();
    let mut loader = Loader::start(world);
    loop {
        let read_to = log
            .get(loader.next_record)
            .map_or(i64::MAX, |(offset, _)| *offset);
        if loader.pending.is_none() {
            let now = UnixMillis(world.now);
            loader.pending = loader.protocol.next(now, read_to, &BTreeMap::new());
        }
        if !world.late_inserts.is_empty() && choices(2) == 1 {
            let batch = world.late_inserts.remove(0);
            world.warehouse.insert(&batch, ALL);
            continue;
        }
        let Some(action) = loader.pending.take() else {
            if loader.next_record == log.len() {
                if loader.protocol.position() > log[log.len() - 1].0 {
                    return None;
                }
                world.now += RULES.flush_interval;
                continue;
            }
            // Flush now, or wait for the next record.
            let buffered = loader.protocol.buffered_bytes() > 0;
            if buffered && !loader.waited && choices(2) == 1 {
                world.now += RULES.flush_interval;
                loader.waited = true;
                continue;
            }
            loader.waited = false;
            let (offset, value) = &log[loader.next_record];
            let record = RowsRecord::read(*offset, UnixMillis(world.now), value.clone());
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
                    world.warehouse.insert(&batch, ALL);
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
            Action::Insert(ref batch) | Action::InsertAgain(ref batch) => {
                let ways = Progress::ways(parts_of(batch).len());
                if world.lost_answers_left > 0 {
                    // Answered, or torn in any way and sent again.
                    let choice = choices(ways + 1);
                    if choice > 0 {
                        world.lost_answers_left -= 1;
                        world.warehouse.insert(batch, Progress::nth(choice - 1));
                        loader.pending = Some(Action::InsertAgain(batch.clone()));
                        continue;
                    }
                }
                // Done, torn by a crash in any way, or a crash with the insert under way.
                let choice = if crashes { choices(ways + 2) } else { 0 };
                if choice == 0 {
                    world.warehouse.insert(batch, ALL);
                    let again = matches!(action, Action::InsertAgain(_));
                    if again && world.fault != Fault::TrustsTokens {
                        world.warehouse.make_whole(batch);
                    }
                    loader.pending = loader.protocol.inserted();
                    continue;
                }
                if choice == ways + 1 {
                    world.late_inserts.push(batch.clone());
                } else {
                    world.warehouse.insert(batch, Progress::nth(choice - 1));
                }
            }
            Action::Inspect(batch) => {
                let facts = world.warehouse.facts(&batch);
                loader.pending = loader.protocol.inspected(UnixMillis(world.now), &facts);
                continue;
            }
            Action::Stop(reason) => return Some(reason),
            Action::Compare(_) | Action::Restore(_) => unreachable!("there is an offset"),
        }
        world.crashes_left -= 1;
        if world.may_age && choices(2) == 1 {
            // An insert under way is long over by then.
            for batch in std::mem::take(&mut world.late_inserts) {
                world.warehouse.insert(&batch, ALL);
            }
            world.warehouse.forget_tokens();
            world.now += RULES.deduplication_millis;
            world.has_aged = true;
        }
        loader = Loader::start(world);
    }
}

/// What an exploration begins with.
#[derive(Clone, Copy)]
struct Start {
    crashes: u32,
    lost_answers: u32,
    may_age: bool,
    fault: Fault,
}

#[derive(Debug, Default)]
struct Explored {
    runs: usize,
    /// Runs that ended with a partition that needs a person.
    doubts: usize,
    /// The first sequence of choices that counts wrongly, or stops without need.
    wrong: Option<Vec<usize>>,
}

/// Explores every sequence of choices, up to the first wrong one.
fn explore(start: Start) -> Explored {
    let mut path: Vec<(usize, usize)> = Vec::new();
    let mut explored = Explored::default();
    loop {
        let mut world = World {
            warehouse: Warehouse::default(),
            committed: (0, String::new()),
            late_inserts: Vec::new(),
            crashes_left: start.crashes,
            lost_answers_left: start.lost_answers,
            may_age: start.may_age,
            has_aged: false,
            now: 0,
            fault: start.fault,
        };
        let mut depth = 0;
        let stopped = run(&mut world, &mut |options| {
            if depth == path.len() {
                path.push((0, options));
            }
            depth += 1;
            path[depth - 1].0
        });
        for batch in std::mem::take(&mut world.late_inserts) {
            world.warehouse.insert(&batch, ALL);
        }
        explored.runs += 1;
        explored.doubts += usize::from(stopped.is_some());
        let is_right = match stopped {
            None => world.warehouse.is_complete() == Some(true),
            Some(StopReason::Doubt { .. }) => {
                world.has_aged && world.warehouse.is_complete() == Some(false)
            }
            Some(_) => false,
        };
        if !is_right {
            explored.wrong = Some(path.iter().map(|(choice, _)| *choice).collect());
            return explored;
        }
        // The next path: the last choice that has an alternative takes it.
        while let Some((choice, options)) = path.pop() {
            if choice + 1 < options {
                path.push((choice + 1, options));
                break;
            }
        }
        if path.is_empty() {
            return explored;
        }
    }
}

const CRASHES: Start = Start {
    crashes: 2,
    lost_answers: 0,
    may_age: false,
    fault: Fault::None,
};

#[test]
fn every_row_counts_once_whenever_the_loader_or_clickhouse_crashes() {
    let explored = explore(CRASHES);
    assert_eq!(explored.wrong, None);
    assert_eq!(explored.doubts, 0);
    assert!(explored.runs > 10_000, "only {} runs", explored.runs);
}

#[test]
fn every_row_counts_once_whenever_an_answer_is_lost_and_then_the_loader_crashes() {
    let explored = explore(Start {
        crashes: 1,
        lost_answers: 2,
        ..CRASHES
    });
    assert_eq!(explored.wrong, None);
    assert!(explored.runs > 10_000, "only {} runs", explored.runs);
}

#[test]
fn a_loader_that_was_away_too_long_counts_each_row_once_or_stops() {
    let explored = explore(Start {
        may_age: true,
        ..CRASHES
    });
    assert_eq!(explored.wrong, None);
    let Explored { runs, doubts, .. } = explored;
    // Only an insert that was torn is in doubt.
    assert!(doubts > 0 && doubts < runs / 2, "{doubts} of {runs}");
}

#[test]
fn broken_protocols_are_caught() {
    for (fault, may_age) in [
        (Fault::IgnoresIntent, false),
        (Fault::InsertsBeforeIntent, false),
        (Fault::TrustsOldTokens, true),
        (Fault::TrustsTokens, false),
    ] {
        let explored = explore(Start {
            crashes: 1,
            may_age,
            fault,
            ..CRASHES
        });
        assert!(explored.wrong.is_some(), "{fault:?}");
    }
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

/// After topics were made anew the same range has other rows, and ClickHouse drops what has a token that
/// it knows.
#[test]
fn tokens_of_other_rows_in_the_same_range_are_others() {
    let tokens = |log: &[(i64, Bytes)], kind| {
        let read = |(offset, value): &(i64, Bytes)| {
            RowsRecord::read(*offset, UnixMillis(0), value.clone()).unwrap()
        };
        let records: Vec<RowsRecord> = log.iter().map(read).collect();
        let batch = Batch::of("rows", 0, 0, &records, kind);
        let tokens = batch.tables.into_iter().map(|table| table.token);
        tokens.collect::<Vec<String>>()
    };
    let mut anew = log();
    let first = anew[0].1.to_vec();
    anew[0].1 = Bytes::from([first.as_slice(), b"other"].concat());
    let content = |epoch| TokenKind::Content { epoch };
    assert_eq!(tokens(&log(), content(0)), tokens(&log(), content(0)));
    let (before, after) = (tokens(&log(), content(0)), tokens(&anew, content(0)));
    assert!(
        before.iter().all(|token| !after.contains(token)),
        "{after:?}"
    );
    assert_ne!(before, tokens(&log(), content(1)));
    // The old kind, by which interrupted inserts of older programs are replayed.
    assert_eq!(
        tokens(&anew, TokenKind::Range),
        ["finding_changes:rows:0:0-6", "spend:rows:0:0-6"]
    );
}

/// Retention removes an idle log up to its end: the offset of the last transaction's marker, at which
/// the position stands, is gone then.
#[test]
fn an_idle_partition_moves_to_the_end_of_its_log() {
    let mut protocol = PartitionProtocol::start("rows", 0, RULES, 6, Checkpoint::default());
    let none = BTreeMap::new();
    let next = |protocol: &mut PartitionProtocol, now, read_to| {
        protocol.next(UnixMillis(now), read_to, &none)
    };
    assert!(next(&mut protocol, 0, 6).is_none());
    assert!(next(&mut protocol, 5, 7).is_none());
    assert!(next(&mut protocol, 5_004, 7).is_none());
    let Some(Action::Commit { offset, metadata }) = next(&mut protocol, 5_005, 7) else {
        panic!("the position stays");
    };
    assert_eq!(offset, 7);
    assert_eq!(
        Checkpoint::decode(&metadata).unwrap(),
        Checkpoint::default()
    );
    let (at, value) = (7, log()[0].1.clone());
    let record = RowsRecord::read(at, UnixMillis(5_006), value);
    assert_eq!(protocol.received(at, record), None);
    assert!(protocol.committed().is_none());
    assert_eq!(protocol.position(), 7);
    let flushed = next(&mut protocol, 5_016, 8);
    assert!(matches!(flushed, Some(Action::Commit { offset: 7, .. })));
}

/// A broker was restored, or a replica that lacked records became the leader.
#[test]
fn a_log_that_became_shorter_stops_its_partition_and_never_goes_back_to_its_beginning() {
    let mut protocol = PartitionProtocol::start("rows", 0, RULES, 10, Checkpoint::default());
    protocol.gone(10, 7);
    let Some(Action::Stop(reason)) = protocol.next(UnixMillis(0), 10, &BTreeMap::new()) else {
        panic!("the partition waits");
    };
    let sentence = reason.with_way_out("rows", 0);
    assert!(sentence.contains("the topic ends at offset 7, before what was loaded, up to 10"));
    assert!(sentence.contains("--to 7`"), "{sentence}");
    assert_eq!(
        [0, 6, 7].map(|to| reason.is_accepted_by(to)),
        [false, false, true]
    );
    let action = protocol.go_on_at(7);
    assert!(
        matches!(action, Some(Action::Commit { offset: 7, .. })),
        "{action:?}"
    );
}

#[test]
fn an_interrupted_insert_whose_records_are_gone_stops_its_partition() {
    let mut protocol = PartitionProtocol::start("rows", 0, RULES, 0, Checkpoint::default());
    let (offset, value) = &log()[0];
    let record = RowsRecord::read(*offset, UnixMillis(0), value.clone());
    assert_eq!(protocol.received(*offset, record), None);
    let due = UnixMillis(RULES.flush_interval);
    let Some(Action::Commit { metadata, .. }) = protocol.next(due, 1, &BTreeMap::new()) else {
        panic!("an intent comes first");
    };
    for (to, end) in [(5, 5), (1, 1)] {
        let checkpoint = Checkpoint::decode(&metadata).unwrap();
        let mut successor = PartitionProtocol::start("rows", 0, RULES, 0, checkpoint);
        successor.gone(0, to);
        let stopped = successor.next(due, 0, &BTreeMap::new());
        let Some(Action::Stop(reason)) = stopped else {
            panic!("{stopped:?}");
        };
        assert_eq!(reason.end(), Some(end));
    }
}

/// What somebody accepted for another partition and typed the wrong number for.
#[test]
fn only_the_end_of_what_is_wrong_accepts_it_where_good_rows_follow() {
    let detail = String::new;
    let (start, end) = (2, 5);
    for reason in [
        StopReason::Poison {
            offset: 4,
            detail: detail(),
        },
        StopReason::Refused {
            start,
            end,
            detail: detail(),
        },
        StopReason::Doubt {
            start,
            end,
            detail: detail(),
        },
    ] {
        assert_eq!(
            [4, 5, 900].map(|to| reason.is_accepted_by(to)),
            [false, true, false]
        );
    }
    let lost = StopReason::Lost {
        from: 2,
        to: 5,
        detail: detail(),
    };
    assert_eq!(
        [4, 5, 900].map(|to| lost.is_accepted_by(to)),
        [false, true, true]
    );
}

/// Stopped in order soon after the last records, and started again behind the retention.
#[test]
fn a_partition_that_is_given_up_moves_to_the_end_of_its_log_at_once() {
    let start = || PartitionProtocol::start("rows", 0, RULES, 6, Checkpoint::default());
    let mut protocol = start();
    assert!(protocol.leave(6).is_none());
    let left = protocol.leave(7);
    assert!(
        matches!(left, Some(Action::Commit { offset: 7, .. })),
        "{left:?}"
    );
    assert!(protocol.leave(8).is_none(), "under way");
    assert!(protocol.committed().is_none());
    assert_eq!(protocol.position(), 7);

    // Records wait, or are gone.
    let mut waits = start();
    let record = RowsRecord::read(6, UnixMillis(0), log()[0].1.clone());
    assert_eq!(waits.received(6, record), None);
    assert!(waits.leave(8).is_none());
    let mut gone = start();
    gone.gone(6, 9);
    assert!(gone.leave(9).is_none());
}

/// A table without a column that the block has, say.
#[test]
fn rows_that_clickhouse_refuses_while_they_are_looked_for_stop_their_partition() {
    let region = Region::without_offsets(1, Links::default(), true);
    let nothing = Checkpoint::default();
    let mut protocol = PartitionProtocol::start_with("rows", 0, RULES, 0, region, nothing);
    let record = RowsRecord::read(0, UnixMillis(0), log()[0].1.clone());
    assert_eq!(protocol.received(0, record), None);
    let looks = protocol.next(UnixMillis(0), 1, &BTreeMap::new());
    assert!(matches!(looks, Some(Action::Compare(_))), "{looks:?}");
    let stopped = protocol.refused("no such column".to_owned());
    let Some(Action::Stop(reason)) = stopped else {
        panic!("{stopped:?}");
    };
    assert!(matches!(
        reason,
        StopReason::Refused {
            start: 0,
            end: 1,
            ..
        }
    ));
    assert!(reason.with_way_out("rows", 0).contains("--to 1`"));
}

/// ClickHouse was restarted before a bad record was accepted, and is compared after that.
#[test]
fn a_bad_record_that_was_accepted_does_not_stop_a_comparison() {
    let unsynced = Unsynced {
        server_start: 1,
        from: 0,
    };
    let region = Region::after_restart(1, unsynced);
    let nothing = Checkpoint::default();
    let mut protocol = PartitionProtocol::start_with("rows", 0, RULES, 0, region, nothing);
    assert_eq!(protocol.received(0, Err("no block".to_owned())), None);
    let end = protocol.next(UnixMillis(0), 1, &BTreeMap::new());
    assert!(
        matches!(end, Some(Action::Commit { offset: 1, .. })),
        "{end:?}"
    );
    assert!(protocol.committed().is_none());
    assert_eq!(protocol.received(1, Err("no block".to_owned())), None);
    let stopped = protocol.next(UnixMillis(0), 2, &BTreeMap::new());
    assert!(matches!(
        stopped,
        Some(Action::Stop(StopReason::Poison { offset: 1, .. }))
    ));
}

/// What a loader had not loaded when its group's offsets were lost: everything from one record on.
#[test]
fn rows_that_are_missing_up_to_the_end_are_found_in_few_looks() {
    const RECORDS: i64 = 512;
    const THERE: i64 = 300;
    let rules = ProtocolRules {
        limits: BatchLimits {
            rows: 10_000,
            bytes: 1 << 20,
        },
        ..RULES
    };
    let unsynced = Unsynced {
        server_start: 1,
        from: 0,
    };
    let region = Region::after_restart(RECORDS, unsynced);
    let nothing = Checkpoint::default();
    let mut protocol = PartitionProtocol::start_with("rows", 0, rules, 0, region, nothing);
    for offset in 0..RECORDS {
        let commit = offset as u64;
        let record = row_of_commit(offset, commit, commit + 1);
        assert_eq!(protocol.received(offset, record), None);
    }
    let (mut looks, mut restored) = (0, 0);
    loop {
        match protocol.next(UnixMillis(0), RECORDS, &BTreeMap::new()) {
            None => {}
            Some(Action::Inspect(batch)) => {
                looks += 1;
                let facts = TableFacts {
                    found: (THERE.clamp(batch.start, batch.end) - batch.start) as u64,
                    inserts: 0,
                    others: 0,
                    views_agree: true,
                };
                if let Some(Action::Restore(batch)) = protocol.inspected(UnixMillis(0), &[facts]) {
                    restored += batch.records;
                    assert!(protocol.inserted().is_none());
                }
            }
            Some(Action::Commit { offset, .. }) => {
                assert_eq!(offset, RECORDS);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(i64::from(restored), RECORDS - THERE);
    assert!(looks < 60, "{looks} looks");
}

/// One row of `spend`, which its writer wrote as commit `seq` after `previous`.
fn row_of_commit(offset: i64, previous: u64, seq: u64) -> Result<RowsRecord, String> {
    let block = RowBlock {
        table: "spend".to_owned(),
        schema_version: 1,
        rows: 1,
        epoch: 0,
        link: Link {
            partition: 0,
            previous,
            seq,
        },
        indexes: IndexRange { first: 0, last: 0 },
        native: Bytes::from_static(b"row"),
    };
    RowsRecord::read(offset, UnixMillis(0), Bytes::from(block.encode()))
}

/// Offsets were lost, and while the log is compared its beginning is removed.
#[test]
fn a_log_whose_retention_moves_while_it_is_compared_is_compared_from_there_on() {
    const LOADED_COMMIT: u64 = 12;
    let compared = || {
        let ends = Links::new([(("spend".to_owned(), 0), LOADED_COMMIT)]);
        let region = Region::without_offsets(20, ends, false);
        let nothing = Checkpoint::default();
        let mut protocol = PartitionProtocol::start_with("rows", 0, RULES, 0, region, nothing);
        assert_eq!(protocol.received(0, row_of_commit(0, 4, 5)), None);
        assert!(protocol.gone(1, 8), "what the log has is compared");
        protocol
    };
    // The warehouse has what was removed, since it has what comes behind it.
    let mut goes_on = compared();
    assert_eq!(goes_on.received(8, row_of_commit(8, 9, 10)), None);
    assert_eq!(goes_on.received(9, row_of_commit(9, 10, 11)), None);
    assert!(goes_on.received(10, row_of_commit(10, 13, 14)).is_some());
    assert!(!goes_on.gone(11, 8), "a log that became shorter");

    // The warehouse ends at the gap.
    let mut just_missing = compared();
    let first_new = row_of_commit(8, LOADED_COMMIT, LOADED_COMMIT + 1);
    assert_eq!(just_missing.received(8, first_new), None);

    // Commits between the warehouse and the log were removed.
    let mut lost = compared();
    let behind = row_of_commit(8, LOADED_COMMIT + 1, LOADED_COMMIT + 2);
    assert_eq!(lost.received(8, behind), None);
    let looks = lost.next(UnixMillis(0), 20, &BTreeMap::new());
    assert!(matches!(looks, Some(Action::Compare(_))), "{looks:?}");
    let there = TableFacts {
        found: 1,
        inserts: 0,
        others: 0,
        views_agree: true,
    };
    assert!(lost.inspected(UnixMillis(0), &[there]).is_none());
    let stopped = lost.next(UnixMillis(0), 20, &BTreeMap::new());
    assert!(
        matches!(stopped, Some(Action::Stop(StopReason::Lost { .. }))),
        "{stopped:?}"
    );

    // Retention is even behind what had to be compared.
    assert!(!compared().gone(8, 21));
}
