//! A program that dies, or is late, at any statement of the migration.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use spendfuse_devstack::{ClickHouse, ClickHouseOptions};
use spendfuse_warehouse::{Warehouse, WarehouseConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::{is_exact, load, one, schema_1};

/// Passes the first `limit` requests on to ClickHouse. The next is passed on as well where
/// `is_carried_out`, but not answered; connections are closed from then on: whoever asked is killed.
async fn dying_client(
    target: String,
    limit: usize,
    is_carried_out: bool,
) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(&target).await.unwrap();
            tokio::spawn(pass_on(
                client,
                server,
                Arc::clone(&counted),
                limit,
                is_carried_out,
            ));
        }
    });
    (url, seen)
}

async fn pass_on(
    mut client: TcpStream,
    mut server: TcpStream,
    seen: Arc<AtomicUsize>,
    limit: usize,
    is_carried_out: bool,
) {
    let (mut asked, mut answered) = (vec![0; 65536], vec![0; 65536]);
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let Ok(length @ 1..) = read else { return };
                let begins = asked[..length].windows(7).filter(|text| text == b"POST /?").count();
                if seen.fetch_add(begins, Ordering::Relaxed) + begins > limit {
                    if is_carried_out {
                        server.write_all(&asked[..length]).await.unwrap();
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                    return;
                }
                server.write_all(&asked[..length]).await.unwrap();
            }
            read = server.read(&mut answered) => {
                let Ok(length @ 1..) = read else { return };
                if client.write_all(&answered[..length]).await.is_err() { return; }
            }
        }
    }
}

/// Stops at the statement that closes the gate, says so, and passes it on when it is let go; closes
/// the connection after that where it `dies`.
async fn client_stopped_at_the_gate(
    target: String,
    dies: bool,
) -> (String, Arc<Notify>, Arc<Notify>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (stopped, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let answer = (url, Arc::clone(&stopped), Arc::clone(&go_on));
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = TcpStream::connect(&target).await.unwrap();
            let (stopped, go_on) = (Arc::clone(&stopped), Arc::clone(&go_on));
            tokio::spawn(async move {
                let (mut asked, mut answered) = (vec![0; 65536], vec![0; 65536]);
                loop {
                    tokio::select! {
                        read = client.read(&mut asked) => {
                            let Ok(length @ 1..) = read else { return };
                            let is_gate = asked[..length].windows(14).any(|text| text == b"ADD CONSTRAINT");
                            if is_gate {
                                stopped.notify_one();
                                go_on.notified().await;
                            }
                            server.write_all(&asked[..length]).await.unwrap();
                            if is_gate && dies {
                                tokio::time::sleep(Duration::from_secs(1)).await;
                                return;
                            }
                        }
                        read = server.read(&mut answered) => {
                            let Ok(length @ 1..) = read else { return };
                            if client.write_all(&answered[..length]).await.is_err() { return; }
                        }
                    }
                }
            });
        }
    });
    answer
}

#[tokio::test]
async fn a_gate_that_is_closed_after_the_migration_is_opened_again() {
    for dies in [true, false] {
        let server = ClickHouse::start(ClickHouseOptions::default()).unwrap();
        let warehouse = schema_1(&server).await;
        load(&warehouse, 1).await;
        let target = server.url().replace("http://", "");
        let (url, stopped, go_on) = client_stopped_at_the_gate(target, dies).await;
        let slow = Warehouse::new(WarehouseConfig {
            url,
            ..warehouse.config().clone()
        })
        .unwrap();
        let slow = tokio::spawn(async move { slow.migrate().await });
        stopped.notified().await;
        assert_eq!(warehouse.migrate().await.unwrap(), [6, 7, 8, 9, 10]);
        load(&warehouse, 2).await;
        go_on.notify_one();
        let outcome = slow.await.unwrap();
        assert_eq!(outcome.is_err(), dies, "{outcome:?}");
        let is_closed = "SELECT create_table_query LIKE '%CONSTRAINT migrating%' \
            FROM system.tables WHERE name = 'spend' AND database = 'spendfuse'";
        assert_eq!(
            one(&warehouse, is_closed).await,
            u8::from(dies).to_string(),
            "dies: {dies}"
        );
        assert_eq!(warehouse.migrate().await.unwrap(), [0_u32; 0]);
        let loaded = tokio::time::timeout(Duration::from_secs(60), load(&warehouse, 3));
        loaded.await.unwrap();
        is_exact(&warehouse, 3).await;
    }
}

#[tokio::test]
async fn killed_under_load_the_migration_goes_on_and_is_exact() {
    killed_under_load(7).await;
}

/// `cargo test -p spendfuse-warehouse --test schema_2 -- --ignored`
#[tokio::test]
#[ignore = "a kill at every statement: minutes"]
async fn killed_at_any_statement_under_load_the_migration_goes_on_and_is_exact() {
    killed_under_load(1).await;
}

/// Each attempt gets `further` by so many statements than the one before.
async fn killed_under_load(further: usize) {
    let server = ClickHouse::start(ClickHouseOptions::default()).unwrap();
    let warehouse = schema_1(&server).await;
    load(&warehouse, 1).await;
    let is_done = Arc::new(AtomicBool::new(false));
    let (loading, stop) = (warehouse.clone(), Arc::clone(&is_done));
    let loader = tokio::spawn(async move {
        let mut seq = 1;
        while !stop.load(Ordering::Relaxed) {
            seq += 1;
            load(&loading, seq).await;
        }
        seq
    });
    let target = server.url().replace("http://", "");
    let mut limit = 0;
    let mut kills = 0;
    loop {
        let is_carried_out = limit % 2 == 0;
        let (url, seen) = dying_client(target.clone(), limit, is_carried_out).await;
        let dying = Warehouse::new(WarehouseConfig {
            url,
            ..warehouse.config().clone()
        })
        .unwrap();
        let outcome = dying.migrate().await;
        if seen.load(Ordering::Relaxed) <= limit {
            outcome.unwrap();
            break;
        }
        assert!(outcome.is_err() || limit > 0);
        kills += 1;
        limit += further;
        assert!(limit < 200, "the migration does not get on");
    }
    assert!(kills * further > 30, "{kills}");
    assert_eq!(warehouse.migrate().await.unwrap(), [0_u32; 0]);
    warehouse.check_deduplication().await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    is_done.store(true, Ordering::Relaxed);
    let blocks = loader.await.unwrap();
    is_exact(&warehouse, blocks).await;
    // A repeated insert is still known, to the views as well.
    load(&warehouse, blocks).await;
    is_exact(&warehouse, blocks).await;
}
