//! From schema 1 to schema 2 on a real ClickHouse engine: exact under load, killed at any statement.

#![allow(clippy::unwrap_used)] // a panic here is a failed test

#[path = "../common/mod.rs"]
mod common;
mod killed;
mod together;

use std::time::Duration;

use common::{call_event, row, warehouse};
use spendfuse_devstack::{ClickHouse, ClickHouseOptions};
use spendfuse_domain::Nanos;
use spendfuse_domain::event::{Body, Event};
use spendfuse_warehouse::block::insert_columns;
use spendfuse_warehouse::{Link, RowBlock, SpendBlock, Warehouse, WarehouseConfig};

/// The schema of the release before, as its own migrations made it.
const SCHEMA_1: [&str; 4] = [
    include_str!("../../migrations/0001_spend.sql"),
    include_str!("../../migrations/0002_ledger.sql"),
    include_str!("../../migrations/0003_views.sql"),
    include_str!("../../migrations/0004_analysts.sql"),
];

async fn schema_1(server: &ClickHouse) -> Warehouse {
    let warehouse = warehouse(server);
    let outside = Warehouse::new(WarehouseConfig {
        database: "default".to_owned(),
        ..warehouse.config().clone()
    })
    .unwrap();
    let database = "CREATE DATABASE spendfuse";
    outside.execute(database, "a test").await.unwrap();
    let migrations = "CREATE TABLE migrations (number UInt32, name String, \
        applied_at DateTime('UTC') DEFAULT now()) ENGINE = ReplacingMergeTree ORDER BY number";
    warehouse.execute(migrations, "a test").await.unwrap();
    for (index, sql) in SCHEMA_1.into_iter().enumerate() {
        let sql = sql
            .replace("{engine}", "")
            .replace(
                "{deduplication}",
                "non_replicated_deduplication_window = 100000",
            )
            .replace("{spend_retention_months}", "13");
        for statement in sql.split(";\n").filter(|text| !text.trim().is_empty()) {
            warehouse.execute(statement, "a test").await.unwrap();
        }
        let number = index + 1;
        let done = format!("INSERT INTO migrations (number, name) SELECT {number}, 'x'");
        warehouse.execute(&done, "a test").await.unwrap();
    }
    warehouse
}

const ROWS: u32 = 40;

/// A block of schema 1: calls of two months, and a payment.
fn block(seq: u64) -> RowBlock {
    let mut block = SpendBlock::new("spendfuse.usage");
    for index in 0..ROWS {
        let mut event = call_event(&format!("{seq}-{index}"));
        event.time = event
            .time
            .plus(i64::from(index % 2) * 31 * 24 * 3600 * 1000);
        event.attribution.user = format!("u-{}", index % 3).into();
        let mut written = row(&event, seq, index);
        let paid = Event {
            body: Body::Revenue(Nanos::from_dollars(1)),
            ..event.clone()
        };
        if index == 0 {
            written = row(&paid, seq, index);
            written.cost = Default::default();
        }
        block.push(&written);
    }
    let link = Link {
        partition: 3,
        previous: seq - 1,
        seq,
    };
    RowBlock::decode(&block.finish_record(link).unwrap().into()).unwrap()
}

