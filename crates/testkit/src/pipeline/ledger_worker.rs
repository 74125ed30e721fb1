//! A ledger partition with its queues of deltas, changelog and restarts.

use std::collections::VecDeque;
use std::sync::Arc;

use spendfuse_domain::UnixMillis;
use spendfuse_domain::finding::{Finding, FindingState};
use spendfuse_domain::verdict::BlocklistEntry;
use spendfuse_engine::book::BudgetBook;
use spendfuse_engine::codec;
use spendfuse_engine::delta::Deltas;
use spendfuse_engine::ledger::{Ledger, LedgerConfig, PUBLISH_RATE};

use super::fault::Fault;
use super::history::LedgerCommit;
use super::topic::Changelog;
use crate::scenario::Scenario;

/// An encoded delta record and its arrival.
type Delivered = (Vec<u8>, UnixMillis);

pub struct LedgerWorker {
    pub ledger: Ledger,
    partition: u32,
    version: usize,
    fault: Option<Fault>,
    /// Per meter partition, what is not applied yet.
    queues: Vec<VecDeque<Delivered>>,
    applied: Vec<u64>,
    delivered: u64,
    seq: u64,
    changelog: Changelog,
    crashes: usize,
    told: std::collections::HashSet<String>,
}

impl LedgerWorker {
    pub fn new(scenario: &Scenario, partition: u32, fault: Option<Fault>) -> Self {
        let mut ledger = Ledger::new(config(scenario, partition), book(scenario, 0, fault));
        ledger.restored();
        let partitions = scenario.partitions as usize;
        Self {
            ledger,
            partition,
            version: 0,
            fault,
            queues: vec![VecDeque::new(); partitions],
            applied: vec![0; partitions],
            delivered: 0,
            seq: 0,
            changelog: Changelog::default(),
            crashes: 0,
            told: std::collections::HashSet::new(),
        }
    }

    pub fn deliver(&mut self, meter: u32, record: Delivered, fault: Option<Fault>) {
        self.delivered += 1;
        let queue = &mut self.queues[meter as usize];
        match fault {
            Some(Fault::DeltaLost) if self.delivered == 2 => return,
            Some(Fault::DeltaTwice) if self.delivered == 2 => queue.push_back(record.clone()),
            _ => {}
        }
        queue.push_back(record);
    }

    pub fn adopt(&mut self, scenario: &Scenario, version: usize) {
        if self.version != version {
            self.version = version;
            self.ledger.set_book(book(scenario, version, self.fault));
        }
    }

    /// Applies up to `records` records, and time up to `clock` where that passes in the same commit;
    /// `None` where nothing happened.
    pub fn commit(&mut self, records: usize, clock: Option<UnixMillis>) -> Option<LedgerCommit> {
        let taken = self.process(records, clock);
        if taken.iter().all(|count| *count == 0) && !self.ledger.has_output() {
            return None;
        }
        let outputs = self.ledger.finish();
        self.seq += 1;
        for (meter, count) in taken.into_iter().enumerate() {
            for (record, _) in self.queues[meter].drain(..count) {
                let deltas: Deltas = codec::decode(&record).expect("own record");
                self.applied[meter] = deltas.seq;
            }
        }
        self.changelog.append(outputs.told.changelog);
        let mut commit = LedgerCommit {
            partition: self.partition,
            now: self.ledger.now(),
            is_timely: clock.is_some(),
            version: self.version,
            applied: self.applied.clone(),
            blocklist: outputs.told.blocklist,
            findings: outputs.told.findings,
            alerts: outputs.told.alerts,
            lines: outputs.window_lines,
            broken_links: outputs.broken_links,
        };
        tamper(self.fault, &mut commit.blocklist, &mut commit.findings);
        self.tamper_with_republished(&mut commit);
        Some(commit)
    }

    pub fn crash_within(&mut self, scenario: &Scenario, records: usize, clock: Option<UnixMillis>) {
        self.process(records, clock);
        if self.crashes.is_multiple_of(2) {
            self.ledger.finish();
        }
        self.crashes += 1;
        let book = book(scenario, self.version, self.fault);
        self.ledger = Ledger::new(config(scenario, self.partition), book);
        self.changelog.compact(self.crashes * 5);
        for (key, value) in self.changelog.records() {
            self.ledger
                .restore(key, value.as_deref())
                .expect("own changelog");
        }
        assert!(self.ledger.required_budget_version() <= self.version as u64 + 1);
        self.ledger.restored();
    }

    fn process(&mut self, records: usize, clock: Option<UnixMillis>) -> Vec<usize> {
        if clock.is_none() {
            // As between batches.
            let now = self.ledger.now();
            self.ledger.advance(now);
        }
        self.ledger.begin(self.seq + 1);
        let mut taken = vec![0; self.queues.len()];
        let mut left = records;
        for (meter, queue) in self.queues.iter().enumerate() {
            let count = queue.len().min(left);
            for (record, arrival) in queue.iter().take(count) {
                let deltas: Deltas = codec::decode(record).expect("own record");
                self.ledger.apply(&deltas, *arrival);
            }
            left -= count;
            taken[meter] = count;
        }
        let Some(clock) = clock else {
            return taken;
        };
        // At the end of the log time is that of the observation, else that of the last record.
        let drained = taken
            .iter()
            .zip(&self.queues)
            .all(|(taken, queue)| *taken == queue.len());
        let watermark = if drained { clock } else { self.ledger.now() };
        self.ledger.advance(watermark);
        taken
    }

    fn tamper_with_republished(&mut self, commit: &mut LedgerCommit) {
        match self.fault {
            Some(Fault::ExpiredNotRepublished) => {
                let told = &mut self.told;
                commit.blocklist.retain(|(key, entry)| match entry {
                    Some(entry) => {
                        let window = format!("{key}|{}", entry.window_start);
                        told.contains(&window) || told.insert(key.clone()) && told.insert(window)
                    }
                    None => true,
                });
            }
            Some(Fault::PublishedTooSeldom) => {
                let told = &mut self.told;
                commit.blocklist.retain(|(key, entry)| match entry {
                    Some(entry) => {
                        let minute = entry.decided_at.minute();
                        told.insert(format!("{key}|{minute}|{}", entry.verdict.name()))
                    }
                    None => true,
                });
            }
            _ => {}
        }
    }
}

/// Faults of what is published, the same in both stages.
pub fn tamper(
    fault: Option<Fault>,
    blocklist: &mut Vec<(String, Option<BlocklistEntry>)>,
    findings: &mut Vec<(String, Finding)>,
) {
    match fault {
        Some(Fault::NoTombstones) => blocklist.retain(|(_, entry)| entry.is_some()),
        Some(Fault::FindingsStayOpen) => {
            findings.retain(|(_, finding)| finding.state == FindingState::Open);
        }
        _ => {}
    }
}

fn config(scenario: &Scenario, partition: u32) -> LedgerConfig {
    LedgerConfig {
        partition,
        partitions: scenario.partitions,
        grace_millis: scenario.grace_millis,
        publish_rate: PUBLISH_RATE,
        account_capacity: 10_000_000,
    }
}

fn book(scenario: &Scenario, version: usize, fault: Option<Fault>) -> Arc<BudgetBook> {
    let book = scenario.book(version);
    if fault != Some(Fault::OpeningIgnored) {
        return book;
    }
    let mut unopened = (*book).clone();
    for compiled in &mut unopened.budgets {
        compiled.budget.opening = None;
    }
    Arc::new(unopened)
}
