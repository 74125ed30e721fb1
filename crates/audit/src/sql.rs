//! Pieces of the audit's questions to ClickHouse, and the reading of answers.

use std::str::FromStr;

use spendfuse_domain::budget::{Budget, Spend};
use spendfuse_domain::scope::{Dimension, Filter, FixedDimension, Pattern};
use spendfuse_domain::{Nanos, TokenClass, UnixMillis};
use spendfuse_engine::audit::Tally;
use spendfuse_warehouse::client::quoted;

use crate::error::AuditError;

/// All tokens of a row.
pub fn tokens() -> String {
    format!("({})", TokenClass::ALL.map(TokenClass::column).join(" + "))
}

/// The cost of a row, nano-dollars.
pub const NANOS: &str = "toInt128(cost * 1000000000)";

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

/// The condition that one of `conditions` holds.
pub fn any_of(conditions: &[String]) -> String {
    match conditions {
        [] => "0".to_owned(),
        some => format!("({})", some.join(" OR ")),
    }
}

/// A time as an SQL literal.
pub fn time(time: UnixMillis) -> String {
    format!("fromUnixTimestamp64Milli(toInt64({}), 'UTC')", time.0)
}

/// The column of a dimension.
pub fn column(dimension: &Dimension) -> String {
    match dimension.fixed().map(FixedDimension::column) {
        Ok(column) => format!("`{column}`"),
        Err(tag) => format!("tags[{}]", quoted(tag)),
    }
}

/// Whether rows have every dimension that a budget counts by, those of schema 1 included.
pub fn rows_always_tell(budget: &Budget) -> bool {
    let in_scope = budget.scope.0.iter().map(|(dimension, _)| dimension);
    let in_filter = budget.filter.0.iter().map(|(dimension, _)| dimension);
    let lacks = |dimension: &Dimension| dimension.fixed() == Ok(FixedDimension::Project);
    !in_scope.chain(in_filter).any(lacks)
}

/// The condition that a row counts in a budget.
pub fn counts_in(budget: &Budget) -> String {
    let parts = budget.scope.0.iter();
    let mut conditions: Vec<String> = parts
        .map(|(dimension, pattern)| match pattern {
            Pattern::Each => format!("{} != ''", column(dimension)),
            Pattern::Exactly(value) => format!("{} = {}", column(dimension), quoted(value)),
        })
        .collect();
    conditions.extend(filter_conditions(&budget.filter));
    all_of(&conditions)
}

/// The condition that a row belongs to a series: a shape and a filter.
pub fn counts_in_series(shape: &[Dimension], filter: &Filter) -> String {
    let present = |dimension: &Dimension| format!("{} != ''", column(dimension));
    let mut conditions: Vec<String> = shape.iter().map(present).collect();
    conditions.extend(filter_conditions(filter));
    all_of(&conditions)
}

fn filter_conditions(filter: &Filter) -> impl Iterator<Item = String> {
    filter.0.iter().map(|(dimension, values)| {
        let values: Vec<String> = values.iter().map(|value| quoted(value)).collect();
        format!("{} IN ({})", column(dimension), values.join(", "))
    })
}

fn all_of(conditions: &[String]) -> String {
    match conditions {
        [] => "1".to_owned(),
        some => some.join(" AND "),
    }
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