/// Inserts as a loader of the release before does, until it is in.
async fn load(warehouse: &Warehouse, seq: u64) {
    let columns = insert_columns("spend", 1).unwrap();
    let block = block(seq);
    loop {
        let native = [block.native.clone()];
        let token = format!("spend:rows:3:{seq}");
        match warehouse
            .insert_native("spend", &columns, &token, native)
            .await
        {
            Ok(()) => return,
            Err(error) => assert!(!error.is_final(), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn one(warehouse: &Warehouse, sql: &str) -> String {
    let table = warehouse.query_table(sql).await.unwrap();
    table.rows[0].join(" ")
}

/// Rows and rollups say the same, and it is what was loaded.
async fn is_exact(warehouse: &Warehouse, blocks: u64) {
    let rows = blocks * u64::from(ROWS);
    let in_spend =
        "SELECT count(), sum(calls), sum(reasoning_tokens), sum(cost), sum(revenue) FROM spend";
    let expected = one(warehouse, in_spend).await;
    let calls = rows - blocks;
    assert!(
        expected.starts_with(&format!("{rows} {calls} {} ", calls * 9)),
        "{expected}"
    );
    for rollup in ["spend_hourly", "spend_daily"] {
        let sums = format!(
            "SELECT sum(entries), sum(calls), sum(reasoning_tokens), sum(cost), sum(revenue) FROM {rollup}"
        );
        assert_eq!(one(warehouse, &sums).await, expected, "{rollup}");
        let by_user = format!(
            "SELECT sum(calls), uniqExact(user_id), uniqExact(tags['team']) FROM {rollup} WHERE user_id != ''"
        );
        assert_eq!(
            one(warehouse, &by_user).await,
            format!("{calls} 3 1"),
            "{rollup}"
        );
    }
    let audit = "SELECT sum(count), sum(nanos) = toInt128((SELECT sum(cost) FROM spend) * 1000000000) \
                 FROM spend_audit WHERE epoch = 0";
    assert_eq!(one(warehouse, audit).await, format!("{rows} 1"));
    let users = "SELECT uniqExact(user_id), countIf(user_id = '') FROM spend";
    assert_eq!(one(warehouse, users).await, "3 0");
}

/// `cargo test --release -p spendfuse-warehouse --test schema_2 -- --ignored --nocapture ten_million`
#[tokio::test]
#[ignore = "a measurement"]
async fn how_long_ten_million_rows_take() {
    let server = ClickHouse::start(ClickHouseOptions::default()).unwrap();
    let warehouse = schema_1(&server).await;
    load(&warehouse, 1).await;
    // Two months of 5,000 customers.
    for million in 1..=10 {
        let more = format!(
            "INSERT INTO spend SETTINGS async_insert = 0 SELECT one.* REPLACE (\
               {million} * 1000000 + n.number AS meter_seq, \
               concat('c-', toString(n.number % 5000)) AS customer, \
               time - toIntervalHour(n.number % 1440) AS time) \
             FROM (SELECT * FROM spend WHERE meter_seq = 1) AS one \
             CROSS JOIN numbers(25000) AS n"
        );
        warehouse.execute(&more, "a test").await.unwrap();
    }
    let rows = one(&warehouse, "SELECT count() FROM spend").await;
    let begin = std::time::Instant::now();
    warehouse.migrate().await.unwrap();
    let lasted = begin.elapsed();
    println!("{rows} rows were migrated in {lasted:?}");
    let sums = "SELECT (SELECT count() FROM spend) = (SELECT sum(entries) FROM spend_hourly), \
        (SELECT sum(cost) FROM spend) = (SELECT sum(cost) FROM spend_daily)";
    assert_eq!(one(&warehouse, sums).await, "1 1");
}

#[tokio::test]
async fn months_whose_rows_are_gone_keep_the_sums_of_the_old_rollups() {
    let server = ClickHouse::start(ClickHouseOptions::default()).unwrap();
    let warehouse = schema_1(&server).await;
    for seq in 1..=3 {
        load(&warehouse, seq).await;
    }
    let expired = "ALTER TABLE spend DROP PARTITION ID '202611'";
    warehouse.execute(expired, "a test").await.unwrap();
    let sums = "SELECT sum(entries), sum(calls), sum(cost), sum(revenue) FROM spend_hourly";
    let before = one(&warehouse, sums).await;
    warehouse.migrate().await.unwrap();
    assert_eq!(one(&warehouse, sums).await, before);
    let known = "SELECT toYYYYMM(hour) AS month, uniqExact(user_id), uniqExact(tags) FROM spend_hourly \
                 WHERE kind = 'usage' AND tags = map() GROUP BY month";
    let known = warehouse.query_table(known).await.unwrap();
    assert_eq!(known.rows, [["202611", "3", "1"]]);
}

#[tokio::test]
async fn row_blocks_of_the_last_release_go_into_schema_2() {
    let server = ClickHouse::start(ClickHouseOptions::default()).unwrap();
    let warehouse = warehouse(&server);
    warehouse.migrate().await.unwrap();
    let samples = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/samples/v0.1.0/row_blocks"
    );
    let mut rows = std::collections::BTreeMap::new();
    for sample in std::fs::read_dir(samples).unwrap() {
        let sample = std::fs::read(sample.unwrap().path()).unwrap();
        let block = RowBlock::decode(&sample.into()).unwrap();
        assert_eq!((block.schema_version, block.epoch), (1, 0));
        let columns = insert_columns(&block.table, 1).unwrap();
        let inserted = warehouse
            .insert_native(&block.table, &columns, &block.table, [block.native.clone()])
            .await;
        inserted.unwrap();
        *rows.entry(block.table).or_insert(0) += block.rows;
    }
    assert!(rows.len() >= 3, "{rows:?}");
    for (table, count) in rows {
        let found = format!("SELECT count(), max(epoch) FROM {table}");
        assert_eq!(
            one(&warehouse, &found).await,
            format!("{count} 0"),
            "{table}"
        );
    }
    let calls = "SELECT sum(calls) = countIf(kind = 'usage') AND sum(calls) > 0, \
        (SELECT sum(calls) FROM spend_daily) = sum(calls) FROM spend";
    assert_eq!(one(&warehouse, calls).await, "1 1");
}

#[tokio::test]
async fn every_table_and_column_says_what_it_is_and_user_is_not_the_login() {
    let server = ClickHouse::start(ClickHouseOptions::default()).unwrap();
    let warehouse = warehouse(&server);
    warehouse.migrate().await.unwrap();
    let tables = "SELECT name FROM system.tables WHERE database = 'spendfuse' AND comment = ''";
    let tables = warehouse.query_table(tables).await.unwrap().rows;
    assert!(tables.is_empty(), "{tables:?}");
    let columns =
        "SELECT table, name FROM system.columns WHERE database = 'spendfuse' AND comment = ''";
    let columns = warehouse.query_table(columns).await.unwrap().rows;
    assert!(columns.is_empty(), "{columns:?}");
    load(&warehouse, 1).await;
    let user = warehouse.query_table("SELECT user FROM spend").await;
    assert!(user.is_err(), "{user:?}");
    for table in ["spend_hourly", "spend_daily", "calls", "revenue_events"] {
        let users = format!("SELECT min(user LIKE 'u-%'), min(user = user_id) FROM {table}");
        assert_eq!(one(&warehouse, &users).await, "1 1", "{table}");
    }
    let unsynced = "SELECT name FROM system.tables WHERE database = 'spendfuse' \
        AND name NOT LIKE '%_schema_1' AND engine LIKE '%MergeTree' \
        AND engine_full NOT LIKE '%fsync_after_insert = 1%'";
    let unsynced = warehouse.query_table(unsynced).await.unwrap().rows;
    assert!(unsynced.is_empty(), "{unsynced:?}");
    let other = "ALTER TABLE gaps MODIFY COMMENT 'of another release'";
    warehouse.execute(other, "a test").await.unwrap();
    assert_eq!(warehouse.migrate().await.unwrap(), [0_u32; 0]);
    let comment =
        "SELECT comment LIKE 'one row for each loss%' FROM system.tables WHERE name = 'gaps'";
    assert_eq!(one(&warehouse, comment).await, "1");
    for table in ["verdicts", "budget_windows", "finding_changes"] {
        let engine = format!("SELECT engine_full FROM system.tables WHERE name = '{table}'");
        assert!(
            one(&warehouse, &engine)
                .await
                .contains("toIntervalMonth(13)")
        );
    }
}
