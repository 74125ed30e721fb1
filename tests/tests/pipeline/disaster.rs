//! ClickHouse loses its disk: the loader notices, one command brings back what Kafka has.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use serde_json::Value;
use spendfuse_tests::load::Sender;
use spendfuse_tests::{Expected, Lab, PATIENCE, Role, Traffic, eventually};

/// A command that is in the sentence of each partition that stands still.
const COMMAND: &str = "`spendfuse warehouse rebuild`";

/// Customers reach their limit, so that verdicts and findings have rows.
const BUDGETS: &str = r#"
budgets:
  - {id: everything, scope: {}, limit: "5000000", window: lifetime}
  - {id: customers, scope: {workspace: acme, customer: "*"}, limit: "0.0001", window: lifetime}
"#;

/// Every table with rows. Sums may lie in several parts.
const TABLES: [&str; 9] = [
    "spend",
    "finding_changes",
    "verdicts",
    "budget_windows",
    "spend_hourly FINAL",
    "spend_daily FINAL",
    "spend_audit FINAL",
    "prices",
    "gaps FINAL",
];

/// Every row of every table.
fn contents(lab: &Lab) -> BTreeMap<&'static str, Vec<Vec<String>>> {
    let rows = |table: &'static str| {
        let all = format!("SELECT * FROM {table} ORDER BY ALL");
        let rows = lab.warehouse().rows(&all);
        (table, rows.unwrap_or_else(|error| panic!("{error}")))
    };
    TABLES.into_iter().map(rows).collect()
}

/// A new disk in the same place.
fn lose_the_disk(lab: &Lab) {
    let clickhouse = lab.clickhouse();
    clickhouse.kill();
    fs::remove_dir_all(clickhouse.folder().join("data")).expect("its data can be removed");
    clickhouse.restart().expect("ClickHouse starts");
    clickhouse.wait_ready().expect("ClickHouse gets ready");
}

fn assert_exact(lab: &Lab) {
    eventually("the audit", PATIENCE, || {
        let said = lab.run(&["audit", "--json"]);
        let answer: Value = serde_json::from_str(&said.stdout).map_err(|_| said.stderr.clone())?;
        match said.code == Some(0) && answer["drift_events"] == 0 {
            true => Ok(()),
            false => Err(format!("{answer:#}")),
        }
    });
}

struct Flow<'a> {
    lab: &'a Lab,
    traffic: Traffic,
    sender: Sender,
}

impl Flow<'_> {
    fn send(&mut self, count: usize) -> Expected {
        for _ in 0..count {
            self.sender.send(&self.traffic.good());
        }
        self.sender.flush();
        self.traffic.expected().clone()
    }

    fn load(&mut self, count: usize) {
        let expected = self.send(count);
        self.lab.settle(&expected, PATIENCE);
    }
}

/// Everything is settled: what the ledger has to write about it is written within seconds.
fn settled(lab: &Lab) -> BTreeMap<&'static str, Vec<Vec<String>>> {
    let mut last = contents(lab);
    eventually("nothing more is written", PATIENCE, || {
        spendfuse_tests::pause(Duration::from_secs(2));
        let now = contents(lab);
        match std::mem::replace(&mut last, now.clone()) == now {
            true => Ok(()),
            false => Err("rows still come".to_owned()),
        }
    });
    last
}

