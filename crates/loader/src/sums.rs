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

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use spendfuse_warehouse::WarehouseError;
use spendfuse_warehouse::block::schema::Address;
use spendfuse_warehouse::client::{Warehouse, quoted};
use spendfuse_warehouse::query::cell;

use crate::batch::TableInsert;
use crate::healing::{InsertGate, report_healed};
use crate::present::{WriterStage, any_range};

/// Sums are compared this often before somebody else is told to wait: inserts of other loaders are under
/// way in the same tables, and a view is fed some milliseconds after its table.
const COMPARISONS: u32 = 200;
const BETWEEN_COMPARISONS: Duration = Duration::from_millis(150);
/// So often before sums count as different: an insert under way looks like a difference.
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
    /// The column that counts rows.
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
        while lacks_rows(&differing(warehouse, rollup, &buckets).await?) {
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
/// What ClickHouse says; [`WarehouseError::InDoubt`] where a view has more than the rows explain, and
/// [`WarehouseError::StillInserting`] where others never stand still.
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
        let different: Vec<String> = different.into_iter().map(|(bucket, _)| bucket).collect();
        match put_in_difference(warehouse, rollup, &different).await? {
            Difference::Other => {
                let token = token.clone();
                let detail = format!("sums of {} differ from the rows of spend", rollup.target);
                return Err(WarehouseError::InDoubt { token, detail });
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
    /// It was put in, unless somebody else did.
    PutIn,
    /// The view has something that no row has.
    Other,
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
    let found = format!(
        "SELECT count(), countIf({} <= 0) FROM missing_sums",
        rollup.count
    );
    let found = session.query_table(&found).await?;
    let (all, impossible): (u64, u64) = (cell(&found, 0, 0)?, cell(&found, 0, 1)?);
    if impossible > 0 {
        return Ok(Difference::Other);
    }
    if all == 0 {
        return Ok(Difference::Nothing);
    }
    let counter = after.get(target).copied().unwrap_or_default();
    let run = warehouse.server_run().await?.unwrap_or_default();
    let names = [columns.keys, columns.sums].concat().join(", ");
    let token = format!("{target}:missing:{run}:{counter}");
    let insert = format!(
        "INSERT INTO {target} ({names}) SETTINGS async_insert = 0, insert_deduplicate = 1, \
         insert_deduplication_token = {}, max_insert_threads = 1 \
         SELECT {names} FROM missing_sums WHERE {counter} = ({}) ORDER BY ALL",
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

/// A rollup's columns: by what it sums, and what.
struct RollupColumns {
    keys: Vec<String>,
    sums: Vec<String>,
}

async fn columns_of(
    warehouse: &Warehouse,
    rollup: &Rollup,
) -> Result<RollupColumns, WarehouseError> {
    let table = warehouse
        .query_table(&format!(
            "SELECT name, is_in_sorting_key FROM system.columns \
             WHERE database = {} AND table = {} AND default_kind != 'ALIAS' ORDER BY position",
            quoted(&warehouse.config().database),
            quoted(rollup.target)
        ))
        .await?;
    let (keys, sums): (Vec<_>, Vec<_>) = table.rows.into_iter().partition(|row| row[1] == "1");
    let names = |rows: Vec<Vec<String>>| rows.into_iter().map(|row| format!("`{}`", row[0]));
    Ok(RollupColumns {
        keys: names(keys).collect(),
        sums: names(sums).collect(),
    })
}

/// The statement of what the view would have of the rows of `buckets`, without what it has.
async fn difference(
    warehouse: &Warehouse,
    rollup: &Rollup,
    columns: &RollupColumns,
    buckets: &[String],
) -> Result<String, WarehouseError> {
    let buckets = buckets.join(", ");
    let due = due_sums(warehouse, rollup, &buckets).await?;
    let RollupColumns { keys, sums } = columns;
    let each = |write: &dyn Fn(&String) -> String| sums.iter().map(write).collect::<Vec<_>>();
    // Counts have no sign in the view, and amounts of money are no integers.
    let is_count = |name: &String| name.trim_matches('`') == rollup.count;
    let signed = |name: &String| match is_count(name) {
        true => format!("toInt128({name})"),
        false => name.clone(),
    };
    let keys = keys.join(", ");
    let plus = each(&|name| format!("{} AS {name}", signed(name))).join(", ");
    let minus = each(&|name| format!("negate({}) AS {name}", signed(name))).join(", ");
    let totals = each(&|name| format!("sum(both.{name}) AS {name}")).join(", ");
    let is_something = each(&|name| format!("{name} != 0")).join(" OR ");
    let Rollup {
        target,
        target_bucket,
        ..
    } = rollup;
    Ok(format!(
        "SELECT * FROM (SELECT {keys}, {totals} FROM (\
           SELECT {keys}, {plus} FROM ({due}) AS due \
           UNION ALL SELECT {keys}, {minus} FROM (\
             SELECT * FROM {target} WHERE {target_bucket} IN ({buckets})) AS kept\
         ) AS both GROUP BY {keys}) WHERE {is_something}"
    ))
}

/// The view's own statement over the rows of `buckets`.
async fn due_sums(
    warehouse: &Warehouse,
    rollup: &Rollup,
    buckets: &str,
) -> Result<String, WarehouseError> {
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
        "FROM (SELECT * FROM spend WHERE {} IN ({buckets})) AS spend",
        rollup.bucket,
    );
    if statement.matches(&source).count() != 1 {
        return Err(WarehouseError::UnexpectedAnswer {
            doing: "asking for a view's statement".to_owned(),
            detail: statement,
        });
    }
    Ok(statement.replace(&source, &rows))
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

fn lacks_rows(different: &[(String, i128)]) -> bool {
    different.iter().any(|(_, lacking)| *lacking > 0)
}

/// Those of `buckets` in which the view has other sums than the rows, and how many rows it lacks.
async fn differing(
    warehouse: &Warehouse,
    rollup: &Rollup,
    buckets: &[String],
) -> Result<Vec<(String, i128)>, WarehouseError> {
    if buckets.is_empty() {
        return Ok(Vec::new());
    }
    let buckets = buckets.join(", ");
    // The view first: what is under way then is rather in the table than in the view.
    let (bucket, count) = (rollup.target_bucket, format!("sum({})", rollup.count));
    let within = format!("{bucket} IN ({buckets})");
    let mut kept = sums(
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
    let differs = |(bucket, sums): (String, (i128, i128))| {
        let kept = kept.remove(&bucket).unwrap_or_default();
        (kept != sums).then(|| (bucket, sums.0 - kept.0))
    };
    Ok(rows.into_iter().filter_map(differs).collect())
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
