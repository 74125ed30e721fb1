//! A model of a worker's start-up while its predecessor's last transaction is still under way:
//! every order of the predecessor's, the broker's and the successor's steps is tried, and no batch
//! may be lost or counted twice.
//!
//! The steps are those of `runner/worker.rs` (`live`, `commit`), `runner/assignment.rs`
//! (`take_over`) and `runner/restore.rs`; the broker's are those of Kafka's transactions as the
//! real-broker tests in `tests/kafka` meet them: a decided transaction becomes visible in each
//! partition by a marker of its own, at any later time. Broken variants show that the model can
//! tell right from wrong.

use std::collections::HashSet;

/// Batches in the input; a position is the number of batches counted.
const BATCHES: u8 = 3;

/// What the successor or the broker leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Setup {
    /// A restart under the same transactional id, or a partition that moves to another worker.
    same_id: bool,
    /// Restore ends at the last stable offset, not at the end as `read_uncommitted` sees it.
    stops_at_stable: bool,
    /// Committed offsets are taken though a transaction that would change them is open.
    takes_unstable_offsets: bool,
    /// Changelog position and committed offset are not compared.
    skips_comparison: bool,
    /// Offsets are committed without the group's generation.
    without_generation: bool,
    /// The predecessor is fenced only after the restore.
    inits_after_restore: bool,
}

const RIGHT: Setup = Setup {
    same_id: false,
    stops_at_stable: false,
    takes_unstable_offsets: false,
    skips_comparison: false,
    without_generation: false,
    inits_after_restore: false,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Fate {
    Ongoing,
    Committed,
    Aborted,
}

/// A transaction of the predecessor. The successor's are carried out as a whole: by then nobody
/// else may write.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Transaction {
    fate: Fate,
    /// The offset that it commits, once sent.
    offset: Option<u8>,
    marked_in_changelog: bool,
    marked_in_offsets: bool,
}

impl Transaction {
    fn is_over(&self) -> bool {
        self.fate != Fate::Ongoing && self.marked_in_changelog && self.marked_in_offsets
    }
}

