//! Blocks, migrations, rollups and tokens against a real ClickHouse engine.

#![allow(clippy::unwrap_used)] // a panic here is a failed test

#[path = "../common/mod.rs"]
mod common;
mod other_tables;
mod spend;
mod sums;
mod tls;

use common::{call_event, row, warehouse};
use spendfuse_devstack::{ClickHouse, ClickHouseOptions};
use spendfuse_warehouse::{Link, RowBlock, SpendBlock, Warehouse, WarehouseConfig, WarehouseError};

fn clickhouse() -> ClickHouse {
    ClickHouse::start(ClickHouseOptions::default()).unwrap()
}

/// Inserts a record of a rows topic as the loader would.
async fn insert(warehouse: &Warehouse, record: Vec<u8>, token: &str) {
    let block = RowBlock::decode(&record.into()).unwrap();
    let columns =
        spendfuse_warehouse::block::insert_columns(&block.table, block.schema_version).unwrap();
    warehouse
        .insert_native(&block.table, &columns, token, [block.native])
        .await
        .unwrap();
}

const LINK: Link = Link {
    partition: 3,
    previous: 0,
    seq: 7,
};

#[tokio::test]
async fn migrations_run_twice_and_refuse_a_newer_schema() {
    let server = clickhouse();
    let warehouse = warehouse(&server);
    assert!(matches!(
        warehouse.check_deduplication().await,
        Err(WarehouseError::MissingTable { .. } | WarehouseError::Refused { .. })
    ));
    assert_eq!(
        warehouse.migrate().await.unwrap(),
        [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    );
    assert_eq!(warehouse.migrate().await.unwrap(), [0_u32; 0]);
    warehouse.check_deduplication().await.unwrap();

    let keeps_longer = Warehouse::new(WarehouseConfig {
        spend_retention_months: 25,
        ..warehouse.config().clone()
    })
    .unwrap();
    keeps_longer.migrate().await.unwrap();
    let engine = "SELECT engine_full FROM system.tables WHERE name = 'spend'";
    let engine = warehouse.query_table(engine).await.unwrap();
    assert!(engine.rows[0][0].contains("toIntervalMonth(25)"));

    let shrink = "ALTER TABLE spend_daily MODIFY SETTING non_replicated_deduplication_window = 100";
    warehouse.execute(shrink, "a test").await.unwrap();
    let error = warehouse.check_deduplication().await.unwrap_err();
    assert!(
        error.to_string().contains("spend_daily remembers 100"),
        "{error}"
    );

    let newer = "INSERT INTO migrations (number, name) SELECT 99, 'later'";
    warehouse.execute(newer, "a test").await.unwrap();
    assert!(matches!(
        warehouse.migrate().await,
        Err(WarehouseError::SchemaTooNew { found: 99, .. })
    ));
}

#[tokio::test]
async fn an_insert_that_a_crash_of_clickhouse_tore_is_healed_by_its_replay() {
    let server = clickhouse();
    let warehouse = warehouse(&server);
    warehouse.migrate().await.unwrap();
    let mut records = Vec::new();
    for seq in 1..=6_u64 {
        let mut block = SpendBlock::new("spendfuse.usage");
        for index in 0..20_000 {
            let mut event = call_event(&format!("{seq}-{index}"));
            event.time = event
                .time
                .plus(i64::from(index % 3) * 31 * 24 * 3600 * 1000);
            block.push(&row(&event, seq, index));
        }
        records.push(block.finish_record(LINK).unwrap());
    }
    let inserts = records.iter().enumerate().map(|(number, record)| {
        let (warehouse, record) = (warehouse.clone(), record.clone());
        tokio::spawn(async move {
            let block = RowBlock::decode(&record.into()).unwrap();
            let columns = spendfuse_warehouse::block::insert_columns("spend", 1).unwrap();
            let token = format!("t{number}");
            warehouse
                .insert_native("spend", &columns, &token, [block.native])
                .await
        })
    });
    let inserts: Vec<_> = inserts.collect();
    tokio::time::sleep(std::time::Duration::from_millis(60)).await;
    server.kill();
    for insert in inserts {
        let _ = insert.await.unwrap();
    }
    server.restart().unwrap();
    server.wait_ready().unwrap();
    for (number, record) in records.into_iter().enumerate() {
        insert(&warehouse, record, &format!("t{number}")).await;
    }
    assert_eq!(warehouse.totals().await.unwrap().entries, 120_000);
    let rollups = "SELECT (SELECT sum(entries) FROM spend_hourly), \
        (SELECT sum(entries) FROM spend_daily), (SELECT sum(count) FROM spend_audit)";
    let rollups = warehouse.query_table(rollups).await.unwrap();
    assert_eq!(rollups.rows, [["120000", "120000", "120000"]]);
}

/// However fast it is restarted, and as often.
#[tokio::test]
async fn a_restarted_server_is_another_run() {
    let server = clickhouse();
    let mut known = std::collections::BTreeSet::new();
    for _ in 0..4 {
        let warehouse = warehouse(&server);
        warehouse.migrate().await.unwrap();
        let run = warehouse.server_run().await.unwrap();
        assert_eq!(warehouse.server_run().await.unwrap(), run);
        assert!(known.insert(run.unwrap()));
        server.kill();
        server.restart().unwrap();
        server.wait_ready().unwrap();
    }
}
