//! Events that cannot be counted: one for each reason of the DLQ that a sender can cause.

use std::time::Duration;

use serde_json::{Value, json};
use spendfuse_domain::UnixMillis;

use super::{Action, Step, moment};
use crate::event::WORKSPACE;

/// Older than the dedupe horizon of a day.
const TOO_LATE_MILLIS: i64 = 3 * 24 * 60 * 60 * 1000;
/// Just above the largest event.
const TOO_LARGE_BYTES: usize = 64 * 1024 + 1;

pub fn steps(length: Duration, now: UnixMillis) -> Vec<Step> {
    let events = events(now);
    let count = events.len() as f64;
    let numbered = events.into_iter().enumerate();
    numbered
        .map(|(number, (reason, value))| Step {
            at: moment(length, 0.1 + 0.8 * number as f64 / count),
            action: Action::Broken { value, reason },
        })
        .collect()
}

fn events(now: UnixMillis) -> Vec<(&'static str, String)> {
    let event = |id: &str| {
        json!({
            "specversion": "1.0", "type": "spendfuse.usage", "source": "broken-app", "id": id,
            "time": now.to_string(),
            "data": {"workspace": WORKSPACE, "customer": "globex", "provider": "openai", "model": "gpt-4o",
                     "usage": {"input_tokens": 100, "output_tokens": 10}},
        })
    };
    let with = |id: &str, pointer: &str, value: Value| {
        let mut event = event(id);
        if let Some(place) = event.pointer_mut(pointer) {
            *place = value;
        }
        event.to_string()
    };
    let with_data = |id: &str, name: &str, value: Value| {
        let mut event = event(id);
        event["data"][name] = value;
        event.to_string()
    };
    let without = |id: &str, name: &str| {
        let mut event = event(id);
        if let Some(data) = event["data"].as_object_mut() {
            data.remove(name);
        }
        event.to_string()
    };
    let earlier = now.plus(-TOO_LATE_MILLIS).to_string();
    let padding = "x".repeat(TOO_LARGE_BYTES);
    vec![
        (
            "malformed_json",
            r#"{"specversion":"1.0","type":"#.to_owned(),
        ),
        (
            "not_cloudevent",
            r#"{"model":"gpt-4o","cost":0.01}"#.to_owned(),
        ),
        (
            "unsupported_type",
            with("type", "/type", "acme.click".into()),
        ),
        (
            "unsupported_phase",
            with_data("phase", "phase", "estimate".into()),
        ),
        ("missing_field", without("no-workspace", "workspace")),
        ("missing_field", without("no-model", "model")),
        (
            "bad_usage",
            with("negative", "/data/usage/input_tokens", (-5).into()),
        ),
        (
            "bad_money",
            with_data("dear", "reported_cost_usd", "2000000".into()),
        ),
        ("too_large", with_data("large", "note", padding.into())),
        ("late", with("late", "/time", earlier.into())),
    ]
}
