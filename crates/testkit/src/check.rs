//! Compares what a run made visible with the reference model, commit by commit.

mod ledger;
mod meter;
mod published;

use std::fmt;

use spendfuse_domain::finding::DetectorRules;

use crate::corrections::Desk;
use crate::pipeline::{Commit, Finished};
use crate::readers::{FindingsReader, NaiveGuard};
use crate::reference::{MeterReference, SpendReference};
use crate::scenario::Scenario;
use ledger::LedgerChecker;

/// A promise that was broken: which one, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which promise.
    pub promise: Promise,
    /// Where, and what was expected.
    pub detail: String,
}

/// What is promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Promise {
    /// Each event is counted once, or judged duplicate, conflict or late.
    CountedOnce,
    /// Rows are the counted events, at unique ascending addresses.
    Rows,
    /// Sums of accounts equal those of the counted events.
    Sums,
    /// What readers of the blocklist know is what holds.
    Verdicts,
    /// Findings open and close as they should.
    Findings,
    /// The chain of deltas is unbroken.
    DeltaChain,
}

impl Violation {
    fn new(promise: Promise, detail: impl Into<String>) -> Self {
        Self {
            promise,
            detail: detail.into(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}: {}", self.promise, self.detail)
    }
}

/// Everything that is compared over a run.
pub(crate) struct Checker<'a> {
    scenario: &'a Scenario,
    meters: Vec<MeterReference<'a>>,
    /// Which events of the log were processed.
    processed: Vec<bool>,
    /// Last commit of each meter partition.
    seqs: Vec<u64>,
    meter_versions: Vec<usize>,
    spend: SpendReference,
    ledger: LedgerChecker,
    guard: NaiveGuard,
    findings: FindingsReader,
    /// What corrections are made from.
    desk: Desk,
    /// Rules of each version, made once.
    rules: Vec<DetectorRules>,
}

/// Checks a whole run.
///
/// # Errors
/// The first promise that was broken.
pub fn check(scenario: &Scenario, finished: &Finished) -> Result<(), Violation> {
    let partitions = scenario.partitions as usize;
    let versions = scenario.versions.iter();
    let mut checker = Checker {
        scenario,
        meters: (0..partitions)
            .map(|_| MeterReference::new(scenario))
            .collect(),
        processed: vec![false; scenario.log.len()],
        seqs: vec![0; partitions],
        meter_versions: vec![0; partitions],
        spend: SpendReference::default(),
        ledger: LedgerChecker::new(scenario.partitions),
        guard: NaiveGuard::default(),
        findings: FindingsReader::default(),
        desk: Desk::default(),
        rules: versions
            .map(|version| DetectorRules::new(version.rules.iter().cloned()))
            .collect(),
    };
    for commit in &finished.history.commits {
        match commit {
            Commit::Meter(commit) => checker.meter_commit(commit)?,
            Commit::Ledger(commit) => checker.ledger_commit(commit)?,
        }
    }
    if let Some(lost) = checker.processed.iter().position(|processed| !processed) {
        let detail = format!("event {lost} was never processed");
        return Err(Violation::new(Promise::CountedOnce, detail));
    }
    checker.final_sums(finished)
}
