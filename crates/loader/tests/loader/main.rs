//! The loader between a real Kafka and a real ClickHouse engine, through crashes of both sides.

#![allow(clippy::unwrap_used)]

#[path = "../../../warehouse/tests/common/mod.rs"]
mod common;
mod fixture;
mod moved;
mod power;

use std::path::Path;

use spendfuse_bus::{EventProducer, ProducerOptions};
use spendfuse_devstack::wait_until;
use spendfuse_loader::LoaderNews;
use spendfuse_loader::protocol::StopReason;

use fixture::{COUNTS, Fixture, PATIENCE, ROWS_A_BLOCK, RunningLoader, create_topics, pause};

#[test]
fn every_block_is_loaded_once_through_crashes_and_a_broken_one_stops_only_its_partition() {
    let mut fixture = Fixture::start();
    let first = fixture.start_loader();
    for partition in 0..2 {
        fixture.count_calls(partition, 20);
    }
    fixture.wait_for_rows(40);

    // The loader goes while ClickHouse hangs with its inserts: their intents are left behind, and
    // the inserts themselves arrive late.
    fixture.stack.clickhouse.pause();
    for partition in 0..2 {
        fixture.count_calls(partition, 5);
    }
    pause(500);
    first.end();
    fixture.stack.clickhouse.resume();
    let second = fixture.start_loader();
    fixture.wait_for_rows(50);

    // ClickHouse dies in the middle.
    for _ in 0..10 {
        for partition in 0..2 {
            fixture.count_calls(partition, 1);
        }
    }
    pause(60);
    fixture.stack.clickhouse.kill();
    for partition in 0..2 {
        fixture.count_calls(partition, 5);
    }
    fixture.stack.clickhouse.restart().unwrap();
    fixture.wait_for_rows(80);
    assert!(fixture.alerts.lock().unwrap().is_empty());

    // What is no block stops its partition after everything before it is loaded.
    fixture.count_calls(1, 1);
    fixture.send(1, b"no block");
    fixture.count_calls(1, 3);
    fixture.count_calls(0, 5);
    fixture.wait_for_rows(86);
    // A commit that never came.
    *fixture.seqs.get_mut(&0).unwrap() += 1;
    fixture.count_calls(0, 1);
    fixture.wait_for_rows(87);
    // What was stopped goes on behind it.
    fixture.accept(1, 41, 42);
    fixture.wait_for_rows(90);
    second.end();
    let alerts = fixture.alerts.lock().unwrap();
    let stopped = |alert: &LoaderNews| {
        matches!(
            alert,
            LoaderNews::Stopped {
                partition: 1,
                reason: StopReason::Poison { offset: 41, .. },
                ..
            }
        )
    };
    let gap = |alert: &LoaderNews| matches!(alert, LoaderNews::BrokenLink { partition: 0, broken, .. } if broken.kind() == "gap");
    assert!(alerts.iter().any(stopped), "{alerts:?}");
    assert!(alerts.iter().any(gap), "{alerts:?}");
    assert_eq!(alerts.len(), 2, "{alerts:?}");
}

