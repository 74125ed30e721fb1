//! `POST /v1/check`: may this call go ahead?

use std::time::Instant;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use metrics::{counter, histogram};
use spendfuse_guard::{CheckResponse, decision_name};

use super::request::Question;
use super::{ApiError, Shared, Sidecar, json};
use crate::metrics::{CHECK_SECONDS, CHECKS};

pub(super) async fn post_check(State(sidecar): Shared, body: Bytes) -> Response {
    let answered =
        Question::from_json(&body).and_then(|question| answer(&sidecar, &question, "check"));
    match answered {
        Ok(answer) => json(StatusCode::OK, &answer),
        Err(error) => error.into(),
    }
}

/// Asks the guard and puts the decision into words.
pub(super) fn answer(
    sidecar: &Sidecar,
    question: &Question,
    endpoint: &'static str,
) -> Result<CheckResponse, ApiError> {
    let began = Instant::now();
    let now = sidecar.clock.now();
    let (request, warnings) = question.to_check(sidecar, endpoint, now.wall)?;
    let decision = sidecar.guard.check_with_reasons(&request, now);
    histogram!(CHECK_SECONDS).record(began.elapsed().as_secs_f64());
    let name = decision_name(decision.verdict());
    counter!(CHECKS, "decision" => name, "endpoint" => endpoint).increment(1);
    let mut response = decision.explain();
    response.warnings.extend(warnings);
    Ok(response)
}
