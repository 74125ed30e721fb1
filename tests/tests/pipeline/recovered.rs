//! A new set of topics learns from ClickHouse what the meters of the topics before knew.
// Clippy's exception for tests does not cover their helper functions.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use spendfuse_bus::topics;
use spendfuse_domain::Topics;
use spendfuse_tests::load::Sender;
use spendfuse_tests::traffic::now;
use spendfuse_tests::{Lab, PATIENCE, Traffic, eventually};

const BUDGETS: &str = r#"
budgets:
  - {id: all, scope: {workspace: acme}, limit: "20", window: lifetime}
  - {id: cap, scope: {workspace: acme, customer: "*"}, limit: "10", window: month}
  - {id: run, scope: {workspace: acme, session: "*"}, limit: "1.00", window: session, action: block}
"#;
const RUNAWAY: &str = "run|acme/session=runaway";

/// A call of $0.25.
fn call(id: &str, customer: &str, session: Option<&str>) -> String {
    let event = json!({
        "specversion": "1.0", "type": "spendfuse.usage", "source": "recovered", "id": id,
        "time": now().to_string(),
        "data": {"workspace": "acme", "customer": customer, "session": session,
                 "provider": "openai", "model": "gpt-4o", "usage": {"input_tokens": 100_000}},
    });
    format!("{event}\n")
}

fn send(lab: &Lab, events: &[String]) {
    let file = lab.file("events.ndjson");
    std::fs::write(&file, events.concat()).unwrap();
    lab.must(&["ingest", file.to_str().unwrap()]);
}

/// Waits for so many rows, each of another event, by epoch.
fn await_rows(lab: &Lab, wanted: [i128; 2]) {
    let sql =
        "SELECT countIf(epoch = 0), countIf(epoch = 1), count() - uniqExact(event_id) FROM spend";
    eventually("rows, each once", PATIENCE, || {
        match lab.warehouse().numbers(sql)? {
            found if found == [wanted[0], wanted[1], 0] => Ok(()),
            found => Err(format!("{found:?}")),
        }
    });
}

/// Waits until an entry of the blocklist has this verdict and says that so much is spent.
fn await_spent(lab: &Lab, key: &str, verdict: &str, spent: &str) {
    eventually(key, PATIENCE, || {
        let table = lab.table("blocklist");
        let entry = table.get(key).ok_or("no entry")?;
        match entry["verdict"] == verdict && entry["spent_usd"] == spent {
            true => Ok(()),
            false => Err(entry.to_string()),
        }
    });
}

fn recover(lab: &Lab, arguments: &[&str]) -> Value {
    let said = lab.must(&[&["recover", "--json"], arguments].concat());
    serde_json::from_str(&said.stdout).unwrap()
}

/// 40 calls without a session, five of a session that runs away, two of one that does not.
fn traffic(name: &str) -> Vec<String> {
    let mut events: Vec<String> = (0..40)
        .map(|number| {
            call(
                &format!("{name}-{number}"),
                &format!("c-{}", number % 4),
                None,
            )
        })
        .collect();
    for (session, count) in [("runaway", 5), ("quiet", 2)] {
        let of_session = (0..count)
            .map(|number| call(&format!("{name}-{session}-{number}"), "c-9", Some(session)));
        events.extend(of_session);
    }
    events
}

#[test]
fn a_lost_kafka_is_recovered_and_what_was_counted_stays_counted_once() {
    let lab = Lab::new("recovered");
    lab.apply_budgets(BUDGETS);
    let processor = lab.processor("1");
    let loader = lab.loader();
    let loaded = traffic("loaded");
    send(&lab, &loaded);
    await_rows(&lab, [47, 0]);
    await_spent(&lab, RUNAWAY, "block", "1.25");
    // The last events are in Kafka alone when it is lost.
    loader.stop();
    let lost: Vec<String> = (0..9)
        .map(|number| call(&format!("lost-{number}"), "c-1", None))
        .collect();
    send(&lab, &lost);
    processor.kill();
    let own = Topics::new("recovered.");
    let names: Vec<&str> = own.all().iter().map(|topic| topic.name).collect();
    topics::delete(&lab.kafka_config(), &names, PATIENCE).unwrap();

    lab.create_topics();
    let said = lab.run(&["recover"]);
    assert!(said.stderr.contains("budgets apply"), "{said:?}");
    lab.apply_budgets(BUDGETS);
    let mut processor = lab.processor("1");
    let _loader = lab.loader();
    let shown = recover(&lab, &["--dry-run"]);
    assert_eq!(shown["outcome"], "dry_run", "{shown:#}");
    let done = recover(&lab, &[]);
    assert_eq!(done["outcome"], "recovered", "{done:#}");
    for (name, count) in [
        ("identities", 47),
        ("sessions", 2),
        ("calls", 7),
        ("epoch", 1),
    ] {
        assert_eq!(done[name], count, "{name}: {done:#}");
        assert_eq!(shown[name], count, "{name}: {shown:#}");
    }
    // Without any event: the session is refused, and the quiet one goes on at what it had spent.
    await_spent(&lab, RUNAWAY, "block", "1.25");
    await_spent(&lab, "run|acme/session=quiet", "ok", "0.50");
    // Once more, and over a restart, changes nothing: no call is sent again, since a session may be
    // older than the meters' memory of its calls.
    recover(&lab, &[]);
    let told = lab.read("corrections").into_iter();
    let told = told.filter_map(|record| serde_json::from_slice(&record.value?).ok());
    let calls = told.filter_map(|record: Value| record["calls"].as_array().map(Vec::len));
    assert_eq!(calls.sum::<usize>(), 7);
    processor.kill();
    processor.restart();

    send(&lab, &[loaded, lost].concat());
    send(&lab, &[call("new", "c-9", Some("quiet"))]);
    await_rows(&lab, [47, 10]);
    await_spent(&lab, "run|acme/session=quiet", "ok", "0.75");
    await_spent(&lab, RUNAWAY, "block", "1.25");
    await_spent(&lab, "all|acme", "ok", "14.25");
    await_spent(&lab, "cap|acme/customer=c-1", "ok", "4.75");
    lab.assert_no_drift_anywhere();
    let alerts = lab.table("alerts").into_values();
    let conflicts: Vec<Value> = alerts.filter(|alert| alert["kind"] == "conflict").collect();
    assert!(conflicts.is_empty(), "{conflicts:?}");
}

