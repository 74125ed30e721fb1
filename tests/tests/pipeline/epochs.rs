//! Several sets of topics on one warehouse: each has its epoch, and no address is taken for another's.
// Clippy's exception for tests does not cover their helper functions.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use spendfuse_bus::topics;
use spendfuse_tests::traffic::now;
use spendfuse_tests::{Lab, PATIENCE, eventually};

const BUDGETS: &str = r#"
budgets:
  - {id: all, scope: {workspace: acme}, limit: "5000", window: lifetime}
  - {id: cap, scope: {workspace: acme, customer: "*"}, limit: "10", window: day}
  - {id: centre, scope: {project: "*"}, limit: "10", window: month}
"#;

/// Sends `count` calls of other sessions each time.
fn send(lab: &Lab, name: &str, count: usize) {
    let line = |number: usize| {
        let event = json!({
            "specversion": "1.0", "type": "spendfuse.usage", "source": "epochs",
            "id": format!("{name}-{number}"), "time": now().to_string(),
            "data": {"workspace": "acme", "customer": format!("c-{}", number % 5), "project": "cc-1",
                     "user": "u-1", "session": format!("{name}-{}", number % 9),
                     "provider": "openai", "model": "gpt-4o",
                     "usage": {"input_tokens": 1000 + number}},
        });
        format!("{event}\n")
    };
    let file = lab.file(&format!("{name}.ndjson"));
    std::fs::write(&file, (0..count).map(line).collect::<String>()).unwrap();
    lab.must(&["ingest", file.to_str().unwrap()]);
}

fn text(lab: &Lab, sql: &str) -> String {
    let rows = lab.warehouse().rows(sql).unwrap();
    rows.first().map(|row| row.join(" ")).unwrap_or_default()
}

/// Waits until each epoch has so many rows.
fn await_rows(lab: &Lab, wanted: &str) {
    eventually("rows of every epoch", PATIENCE, || {
        let sql = "SELECT arrayStringConcat(groupArray(concat(toString(epoch), ':', toString(rows))), ' ') \
                   FROM (SELECT epoch, count() AS rows FROM spend GROUP BY epoch ORDER BY epoch)";
        match text(lab, sql) {
            found if found == wanted => Ok(()),
            found => Err(found),
        }
    });
}

/// Counts, loads and audits `count` more calls.
fn live(lab: &Lab, name: &str, count: usize, rows: &str) {
    lab.apply_budgets(BUDGETS);
    let processor = lab.processor("1");
    let loader = lab.loader();
    send(lab, name, count);
    await_rows(lab, rows);
    lab.assert_no_drift();
    loader.stop();
    processor.stop();
}

#[test]
fn a_second_set_of_topics_on_one_warehouse_has_addresses_of_its_own() {
    let mut lab = Lab::new("epochs");
    live(&lab, "first", 40, "0:40");

    // The documented way to more partitions.
    lab.move_to_topics("epochs_grown", 6);
    let said = lab.must(&["topics", "create", "--json"]);
    let answer: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(answer["epoch"], 1, "{answer:#}");
    live(&lab, "second", 30, "0:40 1:30");

    // Each set numbers its commits anew, so that the epoch alone tells addresses apart.
    let told_apart = "SELECT minIf(meter_seq, epoch = 1) < 1000, \
                      count() = uniqExact(epoch, meter_partition, meter_seq, meter_index) FROM spend";
    assert_eq!(text(&lab, told_apart), "1 1");

    // Topics that are made anew under the same names.
    let own = spendfuse_domain::Topics::new("epochs_grown.");
    let names: Vec<&str> = own.all().iter().map(|topic| topic.name).collect();
    let names: Vec<&str> = names
        .into_iter()
        .filter(|name| *name != own.installation)
        .collect();
    topics::delete(&lab.kafka_config(), &names, PATIENCE).unwrap();
    let said = lab.run(&["topics", "create"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stdout.contains("new-epoch"), "{said:?}");
    for role in ["processor", "loader"] {
        let said = lab.run(&[role]);
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(
            said.stderr.contains("`spendfuse topics new-epoch`"),
            "{said:?}"
        );
    }
    lab.must(&["topics", "new-epoch"]);
    let said = lab.must(&["topics", "new-epoch", "--json"]);
    let answer: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(
        (&answer["epoch"], &answer["changed"]),
        (&json!(2), &json!(false))
    );
    live(&lab, "third", 20, "0:40 1:30 2:20");
}

#[test]
fn old_formats_are_stored_until_the_installation_is_finalized() {
    let lab = Lab::new("finalize");
    // As a release before left it: topics with records, and nothing recorded about them.
    let own = spendfuse_domain::Topics::new("finalize.");
    topics::delete(&lab.kafka_config(), &[&own.installation], PATIENCE).unwrap();
    live(&lab, "old", 20, "0:20");
    let version = |lab: &Lab, topic: &str| {
        let blocks = lab
            .read(topic)
            .into_iter()
            .filter_map(|record| record.value);
        let versions = blocks.map(|value| {
            spendfuse_warehouse::RowBlock::decode(&value.into())
                .unwrap()
                .schema_version
        });
        versions.collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(version(&lab, "rows"), [1].into());

    let said = lab.run(&["finalize", "--yes"]);
    assert!(said.stderr.contains("topics create"), "{said:?}");
    lab.create_topics();
    let said = lab.run(&["topics", "new-epoch", "--json"]);
    assert!(
        said.stdout.contains("\"changed\": false") || said.stdout.contains("\"changed\":false"),
        "{said:?}"
    );
    let said = lab.run(&["finalize"]);
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.stderr.contains("--yes"), "{said:?}");
    live(&lab, "recorded", 10, "0:30");
    assert_eq!(version(&lab, "rows"), [1].into());

    lab.must(&["finalize", "--yes"]);
    live(&lab, "new", 10, "0:40");
    assert_eq!(version(&lab, "rows"), [1, 2].into());
    let is_finalized = |lab: &Lab| {
        let said = lab.must(&["finalize", "--json"]);
        let answer: Value = serde_json::from_str(&said.stdout).unwrap();
        assert_eq!(answer, json!({"format": 2, "changed": false}));
    };
    is_finalized(&lab);

    // Where the record is lost nobody goes back to the old formats, and rows say what it said.
    topics::delete(&lab.kafka_config(), &[&own.installation], PATIENCE).unwrap();
    let said = lab.run(&["processor"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(
        said.stderr.contains("`spendfuse topics create`"),
        "{said:?}"
    );
    lab.create_topics();
    is_finalized(&lab);
}
