//! What rows of `spend` count in a budget or a series, as conditions in SQL, and what they count.

use spendfuse_domain::budget::Budget;
use spendfuse_domain::scope::{Dimension, Filter, FixedDimension, Pattern};
use spendfuse_domain::{TokenClass, UnixMillis};

use crate::client::quoted;

/// All tokens of a row.
pub fn tokens() -> String {
    format!("({})", TokenClass::ALL.map(TokenClass::column).join(" + "))
}

/// The time of a row, milliseconds since 1970.
pub const MILLIS: &str = "toUnixTimestamp64Milli(time)";

/// The cost of a row, nano-dollars.
pub const NANOS: &str = "toInt128(cost * 1000000000)";

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

/// The condition that the values of these dimensions are in slice `slice` of `slices`.
pub fn in_slice(dimensions: &[Dimension], (slice, slices): (u64, u64)) -> String {
    match slices {
        1 => "1".to_owned(),
        _ => {
            let columns = listed(dimensions.iter().map(column));
            format!("cityHash64({columns}) % {slices} = {slice}")
        }
    }
}

/// Where the window begins that holds a time of `millis`; `starts` ascend, milliseconds since 1970.
pub fn window_start(millis: &str, starts: &[i64]) -> String {
    format!("roundDown({millis}, [{}])", listed(starts))
}

/// Each, with commas between.
pub fn listed(all: impl IntoIterator<Item: ToString>) -> String {
    let texts: Vec<String> = all.into_iter().map(|one| one.to_string()).collect();
    texts.join(", ")
}

/// The condition that all of `conditions` hold.
pub fn all_of(conditions: &[String]) -> String {
    match conditions {
        [] => "1".to_owned(),
        some => some.join(" AND "),
    }
}

fn filter_conditions(filter: &Filter) -> impl Iterator<Item = String> {
    filter.0.iter().map(|(dimension, values)| {
        let values = listed(values.iter().map(|value| quoted(value)));
        format!("{} IN ({values})", column(dimension))
    })
}
