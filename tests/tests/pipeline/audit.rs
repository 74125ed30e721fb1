//! `spendfuse audit`: silent where all is well, and by name where something was tampered with.
// Clippy's exception for tests does not cover their helper functions.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use serde_json::{Value, json};
use spendfuse_bus::{EventProducer, EventRecord, ProducerOptions};
use spendfuse_tests::lab::spendfuse;
use spendfuse_tests::load::Sender;
use spendfuse_tests::topics::Stored;
use spendfuse_tests::traffic::now;
use spendfuse_tests::{Address, Lab, Load, PATIENCE, Record, Role, Traffic, eventually};

/// A long round is followed by a long pause, and on a busy machine a round is long.
const WATCH_WAIT: Duration = Duration::from_secs(180);
const DAY_MILLIS: i64 = 86_400_000;
/// The warehouse remembers this header's events as counted whatever their age.
const VERIFIED_LATE: (&str, &[u8]) = ("spendfuse_verified_late", b"1");
/// Two budgets share a series, two have none in common, one is for a kind of customer only.
const BUDGETS: &str = r#"
budgets:
  - {id: everything, scope: {}, limit: "5000", window: lifetime}
  - {id: cap, scope: {workspace: acme, customer: "*"}, limit: "0.01", window: day}
  - {id: hourly, scope: {workspace: acme, customer: "*"}, limit_tokens: 100000, window: hour, timezone: Asia/Kolkata}
  - {id: models, scope: {model: "*", provider: "*"}, limit_calls: 1000, window: month}
  - {id: projects, scope: {project: "*"}, limit: "500", window: month}
  - {id: agents, scope: {workspace: acme}, where: {feature: agent, customer: [c-1, c-2]}, limit: "1.00", window: week}
  - {id: per-session, scope: {session: "*"}, limit: "0.01", window: session}
"#;

/// The audit must find these, each as (difference, where, from commit).
fn assert_finds(lab: &Lab, wanted: &[(&str, String, u64)]) {
    let (code, answer) = lab.audit();
    assert_eq!(code, Some(1), "{answer:#}");
    for (difference, place, seq) in wanted {
        let groups = answer["differences"].as_array().unwrap();
        let named = |group: &&Value| {
            group["difference"] == *difference
                && group["where"] == place.as_str()
                && group["from_seq"] == *seq
        };
        let is_there = groups.iter().any(|group| named(&group));
        assert!(
            is_there,
            "no {difference} at {place} from {seq}: {answer:#}"
        );
    }
}

