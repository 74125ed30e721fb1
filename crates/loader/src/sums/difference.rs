//! A view's sums next to those that its rows have.

use std::collections::BTreeMap;

use spendfuse_warehouse::WarehouseError;
use spendfuse_warehouse::client::{Warehouse, quoted};
use spendfuse_warehouse::query::cell;

/// Sum of nano-dollars where there is a column `cost`.
const COST_NANOS: &str = "toInt128(sum(cost) * 1000000000)";

/// A view of `spend` and how its rows belong to those of the table.
pub(super) struct Rollup {
    pub(super) target: &'static str,
    /// Of a row of `spend`.
    pub(super) bucket: &'static str,
    /// The same of a row of the target.
    target_bucket: &'static str,
    /// The column that counts rows.
    pub(super) count: &'static str,
    /// Sum of nano-dollars in the target.
    nanos: &'static str,
}

pub(super) const ROLLUPS: [Rollup; 3] = [
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

/// A rollup's columns: by what it sums, and what.
pub(super) struct RollupColumns {
    pub(super) keys: Vec<String>,
    pub(super) sums: Vec<String>,
}

pub(super) async fn columns_of(
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
pub(super) async fn difference(
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

/// Whether the view lacks something that rows of `buckets` have. What it has besides makes up for none
/// of it, unless it is of the same keys.
pub(super) async fn lacks_rows(
    warehouse: &Warehouse,
    rollup: &Rollup,
    buckets: &[String],
) -> Result<bool, WarehouseError> {
    let different = differing(warehouse, rollup, buckets).await?;
    if different.is_empty() {
        return Ok(false);
    }
    let columns = columns_of(warehouse, rollup).await?;
    let difference = difference(warehouse, rollup, &columns, &different).await?;
    let lacking = format!("SELECT countIf({} > 0) FROM ({difference})", rollup.count);
    Ok(cell::<u64>(&warehouse.query_table(&lacking).await?, 0, 0)? > 0)
}

/// Those of `buckets` in which the view has other sums than the rows.
pub(super) async fn differing(
    warehouse: &Warehouse,
    rollup: &Rollup,
    buckets: &[String],
) -> Result<Vec<String>, WarehouseError> {
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
        (kept != sums).then_some(bucket)
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
