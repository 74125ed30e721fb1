//! What became visible, commit by commit.

use spendfuse_domain::UnixMillis;
use spendfuse_domain::finding::Finding;
use spendfuse_domain::row::MeterAddress;
use spendfuse_domain::verdict::BlocklistEntry;
use spendfuse_engine::alert::Alert;
use spendfuse_engine::ledger::WindowLine;
use spendfuse_engine::meter::{Corrected, Counted};

/// Everything that was committed.
#[derive(Debug, Default)]
pub struct History {
    /// In the order of the commits.
    pub commits: Vec<Commit>,
}

/// One committed batch.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)]
pub enum Commit {
    /// Of a meter partition.
    Meter(MeterCommit),
    /// Of a ledger partition.
    Ledger(LedgerCommit),
}

/// What a meter partition committed.
#[derive(Debug)]
pub struct MeterCommit {
    /// Its number.
    pub partition: u32,
    /// The commit's number.
    pub seq: u64,
    /// Engine time at its end.
    pub now: UnixMillis,
    /// Whether all that is due by time alone was done, as at a tick; a batch of records alone does
    /// only what these records make due.
    pub is_timely: bool,
    /// Version of the budgets in use.
    pub version: usize,
    /// Places in the scenario's log, and what became of these events.
    pub inputs: Vec<(usize, Became)>,
    /// Rows, in order.
    pub rows: Vec<SeenRow>,
    /// Blocklist records.
    pub blocklist: Vec<(String, Option<BlocklistEntry>)>,
    /// Findings records.
    pub findings: Vec<(String, Finding)>,
    /// Alerts.
    pub alerts: Vec<Alert>,
}

/// What became of a place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Became {
    /// Of an event.
    Event(Counted),
    /// Of a correction.
    Correction(Corrected),
    /// There was nothing to correct, so that no correction was made.
    Nothing,
}

/// A row, as far as checks need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenRow {
    /// Where it was counted.
    pub address: MeterAddress,
    /// Id of its event.
    pub id: String,
    /// Its whole cost in nano-dollars, or how much more that is.
    pub cost: i128,
}

/// What a ledger partition committed.
#[derive(Debug)]
pub struct LedgerCommit {
    /// Its number.
    pub partition: u32,
    /// Engine time at its end.
    pub now: UnixMillis,
    /// As [`MeterCommit::is_timely`].
    pub is_timely: bool,
    /// Version of the budgets in use.
    pub version: usize,
    /// Per meter partition, the last commit whose deltas are applied.
    pub applied: Vec<u64>,
    /// Blocklist records.
    pub blocklist: Vec<(String, Option<BlocklistEntry>)>,
    /// Findings records.
    pub findings: Vec<(String, Finding)>,
    /// Alerts.
    pub alerts: Vec<Alert>,
    /// Lines for the warehouse.
    pub lines: Vec<WindowLine>,
    /// Deltas that did not follow the ones before.
    pub broken_links: u64,
}
