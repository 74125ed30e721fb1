//! What people do with the command line, on the real binary and real Kafka and ClickHouse.
// Clippy's exception for tests does not cover their helper functions.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};
use spendfuse_bus::{EventProducer, EventRecord, ProducerOptions};
use spendfuse_tests::lab::Said;
use spendfuse_tests::traffic::now;
use spendfuse_tests::{Lab, eventually};

const BUDGETS: &str = r#"
budgets:
  - id: cap-per-customer
    scope: {workspace: acme, customer: "*"}
    limit: "0.01"
    window: day
  - id: everything
    scope: {}
    # One call is more than a hundredth of it: told at once.
    limit_calls: 50
    window: month
"#;
const WAIT: Duration = Duration::from_secs(20);

/// 2000 input and 380 output tokens of gpt-4o at $2.50 and $10.00: $0.0088.
fn event(id: &str, customer: &str) -> Value {
    json!({
        "specversion": "1.0", "type": "spendfuse.usage", "source": "cli-test", "id": id,
        "time": now().to_string(),
        "data": {
            "workspace": "acme", "customer": customer, "provider": "openai", "model": "gpt-4o",
            "usage": {"input_tokens": 2000, "output_tokens": 380},
        },
    })
}

/// The examples of events in schemas/examples, as their readers send them.
fn examples_of_today() -> Vec<String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../schemas/examples");
    let files = fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path());
    let events = files.filter(|path| path.to_string_lossy().contains("-event."));
    events
        .map(|path| {
            let mut event: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
            event["time"] = json!(now().to_string());
            event.to_string()
        })
        .collect()
}

fn answer(said: &Said) -> Value {
    serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"))
}

/// Waits until the scopes of `budgets status --json` satisfy `is_there`.
fn status_where(lab: &Lab, what: &str, is_there: impl Fn(&Value) -> bool) -> Value {
    eventually(what, WAIT, || {
        let status = answer(&lab.must(&["budgets", "status", "--json"]));
        match is_there(&status) {
            true => Ok(status),
            false => Err(status.to_string()),
        }
    })
}

fn scope<'a>(status: &'a Value, budget: &str, scope: &str) -> &'a Value {
    let scopes = status["scopes"].as_array().unwrap();
    let wanted = |one: &&Value| one["budget"] == budget && one["scope"] == scope;
    scopes.iter().find(wanted).unwrap_or(&Value::Null)
}

fn spent(status: &Value, customer: &str) -> String {
    let entry = scope(
        status,
        "cap-per-customer",
        &format!("acme/customer={customer}"),
    );
    entry["spent_usd"].as_str().unwrap_or("nothing").to_owned()
}

#[test]
fn a_wrong_file_changes_nothing_and_a_right_one_takes_effect_once() {
    let lab = Lab::new("cli_budgets");
    let (wrong, right) = (lab.file("wrong.yaml"), lab.file("right.yaml"));
    fs::write(&wrong, BUDGETS.replace("window: day", "window: dayly")).unwrap();
    fs::write(&right, BUDGETS).unwrap();
    let (wrong, right) = (wrong.to_str().unwrap(), right.to_str().unwrap());

    let refused = lab.run(&["budgets", "apply", wrong]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains(":6:13: "), "{refused:?}");
    assert!(
        refused.stderr.contains("did you mean `day`?"),
        "{refused:?}"
    );
    assert!(lab.read("budgets").is_empty());

    lab.must(&["budgets", "apply", right, "--dry-run"]);
    assert!(lab.read("budgets").is_empty());
    let first = answer(&lab.must(&["budgets", "apply", right, "--json"]));
    assert_eq!(first["applied"], true);
    assert_eq!(lab.read("budgets").len(), 2);
    let second = answer(&lab.must(&["budgets", "apply", right, "--json"]));
    assert_eq!(second["applied"], false, "{second}");
    assert_eq!(lab.read("budgets").len(), 2);
}

