//! `/v1/authz`: the check for gateways (external authorization, forward auth): 200 or 429.

use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use spendfuse_domain::{UnixMillis, Verdict};
use spendfuse_guard::{BudgetLine, CheckResponse, CountLine, Warning};

use super::check::answer;
use super::request::Question;
use super::{ApiError, Shared};

/// The input is that of `/v1/check`. Headers win over the query, the query over a JSON body:
/// a gateway sets headers, while the body may be the caller's own.
pub(super) async fn authorize(
    State(sidecar): Shared,
    Query(query): Query<Vec<(String, String)>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let answered =
        question(&query, &headers, &body).and_then(|question| answer(&sidecar, &question, "authz"));
    match answered {
        Ok(answer) if answer.decision == Verdict::Block.name() => refusal(&answer),
        Ok(answer) => permission(&answer),
        Err(error) => error.into(),
    }
}

fn question(
    query: &[(String, String)],
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Question, ApiError> {
    let content_type = headers.get(header::CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok());
    let is_json = content_type.is_some_and(|name| name.contains("json"));
    let mut question = if is_json && !body.is_empty() {
        Question::from_json(body)?
    } else {
        Question::default()
    };
    question.add_query(query)?;
    question.add_headers(headers)?;
    Ok(question)
}

/// 200, with what a gateway can act on in headers.
fn permission(answer: &CheckResponse) -> Response {
    let mut response = axum::Json(answer).into_response();
    let headers = response.headers_mut();
    let decision = HeaderValue::from_static(answer.decision);
    headers.insert("x-spendfuse-decision", decision);
    let model = answer.downgrade_to.as_deref();
    if let Some(Ok(model)) = model.map(HeaderValue::from_str) {
        headers.insert("x-spendfuse-downgrade-to", model);
    }
    response
}

#[derive(Debug, Serialize)]
struct Refusal<'a> {
    code: &'static str,
    message: String,
    budget: Option<&'a str>,
    scope: Option<&'a str>,
    spent: Option<String>,
    limit: Option<String>,
    resets_at: Option<UnixMillis>,
    help_url: Option<&'a str>,
}

fn refusal(answer: &CheckResponse) -> Response {
    let line = answer.budgets.first();
    let line = line.filter(|line| line.verdict == Verdict::Block);
    let amounts = line.map(amounts);
    let error = Refusal {
        code: match line {
            None => "state_unknown",
            Some(line) if amounts_known(line) => "budget_exceeded",
            Some(_) => "session_blocked",
        },
        message: match line {
            Some(line) => message(line, answer),
            None => "the guard has not caught up yet and refuses calls until then".to_owned(),
        },
        budget: line.map(|line| line.budget.as_str()),
        scope: line.map(|line| line.scope.as_str()),
        spent: amounts.as_ref().and_then(|(spent, _)| spent.clone()),
        limit: amounts.as_ref().and_then(|(_, limit)| limit.clone()),
        resets_at: line.and_then(|line| line.resets_at),
        help_url: line.and_then(|line| line.help_url.as_deref()),
    };
    let body = axum::Json(serde_json::json!({ "error": error }));
    let mut response = (StatusCode::TOO_MANY_REQUESTS, body).into_response();
    if let Some(seconds) = answer.retry_after_seconds {
        let headers = response.headers_mut();
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

fn amounts_known(line: &BudgetLine) -> bool {
    line.limit_usd.is_some() || line.counts.is_some()
}

/// Spent and limit, for people.
fn amounts(line: &BudgetLine) -> (Option<String>, Option<String>) {
    let dollars = |text: &String| format!("${text}");
    match &line.counts {
        None => (
            line.spent_usd.as_ref().map(dollars),
            line.limit_usd.as_ref().map(dollars),
        ),
        Some(CountLine::Tokens {
            spent_tokens,
            limit_tokens,
            ..
        }) => (
            Some(format!("{spent_tokens} tokens")),
            Some(format!("{limit_tokens} tokens")),
        ),
        Some(CountLine::Calls {
            spent_calls,
            limit_calls,
            ..
        }) => (
            Some(format!("{spent_calls} calls")),
            Some(format!("{limit_calls} calls")),
        ),
    }
}

/// The budget's own words, else `customer c-42 has reached its daily budget ($5.00)`.
fn message(line: &BudgetLine, answer: &CheckResponse) -> String {
    if let Some(message) = &line.message {
        return message.clone();
    }
    let mut warnings = answer.warnings.iter();
    let about_line = |budget: &Option<String>| budget.as_deref() == Some(&*line.budget);
    let is_stale = |warning: &Warning| warning.kind == "stale" && about_line(&warning.budget);
    if let Some(stale) = warnings.find(|warning| is_stale(warning)) {
        return stale.message.clone();
    }
    let kind = line.window.split(':').next().unwrap_or_default();
    let kind = match kind {
        "hour" => "hourly",
        "day" => "daily",
        "week" => "weekly",
        "month" => "monthly",
        "quarter" => "quarterly",
        "year" => "yearly",
        "root_session" => "session",
        other => other,
    };
    let limit = amounts(line).1.unwrap_or_default();
    let who = subject(&line.scope);
    if has_remainder(line) {
        format!("this call would take {who} over its {kind} budget ({limit})")
    } else {
        format!("{who} has reached its {kind} budget ({limit})")
    }
}

fn has_remainder(line: &BudgetLine) -> bool {
    match &line.counts {
        None => line.remaining_usd.as_deref() != Some("0.00"),
        Some(CountLine::Tokens {
            remaining_tokens: remaining,
            ..
        })
        | Some(CountLine::Calls {
            remaining_calls: remaining,
            ..
        }) => *remaining > 0,
    }
}

/// A scope for people: `customer c-42`, `customer c-42, feature agent`, `workspace acme`.
fn subject(scope: &str) -> String {
    let mut parts = scope.split('/');
    let workspace = parts.next().unwrap_or_default();
    let named = parts.filter_map(|part| {
        let (dimension, value) = part.split_once('=')?;
        let dimension = dimension.replace('_', " ");
        Some(format!("{dimension} {}", unescaped(value)))
    });
    let named: Vec<_> = named.collect();
    match (named.is_empty(), workspace) {
        (false, _) => named.join(", "),
        (true, "*") => "everything together".to_owned(),
        (true, workspace) => format!("workspace {}", unescaped(workspace)),
    }
}

/// A scope's value as it was before it was escaped.
fn unescaped(value: &str) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let code = after
            .get(..2)
            .and_then(|code| std::str::from_utf8(code).ok());
        let code = code.and_then(|code| u8::from_str_radix(code, 16).ok());
        match (byte, code) {
            (b'%', Some(code)) => {
                bytes.push(code);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_named_for_people() {
        for (scope, words) in [
            ("acme/customer=c-42", "customer c-42"),
            (
                "acme/customer=c%2042/feature=agent",
                "customer c 42, feature agent",
            ),
            ("gr%C3%B6%C3%9Fe", "workspace größe"),
            ("*", "everything together"),
        ] {
            assert_eq!(subject(scope), words);
        }
    }
}
