//! Migrations: numbered, forward only, each applied once.
//!
//! Every statement is idempotent (`IF NOT EXISTS`), so that a crash in the middle, or two programs
//! that start at the same time, do no harm.

use std::time::Duration;

use crate::broken;
use crate::client::{Warehouse, quoted};
use crate::error::WarehouseError;
use crate::query::cell;
use crate::schema_2::SCHEMA_2;

/// Inserts that every table and view target remembers by token.
pub const DEDUPLICATION_WINDOW: u64 = 100_000;
/// For how long replicated tables remember them, seconds.
pub const DEDUPLICATION_SECONDS: u64 = 7 * 24 * 3600;

/// What ClickHouse says to the slower of two programs that change the same: a column is there already,
/// cannot be renamed any more or is unknown; a table is there already, is not there any more, is being
/// dropped, or was replaced by another (`CREATE OR REPLACE` is a rename).
const OVERTAKEN: [u32; 7] = [15, 44, 47, 57, 60, 218, 517];
/// How often something is tried that another program may be doing.
const ATTEMPTS: u32 = 30;
/// After how long.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

struct Migration {
    number: u32,
    name: &'static str,
    change: Change,
}

/// What a migration does.
enum Change {
    /// Its statements, one after another.
    Statements(&'static str),
    /// See [`schema_2`](crate::schema_2).
    Schema2,
}

const MIGRATIONS: [Migration; 10] = [
    Migration {
        number: 1,
        name: "spend",
        change: Change::Statements(include_str!("../migrations/0001_spend.sql")),
    },
    Migration {
        number: 2,
        name: "ledger",
        change: Change::Statements(include_str!("../migrations/0002_ledger.sql")),
    },
    Migration {
        number: 3,
        name: "views",
        change: Change::Statements(include_str!("../migrations/0003_views.sql")),
    },
    Migration {
        number: 4,
        name: "analysts",
        change: Change::Statements(include_str!("../migrations/0004_analysts.sql")),
    },
    Migration {
        number: 5,
        name: "gaps",
        change: Change::Statements(include_str!("../migrations/0005_gaps.sql")),
    },
    Migration {
        number: SCHEMA_2,
        name: "schema_2",
        change: Change::Schema2,
    },
    Migration {
        number: 7,
        name: "durable",
        change: Change::Statements(include_str!("../migrations/0007_durable.sql")),
    },
    Migration {
        number: 8,
        name: "corrected_findings",
        change: Change::Statements(include_str!("../migrations/0008_corrected_findings.sql")),
    },
    Migration {
        number: 9,
        name: "corrected_sessions",
        change: Change::Statements(include_str!("../migrations/0009_corrected_sessions.sql")),
    },
    Migration {
        number: 10,
        name: "amended_sessions",
        change: Change::Statements(include_str!("../migrations/0010_amended_sessions.sql")),
    },
];

/// Tables that inserts and views write to with tokens.
const DEDUPLICATED: [&str; 7] = [
    "spend",
    "spend_hourly",
    "spend_daily",
    "spend_audit",
    "finding_changes",
    "verdicts",
    "budget_windows",
];

impl Warehouse {
    /// Brings the database to the newest schema; returns the numbers of the migrations applied.
    ///
    /// # Errors
    /// [`WarehouseError::SchemaTooNew`], or what ClickHouse says.
    pub async fn migrate(&self) -> Result<Vec<u32>, WarehouseError> {
        let mut done = Vec::new();
        let mut attempt = 1;
        while let Err(error) = self.try_to_migrate(&mut done).await {
            if !error.is_one_of(&OVERTAKEN) || attempt == ATTEMPTS {
                return Err(error);
            }
            tracing::debug!(attempt, %error, "another program migrates");
            tokio::time::sleep(AGAIN_AFTER).await;
            attempt += 1;
        }
        Ok(done)
    }

    async fn try_to_migrate(&self, done: &mut Vec<u32>) -> Result<(), WarehouseError> {
        let database = &self.config().database;
        self.execute_without_database(
            &format!("CREATE DATABASE IF NOT EXISTS `{database}`"),
            "creating the database",
        )
        .await?;
        let engine = self.engine_prefix();
        self.execute(
            &format!(
                "CREATE TABLE IF NOT EXISTS migrations \
                 (number UInt32, name String, applied_at DateTime('UTC') DEFAULT now()) \
                 ENGINE = {engine}ReplacingMergeTree ORDER BY number"
            ),
            "creating table migrations",
        )
        .await?;
        let mut applied = self.applied_migrations().await?;
        let known = MIGRATIONS[MIGRATIONS.len() - 1].number;
        if let Some(&found) = applied.iter().max().filter(|found| **found > known) {
            return Err(WarehouseError::SchemaTooNew {
                database: database.clone(),
                found,
                known,
            });
        }
        if applied.contains(&SCHEMA_2) {
            self.open_left_gate().await?;
        }
        for migration in &MIGRATIONS {
            if !applied.contains(&migration.number) {
                self.apply(migration).await?;
                done.push(migration.number);
                applied = self.applied_migrations().await?;
            }
        }
        self.drop_schema_1().await?;
        self.apply_retention().await?;
        self.comment().await?;
        self.create_reader(!done.is_empty()).await
    }

    pub(crate) async fn applied_migrations(&self) -> Result<Vec<u32>, WarehouseError> {
        let table = self
            .query_table("SELECT DISTINCT number FROM migrations")
            .await?;
        // A number that cannot be read is no migration that may be applied again.
        (0..table.rows.len())
            .map(|row| cell(&table, row, 0))
            .collect()
    }

