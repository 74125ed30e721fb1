//! Kafka's part in memory: topics, compaction, transactions, restarts; one thread, no clock.
//!
//! A worker's batch is all or nothing: outputs, changelog and position become visible together, or
//! a crash drops them with the worker's state, which then comes back from its changelog. Deltas of
//! one meter partition reach a ledger partition in order, those of different ones in any order.

mod fault;
mod history;
mod ledger_worker;
mod meter_worker;
mod topic;

use spendfuse_domain::UnixMillis;
use spendfuse_engine::ledger::Ledger;
use spendfuse_engine::meter::Meter;

use crate::scenario::Scenario;
use ledger_worker::LedgerWorker;
use meter_worker::MeterWorker;

pub use fault::Fault;
pub use history::{Became, Commit, History, LedgerCommit, MeterCommit, SeenRow};

/// One step of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// A meter partition takes up to `events` events and commits, or crashes before it does.
    Meter {
        /// Partition, modulo the number there is.
        partition: u32,
        /// Events at most.
        events: usize,
        /// Whether it crashes instead of committing.
        crash: bool,
        /// Whether time passes in a commit of its own, behind that of the events.
        apart: bool,
    },
    /// A ledger partition takes up to `records` delta records.
    Ledger {
        /// Partition, modulo the number there is.
        partition: u32,
        /// Records at most.
        records: usize,
        /// Whether it crashes instead of committing.
        crash: bool,
        /// As for a meter partition.
        apart: bool,
    },
    /// Time passes.
    Wait {
        /// Milliseconds.
        millis: i64,
    },
}

/// What is left when everything is processed.
pub struct Finished {
    /// Every commit, in order.
    pub history: History,
    /// The meter partitions.
    pub meters: Vec<Meter>,
    /// The ledger partitions.
    pub ledgers: Vec<Ledger>,
}

/// Runs `scenario` under `schedule`, then drains what is left; `fault` breaks a guarantee.
pub fn run(scenario: &Scenario, schedule: &[Move], fault: Option<Fault>) -> Finished {
    let mut simulation = Simulation::new(scenario, fault);
    simulation.play(schedule);
    simulation.let_time_pass(2_000);
    simulation.finish()
}

/// Like [`run`], and then three days without events, a step at a time: sessions and windows end.
pub fn run_to_the_end(scenario: &Scenario, schedule: &[Move], fault: Option<Fault>) -> Finished {
    let mut simulation = Simulation::new(scenario, fault);
    simulation.play(schedule);
    for minutes in [1, 21, 45, 8 * 60, 26 * 60, 48 * 60] {
        simulation.let_time_pass(minutes * 60_000);
    }
    simulation.finish()
}

struct Simulation<'a> {
    scenario: &'a Scenario,
    fault: Option<Fault>,
    /// The broker's clock.
    clock: UnixMillis,
    /// The latest version of budgets that everybody may use.
    version: usize,
    meters: Vec<MeterWorker>,
    ledgers: Vec<LedgerWorker>,
    history: History,
}

impl<'a> Simulation<'a> {
    fn new(scenario: &'a Scenario, fault: Option<Fault>) -> Self {
        let partitions = 0..scenario.partitions;
        let clock = scenario
            .log
            .first()
            .map_or(UnixMillis(0), |one| one.arrival);
        let mut simulation = Self {
            scenario,
            fault,
            clock,
            version: 0,
            meters: partitions
                .clone()
                .map(|partition| MeterWorker::new(scenario, partition, fault))
                .collect(),
            ledgers: partitions
                .map(|partition| LedgerWorker::new(scenario, partition, fault))
                .collect(),
            history: History::default(),
        };
        simulation.publish_budgets();
        simulation
    }

    fn make(&mut self, one: Move) {
        let count = self.scenario.partitions;
        match one {
            Move::Meter {
                partition,
                events,
                crash,
                apart,
            } => self.meter(partition % count, events, crash, apart),
            Move::Ledger {
                partition,
                records,
                crash,
                apart,
            } => self.ledger(partition % count, records, crash, apart),
            Move::Wait { millis } => self.wait(millis),
        }
        self.publish_budgets();
    }

