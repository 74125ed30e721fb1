//! Questions that commands and roles ask the warehouse.

use std::collections::{BTreeMap, HashSet};

use spendfuse_domain::{Nanos, UnixMillis};

use crate::block::columns::Columns;
use crate::block::schema::{Address, Schema, table};
use crate::client::{Table, Warehouse, quoted};
use crate::error::WarehouseError;

/// Sums over table `spend`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Rows of every kind.
    pub entries: u64,
    /// Model calls.
    pub calls: u64,
    /// What they cost.
    pub cost: Nanos,
    /// What customers paid.
    pub revenue: Nanos,
}

/// Sums over one meter partition, as kept by view `spend_audit`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuditSum {
    /// The meter partition.
    pub partition: u32,
    /// `meter_seq` divided by 1000, rounded down.
    pub seq_block: u64,
    /// Rows.
    pub rows: u64,
    /// Sum of `cost`.
    pub cost: Nanos,
}

/// The coordinates by which an event is looked up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub struct EventKey {
    pub workspace: String,
    pub source: String,
    pub id: String,
}

/// One rate line of a price book version, a row of table `prices`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct PriceRow<'a> {
    pub price_version: &'a str,
    pub provider: &'a str,
    pub model: &'a str,
    pub service_tier: &'a str,
    /// Token class (`input`, `cache_read`, …) or unit.
    pub line: &'a str,
    /// Whether the rate is per million tokens; else it is per unit.
    pub per_million_tokens: bool,
    /// The rate holds for calls with more input tokens than this.
    pub above_context_tokens: u64,
    pub quality: &'a str,
    pub size: &'a str,
    pub effective_from: UnixMillis,
    pub rate: Nanos,
}

/// Most events in one look-up: keeps the statement far below ClickHouse's limit of 256 KiB.
const EVENTS_A_QUERY: usize = 200;
/// More are looked for by reading the identities of all rows, so many at a time: then the index of ids
/// would cost more than it saves.
const EVENTS_BY_INDEX: usize = 2_000;
const EVENTS_AT_ONCE: usize = 100_000;

impl Warehouse {
    /// Waits until the server that answers has all rows of `spend` that others of its replicas have.
    ///
    /// # Errors
    /// What ClickHouse says.
    pub async fn know_all_spend(&self) -> Result<(), WarehouseError> {
        self.sync_replica("spend").await
    }

    /// For each table, a number that grows by at least one with every insert: what tokens ClickHouse
    /// still remembers is counted in inserts, not in time.
    ///
    /// # Errors
    /// What ClickHouse says.
    pub async fn insert_counters(&self) -> Result<BTreeMap<String, u64>, WarehouseError> {
        // Plain tables number the blocks of all partitions together, replicated ones each by itself.
        let over_partitions = if self.config().replicated {
            "sum"
        } else {
            "max"
        };
        let table = self
            .query_table(&format!(
                "SELECT table, {over_partitions}(blocks) FROM (\
                   SELECT table, partition_id, max(max_block_number) AS blocks \
                   FROM system.parts WHERE database = {} GROUP BY table, partition_id) \
                 GROUP BY table",
                quoted(&self.config().database)
            ))
            .await?;
        let rows = 0..table.rows.len();
        rows.map(|row| Ok((table.rows[row][0].clone(), cell(&table, row, 1)?)))
            .collect()
    }

    /// Which database this is: another one after its disk was lost or a backup was restored. `None`
    /// where that cannot be told: it has no tables yet, the engine of the database gives its tables no
    /// ids, or tables are replicated, each replica having ids of its own.
    ///
    /// # Errors
    /// What ClickHouse says.
    pub async fn database_id(&self) -> Result<Option<String>, WarehouseError> {
        if self.config().replicated {
            return Ok(None);
        }
        let table = self
            .query_without_database(&format!(
                "SELECT toString(uuid) FROM system.tables \
                 WHERE database = {} AND name = 'migrations' AND notEmpty(uuid)",
                quoted(&self.config().database)
            ))
            .await?;
        Ok(table.rows.into_iter().next().map(|row| row[0].clone()))
    }