/// A record of an output or of the changelog; `None` = of the successor.
type Written = (Option<usize>, u8);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Old {
    Begins,
    Output,
    Changelog,
    Offsets,
    Commits,
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum New {
    Inits,
    Joins,
    AsksCommitted,
    AsksTarget,
    Reads,
    Compares,
    InitsLate,
    Runs,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    transactions: Vec<Transaction>,
    outputs: Vec<Written>,
    changelog: Vec<Written>,
    committed: u8,
    old: Old,
    /// Batches that the predecessor has counted.
    old_position: u8,
    new: New,
    /// Whether the group knows the successor, so that the predecessor's generation is over.
    joined: bool,
    new_committed: u8,
    target: usize,
    new_position: u8,
    /// Whether the successor reads on from another place than its state belongs to.
    is_torn: bool,
    restarts_left: u8,
}

impl World {
    fn start() -> Self {
        Self {
            transactions: Vec::new(),
            outputs: Vec::new(),
            changelog: Vec::new(),
            committed: 0,
            old: Old::Begins,
            old_position: 0,
            new: New::Inits,
            joined: false,
            new_committed: 0,
            target: 0,
            new_position: 0,
            is_torn: false,
            restarts_left: 1,
        }
    }

    fn is_visible(&self, (by, _): &Written) -> bool {
        by.is_none_or(|by| {
            let transaction = &self.transactions[by];
            transaction.fate == Fate::Committed && transaction.marked_in_changelog
        })
    }

    /// How far `read_committed` reads the changelog.
    fn stable_end(&self) -> usize {
        let open =
            |(by, _): &Written| by.is_some_and(|by| !self.transactions[by].marked_in_changelog);
        self.changelog
            .iter()
            .position(open)
            .unwrap_or(self.changelog.len())
    }

    fn has_unstable_offset(&self) -> bool {
        let unstable = |one: &Transaction| one.offset.is_some() && !one.marked_in_offsets;
        self.transactions.iter().any(unstable)
    }

    /// Every world that one step leads to.
    fn next(&self, setup: Setup) -> Vec<Self> {
        let mut next = Vec::new();
        self.old_steps(setup, &mut next);
        self.broker_steps(&mut next);
        self.new_steps(setup, &mut next);
        next
    }

    fn old_steps(&self, setup: Setup, next: &mut Vec<Self>) {
        if self.old == Old::Gone {
            return;
        }
        // It may die anywhere, its last request carried out or not.
        next.push(Self {
            old: Old::Gone,
            ..self.clone()
        });
        let mut world = self.clone();
        if self.old == Old::Begins {
            if self.old_position == BATCHES || self.transactions.iter().any(|one| !one.is_over()) {
                return;
            }
            world.transactions.push(Transaction {
                fate: Fate::Ongoing,
                offset: None,
                marked_in_changelog: false,
                marked_in_offsets: false,
            });
            world.old = Old::Output;
            next.push(world);
            return;
        }
        let current = world.transactions.len() - 1;
        // Fenced or timed out meanwhile: whoever gets that answer drops everything.
        if world.transactions[current].fate != Fate::Ongoing {
            world.old = Old::Gone;
            next.push(world);
            return;
        }
        let position = self.old_position + 1;
        world.old = match self.old {
            Old::Output => {
                world.outputs.push((Some(current), self.old_position));
                Old::Changelog
            }
            Old::Changelog => {
                world.changelog.push((Some(current), position));
                Old::Offsets
            }
            Old::Offsets if self.joined && !setup.without_generation => {
                world.transactions[current].fate = Fate::Aborted;
                Old::Gone
            }
            Old::Offsets => {
                world.transactions[current].offset = Some(position);
                Old::Commits
            }
            Old::Commits => {
                world.transactions[current].fate = Fate::Committed;
                world.old_position = position;
                Old::Begins
            }
            Old::Begins | Old::Gone => unreachable!("handled above"),
        };
        next.push(world);
    }

    fn broker_steps(&self, next: &mut Vec<Self>) {
        for (place, transaction) in self.transactions.iter().enumerate() {
            if transaction.fate == Fate::Ongoing {
                // The transaction's time is over.
                let mut world = self.clone();
                world.transactions[place].fate = Fate::Aborted;
                next.push(world);
                continue;
            }
            if !transaction.marked_in_changelog {
                let mut world = self.clone();
                world.transactions[place].marked_in_changelog = true;
                next.push(world);
            }
            if !transaction.marked_in_offsets {
                let mut world = self.clone();
                world.transactions[place].marked_in_offsets = true;
                if let (Fate::Committed, Some(offset)) = (transaction.fate, transaction.offset) {
                    world.committed = offset;
                }
                next.push(world);
            }
        }
    }

    fn new_steps(&self, setup: Setup, next: &mut Vec<Self>) {
        if self.restarts_left > 0 && self.new != New::Inits {
            next.push(Self {
                new: New::Inits,
                restarts_left: self.restarts_left - 1,
                ..self.clone()
            });
        }
        let mut world = self.clone();
        world.new = match self.new {
            New::Inits if setup.inits_after_restore => New::Joins,
            New::Inits | New::InitsLate => {
                if setup.same_id && !world.fences() {
                    next.push(world);
                    return;
                }
                if self.new == New::Inits {
                    New::Joins
                } else {
                    New::Runs
                }
            }
            New::Joins => {
                world.joined = true;
                New::AsksCommitted
            }
            New::AsksCommitted => {
                if self.has_unstable_offset() && !setup.takes_unstable_offsets {
                    return;
                }
                world.new_committed = self.committed;
                New::AsksTarget
            }
            New::AsksTarget => {
                world.target = if setup.stops_at_stable {
                    self.stable_end()
                } else {
                    self.changelog.len()
                };
                New::Reads
            }
            New::Reads => {
                if self.stable_end() < self.target {
                    return;
                }
                let mut read = self.changelog[..self.target].iter();
                let last = read.rfind(|written| self.is_visible(written));
                world.new_position = last.map_or(0, |(_, position)| *position);
                New::Compares
            }
            New::Compares => {
                let differ = self.new_position != self.new_committed;
                if differ && !setup.skips_comparison {
                    New::AsksCommitted
                } else if setup.inits_after_restore {
                    world.is_torn = differ;
                    New::InitsLate
                } else {
                    world.is_torn = differ;
                    New::Runs
                }
            }
            New::Runs => {
                if self.new_position == BATCHES {
                    return;
                }
                world.outputs.push((None, self.new_position));
                world.new_position += 1;
                world.changelog.push((None, world.new_position));
                world.committed = world.new_position;
                New::Runs
            }
        };
        next.push(world);
    }

    /// `init_transactions` under the predecessor's id: what it has open is aborted; returns whether
    /// nothing of it is left to wait for.
    fn fences(&mut self) -> bool {
        self.old = Old::Gone;
        for transaction in &mut self.transactions {
            if transaction.fate == Fate::Ongoing {
                transaction.fate = Fate::Aborted;
            }
        }
        self.transactions.iter().all(Transaction::is_over)
    }

    /// What a reader of the outputs counts, in the end.
    fn counted(&self) -> Vec<u8> {
        let committed = self
            .outputs
            .iter()
            .filter(|(by, _)| by.is_none_or(|by| self.transactions[by].fate == Fate::Committed));
        let mut counted: Vec<u8> = committed.map(|(_, batch)| *batch).collect();
        counted.sort_unstable();
        counted
    }
}

/// Goes through every world that can come about; returns how many there are, or the first in which
/// a batch is counted twice, in the outputs or in the state, or, at an end, not at all.
fn explore(setup: Setup) -> Result<usize, Box<World>> {
    let mut seen = HashSet::new();
    let mut ahead = vec![World::start()];
    while let Some(world) = ahead.pop() {
        if !seen.insert(world.clone()) {
            continue;
        }
        let counted = world.counted();
        let is_twice = counted.windows(2).any(|pair| pair[0] == pair[1]);
        let mut next = world.next(setup);
        next.retain(|next| *next != world);
        let is_stuck = next.is_empty() && counted.len() != usize::from(BATCHES);
        if is_twice || is_stuck || world.is_torn {
            return Err(Box::new(world));
        }
        ahead.extend(next);
    }
    Ok(seen.len())
}

#[test]
fn every_batch_counts_once_however_the_predecessor_ends() {
    for same_id in [false, true] {
        let worlds = explore(Setup { same_id, ..RIGHT });
        let worlds = worlds.unwrap_or_else(|world| panic!("{same_id}: {world:#?}"));
        assert!(worlds > 500, "only {worlds} worlds");
    }
}

#[test]
fn each_step_that_is_left_out_is_missed() {
    let moved = [
        Setup {
            without_generation: true,
            ..RIGHT
        },
        // One of the two is repaired by the comparison, both are not.
        Setup {
            stops_at_stable: true,
            skips_comparison: true,
            ..RIGHT
        },
        Setup {
            takes_unstable_offsets: true,
            skips_comparison: true,
            ..RIGHT
        },
        Setup {
            stops_at_stable: true,
            takes_unstable_offsets: true,
            ..RIGHT
        },
        Setup {
            same_id: true,
            inits_after_restore: true,
            without_generation: true,
            ..RIGHT
        },
    ];
    for setup in moved {
        assert!(explore(setup).is_err(), "not missed: {setup:?}");
    }
}
