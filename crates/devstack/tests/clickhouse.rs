//! The official client, unchanged, against the embedded engine.
// Clippy's exception for tests does not cover their helper functions.
#![allow(clippy::unwrap_used)]

use clickhouse::{Client, Row};
use serde::{Deserialize, Serialize};
use spendfuse_devstack::{ClickHouse, ClickHouseOptions};

#[derive(Debug, Clone, PartialEq, Row, Serialize, Deserialize)]
struct Spend {
    id: u64,
    workspace: String,
    /// Nano-dollars: `Decimal(38, 9)`.
    cost: i128,
}

impl Spend {
    fn numbered(id: u64) -> Self {
        Self {
            id,
            workspace: "acme".to_owned(),
            cost: -1_234_567_890_123_456_789_012_345_678 + i128::from(id),
        }
    }
}

const CREATE: &str = "CREATE TABLE spend (id UInt64, workspace LowCardinality(String), cost Decimal(38, 9)) \
    ENGINE = MergeTree ORDER BY id SETTINGS non_replicated_deduplication_window = 100";

fn client(server: &ClickHouse) -> Client {
    Client::default().with_url(server.url())
}

async fn insert(client: &Client, token: &str, rows: &[Spend]) {
    let insert = client.insert::<Spend>("spend").await.unwrap();
    let mut insert = insert.with_setting("insert_deduplication_token", token);
    for row in rows {
        insert.write(row).await.unwrap();
    }
    insert.end().await.unwrap();
}

async fn all(client: &Client) -> Vec<Spend> {
    let query = client.query("SELECT ?fields FROM spend ORDER BY id");
    query.fetch_all().await.unwrap()
}

#[tokio::test]
async fn rows_survive_a_kill_and_a_token_counts_once() {
    let server = ClickHouse::start(ClickHouseOptions::default()).unwrap();
    let client = client(&server);
    client.query(CREATE).execute().await.unwrap();
    assert_eq!(all(&client).await, []);

    let rows: Vec<Spend> = (1..=3).map(Spend::numbered).collect();
    insert(&client, "a", &rows).await;
    insert(&client, "a", &rows).await;
    assert_eq!(all(&client).await, rows);

    let plain = client
        .clone()
        .with_compression(clickhouse::Compression::None);
    insert(&plain, "b", &[Spend::numbered(4)]).await;

    server.kill();
    server.restart().unwrap();
    server.wait_ready().unwrap();
    // The old client's idle connections ended with the server.
    let client = self::client(&server);
    insert(&client, "b", &[Spend::numbered(4)]).await;
    let expected: Vec<Spend> = (1..=4).map(Spend::numbered).collect();
    assert_eq!(all(&client).await, expected);
    assert!(server.stop());
}

#[tokio::test]
async fn native_blocks_in_one_body_are_one_insert() {
    let server = ClickHouse::start(ClickHouseOptions::default()).unwrap();
    let client = client(&server);
    client.query(CREATE).execute().await.unwrap();
    let mut body = Vec::new();
    for id in 1..=2_u64 {
        let row =
            format!("SELECT {id}::UInt64 AS id, 'acme' AS workspace, 0.5::Decimal(38, 9) AS cost");
        let mut block = client.query(&row).fetch_bytes("Native").unwrap();
        body.extend_from_slice(&block.collect().await.unwrap());
    }
    for _ in 0..2 {
        let sql = "INSERT INTO spend (id, workspace, cost) FORMAT Native";
        let insert = client.insert_formatted_with(sql);
        let mut insert = insert.with_setting("insert_deduplication_token", "native");
        insert.send(body.clone().into()).await.unwrap();
        insert.end().await.unwrap();
    }
    let rows = all(&client).await;
    let ids: Vec<u64> = rows.iter().map(|row| row.id).collect();
    assert_eq!(ids, [1, 2]);
    assert!(rows.iter().all(|row| row.cost == 500_000_000));
}

#[tokio::test]
async fn a_failed_query_leaves_nothing_behind_for_the_next_one() {
    let server = ClickHouse::start(ClickHouseOptions::default()).unwrap();
    let client = client(&server);
    for _ in 0..5 {
        // Fails after it has produced rows.
        let sql = "SELECT toUInt64(number + throwIf(number = 100000)) FROM numbers(200000) \
                   SETTINGS max_block_size = 1000, max_threads = 1";
        let error = client.query(sql).fetch_all::<u64>().await.unwrap_err();
        // The official client (0.15.3) reads a late error only where its last read of the socket
        // holds all of it; else it says that there is one.
        let (error, codes) = (error.to_string(), ["Code: 395", "found exception tag"]);
        assert!(codes.iter().any(|code| error.contains(code)), "{error}");
        let error = client.query("SELECT nonsense").fetch_all::<u64>().await;
        assert!(error.unwrap_err().to_string().contains("Code: 47"));
        let mine: u64 = client
            .query("SELECT toUInt64(7)")
            .fetch_one()
            .await
            .unwrap();
        assert_eq!(mine, 7);
    }
}

