//! Every sequence of crashes, lost answers and forgotten tokens, played through.

use std::collections::BTreeMap;

use spendfuse_domain::UnixMillis;
use spendfuse_loader::batch::{Batch, RowsRecord};
use spendfuse_loader::checkpoint::Checkpoint;
use spendfuse_loader::protocol::{Action, PartitionProtocol, StopReason};

use super::warehouse::{ALL, Progress, RULES, Warehouse, log, parts_of};

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
    /// Whether what is missing is put in without a token.
    completes_parts: bool,
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

impl World {
    /// What of a batch is inserted. Who needs no token waits for earlier attempts, and repeats only what
    /// is not there at all.
    fn take_up(&mut self, batch: &Batch, again: bool) -> Batch {
        let mut absent = batch.clone();
        if again && self.completes_parts {
            for late in std::mem::take(&mut self.late_inserts) {
                self.warehouse.insert(&late, ALL);
            }
            let mut facts = self.warehouse.facts(batch).into_iter();
            absent.tables.retain(|_| {
                let fact = facts.next();
                fact.is_some_and(|fact| fact.found == 0 && fact.views_agree)
            });
        }
        absent
    }
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
        rules.completes_parts = world.completes_parts;
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
                let again = matches!(action, Action::InsertAgain(_));
                let inserted = world.take_up(batch, again);
                let ways = Progress::ways(parts_of(&inserted).len());
                if world.lost_answers_left > 0 {
                    // Answered, or torn in any way and sent again.
                    let choice = choices(ways + 1);
                    if choice > 0 {
                        world.lost_answers_left -= 1;
                        let progress = Progress::nth(choice - 1);
                        world.warehouse.insert(&inserted, progress);
                        loader.pending = Some(Action::InsertAgain(batch.clone()));
                        continue;
                    }
                }
                // Done, torn by a crash in any way, or a crash with the insert under way.
                let choice = if crashes { choices(ways + 2) } else { 0 };
                if choice == 0 {
                    world.warehouse.insert(&inserted, ALL);
                    if again && world.fault != Fault::TrustsTokens {
                        world.warehouse.make_whole(batch);
                    }
                    loader.pending = loader.protocol.inserted();
                    continue;
                }
                if choice == ways + 1 {
                    world.late_inserts.push(inserted);
                } else {
                    world.warehouse.insert(&inserted, Progress::nth(choice - 1));
                }
            }
            Action::Inspect(batch) | Action::Compare(batch) => {
                let facts = world.warehouse.facts(&batch);
                loader.pending = loader.protocol.inspected(UnixMillis(world.now), &facts);
                continue;
            }
            Action::Stop(reason) => return Some(reason),
            Action::Restore(_) => unreachable!("there is an offset"),
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
    completes_parts: bool,
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
            completes_parts: start.completes_parts,
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
    completes_parts: false,
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

/// As with plain tables, whose tokens a loss of power takes.
#[test]
fn a_loader_that_was_away_too_long_completes_what_was_torn_where_it_needs_no_token() {
    let explored = explore(Start {
        may_age: true,
        completes_parts: true,
        ..CRASHES
    });
    assert_eq!(explored.wrong, None);
    assert_eq!(explored.doubts, 0);
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
