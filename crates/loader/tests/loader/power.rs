//! Losses of power: a ClickHouse that starts without some of what it had acknowledged.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use spendfuse_devstack::wait_until;
use tempfile::TempDir;

use crate::SAME_SUMS;
use crate::fixture::{Fixture, PATIENCE, ROWS_A_BLOCK, pause};

/// What was on ClickHouse's disk at a time.
struct SavedDisk(TempDir);

impl SavedDisk {
    /// Of now. ClickHouse is restarted.
    fn save(fixture: &Fixture) -> Self {
        let saved = Self(tempfile::tempdir().unwrap());
        restart_clickhouse(fixture, |data| {
            copy_folder(data, &saved.0.path().join("data"))
        });
        saved
    }

    /// ClickHouse dies with its machine, and everything since is lost.
    fn lose_power(&self, fixture: &Fixture) {
        restart_clickhouse(fixture, |data| {
            std::fs::remove_dir_all(data).unwrap();
            copy_folder(&self.0.path().join("data"), data);
        });
    }
}

fn restart_clickhouse(fixture: &Fixture, between: impl Fn(&Path)) {
    let clickhouse = &fixture.stack.clickhouse;
    clickhouse.kill();
    between(&clickhouse.folder().join("data"));
    clickhouse.restart().unwrap();
    clickhouse.wait_ready().unwrap();
}

fn copy_folder(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .arg(from)
        .arg(to)
        .output();
    let copied = copied.unwrap();
    assert!(copied.status.success(), "{copied:?}");
}

#[test]
fn what_a_restarted_clickhouse_has_lost_is_loaded_again() {
    let mut fixture = Fixture::start();
    let first = fixture.start_loader();
    for partition in 0..2 {
        fixture.count_calls(partition, 6);
    }
    fixture.wait_for_rows(12);
    let disk = SavedDisk::save(&fixture);
    for _ in 0..3 {
        for partition in 0..2 {
            fixture.count_calls(partition, 2);
        }
        pause(150);
    }
    fixture.wait_for_rows(24);
    // The loader lives on.
    disk.lose_power(&fixture);
    fixture.wait_for_rows(24);
    first.end();
    // It starts after the server.
    disk.lose_power(&fixture);
    let second = fixture.start_loader();
    fixture.count_calls(0, 1);
    fixture.wait_for_rows(25);
    second.end();
    assert!(fixture.alerts.lock().unwrap().is_empty());
}

/// Its offsets are lost, and then the power, with nothing new loaded between. The first commit of a
/// partition has to say from where on it may be taken.
#[test]
fn what_was_put_in_without_offsets_is_loaded_again_as_well() {
    let mut fixture = Fixture::start();
    let first = fixture.start_loader();
    for partition in 0..2 {
        fixture.count_calls(partition, 3);
    }
    fixture.wait_for_rows(6);
    first.end();
    let disk = SavedDisk::save(&fixture);
    for partition in 0..2 {
        fixture.count_calls(partition, 2);
    }
    fixture.group_id = "another-loader";
    let second = fixture.start_loader();
    fixture.wait_for_rows(10);
    second.end();
    disk.lose_power(&fixture);
    let third = fixture.start_loader();
    fixture.wait_for_rows(10);
    third.end();
    assert!(fixture.alerts.lock().unwrap().is_empty());
}

/// What a restarted ClickHouse has lost may be a part of a view alone.
#[test]
fn sums_that_a_restarted_clickhouse_has_lost_are_put_in_again() {
    let mut fixture = Fixture::start();
    let loader = fixture.start_loader();
    fixture.count_calls(0, 4);
    fixture.customer = "another";
    fixture.count_calls(1, 4);
    fixture.wait_for_rows(8);
    fixture.execute(
        "ALTER TABLE spend_hourly DELETE WHERE customer = 'another' SETTINGS mutations_sync = 1",
    );
    fixture.stack.clickhouse.kill();
    fixture.stack.clickhouse.restart().unwrap();
    fixture.wait_for_rows(8);
    loader.end();
    let equal = ["1", "1"].map(str::to_owned);
    assert_eq!(fixture.query(SAME_SUMS).as_deref(), Some(equal.as_slice()));
    assert!(fixture.alerts.lock().unwrap().is_empty());
}

/// As after rows of today were deleted: nothing that a restart took.
#[test]
fn sums_of_rows_that_are_gone_stop_nothing_after_a_restart() {
    let mut fixture = Fixture::start();
    let first = fixture.start_loader();
    fixture.count_calls(0, 2);
    fixture.wait_for_rows(2);
    first.end();
    fixture
        .execute("INSERT INTO spend_daily SELECT * REPLACE ('gone' AS customer) FROM spend_daily");
    fixture.stack.clickhouse.kill();
    fixture.stack.clickhouse.restart().unwrap();
    fixture.count_calls(0, 1);
    let second = fixture.start_loader();
    let arrived = || (fixture.query("SELECT count() FROM spend")? == ["150"]).then_some(());
    wait_until("rows", PATIENCE, arrived).unwrap();
    second.end();
    assert!(fixture.alerts.lock().unwrap().is_empty());
}

/// `cargo test --release -p spendfuse-loader --test loader -- --ignored --nocapture what_syncing_costs`
#[test]
#[ignore = "a measurement"]
fn what_syncing_costs() {
    const COMMITS: u64 = 2_000;
    let mut fixture = Fixture::start();
    let tables = ["spend", "spend_hourly", "spend_daily", "spend_audit"];
    let mut commits = 0;
    let mut took = BTreeMap::new();
    for round in 0..6 {
        let is_synced = u8::from(round % 2 == 0);
        for table in tables {
            fixture.execute(&format!(
                "ALTER TABLE {table} MODIFY SETTING fsync_after_insert = {is_synced}, \
                 fsync_part_directory = {is_synced}"
            ));
        }
        for partition in 0..2 {
            fixture.count_calls(partition, COMMITS / 2);
        }
        commits += COMMITS;
        let begin = std::time::Instant::now();
        let loader = fixture.start_loader();
        let expected = (commits * u64::from(ROWS_A_BLOCK)).to_string();
        let arrived =
            || (fixture.query("SELECT count() FROM spend")? == [expected.clone()]).then_some(());
        wait_until("rows", PATIENCE * 4, arrived).unwrap();
        let lasted = begin.elapsed();
        loader.end();
        println!(
            "synced {is_synced}: {} rows in {lasted:?}",
            COMMITS * u64::from(ROWS_A_BLOCK)
        );
        *took.entry(is_synced).or_insert(Duration::ZERO) += lasted;
    }
    let ratio = took[&1].as_secs_f64() / took[&0].as_secs_f64();
    println!("with syncs loading takes {ratio:.2} times as long");
}
