//! What every table and column is, as people see it who look at the database itself.
//!
//! A column of one name means the same in every table; where it does not, the table is named.

mod columns;

use crate::client::{Warehouse, quoted};
use crate::error::WarehouseError;
use columns::COLUMNS;

/// Tables and views.
const TABLES: &[(&str, &str)] = &[
    (
        "spend",
        "one row for each counted entry; money in US dollars, times in UTC",
    ),
    ("epochs", "which topics each epoch has"),
    (
        "spend_hourly",
        "sums of spend by hour; rows of one key may be several: always sum and group",
    ),
    (
        "spend_daily",
        "sums of spend by UTC day; rows of one key may be several: always sum and group",
    ),
    (
        "spend_audit",
        "rows and nano-dollars of a meter partition by blocks of 1,000 commits",
    ),
    ("spend_hourly_sums", "feeds spend_hourly"),
    ("spend_daily_sums", "feeds spend_daily"),
    ("spend_audit_sums", "feeds spend_audit"),
    (
        "spend_hourly_schema_1",
        "spend_hourly as schema 1 had it; goes a day after the change",
    ),
    (
        "spend_daily_schema_1",
        "spend_daily as schema 1 had it; goes a day after the change",
    ),
    (
        "spend_audit_schema_1",
        "spend_audit as schema 1 had it; goes a day after the change",
    ),
    ("finding_changes", "one row for each state of each finding"),
    (
        "verdicts",
        "one row for each published change of a scope's verdict",
    ),
    (
        "budget_windows",
        "one row for each published state of a budget's window",
    ),
    (
        "prices",
        "one row for each rate line of each price book version",
    ),
    (
        "gaps",
        "one row for each loss that somebody accepted with spendfuse gaps accept",
    ),
    ("migrations", "which changes of the schema were made"),
    ("calls", "spend without revenue and corrections"),
    ("findings", "the last state of every finding"),
    (
        "spend_by_customer_daily",
        "calls, tokens, cost and revenue a customer and day",
    ),
    (
        "margin_by_customer",
        "revenue, cost and margin of each customer",
    ),
    (
        "margin_by_month",
        "revenue, cost and margin a month and customer",
    ),
    ("top_sessions", "sessions by cost, the dearest first"),
    (
        "unpriced_models",
        "models without a price, and what was charged for them",
    ),
    ("revenue_events", "what customers paid"),
    (
        "cache_savings",
        "what prompt caches saved, a day, workspace and model",
    ),
    (
        "chargeback_by_tag",
        "calls and cost a month and value of a tag; choose one tag",
    ),
    (
        "session_percentiles",
        "what sessions of a feature cost in a month",
    ),
];

impl Warehouse {
    /// Writes the comments that are missing or say something else.
    pub(crate) async fn comment(&self) -> Result<(), WarehouseError> {
        let database = quoted(&self.config().database);
        let tables = self
            .query_table(&format!(
                "SELECT name, comment FROM system.tables WHERE database = {database}"
            ))
            .await?;
        let columns = self
            .query_table(&format!(
                "SELECT table, name, comment FROM system.columns WHERE database = {database}"
            ))
            .await?;
        for row in &tables.rows {
            let (name, found) = (&row[0], &row[1]);
            let Some((_, wanted)) = TABLES.iter().find(|(table, _)| table == name) else {
                continue;
            };
            let of_table = columns.rows.iter().filter(|row| row[0] == *name);
            let mut changes: Vec<String> = of_table
                .filter_map(|row| changed_comment(name, &row[1], &row[2]))
                .collect();
            if found != wanted {
                changes.push(format!("MODIFY COMMENT {}", quoted(wanted)));
            }
            if !changes.is_empty() {
                let alter = format!("ALTER TABLE {name} {}", changes.join(", "));
                self.execute(&alter, "writing comments").await?;
            }
        }
        Ok(())
    }
}

fn changed_comment(table: &str, column: &str, found: &str) -> Option<String> {
    let own = format!("{table}.{column}");
    let named = |name: &str| COLUMNS.iter().find(|(column, _)| *column == name);
    let (_, wanted) = named(&own).or_else(|| named(column))?;
    (found != *wanted).then(|| format!("COMMENT COLUMN `{column}` {}", quoted(wanted)))
}