/// Killed between two steps, ClickHouse remembers a token without its rows. The same comes of rows
/// that are deleted, which does not make it forget the token. The other partition's batch is in doubt
/// as well, is whole, and must not wait for a view in which the first one's sums are missing.
#[test]
fn rows_and_sums_that_clickhouse_remembers_without_having_them_are_put_in() {
    let mut fixture = Fixture::start();
    let first = fixture.start_loader();
    fixture.count_calls(0, 10);
    fixture.wait_for_rows(10);
    // An intent is left behind; its insert arrives.
    fixture.stack.clickhouse.pause();
    fixture.customer = "interrupted";
    fixture.count_calls(0, 4);
    fixture.customer = "steady";
    fixture.count_calls(1, 2);
    pause(500);
    first.end();
    fixture.stack.clickhouse.resume();
    fixture.wait_for_rows(16);

    fixture.execute(
        "ALTER TABLE spend DELETE WHERE meter_seq > 10 AND meter_index % 2 = 0 \
         SETTINGS mutations_sync = 1",
    );
    fixture.execute(
        "ALTER TABLE spend_daily DELETE WHERE customer = 'interrupted' SETTINGS mutations_sync = 1",
    );
    let lost = ["700", "700", "800", "600", "800"].map(str::to_owned);
    assert_eq!(fixture.query(COUNTS).as_deref(), Some(lost.as_slice()));

    let second = fixture.start_loader();
    fixture.wait_for_rows(16);
    fixture.count_calls(0, 3);
    fixture.wait_for_rows(19);
    second.end();
    let cost = "SELECT (SELECT sum(cost) FROM spend) = (SELECT sum(cost) FROM spend_daily), \
        (SELECT count() FROM system.tables WHERE name LIKE '%missing%')";
    let equal = ["1", "0"].map(str::to_owned);
    assert_eq!(fixture.query(cost).as_deref(), Some(equal.as_slice()));
    assert!(fixture.alerts.lock().unwrap().is_empty());
}

/// Two intents whose rows arrive where no view takes their sums, and no loader.
fn leave_batches_without_hourly_sums(fixture: &mut Fixture) {
    let first = fixture.start_loader();
    fixture.count_calls(0, 2);
    fixture.wait_for_rows(2);
    fixture.execute("DETACH TABLE spend_hourly_sums");
    fixture.stack.clickhouse.pause();
    fixture.count_calls(0, 3);
    fixture.count_calls(1, 3);
    pause(500);
    first.end();
    fixture.stack.clickhouse.resume();
    let arrived = || (fixture.query("SELECT count() FROM spend")? == ["400"]).then_some(());
    wait_until("rows", PATIENCE, arrived).unwrap();
    fixture.execute("ATTACH TABLE spend_hourly_sums");
}

/// A death of ClickHouse in the middle of inserts leaves several batches whose rows are in their table
/// and not in its views. From sums alone nobody could tell which; the tokens can.
#[test]
fn views_that_lack_several_batches_are_completed() {
    let mut fixture = Fixture::start();
    leave_batches_without_hourly_sums(&mut fixture);

    let second = fixture.start_loader();
    fixture.wait_for_rows(8);
    second.end();
    assert!(fixture.alerts.lock().unwrap().is_empty());
}

/// After losses of power between full disks: rows whose sums are missing, of several batches, and no
/// token that could tell of which. Two loaders share the partitions, and the views.
#[test]
fn views_that_lack_several_batches_are_completed_without_tokens() {
    let mut fixture = Fixture::start();
    leave_batches_without_hourly_sums(&mut fixture);
    fixture.execute("ALTER TABLE spend_daily DELETE WHERE 1 SETTINGS mutations_sync = 1");
    fixture.stack.clickhouse.kill();
    assert!(tear_logs_of_tokens(fixture.stack.clickhouse.folder()) > 0);
    fixture.stack.clickhouse.restart().unwrap();

    let both = ["loader-2", "loader-3"].map(|instance| fixture.start_loader_as(instance));
    fixture.wait_for_rows(8);
    both.into_iter().for_each(RunningLoader::end);
    let equal = ["1", "1"].map(str::to_owned);
    assert_eq!(fixture.query(SAME_SUMS).as_deref(), Some(equal.as_slice()));
    assert!(fixture.alerts.lock().unwrap().is_empty());
}

