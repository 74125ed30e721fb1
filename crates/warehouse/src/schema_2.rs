//! Schema 2: addresses with an epoch, signed entries, rollups with every dimension of budgets.
//!
//! ClickHouse cannot rename a column of a sorting key, so new rollups are filled beside the old ones
//! and take their names. Meanwhile the *gate* is closed: a constraint by which `spend` refuses rows,
//! with a code on which loaders of every version try again. Nothing is lost, and rows and rollups
//! stand still, so that both are filled exactly. Killed between any two statements, the migration is
//! run again and goes on; several programs may run it at the same time, because only one can give a
//! filled table its name.

use std::time::Duration;

use crate::client::{Warehouse, quoted};
use crate::error::WarehouseError;
use crate::migrations::statements;
use crate::query::cell;

const SPEND: &str = include_str!("../migrations/0006_spend.sql");
const LEDGER: &str = include_str!("../migrations/0006_ledger.sql");
const ROLLUPS: &str = include_str!("../migrations/0006_rollups.sql");
const SUMS: &str = include_str!("../migrations/0006_sums.sql");
const VIEWS: &str = include_str!("../migrations/0006_views.sql");

/// The migration's number.
pub(crate) const SCHEMA_2: u32 = 6;
const DOING: &str = "migration 0006_schema_2";
const GATE: &str = "migrating";
/// How often it is looked whether inserts have ended that were under way when the gate was closed.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A table of this name already exists: another program was faster.
const EXISTS: u32 = 57;

/// A rollup as it changes.
struct Rollup {
    name: &'static str,
    /// A column that only the new one has.
    new_column: &'static str,
    /// What is filled by itself: a month, or everything.
    month: &'static str,
    /// The same of a row of `spend`; empty where only the old rollup knows.
    month_of_spend: &'static str,
    /// Columns of the old one and their names in the new one.
    kept: &'static str,
    kept_as: &'static str,
    /// Sums that must be the same in both, and in `spend`.
    sums: &'static str,
    sums_of_spend: &'static str,
}

const KEPT_SUMS: &str = "entries, calls, input_tokens, cache_read_tokens, cache_write_5m_tokens, \
    cache_write_1h_tokens, audio_input_tokens, image_input_tokens, video_input_tokens, \
    output_tokens, reasoning_tokens, audio_output_tokens, image_output_tokens, tool_calls, cost, \
    cost_input, cost_cache_read, cost_cache_write, cost_output, cost_units, revenue";
const CHECKED: &str = "sum(entries), sum(calls), sum(input_tokens), sum(cache_read_tokens), \
    sum(cache_write_5m_tokens + cache_write_1h_tokens), \
    sum(audio_input_tokens + image_input_tokens + video_input_tokens), sum(output_tokens), \
    sum(reasoning_tokens), sum(audio_output_tokens + image_output_tokens), sum(tool_calls), \
    sum(cost), sum(cost_input), sum(cost_cache_read), sum(cost_cache_write), sum(cost_output), \
    sum(cost_units), sum(revenue)";
const CHECKED_IN_SPEND: &str = "count(), sum(calls), sum(input_tokens), sum(cache_read_tokens), \
    sum(cache_write_5m_tokens + cache_write_1h_tokens), \
    sum(audio_input_tokens + image_input_tokens + video_input_tokens), sum(output_tokens), \
    sum(reasoning_tokens), sum(audio_output_tokens + image_output_tokens), sum(tool_calls), \
    sum(cost), sum(cost_input), sum(cost_cache_read), sum(cost_cache_write), sum(cost_output), \
    sum(cost_units), sum(revenue)";