#[tokio::test]
async fn a_result_of_many_pieces_is_one_document() {
    let server = ClickHouse::start(ClickHouseOptions::default()).unwrap();
    let client = client(&server);
    let sql = "SELECT number, toString(number) FROM numbers(300000)";
    let rows: Vec<(u64, String)> = client.query(sql).fetch_all().await.unwrap();
    assert_eq!(rows.len(), 300_000);
    let is_right =
        |(index, row): (usize, &(u64, String))| row.0 == index as u64 && row.1 == index.to_string();
    assert!(rows.iter().enumerate().all(is_right));
}

#[tokio::test]
async fn settings_databases_and_parameters_stay_with_their_request() {
    let server = ClickHouse::start(ClickHouseOptions::default()).unwrap();
    let client = client(&server);
    let threads = |client: &Client| {
        client
            .query("SELECT toString(getSetting('max_block_size')), currentDatabase()")
            .fetch_one::<(String, String)>()
    };
    let before = threads(&client).await.unwrap();
    client
        .query("CREATE DATABASE other")
        .execute()
        .await
        .unwrap();
    let set = client
        .clone()
        .with_setting("max_block_size", "77")
        .with_database("other");
    let inside = threads(&set).await.unwrap();
    assert_eq!(inside, ("77".to_owned(), "other".to_owned()));
    assert_eq!(threads(&client).await.unwrap(), before);

    let awkward = "it's\ta \"value\"\n\\";
    let query = client.query("SELECT {text:String}").param("text", awkward);
    assert_eq!(query.fetch_one::<String>().await.unwrap(), awkward);
    let error = client
        .query("SELECT 1")
        .with_setting("no_such_setting", "1")
        .execute()
        .await;
    assert!(error.unwrap_err().to_string().contains("Code: 115"));
}

#[tokio::test]
async fn a_named_session_keeps_what_its_statements_set_and_survives_their_errors() {
    let server = ClickHouse::start(ClickHouseOptions::default()).unwrap();
    let named = |id: &str| client(&server).with_setting("session_id", id);
    let threads = async |client: &Client| -> u64 {
        let query = client.query("SELECT toUInt64(getSetting('max_threads'))");
        query.fetch_one().await.unwrap()
    };
    let ours = named("ours");
    for statement in [
        "SET max_threads = 3",
        "CREATE TEMPORARY TABLE one (x UInt8)",
    ] {
        ours.query(statement).execute().await.unwrap();
    }
    ours.query("INSERT INTO one VALUES (7)")
        .execute()
        .await
        .unwrap();
    ours.query("SELECT throwIf(number = 2) FROM numbers(3)")
        .execute()
        .await
        .unwrap_err();
    let kept = "SELECT x FROM one";
    assert_eq!(ours.query(kept).fetch_one::<u8>().await.unwrap(), 7);
    // A request's own setting ends with it.
    assert_eq!(
        threads(&ours.clone().with_setting("max_threads", "2")).await,
        2
    );
    assert_eq!(threads(&ours).await, 3);

    named("others").query(kept).execute().await.unwrap_err();
    client(&server).query(kept).execute().await.unwrap_err();
    let gone = named("gone").with_setting("session_check", "1");
    let error = gone.query("SELECT 1").execute().await.unwrap_err();
    assert!(error.to_string().contains("SESSION_NOT_FOUND"), "{error}");
}

#[tokio::test]
async fn an_abandoned_insert_writes_nothing_and_a_wrong_password_enters_nowhere() {
    let server = ClickHouse::start(ClickHouseOptions {
        password: Some("secret".to_owned()),
        ..ClickHouseOptions::default()
    })
    .unwrap();
    let stranger = client(&server);
    let error = stranger.query("SELECT 1").execute().await.unwrap_err();
    assert!(error.to_string().contains("Code: 516"), "{error}");

    let client = stranger.with_user("default").with_password("secret");
    client.query(CREATE).execute().await.unwrap();
    let mut insert = client.insert::<Spend>("spend").await.unwrap();
    for id in 0..50_000 {
        insert.write(&Spend::numbered(id)).await.unwrap();
    }
    drop(insert);
    assert_eq!(all(&client).await, []);
}