/// Torn at the same time: sums of one batch, and the rows of another whose sums are there. The first one
/// finds more in the views than the rows explain until the second is whole, and for ever where somebody
/// deleted rows. It gets what it lacks all the same.
#[test]
fn a_view_that_has_more_than_its_rows_stops_no_batch_that_lacks_sums() {
    let mut fixture = Fixture::start();
    leave_batches_without_hourly_sums(&mut fixture);
    fixture
        .execute("ALTER TABLE spend DELETE WHERE meter_partition = 1 SETTINGS mutations_sync = 1");
    for view in ["spend_hourly", "spend_daily"] {
        fixture.execute(&format!(
            "INSERT INTO {view} SELECT * REPLACE ('gone' AS customer) FROM {view}"
        ));
    }

    let second = fixture.start_loader();
    let whole = "SELECT count(), \
        (SELECT sum(entries) FROM spend_hourly WHERE customer = 'steady'), \
        (SELECT sum(entries) FROM spend_daily WHERE customer = 'steady'), \
        (SELECT sum(count) FROM spend_audit) FROM spend";
    let arrived = || (fixture.query(whole)? == ["400"; 4]).then_some(());
    let waited = wait_until("rows and sums", PATIENCE, arrived);
    assert!(waited.is_ok(), "{:?}", fixture.query(whole));
    // It goes on.
    fixture.count_calls(0, 1);
    let arrived = || (fixture.query(whole)? == ["450"; 4]).then_some(());
    wait_until("another commit", PATIENCE, arrived).unwrap();
    second.end();
    assert!(fixture.alerts.lock().unwrap().is_empty());
}

/// Whether hours and days have the cost of each customer's rows.
const SAME_SUMS: &str = "WITH (SELECT groupArray(tuple(*)) FROM (\
      SELECT customer, feature, sum(calls), sum(cost), sum(input_tokens) FROM spend \
      GROUP BY ALL ORDER BY ALL)) AS rows, \
    (SELECT groupArray(tuple(*)) FROM (\
      SELECT customer, feature, sum(calls), sum(cost), sum(input_tokens) FROM spend_hourly \
      GROUP BY ALL ORDER BY ALL)) AS hours, \
    (SELECT groupArray(tuple(*)) FROM (\
      SELECT customer, feature, sum(calls), sum(cost), sum(input_tokens) FROM spend_daily \
      GROUP BY ALL ORDER BY ALL)) AS days \
    SELECT toString(rows) = toString(hours), toString(rows) = toString(days)";

/// A disk that is full for a moment leaves half a line in a table's log of tokens, and ClickHouse
/// reads the log at its start only up to there (seen in a fault run).
#[test]
fn a_torn_log_of_tokens_doubles_nothing() {
    let mut fixture = Fixture::start();
    let first = fixture.start_loader();
    fixture.count_calls(0, 2);
    fixture.wait_for_rows(2);
    fixture.stack.clickhouse.pause();
    fixture.count_calls(0, 4);
    fixture.count_calls(1, 4);
    pause(500);
    first.end();
    fixture.stack.clickhouse.resume();
    fixture.wait_for_rows(10);

    fixture.stack.clickhouse.kill();
    assert!(tear_logs_of_tokens(fixture.stack.clickhouse.folder()) > 0);
    fixture.stack.clickhouse.restart().unwrap();
    let second = fixture.start_loader();
    fixture.count_calls(0, 3);
    fixture.wait_for_rows(13);
    second.end();
    assert!(fixture.alerts.lock().unwrap().is_empty());
}

/// Puts half a line before the first of every table's log of tokens; returns how many there are.
fn tear_logs_of_tokens(folder: &Path) -> usize {
    let mut torn = 0;
    for entry in folder.read_dir().unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !path.is_symlink() {
            torn += tear_logs_of_tokens(&path);
        } else if name.starts_with("deduplication_log_") {
            let log = std::fs::read(&path).unwrap();
            std::fs::write(&path, [b"1\t202611_1_1_0\t2026".as_slice(), &log].concat()).unwrap();
            torn += 1;
        }
    }
    torn
}