#[test]
fn traffic_of_all_kinds_has_no_drift_also_while_it_flows() {
    let lab = Lab::new("audit_clean");
    lab.apply_budgets(BUDGETS);
    let _processor = lab.processor("1");
    let _loader = lab.loader();
    let load = Load::start(&lab, Traffic::new(&lab, 21), 1500, 9000);
    load.await_sent(3000);
    lab.assert_no_drift();
    // A limit that changes keeps the count, another price is another version.
    lab.apply_budgets(&BUDGETS.replace("\"0.01\", window: day", "\"0.05\", window: day"));
    lab.must(&[
        "prices",
        "set",
        "acme/house-model",
        "input=0.10",
        "output=0.40",
    ]);
    let expected = load.finish();
    lab.settle(&expected, PATIENCE);

    // One late event stays in the DLQ, one is counted after all, in a window that is closed.
    let file = lab.file("late.ndjson");
    let late = |id: &str, days: i64| {
        let time = now().plus(-days * DAY_MILLIS).to_string();
        json!({
            "specversion": "1.0", "type": "spendfuse.usage", "source": "late", "id": id, "time": time,
            "data": {"workspace": "acme", "customer": "c-1", "feature": "agent", "project": "cc-9",
                     "provider": "openai", "model": "gpt-4o", "usage": {"input_tokens": 2000}},
        })
        .to_string()
    };
    let send = |line: String| {
        std::fs::write(&file, line).unwrap();
        let sent = lab.run(&["ingest", file.to_str().unwrap()]);
        assert_eq!(sent.code, Some(1), "it is late: {sent:?}");
    };
    let in_dlq = |count: u64| {
        eventually("late events wait in the DLQ", PATIENCE, || {
            match lab.read("usage.dlq").len() as u64 {
                found if found == expected.rejected + count => Ok(()),
                found => Err(format!("{found}")),
            }
        });
    };
    send(late("counted-after-all", 3));
    in_dlq(1);
    lab.must(&["dlq", "replay", "--verify"]);
    send(late("stays", 4));
    in_dlq(3); // The replay leaves a note.
    eventually("the replayed event is a row", PATIENCE, || {
        let sql = "SELECT count() FROM spend WHERE event_id = 'counted-after-all'";
        match lab.warehouse().numbers(sql)?[0] {
            1 => Ok(()),
            count => Err(format!("{count} rows")),
        }
    });

    let answer = lab.assert_no_drift();
    let compared = &answer["compared"];
    assert_eq!(compared["events"], expected.events + 1, "{answer:#}");
    assert_eq!(
        compared["duplicates"],
        expected.duplicates + 1,
        "{answer:#}"
    );
    assert_eq!(compared["rejected"], expected.rejected + 1, "{answer:#}");
    assert!(compared["windows"].as_u64() > Some(80), "{answer:#}");
    assert!(compared["blocklist"].as_u64() > Some(40), "{answer:#}");
    assert_eq!(answer["not_compared"], json!([]), "{answer:#}");
}

