//! For orchestrators and Prometheus.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use metrics::gauge;
use serde_json::json;
use spendfuse_guard::State as GuardState;

use super::Shared;
use crate::metrics::{GUARD_STATE, GUARD_STATE_AGE};

/// The process answers.
pub(super) async fn healthz() -> impl IntoResponse {
    axum::Json(json!({ "status": "ok" }))
}

/// Ready from the moment that the replica has caught up; an old state is still one to decide by.
pub(super) async fn readyz(State(sidecar): Shared) -> impl IntoResponse {
    let state = sidecar.guard.state(sidecar.clock.now().monotonic_millis);
    let status = match state.state {
        GuardState::Cold => StatusCode::SERVICE_UNAVAILABLE,
        GuardState::Live | GuardState::Stale => StatusCode::OK,
    };
    let body = json!({ "state": state.state.name(), "state_age_ms": state.age_millis });
    (status, axum::Json(body))
}

pub(super) async fn metrics(State(sidecar): Shared) -> impl IntoResponse {
    let state = sidecar.guard.state(sidecar.clock.now().monotonic_millis);
    if let Some(age) = state.age_millis {
        gauge!(GUARD_STATE_AGE).set(age as f64 / 1000.0);
    }
    for one in [GuardState::Live, GuardState::Stale, GuardState::Cold] {
        let is_it = f64::from(u8::from(one == state.state));
        gauge!(GUARD_STATE, "state" => one.name()).set(is_it);
    }
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], (sidecar.metrics)())
}
