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
//! What a table without views has in part is not inserted again, for the token may be forgotten (see
//! `is_there` in `inserting`): the rest of it goes in here.
//!
//! Rows go in by way of a side table whose parts are attached: an insert with another token would
//! feed the views a second time. Views are compared with the rows hour by hour (day by day, block by
//! block); where exactly this batch is missing, its sums are inserted into the view's table.

use std::collections::BTreeMap;
use std::time::Duration;

use spendfuse_warehouse::WarehouseError;
use spendfuse_warehouse::block::schema::Address;
use spendfuse_warehouse::client::{Warehouse, quoted};
use spendfuse_warehouse::query::cell;
use xxhash_rust::xxh3::xxh3_64;

use crate::batch::{Batch, TableInsert};
use crate::content::address_columns;
use crate::metrics as names;
use crate::present::{WriterStage, any_range, rows_in_ranges};

/// Batches go in side by side, each until it is in. What is missing is looked for and put in alone:
/// nobody is in the middle then.
pub(crate) type InsertGate = tokio::sync::RwLock<()>;

/// A view's sums are compared this often before they count as different: other batches are in doubt
/// or inserts of other loaders under way in the same hours, and a view is fed some milliseconds after
/// its table.
const COMPARISONS: u32 = 200;
const BETWEEN_COMPARISONS: Duration = Duration::from_millis(150);
/// So often before an insert is repeated for the sake of its views.
const LOOKS: u32 = 4;

/// Sum of nano-dollars where there is a column `cost`.
const COST_NANOS: &str = "toInt128(sum(cost) * 1000000000)";

/// A view of `spend` and how its rows belong to those of the table.
struct Rollup {
    target: &'static str,
    /// Of a row of `spend`.
    bucket: &'static str,
    /// The same of a row of the target.
    target_bucket: &'static str,
    count: &'static str,
    /// Sum of nano-dollars in the target.
    nanos: &'static str,
}

const ROLLUPS: [Rollup; 3] = [
    Rollup {
        target: "spend_hourly",
        bucket: "toUnixTimestamp(toStartOfHour(time))",
        target_bucket: "toUnixTimestamp(hour)",
        count: "entries",
        nanos: COST_NANOS,
    },
    Rollup {
        target: "spend_daily",
        bucket: "toUInt32(toDate(time))",
        target_bucket: "toUInt32(day)",
        count: "entries",
        nanos: COST_NANOS,
    },
    Rollup {
        target: "spend_audit",
        bucket: "tuple(epoch, meter_partition, intDiv(meter_seq, 1000))",
        target_bucket: "tuple(epoch, meter_partition, seq_block)",
        count: "count",
        nanos: "sum(nanos)",
    },
];

/// Rows and nano-dollars by bucket.
type Sums = BTreeMap<String, (i128, i128)>;

/// What a view lacks.
enum Comparison {
    Nothing,
    /// This batch, in these buckets.
    Batch(Vec<String>),
    /// Something else, or too much.
    Other,
}

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
        if table.schema.address == Address::Meter {
            for rollup in &ROLLUPS {
                complete_rollup(warehouse, gate, rollup, table, stage).await?;
            }
        }
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

/// Whether every view has all rows of `table`, or lacks exactly these. Other inserts under way may
/// look like another difference, so it is looked more than once.
pub(crate) async fn can_complete_rollups(
    warehouse: &Warehouse,
    table: &TableInsert,
    stage: WriterStage,
) -> Result<bool, WarehouseError> {
    for rollup in &ROLLUPS {
        let ours = sums_of(warehouse, rollup, table, stage).await?;
        let buckets = buckets_of(&ours);
        let mut looks = 0;
        while let Comparison::Other = compare(warehouse, rollup, &ours, &buckets).await? {
            looks += 1;
            if looks == LOOKS {
                return Ok(false);
            }
            tokio::time::sleep(BETWEEN_COMPARISONS).await;
        }
    }
    Ok(true)
}

/// The sums of a batch's own rows.
async fn sums_of(
    warehouse: &Warehouse,
    rollup: &Rollup,
    table: &TableInsert,
    stage: WriterStage,
) -> Result<Sums, WarehouseError> {
    let rows = any_range(table, stage);
    sums(
        warehouse,
        rollup.bucket,
        "count()",
        COST_NANOS,
        "spend",
        &rows,
    )
    .await
}

