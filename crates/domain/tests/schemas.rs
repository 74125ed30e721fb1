//! The published JSON Schemas against their examples and against what the code writes and reads.

#![allow(clippy::unwrap_used)] // a panic here is a failed test

#[path = "shared/closed.rs"]
mod closed;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use closed::close;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use spendfuse_domain::correction::CorrectionRecord;
use spendfuse_domain::event::{self, encode};
use spendfuse_domain::finding::{DetectorRule, Finding};
use spendfuse_domain::in_flight::{InFlightRecord, SettledRecord};
use spendfuse_domain::verdict::{BlocklistEntry, Heartbeat};
use spendfuse_domain::{Budget, FixedDimension, UnixMillis};

/// What others send us may hold more than we know; what we write must be in the schema in full.
const OPEN: [&str; 4] = [
    "usage-event",
    "revenue-event",
    "session-end-event",
    "check-request",
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas")
}

fn read_json(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path:?}: {error}"))
}

fn example(name: &str) -> Value {
    read_json(&folder().join("examples").join(format!("{name}.json")))
}

fn schema(name: &str) -> Value {
    let mut schema = read_json(&folder().join(format!("{name}.schema.json")));
    if !OPEN.contains(&name) {
        close(&mut schema);
    }
    schema
}

fn faults(name: &str, instance: &Value) -> Vec<String> {
    let validator = jsonschema::draft202012::new(&schema(name)).unwrap();
    validator
        .iter_errors(instance)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect()
}

fn assert_valid(name: &str, instance: &Value) {
    let faults = faults(name, instance);
    assert!(faults.is_empty(), "{name}: {faults:#?}\n{instance:#}");
}

/// The examples of each schema: `NAME.json` and `NAME.VARIANT.json`.
fn examples() -> BTreeMap<String, Vec<Value>> {
    let mut examples: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for entry in fs::read_dir(folder().join("examples")).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_str().unwrap();
        let name = file.split('.').next().unwrap().to_owned();
        examples.entry(name).or_default().push(read_json(&path));
    }
    examples
}

#[test]
fn every_schema_has_examples_that_satisfy_it_and_need_what_it_requires() {
    let examples = examples();
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_str().unwrap();
        let Some(name) = file.strip_suffix(".schema.json") else {
            continue;
        };
        assert!(
            jsonschema::draft202012::meta::is_valid(&read_json(&path)),
            "{name}"
        );
        let examples = examples
            .get(name)
            .unwrap_or_else(|| panic!("no example of {name}"));
        for example in examples {
            assert_valid(name, example);
        }
        let schema = schema(name);
        for required in schema["required"].as_array().unwrap_or(&Vec::new()) {
            let mut lacking = examples[0].clone();
            lacking
                .as_object_mut()
                .unwrap()
                .remove(required.as_str().unwrap());
            assert!(
                !faults(name, &lacking).is_empty(),
                "{name} without {required}"
            );
        }
    }
    for name in examples.keys() {
        assert!(
            folder().join(format!("{name}.schema.json")).exists(),
            "no schema {name}"
        );
    }
}

#[test]
fn events_that_are_counted_as_they_are_satisfy_their_schema() {
    let arrival = UnixMillis::parse_rfc3339("2026-11-22T10:15:31Z").unwrap();
    for name in ["usage-event", "revenue-event", "session-end-event"] {
        for example in &examples()[name] {
            let bytes = serde_json::to_vec(example).unwrap();
            let decoded = event::decode(&bytes, &[], arrival)
                .unwrap_or_else(|rejection| panic!("{rejection}: {example}"));
            assert_eq!(decoded.flags, event::Flags::default(), "{example}");
            let written = serde_json::from_slice(&encode(&decoded)).unwrap();
            assert_valid(name, &written);
        }
    }
}

