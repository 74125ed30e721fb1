//! Blocks of the tables `finding_changes`, `verdicts` and `budget_windows`.

use spendfuse_domain::finding::{Finding, FindingState};
use spendfuse_domain::row::WindowLine;
use spendfuse_domain::scope::workspace_of;
use spendfuse_domain::verdict::{BlocklistEntry, Stage};
use spendfuse_domain::{Amount, Nanos, Percent};

use super::columns::RowCursor;
use super::schema::{Address, Schema, table};
use super::{RowFormat, TableBlock, TableKind};

/// Which output of which stage a row is: what a loader checks its completeness by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageAddress {
    /// Which set of topics the partition is of.
    pub epoch: u32,
    /// Who wrote it.
    pub stage: Stage,
    /// Partition of the writer.
    pub partition: u32,
    /// Number of the commit in that partition.
    pub seq: u64,
    /// Place among the rows of this table within the commit, from 0.
    pub index: u32,
}

/// A state of a finding: opened, updated or closed.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct FindingRow<'a> {
    pub finding: &'a Finding,
    pub address: StageAddress,
}

/// A published change of a scope's verdict.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct VerdictRow<'a> {
    pub entry: &'a BlocklistEntry,
    pub address: StageAddress,
}

/// A window's spend at some time.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct BudgetWindowRow<'a> {
    pub line: &'a WindowLine,
    pub address: StageAddress,
}

/// A block of table `finding_changes`.
pub type FindingBlock = TableBlock<FindingChanges>;
/// A block of table `verdicts`.
pub type VerdictBlock = TableBlock<Verdicts>;
/// A block of table `budget_windows`.
pub type BudgetWindowBlock = TableBlock<BudgetWindows>;

impl StageAddress {
    fn stage_name(&self) -> &'static str {
        match self.stage {
            Stage::Meter => "meter",
            Stage::Ledger => "ledger",
        }
    }
}

/// Table `finding_changes`: every state of every finding. View `findings` shows the last of each.
#[derive(Debug, Default)]
pub struct FindingChanges;

impl TableKind for FindingChanges {
    type Row<'a> = FindingRow<'a>;

    fn schema() -> &'static Schema {
        &FINDING_CHANGES
    }

    fn index(row: &FindingRow<'_>) -> Option<u32> {
        Some(row.address.index)
    }

    fn fill(&self, row: &FindingRow<'_>, _format: RowFormat, cursor: &mut RowCursor<'_>) {
        fill_finding(row, cursor);
    }
}

table! {
    FINDING_CHANGES = "finding_changes", 2, Address::Stage,
    fn fill_finding(row: &FindingRow<'_>) {
        let finding = row.finding;
        let state = match finding.state {
            FindingState::Open => "open",
            FindingState::Closed => "closed",
        };
        let events = finding.evidence.iter();
        let events = events.map(|event| (event.source.as_str(), event.id.as_str()));
    }
    workspace: text(&workspace_of(&finding.scope));
    scope: text(&finding.scope);
    detector: text(finding.detector.name());
    rule: text(&finding.rule);
    agent: text(&finding.agent);
    model: text(&finding.model);
    customer: text(&finding.customer);
    feature: text(&finding.feature);
    state: text(state);
    severity: text(finding.severity.name());
    opened_at: time(finding.opened_at);
    last_at: time(finding.last_at);
    measured: float(finding.measured);
    threshold: float(finding.threshold);
    wasted: money(finding.wasted_usd);
    evidence: text_pairs(events);
    message: text(&finding.message);
    stage: text(row.address.stage_name());
    stage_partition: count32(row.address.partition);
    stage_seq: count64(row.address.seq);
    stage_index: count32(row.address.index);
    epoch: count32(row.address.epoch);
}

/// Table `verdicts`: every published change of a scope's verdict.
#[derive(Debug, Default)]
pub struct Verdicts;