#[test]
fn what_was_tampered_with_is_named_with_partition_and_commit() {
    let lab = Lab::new("audit_tampered");
    lab.apply_budgets(BUDGETS);
    let _processor = lab.processor("1");
    let _loader = lab.loader();
    let load = Load::start(&lab, Traffic::new(&lab, 22), 1500, 3000);
    let expected = load.finish();
    lab.settle(&expected, PATIENCE);
    let watch = Watch::start(&lab);
    watch.role.await_line("no drift", WATCH_WAIT);
    assert_eq!(watch.metric("spendfuse_audit_drift_events"), "0");
    assert_eq!(watch.metric("spendfuse_audit_drift_nanodollars"), "0");
    let seconds = watch.metric("spendfuse_audit_round_seconds");
    println!("a round over {} events: {seconds} s", expected.events);

    // The blocklist: another amount for one customer, which nothing writes again by itself.
    lab.await_openings(PATIENCE);
    let entries = lab.read("blocklist");
    let key = "cap|acme/customer=c-1";
    let of_key = |record: &&Stored| record.key.as_deref() == Some(key.as_bytes());
    let honest = entries.iter().rfind(of_key).unwrap();
    let value = honest.value.as_deref().unwrap();
    let mut entry: Value = serde_json::from_slice(value).unwrap();
    entry["spent_usd"] = json!("0.000001");
    write(&lab, "blocklist", honest, entry.to_string().as_bytes());
    let ledger = format!("ledger {}", honest.partition);
    let version = entry["version"].as_u64().unwrap();
    assert_finds(&lab, &[("blocklist_differs", ledger, version)]);
    eventually("the watch says so", WATCH_WAIT, || {
        match watch.metric("spendfuse_audit_drift_events").as_str() {
            "0" => Err(watch.role.log()),
            _ => Ok(()),
        }
    });
    eventually("people are told", WATCH_WAIT, || {
        let mut told = lab.table("alerts").into_values();
        let is_it =
            |alert: &Value| alert["kind"] == "drift" && alert["subject"] == "blocklist_differs";
        told.find(is_it).ok_or_else(|| watch.role.log())
    });
    write(&lab, "blocklist", honest, value);
    lab.assert_no_drift();
    eventually(
        "the watch sees that it is repaired",
        WATCH_WAIT,
        || match watch.metric("spendfuse_audit_drift_events").as_str() {
            "0" => Ok(()),
            more => Err(more.to_owned()),
        },
    );

    // The warehouse: a row twice, then a row gone.
    let warehouse = lab.warehouse();
    let some = "SELECT meter_partition, meter_seq, meter_index FROM spend \
                ORDER BY cityHash64(event_id) LIMIT 2";
    let places: Vec<Vec<String>> = warehouse.rows(some).unwrap();
    let condition = |place: &[String]| {
        format!(
            "meter_partition = {} AND meter_seq = {} AND meter_index = {}",
            place[0], place[1], place[2]
        )
    };
    let site = |place: &[String]| (format!("meter {}", place[0]), place[1].parse().unwrap());
    let insert = format!(
        "INSERT INTO spend SELECT * REPLACE (toNullable(toUInt32(7)) AS latency_ms) FROM spend \
         WHERE {}",
        condition(&places[0])
    );
    warehouse.execute(&insert).unwrap();
    let (meter, seq) = site(&places[0]);
    let wanted = [
        ("counted_twice", meter.clone(), seq),
        ("not_from_input", meter.clone(), seq),
        ("rows_differ", meter, seq),
    ];
    assert_finds(&lab, &wanted);
    delete(
        &lab,
        &format!("{} AND latency_ms = 7", condition(&places[0])),
    );
    let (meter, seq) = site(&places[1]);
    delete(&lab, &condition(&places[1]));
    let wanted = [
        ("rows_differ", meter.clone(), seq),
        ("deltas_differ", meter, seq),
    ];
    assert_finds(&lab, &wanted);
    let (_, answer) = lab.audit();
    let lost: Vec<&Value> = groups(&answer, "not_counted").collect();
    assert_eq!(lost.len(), 1, "{answer:#}");
    assert_eq!(
        (&lost[0]["count"], &lost[0]["where"]),
        (&json!(1), &json!(format!("meter {}", places[1][0])))
    );

    // The deltas: the last record of a partition once more.
    let deltas = lab.read("deltas");
    // What was spent before budgets counted lies among them, under a key.
    let last = deltas.iter().rfind(|record| record.key.is_none()).unwrap();
    write(&lab, "deltas", last, last.value.as_deref().unwrap());
    let sums = |answer: &Value| groups(answer, "window_differs").count();
    let windows_before = sums(&answer);
    let answer = eventually("the extra delta is applied", PATIENCE, || {
        let (_, answer) = lab.audit();
        let has_overlap = groups(&answer, "delta_overlap").next().is_some();
        match has_overlap {
            true => Ok(answer),
            false => Err(answer.to_string()),
        }
    });
    let overlap = groups(&answer, "delta_overlap").next().unwrap();
    assert!(
        overlap["where"].as_str().unwrap().starts_with("meter "),
        "{answer:#}"
    );
    assert!(overlap["from_seq"].as_u64() > Some(0), "{answer:#}");
    assert!(sums(&answer) >= windows_before.max(1), "{answer:#}");
}

#[test]
fn a_duplicate_beyond_the_dedupe_horizon_is_named() {
    let lab = Lab::new("audit_horizon");
    // So small a memory forgets the first event when others come.
    let capacity = [("processor.dedupe_capacity", "16")];
    let processor = lab.role("processor", "1", &capacity);
    processor.await_line("stage=\"meter\"", PATIENCE);
    let _loader = lab.loader();
    let sender = Sender::new(&lab);
    let mut traffic = Traffic::new(&lab, 23);
    let first = traffic.call("c-1", "s-1", 1000, 0, 10);
    sender.send(&first);
    for _ in 0..40 {
        let other: Record = traffic.call("c-1", "s-1", 1000, 0, 10);
        sender.send_with(&other, &[VERIFIED_LATE]);
    }
    sender.flush();
    let rows = |count: i128| {
        eventually("the events are rows", PATIENCE, || {
            match lab.warehouse().numbers("SELECT count() FROM spend")?[0] {
                found if found == count => Ok(()),
                found => Err(format!("{found} of {count}")),
            }
        });
    };
    rows(41);
    lab.assert_no_drift();
    sender.send_with(&first, &[VERIFIED_LATE]);
    sender.flush();
    rows(42);
    let (code, answer) = lab.audit();
    assert_eq!(code, Some(1), "{answer:#}");
    let twice: Vec<&Value> = groups(&answer, "counted_twice").collect();
    assert_eq!(twice.len(), 1, "{answer:#}");
    assert_eq!(twice[0]["drift_events"], 1, "{answer:#}");
    let example = twice[0]["examples"][0].as_str().unwrap();
    assert!(
        example.contains("event call-1 of tests in acme stands 2 times"),
        "{example}"
    );
}

