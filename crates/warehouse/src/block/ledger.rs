//! Blocks of the tables `finding_changes`, `verdicts` and `budget_windows`.

use std::marker::PhantomData;

use spendfuse_domain::budget::Spend;
use spendfuse_domain::finding::{Finding, FindingState};
use spendfuse_domain::scope::workspace_of;
use spendfuse_domain::verdict::{BlocklistEntry, Stage};
use spendfuse_domain::{Amount, Nanos, Percent, UnixMillis, Window};

use super::columns::{Columns, RowCursor};
use super::schema::{BUDGET_WINDOWS, FINDING_CHANGES, Schema, VERDICTS};
use crate::record::{IndexRange, Link, RowBlock};

/// Which output of which stage a row is: what a loader checks its completeness by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageAddress {
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

/// What a line of `budget_windows` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BudgetWindowKind {
    /// The window's spend at this time; a later line supersedes it.
    Spent,
    /// The window's final sum.
    Close,
    /// Spend that came after the final sum, to be added to it.
    Late,
}

impl BudgetWindowKind {
    /// The value of column `kind`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Spent => "spent",
            Self::Close => "close",
            Self::Late => "late",
        }
    }
}

/// A window's spend at some time.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct BudgetWindowRow<'a> {
    pub kind: BudgetWindowKind,
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
    fn write(row: &Self::Row<'_>, columns: &mut RowCursor<'_>);
}

/// Rows of one table and commit as a Native block in the making; buffers are kept between blocks.
#[derive(Debug)]
pub struct TableBlock<K> {
    columns: Columns,
    indexes: Option<IndexRange>,
    kind: PhantomData<K>,
}

/// A block of table `finding_changes`.
pub type FindingBlock = TableBlock<FindingChanges>;
/// A block of table `verdicts`.
pub type VerdictBlock = TableBlock<Verdicts>;
/// A block of table `budget_windows`.
pub type BudgetWindowBlock = TableBlock<BudgetWindows>;

impl<K: TableKind> Default for TableBlock<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: TableKind> TableBlock<K> {
    /// An empty block.
    pub fn new() -> Self {
        Self {
            columns: Columns::new(K::schema()),
            indexes: None,
            kind: PhantomData,
        }
    }

    /// Adds a row.
    pub fn push(&mut self, row: &K::Row<'_>) {
        let address = K::address(row);
        IndexRange::extend(&mut self.indexes, address.index);
        let mut columns = self.columns.row();
        K::write(row, &mut columns);
        columns.text(address.stage_name());
        columns.count32(address.partition);
        columns.count64(address.seq);
        columns.count32(address.index);
        columns.finish();
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
        Some(RowBlock::write(&mut self.columns, link, indexes))
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

    fn write(row: &FindingRow<'_>, columns: &mut RowCursor<'_>) {
        let finding = row.finding;
        columns.text(&workspace_of(&finding.scope));
        columns.text(&finding.scope);
        columns.text(finding.detector.name());
        columns.text(&finding.rule);
        columns.text(&finding.agent);
        columns.text(&finding.model);
        columns.text(&finding.customer);
        columns.text(&finding.feature);
        columns.text(match finding.state {
            FindingState::Open => "open",
            FindingState::Closed => "closed",
        });
        columns.text(finding.severity.name());
        columns.time(finding.opened_at);
        columns.time(finding.last_at);
        columns.float(finding.measured);
        columns.float(finding.threshold);
        columns.money(finding.wasted_usd);
        let evidence = finding.evidence.iter();
        columns.text_pairs(evidence.map(|event| (event.source.as_str(), event.id.as_str())));
        columns.text(&finding.message);
    }
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

    fn write(row: &VerdictRow<'_>, columns: &mut RowCursor<'_>) {
        let entry = row.entry;
        let figures = entry.figures;
        columns.time(entry.decided_at);
        columns.text(&entry.budget);
        columns.text(&entry.scope);
        columns.text(&workspace_of(&entry.scope));
        columns.text(
            &entry
                .filter
                .as_ref()
                .map_or_else(String::new, ToString::to_string),
        );
        columns.text(entry.verdict.name());
        columns.text(&entry.action);
        // A stopped session has no limit.
        let nothing = Amount::Usd(Nanos::ZERO);
        let limit = figures.limit.unwrap_or(nothing);
        columns.text(limit.unit().name());
        columns.amount(figures.spent.unwrap_or(nothing));
        columns.amount(limit);
        columns.nullable_float(entry.percent.map(Percent::as_f64));
        columns.text(&entry.window);
        columns.time(entry.window_start);
        columns.nullable_time(entry.resets_at);
        columns.nullable_time(entry.expires_at);
        columns.time(entry.counted_from);
        columns.text(entry.downgrade_to.as_deref().unwrap_or_default());
        let cause = entry.caused_by.as_ref();
        columns.text(cause.map_or("", |event| &event.source));
        columns.text(cause.map_or("", |event| &event.id));
        columns.nullable_time(cause.and_then(|event| event.time));
        columns.count64(entry.version);
    }
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

    fn write(row: &BudgetWindowRow<'_>, columns: &mut RowCursor<'_>) {
        columns.time(row.at);
        columns.text(row.kind.name());
        columns.text(row.budget);
        columns.text(row.scope);
        columns.text(&workspace_of(row.scope));
        columns.text(&row.window.label);
        columns.time(row.window.start);
        columns.nullable_time(row.window.end);
        columns.money(row.spend.cost);
        columns.count64(row.spend.tokens);
        columns.count64(row.spend.calls);
        columns.text(row.limit.unit().name());
        columns.amount(row.limit);
        let spent = row.spend.counted(row.limit.unit());
        columns.nullable_float(Percent::of(spent, row.limit).map(Percent::as_f64));
        columns.count64(row.version);
    }
}
