//! The sums that views keep, compared with the rows of `spend`, and what they lack put in.
//!
//! A death of ClickHouse, or a loss of power, can leave rows whose sums are missing, of several batches
//! at once and with the log of tokens torn: nothing tells then whose they are. It need not be known. At a
//! moment at which nobody inserts, a view lacks exactly the difference between the rows and what it has,
//! whoever's that is.
//!
//! Several loaders may be at it, one of them gone from its group without knowing. So the difference is
//! worked out first, into a table in memory; that moment is proved by the tables' insert counters and the
//! list of running queries; and the difference goes in by one statement, which does nothing where the
//! view has had an insert since. Two such statements at the same moment have the same token. Whoever is
//! killed in between leaves a smaller difference.
//!
//! What a view has besides stops nobody: the rows that it is of may be those of a batch that is put in
//! again next, or somebody deleted them. Nothing is taken away; the audit tells of what stays.

mod difference;

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use spendfuse_warehouse::WarehouseError;
use spendfuse_warehouse::block::schema::Address;
use spendfuse_warehouse::client::{Warehouse, quoted};
use spendfuse_warehouse::query::cell;

use crate::batch::TableInsert;
use crate::healing::{InsertGate, report_healed};
use crate::present::{WriterStage, any_range};
use difference::{ROLLUPS, Rollup, columns_of, difference, differing, lacks_rows};

/// Sums are compared this often before somebody else is told to wait: inserts of other loaders are under
/// way in the same tables, and a view is fed some milliseconds after its table.
const COMPARISONS: u32 = 200;
const BETWEEN_COMPARISONS: Duration = Duration::from_millis(150);
/// So often before sums count as different: an insert under way looks like a difference.
const LOOKS: u32 = 4;

/// Hours, days and blocks of commits whose sums were found whole in this run of the server: what it lost
/// at its start was not theirs, or is in again.
#[derive(Default)]
pub(crate) struct WholeSums(Mutex<BTreeSet<(&'static str, String)>>);

impl WholeSums {
    fn without_known(&self, rollup: &Rollup, buckets: Vec<String>) -> Vec<String> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = |bucket: &String| !known.contains(&(rollup.target, bucket.clone()));
        buckets.into_iter().filter(is_new).collect()
    }

    fn add(&self, rollup: &Rollup, buckets: Vec<String>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.extend(buckets.into_iter().map(|bucket| (rollup.target, bucket)));
    }
}

/// Whether no view lacks rows of the hours, days and blocks of commits that `table` has rows in. What
/// views have besides, as where somebody deleted rows, is the audit's business.
///
/// # Errors
/// What ClickHouse says.
pub(crate) async fn sums_agree(
    warehouse: &Warehouse,
    table: &TableInsert,
    stage: WriterStage,
    whole: &WholeSums,
) -> Result<bool, WarehouseError> {
    if table.schema.address != Address::Meter {
        return Ok(true);
    }
    for rollup in &ROLLUPS {
        let buckets = buckets_of(warehouse, rollup, table, stage).await?;
        let buckets = whole.without_known(rollup, buckets);
        let mut looks = 0;
        while lacks_rows(warehouse, rollup, &buckets).await? {
            looks += 1;
            if looks == LOOKS {
                return Ok(false);
            }
            tokio::time::sleep(BETWEEN_COMPARISONS).await;
        }
        whole.add(rollup, buckets);
    }
    Ok(true)
}

/// Puts in what views lack in the hours, days and blocks of commits that `table` has rows in. Other
/// inserts of this loader wait at the `gate` during each look and go on between them.
///
/// # Errors
/// What ClickHouse says; [`WarehouseError::StillInserting`] where others never stand still.
pub(crate) async fn complete_sums(
    warehouse: &Warehouse,
    gate: &InsertGate,
    table: &TableInsert,
    stage: WriterStage,
) -> Result<(), WarehouseError> {
    if table.schema.address != Address::Meter {
        return Ok(());
    }
    for rollup in &ROLLUPS {
        complete_rollup(warehouse, gate, rollup, table, stage).await?;
    }
    Ok(())
}

async fn complete_rollup(
    warehouse: &Warehouse,
    gate: &InsertGate,
    rollup: &Rollup,
    table: &TableInsert,
    stage: WriterStage,
) -> Result<(), WarehouseError> {
    let token = &table.token;
    let buckets = buckets_of(warehouse, rollup, table, stage).await?;
    for _ in 0..COMPARISONS {
        let alone = gate.write().await;
        let different = differing(warehouse, rollup, &buckets).await?;
        if different.is_empty() {
            return Ok(());
        }
        match put_in_difference(warehouse, rollup, &different).await? {
            Difference::Besides => {
                let view = rollup.target;
                tracing::warn!(
                    view,
                    token,
                    "a view has more than its rows; nothing is missing"
                );
                return Ok(());
            }
            Difference::PutIn => report_healed(rollup.target, token),
            Difference::Nothing | Difference::Moving => {}
        }
        drop(alone);
        tokio::time::sleep(BETWEEN_COMPARISONS).await;
    }
    let token = token.clone();
    Err(WarehouseError::StillInserting { token })
}

/// What there was between rows and sums at a moment at which nobody inserted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Difference {
    Nothing,
    /// What the view lacks was put in, unless somebody else did.
    PutIn,
    /// The view lacks nothing, and has something that no row has.
    Besides,
    /// Somebody inserts.
    Moving,
}

