//! What a sidecar says of an event is what becomes of it, also of one that is late.

use serde_json::{Value, json};
use spendfuse_tests::http::post;
use spendfuse_tests::lab::spendfuse;
use spendfuse_tests::load::Sender;
use spendfuse_tests::traffic::{Record, now};
use spendfuse_tests::{Lab, PATIENCE, Role, eventually};
use std::net::{SocketAddr, TcpStream};

use crate::refusing::start_sidecar;

const HOUR_MILLIS: i64 = 3_600_000;

/// A bare event of an app without a source of its own.
fn event(id: &str, tokens: u32, hours_ago: i64) -> Value {
    json!({
        "id": id, "workspace": "acme", "provider": "openai", "model": "gpt-4o",
        "time": now().plus(-hours_ago * HOUR_MILLIS).to_string(),
        "choices": [{"text": "SECRET"}],
        "usage": {"input_tokens": tokens},
    })
}

fn statuses(address: SocketAddr, events: &Value) -> Vec<(String, bool)> {
    let stream = TcpStream::connect(address).expect("the sidecar listens");
    let answer = post(stream, "/v1/usage", &events.to_string()).expect("the sidecar answers");
    assert_eq!(answer.status, 202, "{answer:?}");
    let json: Value = serde_json::from_str(&answer.body).expect("the answer is JSON");
    let results = json["results"].as_array().expect("it has results").iter();
    let status = |result: &Value| result["status"].as_str().unwrap_or_default().to_owned();
    results
        .map(|result| (status(result), result.get("cost_usd").is_some()))
        .collect()
}

#[test]
fn what_a_sidecar_says_of_an_event_is_what_becomes_of_it() {
    let lab = Lab::new("told");
    let _processor = lab.processor("1");
    let _loader = lab.loader();
    let (_sidecar, address) = start_sidecar(&lab, "1", &[]);
    // The second app's event has the first one's id.
    let mut other = event("r-1", 7, 0);
    other["model"] = json!("gpt-4.1");
    let events = json!([
        event("r-1", 900, 0),
        event("r-2", 1000, 23),
        event("r-1", 1000, 0),
        event("r-1", 7, 0),
        other,
        event("r-2", 1000, 23),
        event("r-3", 1000, 25)
    ]);
    let told = statuses(address, &events);
    let expected = [
        ("accepted", true),
        ("accepted", true),
        ("grown", true),
        ("echo", false),
        ("conflict", false),
        ("duplicate", false),
        ("late", false),
    ];
    assert_eq!(
        told,
        expected.map(|(status, cost)| (status.to_owned(), cost))
    );

    let rows = "SELECT sum(calls), toInt64(sum(cost) * 1000000) FROM spend";
    eventually("what was accepted is counted", PATIENCE, || {
        match lab.warehouse().numbers(rows)?[..] {
            [2, 5000] => Ok(()),
            ref other => Err(format!("{other:?}")),
        }
    });
    eventually("what is late is in the DLQ", PATIENCE, || {
        match &lab.read("usage.dlq")[..] {
            [late] if late.header("spendfuse_reason") == "late" => Ok(()),
            other => Err(format!("{} records", other.len())),
        }
    });
    for stored in lab.read("usage").iter().chain(&lab.read("usage.dlq")) {
        let value = String::from_utf8_lossy(stored.value.as_deref().unwrap_or_default());
        assert!(!value.contains("SECRET"), "{value}");
    }
    // The late one is not lost.
    lab.must(&["dlq", "replay", "--reason", "late", "--verify"]);
    eventually("the late one is counted after all", PATIENCE, || match lab
        .warehouse()
        .numbers(rows)?[..]
    {
        [3, 7500] => Ok(()),
        ref other => Err(format!("{other:?}")),
    });
}

#[test]
fn what_is_counted_and_not_loaded_is_not_replayed_as_late() {
    let lab = Lab::new("late_not_loaded");
    let _processor = lab.processor("1");
    let sender = Sender::new(&lab);
    // Late in some seconds.
    let time = now().plus(-24 * HOUR_MILLIS + 6_000).to_string();
    let value = json!({
        "specversion": "1.0", "type": "spendfuse.usage", "source": "app", "id": "r-1",
        "time": time,
        "data": {"workspace": "acme", "provider": "openai", "model": "gpt-4o",
                 "usage": {"input_tokens": 1000}},
    });
    let record = Record {
        partition: Some(0),
        key: None,
        value: value.to_string().into_bytes(),
    };
    sender.send(&record);
    sender.flush();
    eventually("it is counted", PATIENCE, || match lab.read("rows").len() {
        0 => Err("no rows".to_owned()),
        _ => Ok(()),
    });
    eventually("a copy of it is late", PATIENCE, || {
        sender.send(&record);
        sender.flush();
        match lab.read("usage.dlq").len() {
            0 => Err("nothing is set aside".to_owned()),
            _ => Ok(()),
        }
    });
    let arguments = ["dlq", "replay", "--reason", "late", "--verify", "--json"];
    let arguments = arguments.into_iter().map(str::to_owned);
    let arguments = arguments.chain(lab.setting_arguments()).collect();
    let replay = Role::start("replay", spendfuse(), arguments, lab.file("replay.log"));
    // No loader runs: ClickHouse does not know what was counted.
    replay.await_line("wait for the loader", PATIENCE);
    let _loader = lab.loader();
    eventually("the replay ends", PATIENCE, || match replay.is_running() {
        true => Err(replay.log()),
        false => Ok(()),
    });
    let said = replay.log();
    assert!(said.contains("\"replayed\":0"), "{said}");
    assert!(!said.contains("\"already_counted\":0"), "{said}");
    let rows = "SELECT count() FROM spend";
    assert_eq!(lab.warehouse().numbers(rows).expect("it answers"), [1]);
    lab.assert_no_drift();
}