    /// Whether a table has rows of a writer's commit, in this epoch or before: a chain may go on from one
    /// epoch to the next. `stage` is the writer, `meter` or `ledger`.
    ///
    /// # Errors
    /// What ClickHouse says.
    pub async fn has_commit(
        &self,
        schema: &Schema,
        stage: &str,
        epoch: u32,
        partition: u32,
        seq: u64,
    ) -> Result<bool, WarehouseError> {
        let table = schema.table;
        let writer = match schema.address {
            Address::Meter => format!("meter_partition = {partition} AND meter_seq = {seq}"),
            Address::Stage => format!(
                "stage = {} AND stage_partition = {partition} AND stage_seq = {seq}",
                quoted(stage)
            ),
            Address::None => unreachable!("tables without addresses are not loaded from topics"),
        };
        let known = format!(
            "SELECT count() FROM (SELECT 1 FROM {table} WHERE epoch <= {epoch} AND {writer} LIMIT 1)"
        );
        Ok(cell::<u64>(&self.query_table(&known).await?, 0, 0)? > 0)
    }

    /// Sums over everything in `spend`.
    ///
    /// # Errors
    /// What ClickHouse says.
    pub async fn totals(&self) -> Result<Totals, WarehouseError> {
        let table = self
            .query_table(
                "SELECT count(), countIf(kind = 'usage'), sum(cost), sum(revenue) FROM spend",
            )
            .await?;
        Ok(Totals {
            entries: cell(&table, 0, 0)?,
            calls: cell(&table, 0, 1)?,
            cost: money(&table, 0, 2)?,
            revenue: money(&table, 0, 3)?,
        })
    }

    /// The sums of `spend_audit`, in the order of partitions and blocks of commits.
    ///
    /// # Errors
    /// What ClickHouse says.
    pub async fn audit_sums(&self) -> Result<Vec<AuditSum>, WarehouseError> {
        let table = self
            .query_table(
                "SELECT meter_partition, seq_block, sum(count), sum(nanos) FROM spend_audit \
                 GROUP BY meter_partition, seq_block ORDER BY meter_partition, seq_block",
            )
            .await?;
        let sums = (0..table.rows.len()).map(|row| {
            Ok(AuditSum {
                partition: cell(&table, row, 0)?,
                seq_block: cell(&table, row, 1)?,
                rows: cell(&table, row, 2)?,
                cost: Nanos::new(cell(&table, row, 3)?),
            })
        });
        sums.collect()
    }

    /// Which of `events` are in `spend`.
    ///
    /// # Errors
    /// What ClickHouse says.
    pub async fn contains_events(
        &self,
        events: &[EventKey],
    ) -> Result<HashSet<EventKey>, WarehouseError> {
        if events.len() > EVENTS_BY_INDEX {
            return self.contains_many_events(events).await;
        }
        let mut known = HashSet::new();
        for some in events.chunks(EVENTS_A_QUERY) {
            let ids: Vec<String> = some.iter().map(|event| quoted(&event.id)).collect();
            let keys: Vec<String> = some
                .iter()
                .map(|event| {
                    let (workspace, source) = (quoted(&event.workspace), quoted(&event.source));
                    format!("({workspace}, {source}, {})", quoted(&event.id))
                })
                .collect();
            // The condition on event_id alone is what the bloom index can use.
            let table = self
                .query_table(&format!(
                    "SELECT DISTINCT workspace, source, event_id FROM spend \
                     WHERE event_id IN ({}) AND (workspace, source, event_id) IN ({})",
                    ids.join(", "),
                    keys.join(", ")
                ))
                .await?;
            known.extend(table.rows.into_iter().filter_map(event_key));
        }
        Ok(known)
    }