impl TableKind for Verdicts {
    type Row<'a> = VerdictRow<'a>;

    fn schema() -> &'static Schema {
        &VERDICTS
    }

    fn index(row: &VerdictRow<'_>) -> Option<u32> {
        Some(row.address.index)
    }

    fn fill(&self, row: &VerdictRow<'_>, _format: RowFormat, cursor: &mut RowCursor<'_>) {
        fill_verdict(row, cursor);
    }
}

table! {
    VERDICTS = "verdicts", 2, Address::Stage,
    fn fill_verdict(row: &VerdictRow<'_>) {
        let entry = row.entry;
        let filter = entry.filter.as_ref();
        // A stopped session has no limit.
        let nothing = Amount::Usd(Nanos::ZERO);
        let limit = entry.figures.limit.unwrap_or(nothing);
        let cause = entry.caused_by.as_ref();
    }
    decided_at: time(entry.decided_at);
    budget: text(&entry.budget);
    scope: text(&entry.scope);
    workspace: text(&workspace_of(&entry.scope));
    where: text(&filter.map_or_else(String::new, ToString::to_string));
    verdict: text(entry.verdict.name());
    action: text(&entry.action);
    unit: text(limit.unit().name());
    spent: amount(entry.figures.spent.unwrap_or(nothing));
    limit: amount(limit);
    percent: nullable_float(entry.percent.map(Percent::as_f64));
    window: text(&entry.window);
    window_start: time(entry.window_start);
    resets_at: nullable_time(entry.resets_at);
    expires_at: nullable_time(entry.expires_at);
    counted_from: time(entry.counted_from);
    downgrade_to: text(entry.downgrade_to.as_deref().unwrap_or_default());
    caused_by_source: text(cause.map_or("", |event| &event.source));
    caused_by_id: text(cause.map_or("", |event| &event.id));
    caused_by_time: nullable_time(cause.and_then(|event| event.time));
    version: count64(entry.version);
    stage: text(row.address.stage_name());
    stage_partition: count32(row.address.partition);
    stage_seq: count64(row.address.seq);
    stage_index: count32(row.address.index);
    epoch: count32(row.address.epoch);
}

/// Table `budget_windows`: spend of every budget's windows over time.
#[derive(Debug, Default)]
pub struct BudgetWindows;

impl TableKind for BudgetWindows {
    type Row<'a> = BudgetWindowRow<'a>;

    fn schema() -> &'static Schema {
        &BUDGET_WINDOWS
    }

    fn index(row: &BudgetWindowRow<'_>) -> Option<u32> {
        Some(row.address.index)
    }

    fn fill(&self, row: &BudgetWindowRow<'_>, _format: RowFormat, cursor: &mut RowCursor<'_>) {
        fill_window(row, cursor);
    }
}

table! {
    BUDGET_WINDOWS = "budget_windows", 2, Address::Stage,
    fn fill_window(row: &BudgetWindowRow<'_>) {
        let line = row.line;
        let (spend, limit) = (line.spend, line.limit);
        let percent = Percent::of(spend.counted(limit.unit()), limit);
    }
    at: time(line.at);
    kind: text(line.kind.name());
    budget: text(&line.budget);
    scope: text(&line.scope);
    workspace: text(&workspace_of(&line.scope));
    window: text(&line.window.label);
    window_start: time(line.window.start);
    window_end: nullable_time(line.window.end);
    spent: money(spend.cost);
    tokens: signed64(spend.tokens);
    calls: signed64(spend.calls);
    unit: text(limit.unit().name());
    limit: amount(limit);
    percent: nullable_float(percent.map(Percent::as_f64));
    // The writer partition's commit number, as in the blocklist.
    version: count64(row.address.seq);
    stage: text(row.address.stage_name());
    stage_partition: count32(row.address.partition);
    stage_seq: count64(row.address.seq);
    stage_index: count32(row.address.index);
    epoch: count32(row.address.epoch);
}