#[test]
fn golden_usage_objects_satisfy_the_usage_event() {
    let goldens: Vec<Value> =
        serde_json::from_str(include_str!("golden/usage_formats.json")).unwrap();
    for golden in goldens {
        let mut event = example("usage-event");
        event["data"]["usage"] = golden["usage"].clone();
        event["data"]["usage_format"] = golden["usage_format"].clone();
        assert_valid("usage-event", &event);
    }
}

#[test]
fn what_is_mended_or_rejected_does_not_satisfy_the_usage_event() {
    for (pointer, value) in [
        ("/specversion", json!("0.3")),
        ("/time", json!("yesterday")),
        ("/data/workspace", json!("")),
        ("/data/model", Value::Null),
        ("/data/customer", json!([5])),
        ("/data/phase", json!("estimate")),
        ("/data/usage/input_tokens", json!(-1)),
        ("/data/usage/input_tokens", json!("10")),
        ("/data/usage/cache_read_tokens", json!(1.5)),
        ("/data/usage_format", json!("frobnicate")),
        ("/data/units/web_search_calls", json!("-2")),
        ("/data/reported_cost_usd", json!(0.5)),
        ("/data/prompt_fingerprint", json!("xyz")),
    ] {
        let mut event = example("usage-event");
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        event.pointer_mut(parent).unwrap()[name] = value;
        assert!(!faults("usage-event", &event).is_empty(), "{pointer}");
    }
}

/// Reads every example of `name` as `T` and writes it again.
fn assert_round_trip<T: Serialize + DeserializeOwned>(name: &str) {
    for example in &examples()[name] {
        let value: T = serde_json::from_value(example.clone())
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let written = serde_json::to_value(&value).unwrap();
        assert_valid(name, &written);
        assert_eq!(&written, example, "{name}");
    }
}

#[test]
fn what_the_program_writes_is_what_the_schemas_say() {
    assert_round_trip::<BlocklistEntry>("blocklist-entry");
    assert_round_trip::<Heartbeat>("heartbeat");
    assert_round_trip::<Finding>("finding");
    assert_round_trip::<InFlightRecord>("in-flight");
    assert_round_trip::<SettledRecord>("in-flight-settled");

    assert_round_trip::<CorrectionRecord>("correction");
    for example in &examples()["correction"] {
        let bytes = serde_json::to_vec(example).unwrap();
        let read = CorrectionRecord::parse(&bytes);
        let read = read.unwrap_or_else(|error| panic!("{error}: {example}"));
        let sides = [read.before, read.after].into_iter().flatten();
        for side in sides {
            let event = serde_json::from_str(side.event.get()).unwrap();
            assert_valid("usage-event", &event);
        }
    }

    let budget = example("budget");
    let read = Budget::from_record("free-plan", budget.to_string().as_bytes()).unwrap();
    let written: Value = serde_json::from_slice(&read.to_record()).unwrap();
    assert_eq!(written, budget);
    let detector = example("detector");
    let read = DetectorRule::from_record("detector|loops", detector.to_string().as_bytes());
    let written: Value = serde_json::from_slice(&read.unwrap().to_record()).unwrap();
    assert_eq!(written, detector);
}

#[test]
fn reasons_and_flags_of_the_schemas_are_those_of_the_code() {
    let reasons = &schema("dlq-headers")["properties"]["spendfuse_reason"]["enum"];
    let known: Vec<&str> = event::RejectReason::ALL
        .map(|reason| reason.name())
        .to_vec();
    assert_eq!(reasons, &json!(known));
    let flags = &schema("usage-response")["$defs"]["flag"]["enum"];
    let known: Vec<&str> = event::Flags(u16::MAX).names().collect();
    assert_eq!(flags, &json!(known));
}

#[test]
fn every_dimension_is_in_the_schemas_of_what_others_send() {
    for name in OPEN {
        let schema = read_json(&folder().join(format!("{name}.schema.json")));
        let members = match name {
            "check-request" => &schema["properties"],
            _ => &schema["properties"]["data"]["properties"],
        };
        for dimension in FixedDimension::NAMES {
            assert!(members[dimension].is_object(), "{dimension} in {name}");
        }
    }
}