#[test]
fn scopes_without_room_for_an_account_are_not_lost() {
    let lab = Lab::new("audit_room");
    lab.apply_budgets(BUDGETS);
    let room = [("processor.account_capacity", "5")];
    let processor = lab.role("processor", "1", &room);
    processor.await_line("stage=\"meter\"", PATIENCE);
    let _loader = lab.loader();
    let sender = Sender::new(&lab);
    let mut traffic = Traffic::new(&lab, 24);
    for number in 0..200 {
        let customer = format!("c-{}", number % 50);
        sender.send(&traffic.call(&customer, "s-1", 1000, 0, 10));
    }
    sender.flush();
    lab.settle(traffic.expected(), PATIENCE);
    let uncounted = "SELECT count() FROM budget_windows WHERE kind = 'late'";
    eventually(
        "sums without an account are written",
        PATIENCE,
        || match lab.warehouse().numbers(uncounted)?[0] {
            found if found > 50 => Ok(()),
            found => Err(format!("{found} lines")),
        },
    );
    lab.assert_no_drift();
    let told = lab.table("alerts").into_values();
    let capacity: Vec<Value> = told.filter(|alert| alert["kind"] == "capacity").collect();
    assert!(
        !capacity.is_empty() && capacity.len() <= lab.partitions() as usize,
        "{capacity:?}"
    );
}

fn groups<'a>(answer: &'a Value, difference: &'a str) -> impl Iterator<Item = &'a Value> {
    let groups = answer["differences"].as_array().unwrap().iter();
    groups.filter(move |group| group["difference"] == difference)
}

fn delete(lab: &Lab, condition: &str) {
    let sql = format!("ALTER TABLE spend DELETE WHERE {condition} SETTINGS mutations_sync = 1");
    lab.warehouse().execute(&sql).unwrap();
}

/// Writes a record straight to Kafka, in the place of another one.
fn write(lab: &Lab, topic: &str, instead_of: &Stored, value: &[u8]) {
    let producer = EventProducer::open(&lab.kafka_config(), &ProducerOptions::default()).unwrap();
    let record = EventRecord {
        topic: &lab.topic(topic),
        partition: Some(instead_of.partition),
        key: instead_of.key.as_deref(),
        value: Some(value),
        headers: &[],
    };
    producer.send(&record, drop).unwrap();
    producer.flush(PATIENCE).unwrap();
}

/// A running `audit --watch`.
struct Watch {
    role: Role,
    admin: Address,
}

impl Watch {
    fn start(lab: &Lab) -> Self {
        let admin = Address::free();
        let mut arguments: Vec<String> = ["audit", "--watch", "--every", "1s", "--set"]
            .map(str::to_owned)
            .into();
        arguments.push(format!("admin.listen={}", admin.setting()));
        arguments.extend(lab.setting_arguments());
        let log = lab.file("watch.log");
        Self {
            role: Role::start("audit --watch", spendfuse(), arguments, log),
            admin,
        }
    }

    /// The value of a metric without labels.
    fn metric(&self, name: &str) -> String {
        let (_, answer) = self.admin.get("/metrics").unwrap();
        let value = answer.lines().find_map(|line| {
            let (found, value) = line.split_once(' ')?;
            (found == name).then(|| value.to_owned())
        });
        value.unwrap_or_else(|| panic!("no {name} in {answer}"))
    }
}
