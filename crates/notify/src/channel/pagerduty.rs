//! PagerDuty, events API version 2: one event for each message; it resolves what it triggered.

use serde_json::{Value, json};
use spendfuse_domain::Severity;

use super::{cut, object};
use crate::letter::Letter;
use crate::text::words;

/// Where events go, where the settings name no other address.
pub(super) const ADDRESS: &str = "https://events.pagerduty.com/v2/enqueue";
/// PagerDuty's limits, characters.
const MOST_OF_SUMMARY: usize = 1_024;
const MOST_OF_KEY: usize = 255;

pub(super) fn body(letter: &Letter, routing_key: &str) -> Value {
    let words = words(letter);
    let first = letter.alerts.first();
    // What an alert triggered is what its end resolves; several at once are an incident of their own.
    let dedup = match letter.alerts.as_slice() {
        [alert] => alert.id(),
        _ => letter.id.clone(),
    };
    let severity = match letter.severity() {
        Severity::Critical => "critical",
        Severity::Warning => "warning",
        Severity::Info => "info",
    };
    let action = match letter.is_all_over() {
        true => "resolve",
        false => "trigger",
    };
    let mut details = object(words.facts);
    details["what_to_do"] = words.advice.into();
    details["alerts"] = words.lines.into();
    json!({
        "routing_key": routing_key,
        "event_action": action,
        "dedup_key": cut(&dedup, MOST_OF_KEY),
        "payload": {
            "summary": cut(&words.headline, MOST_OF_SUMMARY),
            "source": "spendfuse",
            "severity": severity,
            "timestamp": first.map(|alert| alert.at),
            "component": first.map(|alert| alert.scope.as_str()),
            "class": first.map(|alert| alert.kind.name()),
            "custom_details": details,
        },
    })
}