#[test]
fn partitions_are_added_by_a_new_set_of_topics_that_knows_what_the_old_one_knew() {
    let mut lab = Lab::new("recovered_few");
    lab.apply_budgets(BUDGETS);
    let processor = lab.processor("1");
    let loader = lab.loader();
    let events = traffic("few");
    send(&lab, &events);
    await_rows(&lab, [47, 0]);
    await_spent(&lab, RUNAWAY, "block", "1.25");
    loader.stop();
    send(&lab, &[call("last", "c-1", None)]);
    lab.move_to_topics("recovered_many", 9);
    lab.create_topics();
    let from = ["--from", "recovered_few.", "--from-ids", "recovered_few"];
    let said = lab.run(&[&["recover"], &from[..]].concat());
    assert!(said.stderr.contains("is not at its end"), "{said:?}");
    lab.move_to_topics("recovered_few", 4);
    let loader = lab.loader();
    await_rows(&lab, [48, 0]);
    loader.stop();
    processor.stop();

    lab.move_to_topics("recovered_many", 9);
    let done = recover(&lab, &[&from[..], &["--no-wait"]].concat());
    assert_eq!(done["outcome"], "sent", "{done:#}");
    assert_eq!(done["identities"], 48, "{done:#}");
    assert!(done["budgets"].as_u64() >= Some(3), "{done:#}");
    let _processor = lab.processor("1");
    let _loader = lab.loader();
    await_spent(&lab, RUNAWAY, "block", "1.25");
    await_spent(&lab, "run|acme/session=quiet", "ok", "0.50");
    send(&lab, &events);
    send(&lab, &[call("new", "c-9", Some("quiet"))]);
    await_rows(&lab, [48, 1]);
    await_spent(&lab, "run|acme/session=quiet", "ok", "0.75");
    await_spent(&lab, "all|acme", "ok", "12.25");
    lab.assert_no_drift_anywhere();
}

/// Run by hand on a quiet machine:
/// `cargo test --release -p spendfuse-tests --test pipeline -- --ignored --nocapture a_million_scopes`.
#[test]
#[ignore = "a measurement of minutes, for a quiet machine"]
fn a_million_scopes_come_back() {
    const EVENTS: u64 = 1_000_000;
    const LONG: Duration = Duration::from_secs(600);
    let lab = Lab::for_measurement("recovered_million");
    let each = "budgets:\n  - {id: each, scope: {workspace: acme, customer: \"*\"}, limit: \"0.02\", window: month}\n";
    let accounts = [("processor.account_capacity", "2000000")];
    let begin = || {
        lab.apply_budgets(each);
        (lab.role("processor", "1", &accounts), lab.loader())
    };
    let count = |sql: &str, wanted: u64| {
        eventually(sql, LONG, || {
            spendfuse_tests::pause(Duration::from_millis(250));
            match lab.warehouse().numbers(sql)?[0] {
                found if found == i128::from(wanted) => Ok(()),
                found => Err(found.to_string()),
            }
        });
    };
    let (processor, loader) = begin();
    let sender = Sender::new(&lab);
    let mut traffic = Traffic::new(&lab, 31);
    for number in 0..EVENTS {
        let customer = format!("c-{number}");
        // A tenth belongs to sessions that are live.
        let session = match number % 10 {
            0 => format!("s-{}", number / 500),
            _ => String::new(),
        };
        sender.send(&traffic.call(&customer, &session, 60_000, 0, 10));
    }
    sender.flush();
    count("SELECT count() FROM spend", EVENTS);
    loader.stop();
    processor.kill();
    let own = Topics::new("recovered_million.");
    let names: Vec<&str> = own.all().iter().map(|topic| topic.name).collect();
    topics::delete(&lab.kafka_config(), &names, PATIENCE).unwrap();
    lab.create_topics();
    let began = Instant::now();
    let (_processor, _loader) = begin();
    let done = recover(&lab, &["--without-budgets"]);
    println!("recover: {:.1} s: {done:#}", began.elapsed().as_secs_f64());
    lab.await_openings(LONG);
    println!("windows: {:.1} s", began.elapsed().as_secs_f64());
    lab.assert_no_drift_anywhere();
    println!("compared: {:.1} s", began.elapsed().as_secs_f64());
    assert_eq!(done["identities"], EVENTS, "{done:#}");
}
