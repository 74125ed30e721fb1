//! `spendfuse doctor` finds nothing on an installation that works, and names what was broken.

use serde_json::Value;
use spendfuse_bus::topics;
use spendfuse_tests::load::Sender;
use spendfuse_tests::traffic::Record;
use spendfuse_tests::{Lab, PATIENCE, Said, Traffic, eventually};

const STATES: [&str; 4] = ["ok", "warning", "wrong", "unknown"];

/// Exit code and lines.
fn doctor(said: Said) -> (Option<i32>, Vec<Value>) {
    let report: Value =
        serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"));
    let lines = report["lines"].as_array().expect("it has lines").clone();
    for line in &lines {
        let state = line["state"].as_str().unwrap_or_default();
        assert!(STATES.contains(&state), "{line}");
        assert_eq!(line.get("todo").is_none(), state == "ok", "{line}");
    }
    assert_eq!(report["well"], said.code == Some(0), "{report}");
    (said.code, lines)
}

fn of<'a>(lines: &'a [Value], part: &str, state: &str) -> Vec<&'a Value> {
    let is_one = |line: &&Value| line["part"] == part && line["state"] == state;
    lines.iter().filter(is_one).collect()
}

#[test]
fn the_doctor_finds_what_is_broken_and_says_what_to_do() {
    let lab = Lab::new("doctor");
    let processor = lab.processor("1");
    let _loader = lab.loader();
    let (sender, mut traffic) = (Sender::new(&lab), Traffic::new(&lab, 10));
    sender.send(&traffic.good());
    sender.flush();
    eventually("the event is a row", PATIENCE, || {
        match lab.warehouse().numbers("SELECT count() FROM spend")?[0] {
            1 => Ok(()),
            count => Err(format!("{count} rows")),
        }
    });
    let (_, lines) = doctor(lab.run(&["doctor", "--json"]));
    // The disk is that of whoever runs the test.
    let wrong = |line: &&Value| line["state"] == "wrong" && line["part"] != "disk";
    let wrong: Vec<&Value> = lines.iter().filter(wrong).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    for part in [
        "rejected",
        "topics",
        "retention",
        "offsets",
        "transactions",
        "positions",
        "clocks",
        "clickhouse",
        "tables",
        "parts",
    ] {
        assert!(!of(&lines, part, "ok").is_empty(), "{part}: {lines:#?}");
    }

    // The end of the transaction behind it is no event.
    sender.send(&Record {
        partition: Some(0),
        key: None,
        value: b"no event".to_vec(),
    });
    sender.flush();
    let found = eventually("the event is set aside", PATIENCE, || {
        let (_, lines) = doctor(lab.run(&["doctor", "--json"]));
        let line = of(&lines, "rejected", "warning").first().copied();
        line.map_or_else(
            || Err(format!("{lines:#?}")),
            |line| Ok(line["found"].to_string()),
        )
    });
    assert!(found.contains("1 event of"), "{found}");

    processor.stop();
    let (code, lines) = doctor(lab.run(&["doctor", "--json"]));
    assert_eq!(code, Some(1), "nothing is counted any more: {lines:#?}");
    assert_eq!(of(&lines, "processor", "wrong").len(), 1, "{lines:#?}");
    let alerts = lab.topic("alerts");
    let deleted = topics::delete(&lab.kafka_config(), &[&alerts], PATIENCE);
    deleted.expect("the topic is deleted");
    let alter = "ALTER TABLE verdicts MODIFY SETTING non_replicated_deduplication_window = 5";
    lab.warehouse()
        .execute(alter)
        .expect("the setting is changed");
    let (code, lines) = doctor(lab.run(&["doctor", "--json"]));
    assert_eq!(code, Some(1), "{lines:#?}");
    let missing = of(&lines, "topics", "wrong");
    assert_eq!(missing[0]["todo"], "spendfuse topics create");
    assert!(
        missing[0]["found"].to_string().contains(&alerts),
        "{lines:#?}"
    );
    assert_eq!(of(&lines, "tables", "wrong").len(), 1, "{lines:#?}");

    let (kafka, clickhouse) = (
        "kafka.brokers=127.0.0.1:9",
        "clickhouse.url=http://127.0.0.1:9",
    );
    let nobody = ["doctor", "--json", "--set", kafka, "--set", clickhouse];
    let (code, lines) = doctor(lab.run_alone(&nobody));
    assert_eq!(code, Some(1), "{lines:#?}");
    assert_eq!(of(&lines, "brokers", "wrong").len(), 1, "{lines:#?}");
    assert_eq!(of(&lines, "clickhouse", "wrong").len(), 1, "{lines:#?}");
}
