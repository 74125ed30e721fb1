//! Prometheus' Alertmanager, API version 2: each alert with its labels; silences, groups and
//! inhibition are its own.

use serde_json::{Value, json};
use spendfuse_domain::UnixMillis;
use spendfuse_engine::alert::Alert;

use super::object;
use crate::letter::Letter;

/// What happened, and does not last, is shown for this long.
const SHOWN: i64 = 3_600_000;
/// What lasts is ended by a message of its own; should none come, after this time.
const LASTS: i64 = 32 * 24 * 3_600_000;

/// The whole address, from that of the server.
pub(super) fn address(url: &str) -> String {
    format!("{}/api/v2/alerts", url.trim_end_matches('/'))
}

pub(super) fn body(letter: &Letter, now: UnixMillis) -> Value {
    let alerts = letter.alerts.iter();
    alerts
        .map(|alert| one(alert, letter.is_over(alert), now))
        .collect()
}

fn one(alert: &Alert, is_over: bool, now: UnixMillis) -> Value {
    let mut labels = object([
        ("alertname", format!("spendfuse_{}", alert.kind.name())),
        ("severity", alert.severity.name().to_owned()),
        ("scope", alert.scope.clone()),
        ("subject", alert.subject.clone()),
        ("id", alert.id()),
    ]);
    if let Some(budget) = &alert.details.budget {
        labels["budget"] = budget.as_str().into();
    }
    let ends_at = match (is_over, alert.details.ends_at) {
        (true, _) => now,
        (_, Some(end)) => end,
        (_, None) if alert.details.action.is_some() => alert.at.plus(LASTS),
        (_, None) => now.plus(SHOWN),
    };
    json!({
        "labels": labels,
        "annotations": {
            "summary": alert.message,
            "description": alert.kind.remedy(),
        },
        "startsAt": alert.at,
        "endsAt": ends_at,
    })
}
