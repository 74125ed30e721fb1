//! Pieces of the audit's questions to ClickHouse, and the reading of answers.

use std::str::FromStr;

use spendfuse_domain::Nanos;
use spendfuse_domain::budget::{Budget, Spend};
use spendfuse_domain::scope::{Dimension, FixedDimension};
use spendfuse_engine::audit::Tally;
pub use spendfuse_warehouse::conditions::{
    MILLIS, NANOS, column, counts_in, counts_in_series, in_slice, listed, time, tokens,
    window_start,
};

use crate::error::AuditError;

/// Commits `from..=to` of a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeqRange {
    /// The first commit.
    pub from: u64,
    /// The last one; below `from` where there is none.
    pub to: u64,
}

impl SeqRange {
    /// Whether a commit lies in it.
    pub fn contains(&self, seq: u64) -> bool {
        (self.from..=self.to).contains(&seq)
    }
}

/// The condition that a row's commit lies in one of `ranges` of an epoch, which stand for partitions
/// 0, 1, ….
pub fn in_ranges(epoch: u32, partition: &str, seq: &str, ranges: &[SeqRange]) -> String {
    let ranges = ranges.iter().enumerate();
    let conditions: Vec<String> = ranges
        .filter(|(_, range)| range.from <= range.to)
        .map(|(number, range)| {
            format!(
                "({partition} = {number} AND {seq} BETWEEN {} AND {})",
                range.from, range.to
            )
        })
        .collect();
    format!("(epoch = {epoch} AND {})", any_of(&conditions))
}

/// A dimension as a column of an answer that others follow.
pub fn selected(dimension: &Dimension) -> String {
    format!("{}, ", column(dimension))
}

/// That one of `all` which stands for the row's meter partition.
pub fn of_partition(all: &[u64]) -> String {
    format!("[{}][meter_partition + 1]", listed(all))
}

/// The condition that one of `conditions` holds.
pub fn any_of(conditions: &[String]) -> String {
    match conditions {
        [] => "0".to_owned(),
        some => format!("({})", some.join(" OR ")),
    }
}

/// Whether rows have every dimension that a budget counts by, those of schema 1 included.
pub fn rows_always_tell(budget: &Budget) -> bool {
    let in_scope = budget.scope.0.iter().map(|(dimension, _)| dimension);
    let in_filter = budget.filter.0.iter().map(|(dimension, _)| dimension);
    let lacks = |dimension: &Dimension| dimension.fixed() == Ok(FixedDimension::Project);
    !in_scope.chain(in_filter).any(lacks)
}

/// A cell of an answer.
pub fn cell<T: FromStr>(row: &[String], column: usize) -> Result<T, AuditError> {
    let found = row.get(column);
    found
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| AuditError::NotANumber {
            found: found.cloned(),
            column,
        })
}

/// An amount in nano-dollars.
pub fn nanos(row: &[String], column: usize) -> Result<Nanos, AuditError> {
    cell(row, column).map(Nanos::new)
}

/// A count and an amount, in two columns.
pub fn tally(row: &[String], column: usize) -> Result<Tally, AuditError> {
    Ok(Tally::new(cell(row, column)?, nanos(row, column + 1)?))
}

/// An amount, tokens and calls, in three columns.
pub fn spend(row: &[String], column: usize) -> Result<Spend, AuditError> {
    Ok(Spend {
        cost: nanos(row, column)?,
        tokens: cell(row, column + 1)?,
        calls: cell(row, column + 2)?,
    })
}
