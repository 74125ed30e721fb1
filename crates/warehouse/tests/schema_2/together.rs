//! Several programs that migrate at once.

use std::time::Duration;

use spendfuse_devstack::{ClickHouse, ClickHouseOptions};

use crate::common::warehouse;
use crate::{is_exact, load, one, schema_1};

#[tokio::test]
async fn programs_that_migrate_together_and_a_server_that_dies_leave_it_exact() {
    let server = ClickHouse::start(ClickHouseOptions::default()).unwrap();
    let warehouse = schema_1(&server).await;
    for seq in 1..=20 {
        load(&warehouse, seq).await;
    }
    for pause in [30, 80, 150] {
        let migrating = warehouse.clone();
        let migration = tokio::spawn(async move { migrating.migrate().await });
        tokio::time::sleep(Duration::from_millis(pause)).await;
        server.kill();
        let _ = migration.await.unwrap();
        server.restart().unwrap();
        server.wait_ready().unwrap();
    }
    let both = [(); 3].map(|()| {
        let migrating = warehouse.clone();
        tokio::spawn(async move { migrating.migrate().await })
    });
    for one in both {
        one.await.unwrap().unwrap();
    }
    load(&warehouse, 21).await;
    is_exact(&warehouse, 21).await;
    let earlier = "INSERT INTO migrations SELECT 6, 'schema_2', now() - INTERVAL 2 DAY";
    warehouse.execute(earlier, "a test").await.unwrap();
    warehouse.migrate().await.unwrap();
    let left = "SELECT count() FROM system.tables WHERE match(name, '_(schema_1|filling_.*)$')";
    assert_eq!(one(&warehouse, left).await, "0");
}

#[tokio::test]
async fn programs_that_migrate_at_once_all_succeed() {
    for stagger in [0, 15, 40, 100] {
        let server = ClickHouse::start(ClickHouseOptions::default()).unwrap();
        let warehouse = schema_1(&server).await;
        load(&warehouse, 1).await;
        let programs = [0, 1, 2, 3].map(|place| {
            let migrating = warehouse.clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(place * stagger)).await;
                migrating.migrate().await
            })
        });
        let loading = warehouse.clone();
        let loader = tokio::spawn(async move {
            for seq in 2..=10 {
                load(&loading, seq).await;
            }
        });
        for program in programs {
            program.await.unwrap().unwrap();
        }
        loader.await.unwrap();
        is_exact(&warehouse, 10).await;
    }
}

#[tokio::test]
async fn views_that_another_program_replaces_do_not_end_a_start() {
    let server = ClickHouse::start(ClickHouseOptions::default()).unwrap();
    let warehouse = warehouse(&server);
    warehouse.migrate().await.unwrap();
    // A view made anew has no comments, so that every start writes them.
    let replacing = warehouse.clone();
    let other = tokio::spawn(async move {
        for _ in 0..300 {
            let view = "CREATE OR REPLACE VIEW calls AS SELECT * FROM spend WHERE kind = 'usage'";
            replacing.execute(view, "a test").await.unwrap();
        }
    });
    while !other.is_finished() {
        warehouse.migrate().await.unwrap();
    }
    other.await.unwrap();
}
