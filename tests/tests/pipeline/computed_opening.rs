//! A budget that is made in the middle of a window starts with what was spent.
// Clippy's exception for tests does not cover their helper functions.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use serde_json::Value;
use spendfuse_tests::ledger::{FIRST_LIMIT, watching_budgets};
use spendfuse_tests::load::Sender;
use spendfuse_tests::{Lab, Load, PATIENCE, Traffic, eventually, pause};

const PER_SECOND: u64 = 1_000;
const RECORDS: u64 = 10_000;

/// What readers know of a budget's scope.
fn entry(lab: &Lab, key: &str) -> Result<Value, String> {
    lab.table("blocklist").remove(key).ok_or("no entry".into())
}

/// Waits until a state says that it counts from its window's start on, or that it does not.
fn await_counted_from_start(lab: &Lab, key: &str, wanted: bool) -> Value {
    let mut found = Value::Null;
    eventually(&format!("{key} is whole: {wanted}"), PATIENCE, || {
        found = entry(lab, key)?;
        match (found["counted_from"] == found["window_start"]) == wanted {
            true => Ok(()),
            false => Err(found.to_string()),
        }
    });
    found
}

#[test]
fn a_budget_made_under_load_holds_every_row_to_the_nano_dollar() {
    let lab = Lab::new("computed_opening");
    let mut processor = lab.processor("1");
    // Rows come late, while whoever asks for them is quick.
    let loader = lab.role("loader", "1", &[("loader.flush_interval", "8s")]);
    let load = Load::start(&lab, Traffic::new(&lab, 11), PER_SECOND, RECORDS);
    load.await_sent(RECORDS * 2 / 5);
    lab.apply_budgets(&watching_budgets(FIRST_LIMIT));
    load.await_sent(RECORDS * 3 / 5);
    await_counted_from_start(&lab, "calls|acme", false);
    processor.kill();
    processor.restart();
    load.await_sent(RECORDS * 4 / 5);
    loader.pause();
    pause(Duration::from_millis(700));
    loader.resume();
    processor.kill();
    processor.restart();
    let expected = load.finish();
    lab.settle(&expected, PATIENCE);
    lab.settle_ledger(&expected, PATIENCE);
    let whole = await_counted_from_start(&lab, "calls|acme", true);
    assert!(whole["count_since"].is_string(), "{whole:#}");
    lab.assert_no_drift_anywhere();
    let status = lab.must(&["budgets", "status"]).stdout;
    assert!(!status.contains("counts from"), "{status}");
}

#[test]
fn entries_of_before_a_budget_are_corrected_in_it() {
    let lab = Lab::new("corrected_opening");
    let _processor = lab.processor("1");
    let _loader = lab.loader();
    let sender = Sender::new(&lab);
    let mut traffic = Traffic::new(&lab, 12);
    for _ in 0..4 {
        // 0.00175 dollars each.
        sender.send(&traffic.call("c-1", "s-1", 50_000, 0, 0));
    }
    sender.flush();
    let rows =
        "SELECT event_id, workspace, source FROM spend WHERE kind = 'usage' ORDER BY event_id";
    let mut entries = Vec::new();
    eventually("rows", PATIENCE, || {
        entries = lab.warehouse().rows(rows)?;
        match entries.len() {
            4 => Ok(()),
            count => Err(count.to_string()),
        }
    });
    let void = |entry: &[String]| {
        let (id, workspace, source) = (&entry[0], &entry[1], &entry[2]);
        let which = [
            "correct",
            "void",
            "--workspace",
            workspace,
            "--source",
            source,
        ];
        let why = ["--id", id, "--reason", "sent twice", "--by", "tester"];
        lab.must(&[&which[..], &why[..]].concat());
    };
    let await_spent = |wanted: &str| {
        eventually(&format!("{wanted} is spent"), PATIENCE, || {
            let entry = entry(&lab, "cap|acme/customer=c-1")?;
            match entry["spent_usd"] == wanted {
                true => Ok(()),
                false => Err(entry.to_string()),
            }
        });
    };
    void(&entries[0]);
    lab.apply_budgets(
        "budgets: [{id: cap, scope: {workspace: acme, customer: \"*\"}, limit: \"0.004\", window: year}]",
    );
    await_spent("0.00525");
    lab.assert_no_drift_anywhere();
    void(&entries[1]);
    await_spent("0.0035");
    void(&entries[2]);
    await_spent("0.00175");
    lab.assert_no_drift_anywhere();

    // Another limit goes on, other terms begin anew: with everything of theirs.
    lab.apply_budgets(
        "budgets: [{id: cap, scope: {workspace: acme, customer: \"*\"}, limit: \"0.003\", window: month}]",
    );
    sender.send(&traffic.call("c-1", "s-1", 50_000, 0, 0));
    sender.flush();
    await_spent("0.0035");
    await_counted_from_start(&lab, "cap|acme/customer=c-1", true);
    lab.assert_no_drift_anywhere();
}

#[test]
fn rows_that_have_expired_are_known_by_the_hour() {
    let lab = Lab::new("expired_opening");
    let _processor = lab.processor("1");
    let _loader = lab.loader();
    let sender = Sender::new(&lab);
    let mut traffic = Traffic::new(&lab, 13);
    // 0.00175 dollars.
    sender.send(&traffic.call("c-1", "s-1", 50_000, 0, 0));
    sender.flush();
    let warehouse = lab.warehouse();
    eventually("a row", PATIENCE, || {
        match warehouse.numbers("SELECT count() FROM spend")?[0] {
            1 => Ok(()),
            count => Err(count.to_string()),
        }
    });
    // The same call long ago, whose row is gone.
    let long_ago =
        "INSERT INTO spend SELECT * REPLACE (time - toIntervalMonth(20) AS time) FROM spend";
    let gone = "ALTER TABLE spend DELETE WHERE time < now() - toIntervalMonth(15) \
                SETTINGS mutations_sync = 2";
    warehouse.execute(long_ago).unwrap();
    warehouse.execute(gone).unwrap();
    let rows = "SELECT (SELECT count() FROM spend), (SELECT sum(calls) FROM spend_hourly)";
    assert_eq!(warehouse.numbers(rows).unwrap(), [1, 2]);
    lab.apply_budgets(
        "budgets:
  - {id: ever, scope: {workspace: acme, customer: \"*\"}, limit: \"1.00\", window: lifetime}
  - {id: year, scope: {workspace: acme, customer: \"*\"}, limit: \"1.00\", window: year}
",
    );
    for (budget, wanted) in [("ever", "0.0035"), ("year", "0.00175")] {
        eventually(&format!("{budget}: {wanted} is spent"), PATIENCE, || {
            let entry = entry(&lab, &format!("{budget}|acme/customer=c-1"))?;
            match entry["spent_usd"] == wanted {
                true => Ok(()),
                false => Err(entry.to_string()),
            }
        });
    }
}
