//! `/v1/authz`: the check for gateways (external authorization, forward auth).

mod line;
mod refusal;
mod status;
mod words;

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use spendfuse_domain::Verdict;
use spendfuse_guard::{CheckResponse, decision_name};

use super::query::asked_query;
use super::request::{Author, Question};
use super::{ApiError, Sidecar};
use crate::config::RefusalStatus;
use crate::inside::RefusedCall;
use crate::keys::Caller;
use refusal::Refusal;

pub(super) use refusal::forbid_retry;

/// How a call is refused whose check was answered with `block`.
pub(crate) fn refused_call(
    answer: &CheckResponse,
    setting: RefusalStatus,
    headers: &HeaderMap,
) -> RefusedCall {
    let refusal = Refusal::of(answer);
    RefusedCall {
        status: status::by_setting(setting, headers),
        code: refusal.code,
        message: refusal.message,
        budget: refusal.budget,
        retry_after_seconds: answer.retry_after_seconds,
    }
}

/// The path that the gateway's own configuration names; behind a longer one stands the path of the
/// call that it asks about.
const OWN_PATH: &str = "/v1/authz";

/// Whether `path` is asked by a gateway. Many append the path of the request that they ask about.
pub(super) fn is_asked_at(path: &str) -> bool {
    let rest = path.strip_prefix(OWN_PATH);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The input is that of `/v1/check`. Headers win over the query, the query over a JSON body:
/// a gateway sets headers, while the body may be the caller's own.
pub(super) async fn authorize(
    sidecar: &Sidecar,
    caller: &Caller,
    head: &Parts,
    body: &[u8],
) -> Response {
    let headers = &head.headers;
    let author = if head.uri.path() == OWN_PATH {
        Author::Gateway
    } else {
        Author::Stranger
    };
    let query: Vec<(String, String)> = match asked_query(&head.uri) {
        Ok(query) => query,
        Err(error) => return error.into(),
    };
    let asked_status = match status::asked_for(&query, headers) {
        Ok(status) => status,
        Err(error) => return refusal::of_question(error, StatusCode::BAD_REQUEST),
    };
    let answer = match question(&query, author, headers, body) {
        Ok(question) => sidecar.answer(question, caller, "authz").await,
        Err(error) => Err(error),
    };
    match answer {
        Ok(answer) if answer.decision == Verdict::Block => {
            let setting = sidecar.config.refusal_status;
            let status = asked_status.unwrap_or_else(|| status::by_setting(setting, headers));
            Refusal::of(&answer).response(status, &answer)
        }
        Ok(answer) => permission(&answer),
        // Gateways that ask for a status take any other for an accident, and many let calls through
        // then.
        Err(error) => {
            let status = asked_status.unwrap_or_else(|| error.status());
            refusal::of_question(error, status)
        }
    }
}

fn question(
    query: &[(String, String)],
    author: Author,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Question, ApiError> {
    let content_type = headers.get(header::CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok());
    // The letter case of media types is free (RFC 9110, 8.3.1).
    let is_json = content_type.is_some_and(|name| name.to_ascii_lowercase().contains("json"));
    // Subrequests of gateways often keep the content type and lose the body.
    let mut question = if is_json && !body.is_empty() {
        Question::from_gateway(body)?
    } else {
        Question::default()
    };
    question.add_query(query, author)?;
    question.add_headers(headers)?;
    Ok(question)
}

/// 200 without a body: a gateway acts on headers alone.
fn permission(answer: &CheckResponse) -> Response {
    let mut response = StatusCode::OK.into_response();
    let headers = response.headers_mut();
    tell(headers, answer);
    let reservation = answer.reservation_id.as_deref();
    if let Some(Ok(reservation)) = reservation.map(HeaderValue::from_str) {
        headers.insert("x-spendfuse-reservation", reservation);
    }
    if let Some(warnings) = line::warnings(&answer.warnings) {
        headers.insert("x-spendfuse-warnings", warnings);
    }
    response
}

/// What permissions and refusals alike say in headers.
fn tell(headers: &mut HeaderMap, answer: &CheckResponse) {
    let decision = HeaderValue::from_static(decision_name(answer.decision));
    headers.insert("x-spendfuse-decision", decision);
    let model = answer.downgrade_to.as_deref();
    if let Some(Ok(model)) = model.map(HeaderValue::from_str) {
        headers.insert("x-spendfuse-downgrade-to", model);
    }
    let strictest = answer.budgets.first();
    let strictest = strictest.filter(|line| line.verdict != Verdict::Ok);
    if let Some(Ok(budget)) = strictest.map(|line| HeaderValue::from_str(&line.budget)) {
        headers.insert("x-spendfuse-budget", budget);
    }
}
