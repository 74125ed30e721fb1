//! What cannot be counted arrives in the DLQ as it was, without what was said to a model, and holds
//! nothing up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use serde_json::Value;
use spendfuse_tests::load::Sender;
use spendfuse_tests::topics::Stored;
use spendfuse_tests::traffic::now;
use spendfuse_tests::{Lab, PATIENCE, Record, Traffic, eventually};

const DAY_MILLIS: i64 = 86_400_000;
const LARGEST_EVENT: usize = 64 * 1024;

/// The value, the reason, and what the detail must name.
struct Case {
    reason: &'static str,
    value: Vec<u8>,
    detail: &'static str,
}

#[test]
fn every_reject_reason_reaches_the_dlq_and_holds_no_good_event_up() {
    let lab = Lab::new("rejects");
    let _processor = lab.processor("1");
    let _loader = lab.loader();
    let sender = Sender::new(&lab);
    let mut traffic = Traffic::new(&lab, 10);
    let cases = cases();

    // Each bad one follows a good one in its partition.
    for (number, case) in cases.iter().enumerate() {
        let good = traffic.good();
        let at = good.partition;
        sender.send(&good);
        let bad = Record {
            partition: at,
            key: Some(format!("key-{number}").into_bytes()),
            value: case.value.clone(),
        };
        sender.send_with(&bad, &[("origin", b"tests"), ("trace", b"\x00\xff")]);
    }
    sender.send(&traffic.good());
    sender.flush();
    let begin = Instant::now();
    let wanted = traffic.expected().events as i128;
    eventually("good events are counted", PATIENCE, || {
        match lab.warehouse().numbers("SELECT count() FROM spend")?[0] {
            count if count == wanted => Ok(()),
            count => Err(format!("{count} of {wanted}")),
        }
    });
    println!(
        "good events among bad ones are rows after {:?}",
        begin.elapsed()
    );

    let usage = lab.read("usage");
    let dlq = lab.read("usage.dlq");
    assert_eq!(dlq.len(), cases.len());
    for (number, case) in cases.iter().enumerate() {
        let key = format!("key-{number}").into_bytes();
        let of_key = |record: &&Stored| record.key.as_deref() == Some(&key[..]);
        let sent = usage.iter().find(of_key).expect("it was sent");
        let kept = dlq.iter().find(of_key);
        let kept = kept.unwrap_or_else(|| panic!("no {} in the DLQ", case.reason));
        assert_kept(case, sent, kept, &lab.topic("usage"));
    }
    assert_told(&lab, &cases);
}

/// People hear of each reason, whichever partitions found it out: in one place under one key.
fn assert_told(lab: &Lab, cases: &[Case]) {
    let alerts = lab.read("alerts");
    let mut places: BTreeMap<Vec<u8>, BTreeSet<u32>> = BTreeMap::new();
    let mut subjects = BTreeSet::new();
    for alert in &alerts {
        let value = alert.value.as_deref().unwrap_or_default();
        let value: Value = serde_json::from_slice(value).expect("it is JSON");
        match value["kind"].as_str() {
            Some("rejected_spend") => subjects.insert(value["subject"].as_str().map(str::to_owned)),
            Some("late_spend") => subjects.insert(Some("late".to_owned())),
            _ => continue,
        };
        let key = alert.key.clone().expect("it has a key");
        places.entry(key).or_default().insert(alert.partition);
    }
    let reasons: BTreeSet<_> = cases
        .iter()
        .map(|case| Some(case.reason.to_owned()))
        .collect();
    assert_eq!(subjects, reasons);
    assert!(
        places.values().all(|partitions| partitions.len() == 1),
        "{places:?}"
    );
}

fn assert_kept(case: &Case, sent: &Stored, kept: &Stored, topic: &str) {
    let detail = kept.header("spendfuse_detail");
    assert_eq!(kept.header("spendfuse_reason"), case.reason, "{detail}");
    assert!(detail.contains(case.detail), "{}: {detail}", case.reason);
    assert_eq!(kept.header("spendfuse_topic"), topic);
    assert_eq!(
        kept.header("spendfuse_partition"),
        sent.partition.to_string()
    );
    assert_eq!(kept.header("spendfuse_offset"), sent.offset.to_string());
    assert_eq!(kept.headers[..2], sent.headers[..], "{}", case.reason);
    if case.reason == "too_large" {
        let value = kept.value.as_deref().unwrap_or_default();
        let value: serde_json::Value = serde_json::from_slice(value).expect("it is JSON");
        assert_eq!(value["bytes"], case.value.len());
    } else {
        assert_eq!(kept.value, sent.value, "{}", case.reason);
    }
}