const CHANGED: [Rollup; 3] = [
    Rollup {
        name: "spend_hourly",
        new_column: "tags",
        month: "toYYYYMM(hour)",
        month_of_spend: "toYYYYMM(spend.time)",
        kept: "hour, kind, workspace, customer, feature, user, agent, plan, environment, account, \
               provider, model, priced",
        kept_as: "hour, kind, workspace, customer, feature, user_id, agent, plan, environment, \
                  account, provider, model, priced",
        sums: CHECKED,
        sums_of_spend: CHECKED_IN_SPEND,
    },
    Rollup {
        name: "spend_daily",
        new_column: "tags",
        month: "toYYYYMM(day)",
        month_of_spend: "toYYYYMM(spend.time)",
        kept: "day, kind, workspace, customer, feature, agent, plan, environment, account, \
               provider, model, priced",
        kept_as: "day, kind, workspace, customer, feature, agent, plan, environment, account, \
                  provider, model, priced",
        sums: CHECKED,
        sums_of_spend: CHECKED_IN_SPEND,
    },
    Rollup {
        name: "spend_audit",
        new_column: "epoch",
        month: "0",
        month_of_spend: "",
        kept: "meter_partition, seq_block, count, nanos",
        kept_as: "meter_partition, seq_block, count, nanos",
        sums: "sum(count), sum(nanos)",
        sums_of_spend: "",
    },
];

impl Warehouse {
    /// Brings schema 1 to schema 2, from wherever an earlier attempt ended.
    pub(crate) async fn migrate_to_schema_2(&self) -> Result<(), WarehouseError> {
        // What this user may not do is said before the gate is closed.
        self.sync_replica("spend").await?;
        self.close_gate().await?;
        if self.applied_migrations().await?.contains(&SCHEMA_2) {
            // Closed after another program had done everything: nobody else would open it.
            self.drop_old_views().await?;
            return self.open_gate().await;
        }
        self.wait_for_inserts().await?;
        self.drop_old_views().await?;
        self.sync_replica("spend").await?;
        if !self.has_column("spend", "user_id").await? {
            self.alter_all(SPEND).await?;
        }
        self.alter_all(LEDGER).await?;
        for rollup in &CHANGED {
            self.renew(rollup).await?;
        }
        self.alter_all(SUMS).await?;
        self.alter_all(VIEWS).await?;
        self.drop_unfinished().await?;
        self.open_gate().await
    }

    /// Both kinds of sums are those of views whose statements name columns that go.
    async fn drop_old_views(&self) -> Result<(), WarehouseError> {
        for rollup in &CHANGED {
            let drop = format!("DROP VIEW IF EXISTS {}_view SYNC", rollup.name);
            self.alter(&drop).await?;
        }
        Ok(())
    }

    async fn open_gate(&self) -> Result<(), WarehouseError> {
        let open = format!("ALTER TABLE spend DROP CONSTRAINT IF EXISTS {GATE}");
        self.alter(&open).await
    }

    /// Once the migration is recorded the gate is open, but for a program that closed it after that
    /// and died.
    pub(crate) async fn open_left_gate(&self) -> Result<(), WarehouseError> {
        let closed = format!(
            "SELECT count() FROM system.tables WHERE database = {} AND name = 'spend' \
             AND create_table_query LIKE '%CONSTRAINT {GATE} CHECK%'",
            quoted(&self.config().database)
        );
        if cell::<u64>(&self.query_table(&closed).await?, 0, 0)? > 0 {
            tracing::warn!("table spend refused rows after its migration; it takes them again");
            self.open_gate().await?;
        }
        Ok(())
    }

    /// What this replica has not fetched yet would be missing in copies and in sums alike.
    pub(crate) async fn sync_replica(&self, table: &str) -> Result<(), WarehouseError> {
        if self.config().replicated {
            self.alter(&format!("SYSTEM SYNC REPLICA {table}")).await?;
        }
        Ok(())
    }

    /// Old rollups go a day after the change: no program is in the middle of it any more.
    pub(crate) async fn drop_schema_1(&self) -> Result<(), WarehouseError> {
        let changed = "SELECT count() FROM migrations \
                       WHERE number = 6 AND applied_at < now() - INTERVAL 1 DAY";
        if cell::<u64>(&self.query_table(changed).await?, 0, 0)? > 0 {
            for rollup in &CHANGED {
                let drop = format!("DROP TABLE IF EXISTS {}_schema_1 SYNC", rollup.name);
                self.alter(&drop).await?;
            }
        }
        Ok(())
    }

