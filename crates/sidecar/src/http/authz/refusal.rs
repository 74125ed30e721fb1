//! A refused call: status, headers and body.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Serialize;
use spendfuse_domain::{Amount, UnixMillis, Verdict};
use spendfuse_guard::{Basis, CheckResponse};

use super::{line, tell, words};
use crate::http::{ApiError, Refused, json};

/// Why a call was refused.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Refusal {
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) budget: Option<String>,
    pub(super) scope: Option<String>,
    pub(super) spent: Option<String>,
    pub(super) limit: Option<String>,
    /// What calls hold that are under way.
    pub(super) reserved: Option<String>,
    /// What calls have cost that are not in `spent` yet.
    pub(super) pending: Option<String>,
    /// What the call was to hold, where it asked for a reservation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) asked: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reserve_rule: Option<Basis>,
    pub(super) resets_at: Option<UnixMillis>,
    pub(super) help_url: Option<String>,
}

impl Refusal {
    /// In the words of the strictest budget.
    pub(super) fn of(answer: &CheckResponse) -> Self {
        let line = answer.budgets.first();
        let line = line.filter(|line| line.verdict == Verdict::Block);
        let figures = line.map(|line| line.figures).unwrap_or_default();
        let shown = |amount: Option<Amount>| amount.map(|amount| amount.to_string());
        Self {
            code: match line {
                None => "state_unknown",
                Some(line) if line.figures.limit.is_some() => "budget_exceeded",
                Some(_) => "session_blocked",
            },
            message: match line {
                Some(line) => words::message(line, answer),
                None => "the guard has not caught up yet and refuses calls until then".to_owned(),
            },
            budget: line.map(|line| line.budget.clone()),
            scope: line.map(|line| line.scope.clone()),
            spent: shown(figures.spent),
            limit: shown(figures.limit),
            reserved: shown(figures.reserved),
            pending: shown(figures.pending),
            asked: shown(answer.reserved_usd.map(Amount::Usd)),
            reserve_rule: answer.reserve_rule,
            resets_at: line.and_then(|line| line.resets_at),
            help_url: line.and_then(|line| line.help_url.clone()),
        }
    }

    /// The answer; `answer` is what this refusal was made of.
    pub(super) fn response(&self, status: StatusCode, answer: &CheckResponse) -> Response {
        let mut response = json(status, &Refused { error: self });
        let headers = response.headers_mut();
        if let Some(seconds) = answer.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        tell(headers, answer);
        finish(headers, status, line::refusal(self));
        response
    }
}

/// Refuses a call because the question about it cannot be answered.
pub(super) fn of_question(error: ApiError, status: StatusCode) -> Response {
    let line = line::error(&error);
    let mut response = error.response(status);
    finish(response.headers_mut(), status, line);
    response
}

fn finish(headers: &mut HeaderMap, status: StatusCode, line: Option<HeaderValue>) {
    forbid_retry(headers);
    if let Some(line) = line {
        headers.insert("x-spendfuse-refusal", line);
    }
    if status == StatusCode::UNAUTHORIZED {
        // A 401 must name a scheme (RFC 9110, 11.6.1); none of the usual ones would help.
        let scheme = HeaderValue::from_static("Spendfuse");
        headers.insert(header::WWW_AUTHENTICATE, scheme);
    }
}

/// Tells the providers' clients not to try again: they would, and sleep for as long as `Retry-After`
/// says before, hours where a daily budget is used up (seen in anthropic 2.14 for Python, 1.14 for
/// TypeScript, openai 6.49 for TypeScript).
pub(in crate::http) fn forbid_retry(headers: &mut HeaderMap) {
    headers.insert("x-should-retry", HeaderValue::from_static("false"));
}