    /// The index in the log before which events may be counted: a version that starts or ends a
    /// count waits until everybody has come that far.
    fn barrier(&self) -> usize {
        let later = self.version + 1..self.scenario.versions.len();
        let mut barriers = later.filter(|version| self.scenario.starts_a_count(*version));
        barriers.next().map_or(self.scenario.log.len(), |version| {
            self.scenario.versions[version].from
        })
    }

    /// Makes versions known whose time has come.
    fn publish_budgets(&mut self) {
        while let Some(next) = self.scenario.versions.get(self.version + 1) {
            let version = self.version + 1;
            let reached = self.meters.iter().all(|one| one.is_drained(next.from));
            if self.scenario.starts_a_count(version) {
                if !reached {
                    return;
                }
                self.settle_everything(usize::MAX);
                self.version = version;
                self.settle_everything(0);
            } else {
                let due = self.scenario.log.get(next.from);
                if !reached && due.is_some_and(|event| event.arrival > self.clock) {
                    return;
                }
                self.version = version;
            }
        }
    }

    fn meter(&mut self, partition: u32, events: usize, crash: bool, apart: bool) {
        let barrier = self.barrier();
        let worker = &mut self.meters[partition as usize];
        let batch = worker.next_events(events, barrier);
        if let Some(last) = batch.last() {
            self.clock = self.clock.max(self.scenario.log[*last].arrival);
        }
        worker.adopt(self.scenario, self.version);
        let clock = (!apart).then_some(self.clock);
        if crash {
            worker.crash_within(self.scenario, &batch, clock);
            return;
        }
        self.commit_meter(partition, &batch, clock);
        if apart {
            self.commit_meter(partition, &[], Some(self.clock));
        }
    }

    fn commit_meter(&mut self, partition: u32, batch: &[usize], clock: Option<UnixMillis>) {
        let worker = &mut self.meters[partition as usize];
        let Some((commit, deltas)) = worker.commit(self.scenario, batch, clock) else {
            return;
        };
        for (ledger, record) in deltas {
            let record = (record, self.clock);
            self.ledgers[ledger as usize].deliver(partition, record, self.fault);
        }
        self.history.commits.push(Commit::Meter(commit));
    }

    fn ledger(&mut self, partition: u32, records: usize, crash: bool, apart: bool) {
        let clock = (!apart).then_some(self.clock);
        let worker = &mut self.ledgers[partition as usize];
        worker.adopt(self.scenario, self.version);
        if crash {
            worker.crash_within(self.scenario, records, clock);
            return;
        }
        let commits = [
            Some((records, clock)),
            apart.then_some((0, Some(self.clock))),
        ];
        for (records, clock) in commits.into_iter().flatten() {
            let commit = worker.commit(records, clock);
            self.history.commits.extend(commit.map(Commit::Ledger));
        }
    }

    /// Time passes, but not beyond the next event, which would then be late for its own arrival.
    fn wait(&mut self, millis: i64) {
        let next = self.meters.iter().filter_map(MeterWorker::next_event).min();
        let limit = next.map_or(UnixMillis(i64::MAX), |index| {
            self.scenario.log[index].arrival
        });
        self.clock = self.clock.max(self.clock.plus(millis).min(limit));
    }

    fn settle_everything(&mut self, events: usize) {
        for partition in 0..self.scenario.partitions {
            self.meter(partition, events, false, false);
        }
        for partition in 0..self.scenario.partitions {
            self.ledger(partition, usize::MAX, false, false);
        }
    }

    /// Makes every move, then works off what is left.
    fn play(&mut self, schedule: &[Move]) {
        for one in schedule {
            self.make(*one);
        }
        self.drain();
    }

    fn finish(self) -> Finished {
        Finished {
            history: self.history,
            meters: self.meters.into_iter().map(|one| one.meter).collect(),
            ledgers: self.ledgers.into_iter().map(|one| one.ledger).collect(),
        }
    }

    fn drain(&mut self) {
        while self.meters.iter().any(|one| one.next_event().is_some()) {
            for partition in 0..self.scenario.partitions {
                self.make(Move::Meter {
                    partition,
                    events: 4,
                    crash: false,
                    apart: false,
                });
            }
        }
        self.settle_everything(usize::MAX);
        self.publish_budgets();
    }

    fn let_time_pass(&mut self, millis: i64) {
        self.clock = self.clock.plus(millis);
        self.settle_everything(usize::MAX);
    }
}