    async fn apply(&self, migration: &Migration) -> Result<(), WarehouseError> {
        let doing = format!("migration {:04}_{}", migration.number, migration.name);
        self.change(migration, &doing).await?;
        tracing::info!(
            number = migration.number,
            name = migration.name,
            "migration applied"
        );
        let row = format!(
            "INSERT INTO migrations (number, name) SELECT {}, {}",
            migration.number,
            quoted(migration.name)
        );
        self.execute(&row, &doing).await
    }

    async fn change(&self, migration: &Migration, doing: &str) -> Result<(), WarehouseError> {
        match migration.change {
            Change::Statements(sql) => {
                for statement in statements(sql) {
                    self.execute(&self.substituted(statement), doing).await?;
                }
                Ok(())
            }
            Change::Schema2 => self.migrate_to_schema_2().await,
        }
    }

    fn engine_prefix(&self) -> &'static str {
        if self.config().replicated {
            "Replicated"
        } else {
            ""
        }
    }

    pub(crate) fn substituted(&self, statement: &str) -> String {
        let window = broken::deduplication_window();
        let deduplication = if self.config().replicated {
            format!(
                "replicated_deduplication_window = {window}, \
                 replicated_deduplication_window_seconds = {DEDUPLICATION_SECONDS}"
            )
        } else {
            format!("non_replicated_deduplication_window = {window}")
        };
        let months = self.config().spend_retention_months.to_string();
        statement
            .replace("{engine}", self.engine_prefix())
            .replace("{deduplication}", &deduplication)
            .replace("{spend_retention_months}", &months)
    }

    /// Follows changed `spend_retention_months` and `history_retention_months`.
    async fn apply_retention(&self) -> Result<(), WarehouseError> {
        let (rows, history) = (
            self.config().spend_retention_months,
            self.config().history_retention_months,
        );
        let kept = [
            ("spend", "time", rows),
            ("finding_changes", "last_at", history),
            ("verdicts", "decided_at", history),
            ("budget_windows", "at", history),
        ];
        let described = self.table_engines(&kept.map(|(table, ..)| table)).await?;
        for ((table, time, months), (_, _, engine)) in kept.into_iter().zip(described) {
            if engine.contains(&format!("toIntervalMonth({months})")) {
                continue;
            }
            self.execute(
                &format!(
                    "ALTER TABLE {table} MODIFY TTL toDateTime({time}) + toIntervalMonth({months}) \
                     SETTINGS materialize_ttl_after_modify = 0"
                ),
                &format!("changing how long {table} is kept"),
            )
            .await?;
        }
        Ok(())
    }

    /// Name, engine and full definition of each table's engine, in the order of `tables`.
    async fn table_engines(
        &self,
        tables: &[&str],
    ) -> Result<Vec<(String, String, String)>, WarehouseError> {
        let database = &self.config().database;
        let found = self
            .query_table(&format!(
                "SELECT name, engine, engine_full FROM system.tables WHERE database = {}",
                quoted(database)
            ))
            .await?;
        let describe = |table: &&str| {
            let row = found.rows.iter().find(|row| row[0] == **table);
            let row = row.ok_or_else(|| WarehouseError::MissingTable {
                table: format!("{database}.{table}"),
            })?;
            Ok((row[0].clone(), row[1].clone(), row[2].clone()))
        };
        tables.iter().map(describe).collect()
    }

    /// Checks that every table and view target remembers at least [`DEDUPLICATION_WINDOW`] inserts,
    /// as the server has it in force.
    ///
    /// # Errors
    /// [`WarehouseError::DeduplicationWindow`] or [`WarehouseError::MissingTable`].
    pub async fn check_deduplication(&self) -> Result<(), WarehouseError> {
        let defaults = self
            .query_table(
                "SELECT name, value FROM system.merge_tree_settings \
                 WHERE name LIKE '%replicated_deduplication_window'",
            )
            .await?;
        for (table, engine, definition) in self.table_engines(&DEDUPLICATED).await? {
            let setting = if engine.starts_with("Replicated") {
                "replicated_deduplication_window"
            } else {
                "non_replicated_deduplication_window"
            };
            let default = defaults.rows.iter().find(|row| row[0] == setting);
            let found = setting_in(&definition, setting)
                .or_else(|| default.and_then(|row| row[1].parse().ok()))
                .unwrap_or(0);
            if found < broken::deduplication_window() {
                return Err(WarehouseError::DeduplicationWindow {
                    table: format!("{}.{table}", self.config().database),
                    setting,
                    found,
                    required: DEDUPLICATION_WINDOW,
                });
            }
        }
        Ok(())
    }
}

/// The statements of a migration.
pub(crate) fn statements(sql: &str) -> impl Iterator<Item = &str> {
    sql.split(";\n")
        .map(str::trim)
        .filter(|statement| !statement.is_empty())
}

/// The value of `setting` in an engine's definition; `non_…` is not mistaken for the name it ends with.
fn setting_in(definition: &str, setting: &str) -> Option<u64> {
    let (_, settings) = definition.split_once(" SETTINGS ")?;
    settings.split(", ").find_map(|pair| {
        let (name, value) = pair.split_once(" = ")?;
        (name == setting).then(|| value.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_read_from_the_tables_own_settings() {
        let definition = "MergeTree ORDER BY a SETTINGS non_replicated_deduplication_window = 70, index_granularity = 8192";
        let window = |setting| setting_in(definition, setting);
        assert_eq!(window("non_replicated_deduplication_window"), Some(70));
        assert_eq!(window("replicated_deduplication_window"), None);
    }

    #[test]
    fn migrations_have_ascending_numbers_and_statements() {
        assert!(MIGRATIONS.is_sorted_by_key(|migration| migration.number));
        for migration in &MIGRATIONS {
            if let Change::Statements(sql) = migration.change {
                assert!(statements(sql).count() > 0, "{}", migration.name);
            }
        }
    }
}
