//! `POST /v1/check`: may this call go ahead?

use std::time::Instant;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use metrics::{counter, histogram};
use spendfuse_guard::{CheckResponse, Clock, Guard, decision_name};

use super::request::{Misplaced, Question};
use super::{ApiError, Shared, json};
use crate::metrics::{CHECK_SECONDS, CHECKS};
use crate::prices::Prices;

/// What questions are answered from, over HTTP and on the command line.
pub struct Checker {
    /// Who decides.
    pub guard: Guard,
    /// What announced calls will cost.
    pub prices: Prices,
    /// The clock that the guard follows by.
    pub clock: Clock,
    /// The workspace of questions that name none; empty = none.
    pub default_workspace: String,
    /// Whether a question with faults is refused.
    pub strict: bool,
    /// What may help who names nothing at all.
    pub hint: &'static str,
}

pub(super) async fn post_check(
    State(sidecar): Shared,
    misplaced: Misplaced,
    body: Bytes,
) -> Response {
    let question = Question::from_json(&body, misplaced);
    match question.and_then(|question| sidecar.checker.answer(question, "check")) {
        Ok(answer) => json(StatusCode::OK, &answer),
        Err(error) => error.into(),
    }
}

impl Checker {
    /// Asks the guard and puts the decision into words; `endpoint` is for metrics.
    ///
    /// # Errors
    /// What cannot be answered, and every fault where the checker is strict.
    pub fn answer(
        &self,
        question: Question,
        endpoint: &'static str,
    ) -> Result<CheckResponse, ApiError> {
        let began = Instant::now();
        let now = self.clock.now();
        let (request, warnings) = question.into_check(self, endpoint, now.wall)?;
        let decision = self.guard.check_with_reasons(&request, now);
        histogram!(CHECK_SECONDS).record(began.elapsed().as_secs_f64());
        let name = decision_name(decision.verdict());
        counter!(CHECKS, "decision" => name, "endpoint" => endpoint).increment(1);
        let mut response = decision.explain();
        response.warnings.extend(warnings);
        Ok(response)
    }
}
