//! Rows with one source and id: an event that is sent again with another session is counted twice
//! until the loader settles it, equal ids of two workspaces are two events. People are told of what is
//! not settled.

use serde_json::{Value, json};
use spendfuse_tests::load::Sender;
use spendfuse_tests::traffic::now;
use spendfuse_tests::{Address, Lab, PATIENCE, Record, eventually};

const TWICE: &str = "SELECT count() FROM (\
    SELECT event_id FROM spend GROUP BY event_id HAVING count() = 2)";

fn event(workspace: &str, id: &str, session: Option<&str>) -> Vec<u8> {
    let data = json!({
        "workspace": workspace, "model": "gpt-4o-mini", "provider": "openai", "session": session,
        "usage": {"input_tokens": 1000}
    });
    let event = json!({
        "specversion": "1.0", "type": "spendfuse.usage", "source": "tests", "id": id,
        "time": now().to_string(), "data": data
    });
    event.to_string().into_bytes()
}

/// Ids `name-0` to `name-5`, each with a session and then without.
fn send(sender: &Sender, name: &str) {
    for number in 0..6 {
        let (id, session) = (format!("{name}-{number}"), format!("session-{number}"));
        for session in [Some(&*session), None] {
            sender.send(&Record {
                partition: Some(0),
                key: None,
                value: event("acme", &id, session),
            });
        }
    }
    sender.flush();
}

fn alerts(lab: &Lab, kind: &str) -> Vec<Value> {
    let alerts = lab.read("alerts").into_iter();
    let alerts = alerts.filter_map(|alert| serde_json::from_slice(&alert.value?).ok());
    let is_one = |alert: &Value| alert["kind"] == kind && alert.get("count").is_none();
    alerts.filter(is_one).collect()
}

/// Waits until people are told of every pair of ids that begin with `name`.
fn await_alerts(lab: &Lab, name: &str) -> Vec<Value> {
    eventually("people are told of each pair", PATIENCE, || {
        let warehouse = lab.warehouse();
        let six = format!("SELECT uniqExact(event_id) FROM spend WHERE event_id LIKE '{name}-%'");
        let pairs = format!("{TWICE} WHERE event_id LIKE '{name}-%'");
        let (ids, pairs) = (warehouse.numbers(&six)?[0], warehouse.numbers(&pairs)?[0]);
        let about = |alert: &&Value| {
            let message = alert["message"].as_str().unwrap_or_default();
            message.contains(&format!("id {name}-"))
        };
        let all = alerts(lab, "counted_twice");
        let told = all.iter().filter(about).count() as i128;
        match (ids, pairs, told) {
            (6, 1.., _) if told == pairs => Ok(all),
            other => Err(format!("ids, pairs, told: {other:?}")),
        }
    })
}

#[test]
fn an_identity_that_two_partitions_counted_is_told_once_with_both_addresses() {
    let lab = Lab::new("twice");
    let _processor = lab.processor("1");
    let admin = Address::free();
    let settings = [
        ("admin.listen", &*admin.setting()),
        ("loader.settle_counted_twice", "false"),
    ];
    let mut loader = lab.role("loader", "1", &settings);
    let sender = Sender::new(&lab);
    send(&sender, "first");
    let told = await_alerts(&lab, "first");
    let message = told[0]["message"].as_str().expect("it has a message");
    for part in [
        "usage 0@",
        "of session session-",
        "without a session",
        "row ",
    ] {
        assert!(message.contains(part), "{message}");
    }
    let (_, metrics) = admin.get("/metrics").expect("the loader answers");
    let count = format!("spendfuse_loader_counted_twice_total {}", told.len());
    assert!(metrics.contains(&count), "{metrics}");

    // Whoever comes next looks at the same rows again, and knows what was told.
    loader.stop();
    loader.restart();
    send(&sender, "later");
    let all = await_alerts(&lab, "later");
    let mut keys: Vec<&str> = all.iter().filter_map(|one| one["key"].as_str()).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), all.len(), "each pair is told once: {all:?}");
}

#[test]
fn equal_ids_in_two_workspaces_are_both_counted_and_told_once() {
    let lab = Lab::new("shared");
    let _processor = lab.processor("1");
    let admin = Address::free();
    let mut loader = lab.role("loader", "1", &[("admin.listen", &admin.setting())]);
    let sender = Sender::new(&lab);
    let send = |id: &str, workspaces: &[&str]| {
        for workspace in workspaces {
            sender.send(&Record {
                partition: Some(0),
                key: None,
                value: event(workspace, id, Some("s-1")),
            });
        }
        sender.flush();
    };
    let told_of = |count: usize| {
        eventually("people are told of each pair", PATIENCE, || {
            let told = alerts(&lab, "shared_id");
            match told.len() {
                found if found == count => Ok(told),
                found => Err(format!("{found} alerts")),
            }
        })
    };
    // The same event twice in one workspace is a duplicate, and an id of one workspace is no news.
    send("one", &["acme", "acme"]);
    send("both", &["acme", "globex", "acme"]);
    let told = told_of(1);
    let message = told[0]["message"].as_str().expect("it has a message");
    for part in [
        "acme",
        "globex",
        "id both of source tests",
        "usage 0@",
        "row ",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
    let (_, metrics) = admin.get("/metrics").expect("the loader answers");
    assert!(
        metrics.contains("spendfuse_loader_shared_ids_total 1"),
        "{metrics}"
    );
    let counted = "SELECT count(), uniqExact(workspace) FROM spend WHERE event_id = 'both'";
    let counted = lab.warehouse().numbers(counted).expect("rows are there");
    assert_eq!(counted, [2, 2], "both are counted");

    // Whoever comes next looks at the same rows again, and knows what was told.
    loader.stop();
    loader.restart();
    send("later", &["globex", "acme"]);
    let told = told_of(2);
    assert_eq!(told[1]["scope"], "*");
    assert!(alerts(&lab, "counted_twice").is_empty());
}