#[test]
fn spend_from_a_file_shows_in_status_and_check_and_the_dlq_gives_back_each_event_once() {
    let lab = Lab::new("cli_spend");
    lab.apply_budgets(BUDGETS);
    let _processor = lab.processor("1");
    let file = lab.file("events.ndjson");
    let mut talkative = event("e1", "c-1");
    talkative["data"]["choices"] = json!([{"text": "SECRET"}]);
    let lines = [
        talkative.to_string(),
        event("e2", "c-1").to_string(),
        event("e3", "c-2").to_string(),
        "{\"not\":\"json\"".to_owned(),
    ];
    fs::write(&file, lines.join("\n")).unwrap();
    let file = file.to_str().unwrap();

    let shown = lab.run(&["ingest", file, "--dry-run", "--json"]);
    let first: Value = serde_json::from_str(shown.stdout.lines().next().unwrap()).unwrap();
    assert_eq!(first["cost_usd"], "0.0088");
    let met = json!([
        {"budget": "cap-per-customer", "scope": "acme/customer=c-1"},
        {"budget": "everything", "scope": "*"},
    ]);
    assert_eq!(first["budgets"], met);
    assert!(lab.read("usage").is_empty(), "a dry run sends nothing");

    let said = lab.run(&["ingest", file, "--json"]);
    assert_eq!(said.code, Some(1), "one line cannot be read: {said:?}");
    let sent = answer(&said);
    assert_eq!(
        (&sent["sent"], &sent["unreadable"]["lines"]),
        (&json!(4), &json!(1))
    );
    let outcome = |counted, duplicates, late, rejected| {
        json!({"counted": counted, "grown": 0, "duplicates": duplicates, "late": late, "rejected": rejected,
            "waiting": 0})
    };
    assert_eq!(sent["outcome"], outcome(3, 0, 0, 1));
    assert_eq!(sent["unknown_members"]["names"], json!(["data.choices"]));
    for stored in lab.read("usage") {
        let value = stored.value.unwrap();
        assert!(!String::from_utf8_lossy(&value).contains("SECRET"));
    }
    // The same events again: counted by their ids.
    let again = answer(&lab.run(&["ingest", file, "--json"]));
    assert_eq!(again["outcome"], outcome(0, 3, 0, 1));
    let status = status_where(&lab, "spend is counted", |status| {
        spent(status, "c-1") == "0.0176" && status["not_counted"]["events"] == 2
    });
    assert_eq!(spent(&status, "c-2"), "0.0088");
    assert_eq!(scope(&status, "everything", "*")["spent_calls"], 3);

    let blocked = lab.run(&["check", "--workspace=acme", "--customer=c-1", "--json"]);
    assert_eq!(blocked.code, Some(1), "{blocked:?}");
    let blocked = answer(&blocked);
    assert_eq!(blocked["decision"], "block");
    assert_eq!(blocked["budgets"][0]["budget"], "cap-per-customer");
    lab.must(&["check", "--workspace=acme", "--customer=c-2"]);
    let estimate = [
        "check",
        "--workspace=acme",
        "--customer=c-2",
        "--estimated-cost-usd=0.01",
    ];
    assert_eq!(lab.run(&estimate).code, Some(1));

    set_aside(&lab, &event("e4", "c-2"));
    let listed = answer(&lab.must(&["dlq", "list", "--json"]));
    let by_reason = json!({"internal_error": 1, "malformed_json": 2});
    assert_eq!(listed["by_reason"], by_reason);
    let replayed = answer(&lab.must(&["dlq", "replay", "--json"]));
    assert_eq!(replayed["replayed"], 1, "{replayed}");
    let again = answer(&lab.must(&["dlq", "replay", "--json"]));
    assert_eq!(again["replayed"], 0, "{again}");
    let counted = status_where(&lab, "the replayed event is counted", |status| {
        spent(status, "c-2") == "0.0176"
    });
    assert_eq!(
        counted["not_counted"]["by_reason"],
        json!({"malformed_json": 2})
    );

    // The documented examples, with the present time.
    let examples = examples_of_today();
    let count = examples.len();
    let today = lab.file("examples.ndjson");
    fs::write(&today, examples.join("\n")).unwrap();
    let today = today.to_str().unwrap();
    let sent = answer(&lab.must(&["ingest", today, "--json"]));
    assert_eq!(sent["outcome"], outcome(count, 0, 0, 0));
}

