//! Losses of power: a ClickHouse that starts without some of what it had acknowledged.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

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
    const ROUNDS: u32 = 8;
    let mut fixture = Fixture::start();
    // The first loader makes the tables.
    let first = fixture.start_loader();
    fixture.count_calls(0, 1);
    fixture.wait_for_rows(1);
    first.end();
    let mut took = BTreeMap::<bool, (Duration, Duration)>::new();
    for round in 0..ROUNDS {
        let is_synced = round % 2 == 0;
        set_synced(&fixture, is_synced);
        let backlog = time_of_backlog(&mut fixture);
        let commit = time_of_commit(&mut fixture);
        println!("synced {is_synced}: {BACKLOG} rows in {backlog:?}, a commit's in {commit:?}");
        // The first round of each warms up.
        if round >= 2 {
            let both = took.entry(is_synced).or_default();
            *both = (both.0 + backlog, both.1 + commit);
        }
    }
    let (with, without) = (took[&true], took[&false]);
    let times = with.0.as_secs_f64() / without.0.as_secs_f64();
    let later = (with.1.saturating_sub(without.1)) / (ROUNDS / 2 - 1);
    println!(
        "with syncs a backlog takes {times:.2} times as long; a commit's rows come {later:?} later"
    );
}

/// Rows of a backlog.
const BACKLOG: u64 = 300_000;

fn set_synced(fixture: &Fixture, is_synced: bool) {
    let is_synced = u8::from(is_synced);
    for table in ["spend", "spend_hourly", "spend_daily", "spend_audit"] {
        fixture.execute(&format!(
            "ALTER TABLE {table} MODIFY SETTING fsync_after_insert = {is_synced}, \
             fsync_part_directory = {is_synced}"
        ));
    }
}

/// From a backlog's first row in ClickHouse to its last.
fn time_of_backlog(fixture: &mut Fixture) -> Duration {
    let before = rows(fixture);
    for partition in 0..2 {
        fixture.count_calls(partition, BACKLOG / u64::from(ROWS_A_BLOCK) / 2);
    }
    let loader = fixture.start_loader();
    wait_for(fixture, before + 1);
    let begin = Instant::now();
    wait_for(fixture, before + BACKLOG);
    let took = begin.elapsed();
    loader.end();
    took
}

/// From the block of one commit in the log to its rows in ClickHouse, on average.
fn time_of_commit(fixture: &mut Fixture) -> Duration {
    const COMMITS: u32 = 40;
    let loader = fixture.start_loader();
    let mut expected = rows(fixture);
    let mut took = Duration::ZERO;
    for commit in 0..=COMMITS {
        fixture.count_calls(0, 1);
        expected += u64::from(ROWS_A_BLOCK);
        let begin = Instant::now();
        wait_for(fixture, expected);
        // The first one waits for the loader to join its group.
        if commit > 0 {
            took += begin.elapsed();
        }
    }
    loader.end();
    took / COMMITS
}

fn rows(fixture: &Fixture) -> u64 {
    let counted = fixture.query("SELECT count() FROM spend").unwrap();
    counted[0].parse().unwrap()
}

/// Asks without a pause: what is waited for takes milliseconds.
fn wait_for(fixture: &Fixture, expected: u64) {
    let begin = Instant::now();
    while rows(fixture) < expected {
        assert!(
            begin.elapsed() < PATIENCE,
            "{} of {expected}",
            rows(fixture)
        );
    }
}
