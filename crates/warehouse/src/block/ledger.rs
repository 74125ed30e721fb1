//! Blocks of the tables `finding_changes`, `verdicts` and `budget_windows`.

use std::marker::PhantomData;

use spendfuse_domain::budget::Spend;
use spendfuse_domain::finding::{Finding, FindingState};
use spendfuse_domain::scope::workspace_of;
use spendfuse_domain::verdict::{BlocklistEntry, Stage};
use spendfuse_domain::window::WindowLineKind;
use spendfuse_domain::{Amount, Nanos, Percent, UnixMillis, Window};

use super::columns::{Columns, RowCursor};
use super::format::RowFormat;
use super::schema::{Address, Schema, table};
use crate::record::{IndexRange, Link, RowBlock};

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
    pub kind: WindowLineKind,
    pub at: UnixMillis,
    pub budget: &'a str,
    pub scope: &'a str,
    pub window: &'a Window,
    pub spend: Spend,
    pub limit: Amount,
    /// The writer partition's commit number, as in the blocklist.
    pub version: u64,
    pub address: StageAddress,
}

/// One of the tables below and how its rows are written.
pub trait TableKind {
    /// What is pushed.
    type Row<'a>;
    #[doc(hidden)]
    fn schema() -> &'static Schema;
    #[doc(hidden)]
    fn address(row: &Self::Row<'_>) -> StageAddress;
    #[doc(hidden)]
    fn fill(row: &Self::Row<'_>, cursor: &mut RowCursor<'_>);
}

/// Rows of one table and commit as a Native block in the making; buffers are kept between blocks.
#[derive(Debug)]
pub struct TableBlock<K> {
    columns: Columns,
    format: RowFormat,
    indexes: Option<IndexRange>,
    kind: PhantomData<K>,
}

/// A block of table `finding_changes`.
pub type FindingBlock = TableBlock<FindingChanges>;
/// A block of table `verdicts`.
pub type VerdictBlock = TableBlock<Verdicts>;
/// A block of table `budget_windows`.
pub type BudgetWindowBlock = TableBlock<BudgetWindows>;

impl<K: TableKind> TableBlock<K> {
    /// An empty block.
    pub fn new(format: RowFormat) -> Self {
        let table = K::schema().table;
        Self {
            columns: Columns::new(Schema::written(table, format)),
            format,
            indexes: None,
            kind: PhantomData,
        }
    }

    /// Adds a row.
    pub fn push(&mut self, row: &K::Row<'_>) {
        let address = K::address(row);
        IndexRange::extend(&mut self.indexes, address.index);
        let mut cursor = self.columns.row();
        K::fill(row, &mut cursor);
        cursor.finish();
    }

    /// Rows so far.
    pub fn rows(&self) -> usize {
        self.columns.rows()
    }

    /// About how many bytes the block takes by now.
    pub fn bytes_estimate(&self) -> usize {
        self.columns.bytes_estimate()
    }

    /// The rows so far as the value of a record of a rows topic, and an empty block again; `None`
    /// where there are no rows.
    pub fn finish_record(&mut self, link: Link) -> Option<Vec<u8>> {
        let indexes = self.indexes.take()?;
        Some(RowBlock::write(
            &mut self.columns,
            self.format,
            link,
            indexes,
        ))
    }
}

impl StageAddress {
    fn stage_name(&self) -> &'static str {
        match self.stage {
            Stage::Meter => "meter",
            Stage::Ledger => "ledger",
        }
    }
}

/// Table `finding_changes`: every state of every finding. View `findings` shows the last of each.
#[derive(Debug)]
pub struct FindingChanges;

impl TableKind for FindingChanges {
    type Row<'a> = FindingRow<'a>;

    fn schema() -> &'static Schema {
        &FINDING_CHANGES
    }

    fn address(row: &FindingRow<'_>) -> StageAddress {
        row.address
    }

    fn fill(row: &FindingRow<'_>, cursor: &mut RowCursor<'_>) {
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
#[derive(Debug)]
pub struct Verdicts;

impl TableKind for Verdicts {
    type Row<'a> = VerdictRow<'a>;

    fn schema() -> &'static Schema {
        &VERDICTS
    }

    fn address(row: &VerdictRow<'_>) -> StageAddress {
        row.address
    }

    fn fill(row: &VerdictRow<'_>, cursor: &mut RowCursor<'_>) {
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
#[derive(Debug)]
pub struct BudgetWindows;

impl TableKind for BudgetWindows {
    type Row<'a> = BudgetWindowRow<'a>;

    fn schema() -> &'static Schema {
        &BUDGET_WINDOWS
    }

    fn address(row: &BudgetWindowRow<'_>) -> StageAddress {
        row.address
    }

    fn fill(row: &BudgetWindowRow<'_>, cursor: &mut RowCursor<'_>) {
        fill_window(row, cursor);
    }
}

table! {
    BUDGET_WINDOWS = "budget_windows", 2, Address::Stage,
    fn fill_window(row: &BudgetWindowRow<'_>) {
        let limit = row.limit;
        let percent = Percent::of(row.spend.counted(limit.unit()), limit);
    }
    at: time(row.at);
    kind: text(row.kind.name());
    budget: text(row.budget);
    scope: text(row.scope);
    workspace: text(&workspace_of(row.scope));
    window: text(&row.window.label);
    window_start: time(row.window.start);
    window_end: nullable_time(row.window.end);
    spent: money(row.spend.cost);
    tokens: signed64(i64::try_from(row.spend.tokens).unwrap_or(i64::MAX));
    calls: signed64(i64::try_from(row.spend.calls).unwrap_or(i64::MAX));
    unit: text(limit.unit().name());
    limit: amount(limit);
    percent: nullable_float(percent.map(Percent::as_f64));
    version: count64(row.version);
    stage: text(row.address.stage_name());
    stage_partition: count32(row.address.partition);
    stage_seq: count64(row.address.seq);
    stage_index: count32(row.address.index);
    epoch: count32(row.address.epoch);
}