    /// From here on `spend` refuses rows.
    async fn close_gate(&self) -> Result<(), WarehouseError> {
        let close = format!("ALTER TABLE spend ADD CONSTRAINT IF NOT EXISTS {GATE} CHECK 0");
        self.alter(&close).await
    }

    /// Until rows are in that were on the way when the gate was closed.
    async fn wait_for_inserts(&self) -> Result<(), WarehouseError> {
        let running = "SELECT count() FROM system.processes \
                       WHERE current_database = currentDatabase() \
                       AND query_kind = 'Insert' AND query LIKE 'INSERT INTO spend (%'";
        let longest = self.config().insert_timeout * 2 + Duration::from_secs(10);
        let looks = longest.as_millis() / LOOK_EVERY.as_millis();
        for _ in 0..looks {
            if cell::<u64>(&self.query_table(running).await?, 0, 0)? == 0 {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Err(WarehouseError::UnexpectedAnswer {
            doing: DOING.to_owned(),
            detail: format!("an insert into spend has been running for longer than {longest:?}"),
        })
    }

    /// Fills a new rollup beside the old one, and gives it the name.
    async fn renew(&self, rollup: &Rollup) -> Result<(), WarehouseError> {
        let (name, old) = (rollup.name, format!("{}_schema_1", rollup.name));
        if !self.has_column(name, "nanos").await? && !self.has_column(name, "entries").await? {
            // Killed between the two renames.
            self.alter(&format!("RENAME TABLE {old} TO {name}")).await?;
        }
        if self.has_column(name, rollup.new_column).await? {
            return Ok(());
        }
        self.sync_replica(name).await?;
        let filling = self.create_beside(name).await?;
        for month in self.months(rollup).await? {
            self.fill(rollup, &filling, &month).await?;
        }
        let everything = |table: &str| format!("SELECT {} FROM {table}", rollup.sums);
        let (before, after) = (everything(name), everything(&filling));
        let (before, after) = (
            self.query_at_length(&before).await?.rows,
            self.query_at_length(&after).await?.rows,
        );
        if before != after {
            if self.has_column(name, rollup.new_column).await? {
                // It was another program's, which has taken rows since.
                return Ok(());
            }
            return Err(WarehouseError::UnexpectedAnswer {
                doing: DOING.to_owned(),
                detail: format!(
                    "the new {name} differs from the old one: {after:?} for {before:?}"
                ),
            });
        }
        match self.swap(name, &old, &filling).await {
            // The other program's has the same content.
            Err(error)
                if error.is_one_of(&[EXISTS])
                    && self.has_column(name, rollup.new_column).await? =>
            {
                Ok(())
            }
            outcome => outcome,
        }
    }

    async fn swap(&self, name: &str, old: &str, filling: &str) -> Result<(), WarehouseError> {
        let (away, here) = (format!("{name} TO {old}"), format!("{filling} TO {name}"));
        if !self.config().replicated {
            let both = format!("RENAME TABLE {away}, {here}");
            return self.alter(&both).await;
        }
        // A database whose engine is Replicated takes one table in a statement.
        self.alter(&format!("RENAME TABLE {away}")).await?;
        self.alter(&format!("RENAME TABLE {here}")).await
    }

    /// An empty table in the new form; its name is like no other program's.
    async fn create_beside(&self, rollup: &str) -> Result<String, WarehouseError> {
        let random = self.query_table("SELECT hex(rand64())").await?;
        let suffix: String = cell(&random, 0, 0)?;
        let filling = format!("{rollup}_filling_{suffix}");
        let braces = format!("{{{rollup}}}");
        for statement in statements(ROLLUPS).filter(|text| text.contains(&braces)) {
            self.alter(&self.substituted(&statement.replace(&braces, &filling)))
                .await?;
        }
        Ok(filling)
    }

    /// What the old rollup has to be filled by.
    async fn months(&self, rollup: &Rollup) -> Result<Vec<String>, WarehouseError> {
        let months = format!(
            "SELECT DISTINCT {} AS month FROM {} ORDER BY month",
            rollup.month, rollup.name
        );
        let found = self.query_at_length(&months).await?;
        Ok(found.rows.into_iter().flatten().collect())
    }

    /// Rows know more dimensions than the old rollup, but they are not kept as long.
    async fn fill(
        &self,
        rollup: &Rollup,
        filling: &str,
        month: &str,
    ) -> Result<(), WarehouseError> {
        let (name, sums) = (rollup.name, rollup.sums);
        let of_month = format!("{} = {month}", rollup.month);
        let settings = "SETTINGS async_insert = 0, insert_deduplicate = 0, \
                        max_partitions_per_insert_block = 0, \
                        max_bytes_before_external_group_by = 1000000000";
        if !rollup.month_of_spend.is_empty() {
            let spend = format!("{} = {month}", rollup.month_of_spend);
            let in_rollup = format!("SELECT {sums} FROM {name} WHERE {of_month}");
            let in_spend = format!("SELECT {} FROM spend WHERE {spend}", rollup.sums_of_spend);
            let (in_rollup, in_spend) = (
                self.query_at_length(&in_rollup).await?.rows,
                self.query_at_length(&in_spend).await?.rows,
            );
            if in_rollup == in_spend {
                let select = sums_of(name, &format!("FROM spend WHERE {spend}\n"));
                return self
                    .alter(&format!("INSERT INTO {filling} {settings} {select}"))
                    .await;
            }
            tracing::warn!(
                rollup = name,
                month,
                "rows of a month differ from its sums, which are kept, without tags"
            );
        }
        let (kept, kept_as) = (rollup.kept, rollup.kept_as);
        let (and_sums, and) = match rollup.month_of_spend {
            "" => ("", ""),
            _ => (KEPT_SUMS, ", "),
        };
        self.alter(&format!(
            "INSERT INTO {filling} ({kept_as}{and}{and_sums}) {settings} \
             SELECT {kept}{and}{and_sums} FROM {name} WHERE {of_month}"
        ))
        .await
    }

    /// Tables that killed attempts left.
    async fn drop_unfinished(&self) -> Result<(), WarehouseError> {
        let database = quoted(&self.config().database);
        let found = self
            .query_table(&format!(
                "SELECT name FROM system.tables WHERE database = {database} \
                 AND match(name, '^spend_(hourly|daily|audit)_filling_')"
            ))
            .await?;
        for name in found.rows.iter().flatten() {
            self.alter(&format!("DROP TABLE IF EXISTS {name} SYNC"))
                .await?;
        }
        Ok(())
    }

    async fn alter_all(&self, sql: &str) -> Result<(), WarehouseError> {
        for statement in statements(sql) {
            self.alter(&self.substituted(statement)).await?;
        }
        Ok(())
    }

    async fn alter(&self, statement: &str) -> Result<(), WarehouseError> {
        self.execute_at_length(statement, DOING).await
    }

    pub(crate) async fn has_column(
        &self,
        table: &str,
        column: &str,
    ) -> Result<bool, WarehouseError> {
        let found = self
            .query_table(&format!(
                "SELECT count() FROM system.columns WHERE database = {} AND table = {} AND name = {}",
                quoted(&self.config().database),
                quoted(table),
                quoted(column)
            ))
            .await?;
        Ok(cell::<u64>(&found, 0, 0)? > 0)
    }
}

/// The statement of the view that keeps the sums of `rollup`, over other rows.
fn sums_of(rollup: &str, from: &str) -> String {
    let heading = format!("VIEW IF NOT EXISTS {rollup}_sums TO {rollup} AS\n");
    let select = SUMS.split_once(&heading).map_or("", |(_, select)| select);
    let select = select.split(";\n").next().unwrap_or_default();
    select.replace("FROM spend\n", from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rollup_has_a_table_and_a_view() {
        for rollup in &CHANGED {
            assert!(ROLLUPS.contains(&format!("CREATE TABLE IF NOT EXISTS {{{}}}", rollup.name)));
            let select = sums_of(rollup.name, "FROM elsewhere\n");
            assert!(select.starts_with("SELECT") && select.contains("FROM elsewhere\nGROUP BY"));
        }
    }
}