#[test]
fn a_wiped_clickhouse_is_rebuilt_from_the_log_with_the_same_rows() {
    let lab = Lab::new("disaster");
    lab.apply_budgets(BUDGETS);
    let mut processor = lab.processor("1");
    let mut loader = lab.loader();
    let mut flow = Flow {
        lab: &lab,
        traffic: Traffic::new(&lab, 21),
        sender: Sender::new(&lab),
    };
    flow.load(1500);
    processor.stop();
    let before = settled(&lab);
    for table in ["spend", "verdicts", "budget_windows", "finding_changes"] {
        assert!(!before[table].is_empty(), "{table} has no rows");
    }

    // The loader runs while the disk is lost, and does not go on over it.
    lose_the_disk(&lab);
    loader.await_line(COMMAND, PATIENCE);
    let none = lab.warehouse().numbers("SELECT count() FROM spend");
    assert_eq!(none, Ok(vec![0]));
    // One that starts later does not either.
    loader.stop();
    loader.restart();
    loader.await_line(COMMAND, PATIENCE);
    // Of what was counted it knows nothing, so that nothing is judged by it.
    let history = lab.file("history.ndjson");
    fs::write(&history, "").expect("a file is written");
    let said = lab.run(&["ingest", history.to_str().expect("UTF-8"), "--backfill"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stderr.contains(COMMAND), "{said:?}");
    let rebuilt = lab.must(&["warehouse", "rebuild", "--json"]);
    let rebuilt: Value = serde_json::from_str(&rebuilt.stdout).expect("JSON");
    let partitions = rebuilt["partitions"].as_array().expect("a list");
    assert!(!partitions.is_empty(), "{rebuilt}");
    assert!(partitions.iter().all(|one| one["lost_before"].is_null()));
    // Killed in the middle, it begins again.
    loader.await_line("looking for everything that the topic has", PATIENCE);
    loader.kill();
    loader.restart();
    eventually("the same rows", PATIENCE, || {
        let now = contents(&lab);
        let differing = before.iter().filter(|(table, rows)| now[*table] != **rows);
        let differing = differing
            .map(|(table, rows)| format!("{table}: {} of {} rows", now[table].len(), rows.len()));
        match differing.collect::<Vec<_>>() {
            differing if differing.is_empty() => Ok(()),
            differing => Err(format!("{differing:?}\n{}", loader.log())),
        }
    });
    processor.restart();
    assert_exact(&lab);
    // It goes on, and asked for again nothing happens.
    flow.load(200);
    lab.must(&["warehouse", "rebuild"]);
    loader.stop();
    loader.restart();
    flow.load(200);
    assert_exact(&lab);
    partly_lost(&lab, &mut flow, &mut loader);
}

/// The same where retention has removed the beginning: what is gone is recorded.
fn partly_lost(lab: &Lab, flow: &mut Flow<'_>, loader: &mut Role) {
    let rows = lab.topic("rows");
    let of_others = "SELECT count() FROM spend WHERE meter_partition != 2";
    let others = lab.warehouse().numbers(of_others);
    lab.delete_records(&rows, 2);
    lose_the_disk(lab);
    loader.await_line(COMMAND, PATIENCE);
    let rebuilt = lab.must(&["warehouse", "rebuild"]);
    assert!(rebuilt.stdout.contains("recorded as a gap"), "{rebuilt:?}");
    eventually("what is left", PATIENCE, || {
        match lab.warehouse().numbers(of_others) {
            found if found == others => Ok(()),
            found => Err(format!("{found:?} of {others:?}")),
        }
    });
    let lost = lab
        .warehouse()
        .numbers("SELECT count() FROM spend WHERE meter_partition = 2");
    assert_eq!(lost, Ok(vec![0]));
    flow.send(200);
    eventually("what comes later", PATIENCE, || {
        let later = "SELECT count() FROM spend WHERE meter_partition = 2";
        match lab.warehouse().numbers(later)? {
            found if found[0] > 0 => Ok(()),
            found => Err(format!("{found:?}\n{}", loader.log())),
        }
    });
    let audit = lab.run(&["audit", "--json"]);
    let audit: Value = serde_json::from_str(&audit.stdout).expect("JSON");
    let gaps = audit["accepted_gaps"].as_array().expect("a list");
    let is_named = |gap: &Value| gap["topic"] == rows.as_str() && gap["partition"] == 2;
    assert!(gaps.iter().any(is_named), "{audit:#}");
}
