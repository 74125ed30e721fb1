//! For orchestrators and Prometheus.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use metrics::gauge;
use serde_json::json;
use spendfuse_bus::Condition;
use spendfuse_guard::{Clock, Guard, State as GuardState};

use super::{Checker, Shared, json};
use crate::metrics::{GUARD_STATE, GUARD_STATE_AGE};

/// The process answers.
pub(super) async fn healthz() -> impl IntoResponse {
    json(StatusCode::OK, &json!({ "status": "ok" }))
}

/// Ready from the moment that the replica has caught up; an old state is still one to decide by.
pub(super) async fn readyz(State(sidecar): Shared) -> impl IntoResponse {
    let Checker { guard, clock, .. } = &sidecar.checker;
    let state = guard.state(clock.now().monotonic_millis);
    let report = sidecar.config.health.report();
    let status = match report.is_ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let body = json!({
        "ready": report.is_ready,
        "state": state.state.name(),
        "state_age_ms": state.age_millis,
        "reasons": report.reasons,
    });
    json(status, &body)
}

/// Whether the replica can be asked.
pub(super) fn condition(guard: &Guard, clock: &Clock) -> Condition {
    let state = guard.state(clock.now().monotonic_millis);
    let age = state.age_millis.unwrap_or_default() / 1000;
    match state.state {
        GuardState::Live => Condition::Ready,
        GuardState::Stale => Condition::ReadyBut(format!(
            "the state is stale, {age} s old; checks are answered by it and follow each budget's on_stale"
        )),
        GuardState::Cold => Condition::NotReady(
            "cold: it has not caught up with the topics; checks follow sidecar.cold_start"
                .to_owned(),
        ),
    }
}

/// Shows the replica's state in the metrics.
pub(crate) fn show_state(guard: &Guard, clock: &Clock) {
    let state = guard.state(clock.now().monotonic_millis);
    if let Some(age) = state.age_millis {
        gauge!(GUARD_STATE_AGE).set(age as f64 / 1000.0);
    }
    for one in [GuardState::Live, GuardState::Stale, GuardState::Cold] {
        let is_it = f64::from(u8::from(one == state.state));
        gauge!(GUARD_STATE, "state" => one.name()).set(is_it);
    }
}

pub(super) async fn metrics(State(sidecar): Shared) -> impl IntoResponse {
    show_state(&sidecar.checker.guard, &sidecar.checker.clock);
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], (sidecar.metrics)())
}