fn cases() -> Vec<Case> {
    let long_ago = now().plus(-2 * DAY_MILLIS).to_string();
    let case = |reason, value: String, detail| Case {
        reason,
        value: value.into_bytes(),
        detail,
    };
    let usage = |more: &str| event("spendfuse.usage", &now().to_string(), more);
    vec![
        case(
            "malformed_json",
            "{\"specversion\": ".to_owned(),
            "not JSON",
        ),
        Case {
            reason: "malformed_json",
            value: b"\xff\xfe not text".to_vec(),
            detail: "UTF-8",
        },
        case(
            "not_cloudevent",
            "{\"model\":\"gpt-4o\"}".to_owned(),
            "specversion",
        ),
        case(
            "unsupported_type",
            event("acme.invoice", &now().to_string(), "\"model\":\"m\""),
            "acme.invoice",
        ),
        case(
            "unsupported_phase",
            usage("\"model\":\"m\",\"phase\":\"partial\",\"usage\":{\"input_tokens\":1}"),
            "data.phase",
        ),
        case(
            "missing_field",
            usage("\"usage\":{\"input_tokens\":1}"),
            "data.model",
        ),
        case(
            "bad_usage",
            usage("\"model\":\"m\",\"usage\":{\"input_tokens\":-1}"),
            "input_tokens",
        ),
        case(
            "bad_usage",
            usage("\"model\":\"m\",\"usage\":{\"input_tokens\":2000000000}"),
            "input_tokens",
        ),
        case(
            "bad_money",
            event(
                "spendfuse.revenue",
                &now().to_string(),
                "\"customer\":\"c-1\",\"revenue_usd\":\"ten\"",
            ),
            "revenue_usd",
        ),
        case(
            "too_large",
            format!("{{\"pad\":\"{}\"}}", "x".repeat(LARGEST_EVENT)),
            "bytes",
        ),
        case(
            "late",
            event(
                "spendfuse.usage",
                &long_ago,
                "\"model\":\"m\",\"usage\":{\"input_tokens\":1}",
            ),
            "",
        ),
    ]
}

fn event(event_type: &str, time: &str, more: &str) -> String {
    format!(
        "{{\"specversion\":\"1.0\",\"type\":\"{event_type}\",\"source\":\"tests\",\"id\":\"bad\",\
         \"time\":\"{time}\",\"data\":{{\"workspace\":\"acme\",{more}}}}}"
    )
}

/// Where apps put what was said, in an event that they write to Kafka themselves.
fn talkative(id: &str, more: &str) -> Vec<u8> {
    let secret = "SECRET ".repeat(60);
    let event = format!(
        "{{\"specversion\":\"1.0\",\"type\":\"spendfuse.usage\",\"source\":\"tests\",\"id\":\"{id}\",\
         \"time\":\"{}\",\"prompt\":\"{secret}\",\"data\":{{\"workspace\":\"acme\",\"customer\":\"c-1\",\
         \"user\":{{\"name\":\"{secret}\"}},\"choices\":[{{\"text\":\"{secret}\"}}],\"system\":\"{secret}\",\
         \"messages\":\"{secret}\",\"metadata\":{{\"a\":[\"{secret}\"]}},{more}\"usage\":{{\
         \"input_tokens\":1000,\"details\":{{\"seen\":7,\"said\":\"{secret}\"}}}}}}}}",
        now()
    );
    event.into_bytes()
}

#[test]
fn what_was_said_goes_neither_home_nor_to_the_dlq() {
    let lab = Lab::new("said");
    let _processor = lab.processor("1");
    let _loader = lab.loader();
    let sender = Sender::new(&lab);
    let model = "\"provider\":\"openai\",\"model\":\"gpt-4o\",";
    // In every partition, so that all but one are handed over; and one without a model.
    for partition in 0..lab.partitions() {
        sender.send(&Record {
            partition: Some(partition),
            key: None,
            value: talkative("good", model),
        });
    }
    let bad = Record {
        partition: Some(0),
        key: Some(vec![b'k'; 3000]),
        value: talkative("bad", "\"usage_format\":\"spendfuse\","),
    };
    sender.send_with(&bad, &[("origin", b"tests"), ("long", &[b'x'; 5000])]);
    sender.flush();
    let rows = "SELECT count(), sum(toInt64(has(flags, 'prompt_removed'))) FROM spend";
    eventually("one of them is counted", PATIENCE, || {
        match lab.warehouse().numbers(rows)?[..] {
            [1, 1] => Ok(()),
            ref other => Err(format!("{other:?}")),
        }
    });
    eventually("the other is set aside", PATIENCE, || {
        match lab.read("usage.dlq").len() {
            1 => Ok(()),
            other => Err(format!("{other}")),
        }
    });
    let handed_over = lab.read("usage.rerouted");
    assert_eq!(handed_over.len() as u32, lab.partitions() - 1);
    let dlq = lab.read("usage.dlq");
    for kept in handed_over.iter().chain(&dlq) {
        let value = String::from_utf8_lossy(kept.value.as_deref().unwrap_or_default());
        assert!(!value.contains("SECRET"), "{value}");
        assert!(value.contains("\"seen\":7"), "{value}");
    }
    assert_eq!(dlq[0].header("spendfuse_reason"), "missing_field");
    assert_eq!(dlq[0].header("origin"), "tests");
    assert_eq!(dlq[0].header("long").len(), 1024);
    assert_eq!(dlq[0].key.as_ref().map(Vec::len), Some(1024));
}