#[test]
fn a_late_event_is_counted_once_when_the_warehouse_does_not_know_it() {
    let lab = Lab::new("cli_late");
    let _processor = lab.processor("1");
    let _loader = lab.loader();
    let mut late = event("old", "c-1");
    let three_days = 3 * 24 * 60 * 60 * 1000;
    late["time"] = json!(now().plus(-three_days).to_string());
    let file = lab.file("late.ndjson");
    fs::write(&file, late.to_string()).unwrap();
    let file = file.to_str().unwrap();
    let wait_for_late = |count: u64| {
        eventually("the event waits in the DLQ", WAIT, || {
            let listed = answer(&lab.must(&["dlq", "list", "--json"]));
            match listed["by_reason"]["late"].as_u64() == Some(count) {
                true => Ok(()),
                false => Err(listed.to_string()),
            }
        });
    };
    let replay = || answer(&lab.must(&["dlq", "replay", "--verify", "--json"]));
    let rows = || {
        lab.warehouse()
            .rows("SELECT count() FROM spend WHERE event_id = 'old'")
    };

    // Two copies wait, one is counted.
    let sent = lab.run(&["ingest", file]);
    assert_eq!(sent.code, Some(1), "it is late: {sent:?}");
    let told = "0 counted, 0 duplicates, 1 late, 0 rejected\nlate: ";
    assert!(sent.stdout.contains(told), "{sent:?}");
    let unawaited = lab.must(&["ingest", file, "--no-wait", "--json"]);
    assert_eq!(answer(&unawaited)["outcome"], Value::Null);
    wait_for_late(2);
    let first = replay();
    assert_eq!(
        (&first["replayed"], &first["already_counted"]),
        (&json!(1), &json!(1))
    );
    eventually("the row is in the warehouse", WAIT, || match rows()? {
        found if found == [["1"]] => Ok(()),
        other => Err(format!("{other:?}")),
    });

    // A third copy is known by then.
    lab.run(&["ingest", file]);
    wait_for_late(1);
    let second = replay();
    assert_eq!(
        (&second["replayed"], &second["already_counted"]),
        (&json!(0), &json!(1))
    );
    assert_eq!(rows().unwrap(), [["1"]]);

    // One that was set aside for something else and is late by now: the meter would set it aside
    // again, unless the warehouse is asked.
    set_aside(&lab, &late);
    let plain = answer(&lab.must(&["dlq", "replay", "--json"]));
    assert_eq!(
        (&plain["replayed"], &plain["need_verify"]),
        (&json!(0), &json!(1))
    );
    assert_eq!(replay()["already_counted"], 1);
}

/// Puts an event into the DLQ as the meter does with one that it cannot process.
fn set_aside(lab: &Lab, event: &Value) {
    let producer = EventProducer::open(&lab.kafka_config(), &ProducerOptions::default()).unwrap();
    let value = event.to_string();
    let headers: [(&str, &[u8]); 2] = [
        ("spendfuse_reason", b"internal_error"),
        ("spendfuse_detail", b"made by a test"),
    ];
    let record = EventRecord {
        topic: &lab.topic("usage.dlq"),
        partition: Some(0),
        key: None,
        value: Some(value.as_bytes()),
        headers: &headers,
    };
    producer.send(&record, drop).unwrap();
    producer.flush(WAIT).unwrap();
}