    /// Looked for by their ids alone, which go along as one text: that ClickHouse reads many times as
    /// fast as a list in SQL, and of rows with other ids it reads nothing else.
    async fn contains_many_events(
        &self,
        events: &[EventKey],
    ) -> Result<HashSet<EventKey>, WarehouseError> {
        let mut known = HashSet::new();
        for some in events.chunks(EVENTS_AT_ONCE) {
            let mut ids = String::new();
            for event in some {
                push_escaped(&mut ids, &event.id);
                ids.push('\n');
            }
            let question = format!(
                "SELECT DISTINCT workspace, source, event_id FROM spend \
                 WHERE event_id IN (SELECT i FROM format(TabSeparated, 'i String', {})) \
                 SETTINGS use_skip_indexes = 0",
                quoted(&ids)
            );
            let table = self.query_long_text(&question).await?;
            known.extend(table.rows.into_iter().filter_map(event_key));
        }
        // Others may have the same ids.
        if !known.is_empty() {
            let asked: HashSet<&EventKey> = events.iter().collect();
            known.retain(|event| asked.contains(event));
        }
        Ok(known)
    }

    /// Writes rate lines of price book versions; the same lines again change nothing.
    ///
    /// # Errors
    /// What ClickHouse says.
    pub async fn insert_prices(&self, rows: &[PriceRow<'_>]) -> Result<(), WarehouseError> {
        let Some(first) = rows.first() else {
            return Ok(());
        };
        let mut columns = Columns::new(&PRICES);
        for row in rows {
            let mut cursor = columns.row();
            fill_price(row, &mut cursor);
            cursor.finish();
        }
        let mut native = Vec::new();
        columns.write_and_clear(&mut native);
        let hash = xxhash_rust::xxh3::xxh3_64(&native);
        let token = format!("prices:{}:{hash:016x}", first.price_version);
        let list = PRICES.column_list();
        self.insert_native(PRICES.table, &list, &token, [native.into()])
            .await
    }
}

fn event_key(row: Vec<String>) -> Option<EventKey> {
    let [workspace, source, id] = row.try_into().ok()?;
    Some(EventKey {
        workspace,
        source,
        id,
    })
}

/// Adds a value of `TabSeparated`.
fn push_escaped(text: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '\t' => text.push_str("\\t"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\0' => text.push_str("\\0"),
            other => text.push(other),
        }
    }
}

table! {
    PRICES = "prices", 1, Address::None,
    fn fill_price(row: &PriceRow<'_>) {
        let is_per_million = row.per_million_tokens;
        let per = if is_per_million { "million_tokens" } else { "unit" };
    }
    price_version: text(row.price_version);
    provider: text(row.provider);
    model: text(row.model);
    service_tier: text(row.service_tier);
    line: text(row.line);
    per: text(per);
    above_context_tokens: count64(row.above_context_tokens);
    quality: text(row.quality);
    size: text(row.size);
    effective_from: time(row.effective_from);
    rate: money(row.rate);
}

/// A number in a table's row.
pub fn cell<T: std::str::FromStr>(
    table: &Table,
    row: usize,
    column: usize,
) -> Result<T, WarehouseError> {
    let text = table.rows.get(row).and_then(|cells| cells.get(column));
    text.and_then(|text| text.parse().ok())
        .ok_or_else(|| WarehouseError::UnexpectedAnswer {
            doing: "a query".to_owned(),
            detail: format!("{text:?} in row {row}, column {column} where a number belongs"),
        })
}

fn money(table: &Table, row: usize, column: usize) -> Result<Nanos, WarehouseError> {
    let text: String = cell(table, row, column)?;
    let parsed = Nanos::parse_usd(&text).map_err(|error| WarehouseError::UnexpectedAnswer {
        doing: "a query".to_owned(),
        detail: error.to_string(),
    })?;
    Ok(parsed.amount)
}
