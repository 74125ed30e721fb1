//! The reference: what the produced events cost, by SQL over their JSON and table `prices`.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use spendfuse_domain::Nanos;
use spendfuse_warehouse::Warehouse;

use crate::error::DemoError;

const SQL: &str = include_str!("reference.sql");
const TABLE: &str = "CREATE TABLE IF NOT EXISTS demo_events (seq UInt64, raw String) \
                     ENGINE = MergeTree ORDER BY seq";
const LINES_AN_INSERT: usize = 10_000;

/// What SQL makes of the produced events.
#[derive(Clone, Debug)]
pub struct Reference {
    /// Without those that must be rejected.
    pub accepted: u64,
    /// Without repetitions too.
    pub counted: u64,
    /// What they cost.
    pub spend: Nanos,
}

#[derive(Deserialize)]
struct Answer {
    accepted: u64,
    counted: u64,
    nanos: String,
}

/// Writes `events` to table `demo_events` and asks what they cost by price book `version`.
///
/// # Errors
/// What ClickHouse says.
pub async fn compute(
    warehouse: &Warehouse,
    events: &[Vec<u8>],
    version: &str,
) -> Result<Reference, DemoError> {
    warehouse
        .execute(TABLE, "creating table demo_events")
        .await?;
    for (index, some) in events.chunks(LINES_AN_INSERT).enumerate() {
        let first = index * LINES_AN_INSERT;
        let token = format!("demo_events:{first}");
        let body = lines(first, some);
        warehouse
            .insert_as("JSONEachRow", "demo_events", "seq, raw", &token, [body])
            .await?;
    }
    let sql = SQL.replace("{prices}", version);
    let doing = "the reference";
    let failed = |detail: String| DemoError::Answer { doing, detail };
    let mut rows = warehouse.query_json(&sql).await?;
    let row = rows.pop().ok_or_else(|| failed("no row".to_owned()))?;
    let answer: Answer = serde_json::from_value(row).map_err(|error| failed(error.to_string()))?;
    let nanos = answer.nanos.parse().map_err(|_| failed(answer.nanos))?;
    Ok(Reference {
        accepted: answer.accepted,
        counted: answer.counted,
        spend: Nanos::new(nanos),
    })
}

fn lines(first: usize, events: &[Vec<u8>]) -> Bytes {
    let mut body = Vec::new();
    for (index, event) in events.iter().enumerate() {
        let raw = String::from_utf8_lossy(event);
        let line = json!({"seq": first + index, "raw": raw});
        body.extend_from_slice(line.to_string().as_bytes());
        body.push(b'\n');
    }
    body.into()
}