/// Its group expired, was deleted, or has another name since `transactional_id_prefix` was changed.
#[test]
fn a_loader_without_offsets_goes_on_behind_what_the_warehouse_has() {
    let mut fixture = Fixture::start();
    let first = fixture.start_loader();
    fixture.count_calls(0, 12);
    fixture.count_calls(1, 3);
    fixture.wait_for_rows(15);
    first.end();
    // What came meanwhile goes into one batch with what is there.
    fixture.count_calls(0, 2);

    fixture.group_id = "another-loader";
    let second = fixture.start_loader();
    fixture.wait_for_rows(17);
    fixture.count_calls(0, 1);
    fixture.count_calls(1, 1);
    fixture.wait_for_rows(19);
    second.end();
    // It goes on from its own offsets now.
    let third = fixture.start_loader();
    fixture.count_calls(0, 1);
    fixture.wait_for_rows(20);
    third.end();
    assert!(fixture.alerts.lock().unwrap().is_empty());
}

/// The loader was away for longer than the retention of its topics.
#[test]
fn lost_rows_stop_their_partition_until_that_is_accepted() {
    let mut fixture = Fixture::start();
    let first = fixture.start_loader();
    for partition in 0..2 {
        fixture.count_calls(partition, 2);
    }
    fixture.wait_for_rows(4);
    first.end();
    fixture.count_calls(0, 5);
    fixture.delete_before(0, 4);

    let second = fixture.start_loader();
    fixture.count_calls(1, 1);
    fixture.wait_for_rows(5);
    fixture.wait_for_alert(|alert| {
        matches!(
            alert,
            LoaderNews::Stopped {
                partition: 0,
                reason: StopReason::Lost { from: 2, to: 4, .. },
                ..
            }
        )
    });
    fixture.accept(0, 2, 4);
    fixture.wait_for_rows(8);
    // It goes on from there.
    second.end();
    let third = fixture.start_loader();
    fixture.count_calls(0, 1);
    fixture.wait_for_rows(9);
    third.end();
}

/// Offsets begin at 0 again, and so do the commits of a meter whose changelog is new: ranges and
/// addresses are those of other rows, which ClickHouse would take for the same by its token.
#[test]
fn rows_of_topics_made_anew_are_not_taken_for_those_before_them() {
    let mut fixture = Fixture::start();
    let one_by_one = |fixture: &mut Fixture, commits: std::ops::RangeInclusive<u64>| {
        for commit in commits {
            fixture.count_calls(0, 1);
            let expected = (commit * u64::from(ROWS_A_BLOCK)).to_string();
            let arrived = || {
                let rows = fixture.query("SELECT count() FROM spend")?;
                (rows == [expected.clone()]).then_some(())
            };
            wait_until("rows", PATIENCE, arrived).unwrap();
        }
    };
    let first = fixture.start_loader();
    one_by_one(&mut fixture, 1..=2);
    first.end();
    make_topics_anew(&mut fixture);

    // What the loader finds in the log is compared with what has these addresses.
    fixture.count_calls(1, 1);
    fixture.execute(
        "INSERT INTO spend SELECT * REPLACE (1 AS meter_partition) FROM spend WHERE meter_seq = 1",
    );
    let second = fixture.start_loader();
    let stopped = || {
        let alerts = fixture.alerts.lock().unwrap();
        let mut stops = alerts.iter().filter_map(|alert| match alert {
            LoaderNews::Stopped {
                partition: 1,
                reason: StopReason::Doubt { detail, .. },
                ..
            } => Some(detail.contains("made anew")),
            _ => None,
        });
        stops.next()
    };
    assert!(wait_until("the doubt", PATIENCE, stopped).unwrap());
    // What comes later has the ranges of the rows before: 3 sent, 3 more rows.
    one_by_one(&mut fixture, 4..=6);
    second.end();
}

fn make_topics_anew(fixture: &mut Fixture) {
    let names = ["spendfuse.rows", "spendfuse.rows.ledger"];
    spendfuse_bus::topics::delete(&fixture.kafka, &names, PATIENCE).unwrap();
    create_topics(&fixture.kafka);
    fixture.producer = EventProducer::open(&fixture.kafka, &ProducerOptions::default()).unwrap();
    fixture.seqs.clear();
    fixture.customer = "another";
}
