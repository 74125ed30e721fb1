//! After an insert that was interrupted: what ClickHouse says it has done is looked at, and what is
//! missing is put in.
//!
//! A plain `MergeTree` writes an insert's token down before it moves the new part into place. Killed
//! in between, it remembers the token without the rows, and answers a repeated insert with success
//! while it drops it as a duplicate: for the table itself, or for one of its views (read in
//! `MergeTreeSink::commitPart` of ClickHouse 26; seen in a fault run). At most one part of each table
//! is lost by each such death, because the move is made under the table's lock. Replicated tables
//! write token and part in one transaction and need none of this.
//!
//! What is there in part is not inserted again, for the token may be forgotten (see `is_there` in
//! `inserting`): the rest of it goes in here.
//!
//! Rows go in by way of a side table whose parts are attached: an insert with another token would
//! feed the views a second time. What views lack then is put in by `sums`.

use spendfuse_warehouse::WarehouseError;
use spendfuse_warehouse::client::{Warehouse, quoted};
use xxhash_rust::xxh3::xxh3_64;

use crate::batch::{Batch, TableInsert};
use crate::content::address_columns;
use crate::metrics as names;
use crate::present::{WriterStage, any_range, rows_in_ranges};
use crate::sums::complete_sums;

/// Batches go in side by side, each until it is in. What is missing is looked for and put in alone:
/// nobody is in the middle then.
pub(crate) type InsertGate = tokio::sync::RwLock<()>;

/// Puts in what is missing of a batch whose inserts were repeated until they succeeded. Other
/// inserts of this loader wait at the `gate` during each step and go on between the steps: one death
/// of ClickHouse can leave several batches in doubt, and a view agrees with its rows only when all
/// of them are whole.
///
/// # Errors
/// What ClickHouse says; [`WarehouseError::InDoubt`] where rows or sums differ in a way that this
/// batch does not explain.
pub(crate) async fn make_whole(
    warehouse: &Warehouse,
    gate: &InsertGate,
    batch: &Batch,
    stage: WriterStage,
) -> Result<(), WarehouseError> {
    if warehouse.config().replicated {
        return Ok(());
    }
    for table in &batch.tables {
        complete_rows(warehouse, gate, table, stage).await?;
        complete_sums(warehouse, gate, table, stage).await?;
    }
    Ok(())
}

async fn complete_rows(
    warehouse: &Warehouse,
    gate: &InsertGate,
    table: &TableInsert,
    stage: WriterStage,
) -> Result<(), WarehouseError> {
    let _alone = gate.write().await;
    if missing_rows(warehouse, table, stage).await? == 0 {
        return Ok(());
    }
    attach_missing(warehouse, table, stage).await?;
    match missing_rows(warehouse, table, stage).await? {
        0 => Ok(()),
        missing => Err(WarehouseError::InDoubt {
            token: table.token.clone(),
            detail: format!("{missing} rows of {} are missing", table.table()),
        }),
    }
}

async fn missing_rows(
    warehouse: &Warehouse,
    table: &TableInsert,
    stage: WriterStage,
) -> Result<u64, WarehouseError> {
    let found = rows_in_ranges(warehouse, table, stage).await?;
    // More than there should be is the audit's business: nothing can be put in.
    Ok(table.rows.saturating_sub(found))
}

async fn attach_missing(
    warehouse: &Warehouse,
    table: &TableInsert,
    stage: WriterStage,
) -> Result<(), WarehouseError> {
    let name = table.table();
    let side = format!("{name}_missing_{:016x}", xxh3_64(table.token.as_bytes()));
    let drop_side = format!("DROP TABLE IF EXISTS {side} SYNC");
    warehouse
        .execute(&drop_side, "removing a side table")
        .await?;
    let create = format!("CREATE TABLE {side} AS {name}");
    warehouse.execute(&create, "making a side table").await?;
    let (columns, token) = (table.columns(), &table.token);
    let blocks = table.blocks.iter().cloned();
    warehouse
        .insert_native(&side, &columns, token, blocks)
        .await?;

    let address = address_columns(table.schema.address);
    let there = any_range(table, stage);
    let already = format!(
        "ALTER TABLE {side} DELETE WHERE ({address}) IN \
         (SELECT {address} FROM {}.{name} WHERE {there}) SETTINGS mutations_sync = 1",
        warehouse.config().database
    );
    warehouse
        .execute(&already, "leaving out rows that are there")
        .await?;
    let partitions = warehouse
        .query_table(&format!(
            "SELECT DISTINCT partition_id FROM system.parts \
             WHERE database = {} AND table = {} AND active AND rows > 0",
            quoted(&warehouse.config().database),
            quoted(&side)
        ))
        .await?;
    for row in &partitions.rows {
        let attach = format!(
            "ALTER TABLE {name} ATTACH PARTITION ID {} FROM {side}",
            quoted(&row[0])
        );
        warehouse.execute(&attach, "attaching missing rows").await?;
    }
    warehouse
        .execute(&drop_side, "removing a side table")
        .await?;
    report_healed(name, token);
    Ok(())
}

pub(crate) fn report_healed(table: &'static str, token: &str) {
    metrics::counter!(names::LOADER_HEALED_TOTAL, "table" => table).increment(1);
    tracing::warn!(
        table,
        token,
        "ClickHouse remembered an insert without its rows; they are in now"
    );
}