async fn complete_rollup(
    warehouse: &Warehouse,
    gate: &InsertGate,
    rollup: &Rollup,
    table: &TableInsert,
    stage: WriterStage,
) -> Result<(), WarehouseError> {
    let ours = sums_of(warehouse, rollup, table, stage).await?;
    let buckets = buckets_of(&ours);
    // Put in where the same is missing twice.
    let mut seen_missing = Vec::new();
    for _ in 0..COMPARISONS {
        let alone = gate.write().await;
        seen_missing = match compare(warehouse, rollup, &ours, &buckets).await? {
            Comparison::Nothing => return Ok(()),
            Comparison::Batch(missing) if missing == seen_missing => {
                insert_sums(warehouse, rollup, table, stage, &missing).await?;
                Vec::new()
            }
            Comparison::Batch(missing) => missing,
            Comparison::Other => Vec::new(),
        };
        drop(alone);
        tokio::time::sleep(BETWEEN_COMPARISONS).await;
    }
    Err(WarehouseError::InDoubt {
        token: table.token.clone(),
        detail: format!("sums of {} differ from the rows of spend", rollup.target),
    })
}

async fn compare(
    warehouse: &Warehouse,
    rollup: &Rollup,
    ours: &Sums,
    buckets: &str,
) -> Result<Comparison, WarehouseError> {
    // The view first: what is under way then is rather in the table than in the view.
    let (bucket, count) = (rollup.target_bucket, format!("sum({})", rollup.count));
    let within = format!("{bucket} IN ({buckets})");
    let kept = sums(
        warehouse,
        bucket,
        &count,
        rollup.nanos,
        rollup.target,
        &within,
    )
    .await?;
    let within = format!("{} IN ({buckets})", rollup.bucket);
    let rows = sums(
        warehouse,
        rollup.bucket,
        "count()",
        COST_NANOS,
        "spend",
        &within,
    )
    .await?;
    let mut missing = Vec::new();
    for (bucket, (count, nanos)) in rows {
        let (kept_count, kept_nanos) = kept.get(&bucket).copied().unwrap_or_default();
        let lacks = (count - kept_count, nanos - kept_nanos);
        if lacks == (0, 0) {
            continue;
        }
        if ours.get(&bucket) != Some(&lacks) {
            return Ok(Comparison::Other);
        }
        missing.push(bucket);
    }
    Ok(if missing.is_empty() {
        Comparison::Nothing
    } else {
        Comparison::Batch(missing)
    })
}

/// Carries the view's own statement out over the rows of the batch in the given buckets.
async fn insert_sums(
    warehouse: &Warehouse,
    rollup: &Rollup,
    table: &TableInsert,
    stage: WriterStage,
    buckets: &[String],
) -> Result<(), WarehouseError> {
    let view = warehouse
        .query_table(&format!(
            "SELECT as_select FROM system.tables WHERE database = {} AND name = {}",
            quoted(&warehouse.config().database),
            quoted(&format!("{}_sums", rollup.target))
        ))
        .await?;
    let statement: String = cell(&view, 0, 0)?;
    let source = format!("FROM {}.spend", warehouse.config().database);
    let rows = format!(
        "FROM (SELECT * FROM spend WHERE ({}) AND {} IN ({})) AS spend",
        any_range(table, stage),
        rollup.bucket,
        buckets.join(", ")
    );
    if statement.matches(&source).count() != 1 {
        return Err(WarehouseError::UnexpectedAnswer {
            doing: "asking for a view's statement".to_owned(),
            detail: statement,
        });
    }
    let select = statement.replace(&source, &rows);
    let insert = format!(
        "INSERT INTO {} SETTINGS async_insert = 0, insert_deduplicate = 0 {select}",
        rollup.target
    );
    warehouse
        .execute(&insert, "completing a view's sums")
        .await?;
    report_healed(rollup.target, &table.token);
    Ok(())
}

async fn sums(
    warehouse: &Warehouse,
    bucket: &str,
    count: &str,
    nanos: &str,
    from: &str,
    condition: &str,
) -> Result<Sums, WarehouseError> {
    let table = warehouse
        .query_table(&format!(
            "SELECT {bucket} AS bucket, {count}, {nanos} FROM {from} WHERE {condition} \
             GROUP BY bucket"
        ))
        .await?;
    let rows = 0..table.rows.len();
    rows.map(|row| {
        let sums = (cell(&table, row, 1)?, cell(&table, row, 2)?);
        Ok((table.rows[row][0].clone(), sums))
    })
    .collect()
}

fn buckets_of(sums: &Sums) -> String {
    let buckets: Vec<&str> = sums.keys().map(String::as_str).collect();
    buckets.join(", ")
}

fn report_healed(table: &'static str, token: &str) {
    metrics::counter!(names::LOADER_HEALED_TOTAL, "table" => table).increment(1);
    tracing::warn!(
        table,
        token,
        "ClickHouse remembered an insert without its rows; they are in now"
    );
}