/// Compression hides from the broker how large a record is.
#[test]
fn a_record_that_unpacks_to_more_than_any_topic_takes_stops_nobody() {
    let lab = Lab::new("huge");
    let _processor = lab.processor("1");
    let packing = [
        ("compression.type", "zstd"),
        ("message.max.bytes", "64000000"),
    ];
    let sender = Sender::with_properties(&lab, &packing);
    let long = vec![b'k'; 17 * 1024 * 1024];
    let at = Some(0);
    let records = [
        (Some(long.clone()), b"{".to_vec()),
        // Handed over to its home with its key, from all partitions but one.
        (
            Some(long.clone()),
            event(
                "spendfuse.usage",
                &now().to_string(),
                "\"model\":\"m\",\"usage\":{}",
            )
            .into_bytes(),
        ),
        (None, long),
    ];
    for (key, value) in records {
        sender.send(&Record {
            partition: at,
            key,
            value,
        });
    }
    let headers: Vec<(&str, &[u8])> = vec![("hostile", &[b'h'; 100_000][..]); 150];
    let headed = Record {
        partition: at,
        key: None,
        value: b"{".to_vec(),
    };
    sender.send_with(&headed, &headers);
    sender.send(&headed);
    sender.flush();
    eventually(
        "all are set aside or counted, and what comes behind them too",
        PATIENCE,
        || match lab.read("usage.dlq").len() {
            4 => Ok(()),
            other => Err(format!("{other}")),
        },
    );
    let size = |part: &Option<Vec<u8>>| part.as_ref().map_or(0, Vec::len);
    for kept in lab
        .read("usage.dlq")
        .iter()
        .chain(&lab.read("usage.rerouted"))
    {
        assert!(size(&kept.key) <= 1024 && size(&kept.value) < 100_000);
    }
}

#[test]
fn of_two_events_with_one_identity_people_are_told() {
    let lab = Lab::new("conflict");
    let _processor = lab.processor("1");
    let sender = Sender::new(&lab);
    let event = |model: &str| {
        let more = format!("\"model\":\"{model}\",\"usage\":{{\"input_tokens\":1}}");
        event("spendfuse.usage", &now().to_string(), &more)
    };
    let send = |partition, model| {
        sender.send(&Record {
            partition: Some(partition),
            key: None,
            value: event(model).into_bytes(),
        });
        sender.flush();
    };
    send(0, "m");
    eventually("the first is counted", PATIENCE, || {
        match lab.read("meter.ids").len() {
            1 => Ok(()),
            other => Err(format!("{other} identities")),
        }
    });
    // The first again, and another one; the arrival of both is elsewhere.
    send(1, "m");
    send(1, "n");
    let conflicts = || -> Vec<serde_json::Value> {
        let alerts = lab.read("alerts").into_iter();
        let read = |alert: Stored| serde_json::from_slice(&alert.value.unwrap_or_default());
        let alerts: Vec<serde_json::Value> = alerts
            .map(read)
            .collect::<Result<_, _>>()
            .expect("alerts are JSON");
        alerts
            .into_iter()
            .filter(|one| one["kind"] == "conflict")
            .collect()
    };
    let conflicts = eventually("people are told", PATIENCE, || {
        let conflicts = conflicts();
        match conflicts.is_empty() {
            false => Ok(conflicts),
            true => Err("no alert".to_owned()),
        }
    });
    assert_eq!(conflicts.len(), 1, "{conflicts:?}");
    let message = conflicts[0]["message"].as_str().expect("it has a message");
    assert!(message.contains("id bad of source tests"), "{message}");
    assert!(message.contains("usage 0@0 is counted"), "{message}");
    assert!(message.contains("usage 1@1 is not"), "{message}");
}
