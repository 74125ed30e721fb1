//! Over generated events: what was said never stays, and what is kept is the same event.

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};
use spendfuse_domain::event::{decode, redact};

use super::{ARRIVAL, event_with};

/// Where apps put what was said, and names that nobody has thought of.
const TALKATIVE: [&str; 18] = [
    "prompt",
    "messages",
    "input",
    "output",
    "completion",
    "content",
    "choices",
    "system",
    "contents",
    "instructions",
    "request",
    "metadata",
    "text",
    "response",
    "body",
    "custommer",
    "HIDDEN name",
    "",
];

/// Members that are known, of data and envelope, with texts, counts and objects.
const KNOWN: [&str; 25] = [
    "customer",
    "session",
    "model",
    "user",
    "tags",
    "usage",
    "usage_format",
    "units",
    "phase",
    "tool_calls",
    "attempt",
    "latency_ms",
    "reported_cost_usd",
    "prompt_fingerprint",
    "status",
    "trace_id",
    "workspace",
    "provider",
    "service_tier",
    "speed",
    "inference_geo",
    "operation",
    "region",
    "revenue_usd",
    "flags",
];

/// Values of all types; `HIDDEN` stands for what was said.
fn said() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!("HIDDEN")),
        Just(json!("HIDDEN ".repeat(40))),
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let name = prop_oneof![select(TALKATIVE.to_vec()), select(KNOWN.to_vec())];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name, inner, 0..4).prop_map(|members| {
                let named = members
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), value));
                Value::Object(named.collect())
            }),
        ]
    })
}

/// As `said`, but never a text itself: what known members with a wrong type may hold.
fn of_wrong_type() -> impl Strategy<Value = Value> {
    prop_oneof![
        prop::collection::vec(said(), 1..3).prop_map(Value::from),
        said().prop_map(|value| json!({ "HIDDEN": value })),
    ]
}

/// JSON of one member's value, of every type and some that only raw JSON has.
fn raw_value() -> impl Strategy<Value = String> {
    let long = |unit: &str| format!("\"{}\"", unit.repeat(130));
    let odd = vec![
        "null",
        "true",
        "0",
        "7",
        "-3",
        "1.50",
        "1e3",
        "12345678901234567890123",
        "\"\"",
        "\"12\"",
        "\"final\"",
        "\"openai.chat\"",
        "\"0.0123\"",
        "\"9f2c41d0a1b2c3d4\"",
        "\"\\u00fc\\n\"",
        "{}",
        "[]",
        "{\"input_tokens\":5,\"x\":{\"y\":[1.5,\"s\"]}}",
        "{\"prompt_tokens\":5}",
        "{\"input_tokens\":\"a text that is longer than sixty-four bytes, wherever it stands in the event\"}",
        "{\"a name that is longer than sixty-four bytes, wherever it stands in the event it is one\":5}",
        "{\"team\":\"growth\",\"n\":5,\"deep\":{\"a\":1}}",
        "{\"images\":\"2\",\"quality\":\"hd\",\"x\":{}}",
        "[{\"a\":1}]",
        "[\"downgraded\",\"told_again\",\"\\ud800\",7]",
    ];
    prop_oneof![
        6 => select(odd).prop_map(str::to_owned),
        1 => Just(long("ab")),
        1 => Just(long("\u{fc}\u{4e16}")),
        1 => Just(long("12")),
        1 => Just(format!("{{{}:{}}}", long("name"), long("value"))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_said_never_stays(
        envelope in prop::collection::vec((select(TALKATIVE.to_vec()), said()), 0..4),
        data in prop::collection::vec((select(TALKATIVE.to_vec()), said()), 0..4),
        wrong in prop::collection::vec((select(KNOWN.to_vec()), of_wrong_type()), 0..3),
        whole in said(),
        is_binary: bool,
    ) {
        // Below usage and units short texts are allowed.
        let countless = |(name, _): &(&str, Value)| !["usage", "units", "tags"].contains(name);
        let data = data.into_iter().chain(wrong.into_iter().filter(countless)).collect();
        let event = event_with(envelope, data);
        let whole = match whole {
            // Objects are taken for events, whose known members may hold any text.
            Value::Object(_) => Value::Null,
            other => other,
        };
        for (text, headers) in [(event.as_str(), &[][..]), (&whole.to_string(), &[])] {
            let binary: [(&str, &[u8]); 1] = [("ce_specversion", b"1.0")];
            let kept = redact(text.as_bytes(), if is_binary { &binary } else { headers });
            let kept_text = std::str::from_utf8(&kept.value).unwrap();
            if !text.starts_with('[') {
                prop_assert!(!kept_text.contains("HIDDEN"), "{text}\n{kept_text}");
            }
            prop_assert!(kept.value.len() <= text.len());
            if let Err(rejection) = decode(text.as_bytes(), headers, ARRIVAL) {
                prop_assert!(!rejection.detail.contains("HIDDEN"), "{text}\n{rejection}");
            }
            serde_json::from_str::<Value>(kept_text).unwrap();
        }
    }

    /// Sent again, kept bytes are the same event, or rejected for the same reason.
    #[test]
    fn what_is_kept_is_the_same_event(
        members in prop::collection::vec((select(KNOWN.to_vec()), raw_value()), 0..6),
        unknown in prop::collection::vec((select(TALKATIVE.to_vec()), raw_value()), 0..3),
        source in raw_value(),
        has_source: bool,
    ) {
        let members: Vec<String> = members
            .into_iter()
            .chain(unknown)
            .map(|(name, value)| format!(",{}:{value}", json!(name)))
            .collect();
        let members = members.concat();
        let source = if has_source { "\"app\"".to_owned() } else { source };
        let text = format!(
            "{{\"specversion\":\"1.0\",\"type\":\"spendfuse.usage\",\"source\":{source},\"id\":\"r\",\
             \"time\":\"2026-11-18T10:15:30Z\",\"data\":{{\"workspace\":\"acme\",\"model\":\"m\",\
             \"usage\":{{\"input_tokens\":10}}{members}}}}}"
        );
        let kept = redact(text.as_bytes(), &[]);
        prop_assert!(kept.value.len() <= text.len(), "{text}");
        match (decode(text.as_bytes(), &[], ARRIVAL), decode(&kept.value, &[], ARRIVAL)) {
            (Ok(event), Ok(again)) => prop_assert_eq!(event, again),
            (Err(rejection), Err(again)) => prop_assert_eq!(rejection.reason, again.reason, "{}", text),
            (first, second) => prop_assert!(false, "{text}\n{first:?}\n{second:?}"),
        }
        let twice = redact(&kept.value, &[]);
        prop_assert_eq!(&twice.value, &kept.value);
        prop_assert_eq!(twice.removed.count, 0);
    }
}