#[test]
fn a_price_that_is_set_is_in_force_for_events_and_for_sql() {
    let lab = Lab::new("cli_prices");
    let set = [
        "prices",
        "set",
        "acme/house-model",
        "input=0.10",
        "output=0.40",
        "--json",
    ];
    let version = answer(&lab.must(&set))["version"].clone();
    let version = version.as_str().unwrap();
    assert!(version.starts_with("custom-"), "{version}");
    let cost = [
        "prices",
        "cost",
        "--provider=acme",
        "--model=house-model",
        "--from-topic",
    ];
    let usage = ["--usage", r#"{"input_tokens":1000000}"#, "--json"];
    let cost = answer(&lab.must(&[&cost[..], &usage[..]].concat()));
    assert_eq!(
        (&cost["cost_usd"], &cost["priced"]),
        (&json!("0.10"), &json!("book"))
    );
    assert_eq!(cost["price_version"], version);
    let rows = format!(
        "SELECT count() > 0 FROM prices WHERE price_version = '{version}' AND model = 'house-model'"
    );
    assert_eq!(lab.warehouse().rows(&rows).unwrap(), [["1"]]);

    let again = answer(&lab.must(&set));
    assert_eq!(
        (&again["published"], &again["version"]),
        (&json!(false), &json!(version))
    );
}

#[test]
fn prices_that_changed_are_taken_and_those_that_jump_wait() {
    let lab = Lab::new("cli_sync");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("litellm.json");
    let write = |input: &str, output: &str| {
        let model = |name: &str, rate: &str| {
            format!(
                r#""{name}":{{"litellm_provider":"acme","mode":"chat","input_cost_per_token":{rate},"output_cost_per_token":{rate}}}"#
            )
        };
        let text = format!("{{{},{}}}", model("m", input), model("n", output));
        std::fs::write(&path, text).unwrap();
    };
    let file = path.to_str().unwrap();
    write("1e-6", "1e-6");
    lab.must(&["prices", "import", file]);
    let set = lab.must(&["prices", "set", "acme/house-model", "input=0.10", "--json"]);
    assert_eq!(answer(&set)["changes"][0]["new_usd"], "0.10", "{set:?}");
    let sync = |more: &[&str]| {
        let all = [&["prices", "sync", "--from", file, "--json"], more].concat();
        answer(&lab.run(&all))
    };
    let same = sync(&[]);
    assert_eq!(same["published"], false, "{same}");

    write("2e-6", "4e-6");
    let changed = sync(&[]);
    assert_eq!(changed["published"], true, "{changed}");
    let waiting = &changed["waiting"][0];
    assert_eq!(
        (&waiting["model"], &waiting["new_usd"]),
        (&json!("n"), &json!("4.00")),
        "{changed}"
    );
    let rate = |model: &str| {
        let shown = answer(&lab.must(&["prices", "show", model, "--from-topic", "--json"]));
        shown["models"][0]["rates_usd"]["input"].clone()
    };
    assert_eq!([rate("acme/m"), rate("acme/n")], ["2.00", "1.00"]);
    assert_eq!(rate("acme/house-model"), "0.10");

    sync(&["--accept"]);
    assert_eq!(rate("acme/n"), "4.00");
}

#[test]
fn what_an_alert_names_can_be_given_a_price_as_it_stands_there() {
    let lab = Lab::new("cli_unpriced");
    let _processor = lab.processor("1");
    let models = [
        ("", "gpt-99-ultra"),
        ("", "frob/nicate-9"),
        ("acme", "house-model-9"),
        ("a/b", "model-9"),
        (" Acme Two ", "-model-8"),
    ];
    let events = models
        .iter()
        .enumerate()
        .map(|(number, (provider, model))| {
            let mut event = event(&format!("unpriced-{number}"), "c-1");
            event["data"]["provider"] = json!(provider);
            event["data"]["model"] = json!(model);
            event.to_string()
        });
    let file = lab.file("unpriced.ndjson");
    fs::write(&file, events.collect::<Vec<_>>().join("\n")).unwrap();
    lab.must(&["ingest", file.to_str().unwrap()]);
    let subjects = eventually("every model has its alert", WAIT, || {
        let alerts = lab.read("alerts");
        let alerts = alerts.iter().filter_map(|record| record.value.as_deref());
        let alerts = alerts.map(|value| serde_json::from_slice::<Value>(value).unwrap());
        let unpriced = alerts.filter(|alert| alert["kind"] == "unpriced_model");
        let subjects = unpriced.map(|alert| alert["subject"].as_str().unwrap().to_owned());
        let subjects: std::collections::BTreeSet<String> = subjects.collect();
        match subjects.len() == models.len() {
            true => Ok(subjects),
            false => Err(format!("{subjects:?}")),
        }
    });
    for subject in &subjects {
        lab.must(&["prices", "set", subject, "input=1.00", "output=1.00"]);
    }
    for (provider, model) in models {
        let provider = format!("--provider={provider}");
        let model = format!("--model={model}");
        let cost = [
            "prices",
            "cost",
            &provider,
            &model,
            "--from-topic",
            "--json",
        ];
        let usage = ["--usage", r#"{"input_tokens":1000000}"#];
        let cost = answer(&lab.must(&[&cost[..], &usage[..]].concat()));
        let found = (&cost["cost_usd"], &cost["priced"]);
        assert_eq!(
            found,
            (&json!("1.00"), &json!("book")),
            "{provider} {model}: {cost}"
        );
    }
    let bare = lab.run(&["prices", "set", "gpt-99-ultra", "input=1.00"]);
    assert_eq!(bare.code, Some(2));
    assert!(bare.stderr.contains("or /gpt-99-ultra"), "{bare:?}");
}
