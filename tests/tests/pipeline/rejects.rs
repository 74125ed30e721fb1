//! What cannot be counted arrives in the DLQ as it was, and holds nothing up.

use std::time::{Duration, Instant};

use spendfuse_tests::load::Sender;
use spendfuse_tests::topics::Stored;
use spendfuse_tests::traffic::now;
use spendfuse_tests::{Lab, Record, Traffic, eventually};

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
    eventually(
        "good events are counted",
        Duration::from_secs(5),
        || match lab.warehouse().numbers("SELECT count() FROM spend")?[0] {
            count if count == wanted => Ok(()),
            count => Err(format!("{count} of {wanted}")),
        },
    );
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