async fn put_in_difference(
    warehouse: &Warehouse,
    rollup: &Rollup,
    buckets: &[String],
) -> Result<Difference, WarehouseError> {
    let target = rollup.target;
    // The order matters. What runs after the list of queries was read raises a counter once it is in.
    let before = warehouse.insert_counters().await?;
    if is_inserting(warehouse, rollup).await? {
        return Ok(Difference::Moving);
    }
    let columns = columns_of(warehouse, rollup).await?;
    let difference = difference(warehouse, rollup, &columns, buckets).await?;
    let session = warehouse.in_session();
    let create = format!("CREATE TEMPORARY TABLE missing_sums ENGINE = Memory AS {difference}");
    session.execute(&create, "comparing sums").await?;
    let after = warehouse.insert_counters().await?;
    let mut tables = ["spend", target].into_iter();
    if tables.any(|table| before.get(table) != after.get(table)) {
        return Ok(Difference::Moving);
    }
    let count = rollup.count;
    let found = format!("SELECT count(), countIf({count} > 0) FROM missing_sums");
    let found = session.query_table(&found).await?;
    let (all, lacking): (u64, u64) = (cell(&found, 0, 0)?, cell(&found, 0, 1)?);
    if all == 0 {
        return Ok(Difference::Nothing);
    }
    if lacking == 0 {
        return Ok(Difference::Besides);
    }
    let counter = after.get(target).copied().unwrap_or_default();
    let run = warehouse.server_run().await?.unwrap_or_default();
    let names = [columns.keys, columns.sums].concat().join(", ");
    let token = format!("{target}:missing:{run}:{counter}");
    let insert = format!(
        "INSERT INTO {target} ({names}) SETTINGS async_insert = 0, insert_deduplicate = 1, \
         insert_deduplication_token = {}, max_insert_threads = 1 \
         SELECT {names} FROM missing_sums WHERE {count} > 0 AND {counter} = ({}) ORDER BY ALL",
        quoted(&token),
        last_block(warehouse, target)
    );
    session.execute(&insert, "completing a view's sums").await?;
    Ok(Difference::PutIn)
}

/// The number that [`Warehouse::insert_counters`] gives of a plain table.
fn last_block(warehouse: &Warehouse, table: &str) -> String {
    format!(
        "SELECT max(max_block_number) FROM system.parts WHERE database = {} AND table = {}",
        quoted(&warehouse.config().database),
        quoted(table)
    )
}

/// Whether rows go into `spend` or into the view.
async fn is_inserting(warehouse: &Warehouse, rollup: &Rollup) -> Result<bool, WarehouseError> {
    let running = format!(
        "SELECT count() FROM system.processes \
         WHERE current_database = currentDatabase() AND query_kind = 'Insert' \
         AND (query LIKE 'INSERT INTO spend (%' OR query LIKE 'INSERT INTO {} (%')",
        rollup.target
    );
    Ok(cell::<u64>(&warehouse.query_table(&running).await?, 0, 0)? > 0)
}

/// The buckets of a batch's own rows.
async fn buckets_of(
    warehouse: &Warehouse,
    rollup: &Rollup,
    table: &TableInsert,
    stage: WriterStage,
) -> Result<Vec<String>, WarehouseError> {
    let buckets = format!(
        "SELECT DISTINCT {} FROM spend WHERE {}",
        rollup.bucket,
        any_range(table, stage)
    );
    let found = warehouse.query_table(&buckets).await?;
    Ok(found.rows.into_iter().flatten().collect())
}
