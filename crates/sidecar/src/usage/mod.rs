//! `POST /v1/usage`: events in, one result each out, and 202 only when the good ones are safe.

mod answer;
mod binary;
mod body;
mod judge;
mod recent;

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use metrics::counter;
use serde::Deserialize;
use spendfuse_domain::Nanos;
use spendfuse_domain::event::MAX_TEXT_BYTES;

use crate::http::{ApiError, Shared, Sidecar, json};
use crate::keys::Caller;
use crate::metrics::USAGE_EVENTS;
use crate::turn::Turn;
use answer::{EventResult, Outcome, UsageResponse};
use judge::Judging;

pub(crate) use body::parts;
pub(crate) use judge::{Outgoing, Refusal};
pub(crate) use recent::Recent;

/// A body of a few events is taken at once; longer ones keep no thread from answering checks.
const SHORT_BYTES: usize = 4 * 1024;

pub(crate) async fn post_usage(
    State(sidecar): Shared,
    caller: Caller,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if body.len() <= SHORT_BYTES {
        return take(&sidecar, &caller, &headers, &body).await;
    }
    let shared = Arc::clone(&sidecar);
    let taking = async move { take(&shared, &caller, &headers, &body).await };
    sidecar.background.run(taking).await
}

async fn take(sidecar: &Sidecar, caller: &Caller, headers: &HeaderMap, body: &[u8]) -> Response {
    let content_type = headers.get(header::CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok());
    let binary = binary::structured(headers, body);
    let parts = match &binary {
        None => parts(body, content_type.unwrap_or_default()),
        Some(Ok(event)) => vec![Ok(event.as_slice())],
        Some(Err(rejection)) => vec![Err(rejection.clone())],
    };
    if parts.len() > sidecar.config.max_usage_events {
        let most = sidecar.config.max_usage_events;
        let message = format!("{} events at once; send at most {most}", parts.len());
        return ApiError::new("too_many_events", message).response(StatusCode::PAYLOAD_TOO_LARGE);
    }
    let named = caller.key().map(|key| key.name.as_str());
    let source = match source_of(headers) {
        Ok(source) => named.or(source).unwrap_or(&sidecar.config.source),
        Err(error) => return error.response(StatusCode::BAD_REQUEST),
    };
    let mut judging = Judging::new(sidecar, caller, source);
    let mut results = Vec::with_capacity(parts.len());
    let mut turn = Turn::begin();
    for (index, part) in parts.into_iter().enumerate() {
        turn.give_way().await;
        let id = part.as_ref().ok().and_then(|event| id_of(event));
        let mut warnings = Vec::new();
        let judged = part
            .map_err(Refusal::from)
            .and_then(|event| judging.take(event, &mut warnings));
        let (id, outcome) = match judged {
            Ok((id, outcome)) => (Some(id), outcome),
            Err(Refusal { reason, detail }) => (id, Outcome::Rejected { reason, detail }),
        };
        results.push(EventResult {
            index,
            id,
            outcome,
            warnings,
        });
    }
    let delivered = judging.finish().deliver(sidecar).await;
    let mut answer = UsageResponse::default();
    for result in &results {
        turn.give_way().await;
        match &delivered {
            Ok(()) => answer.add(result),
            Err(_) => answer.add_unsafe(result),
        }
    }
    counter!(USAGE_EVENTS, "outcome" => "rejected").increment(answer.rejected as u64);
    let status = match &delivered {
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
        Ok(()) if answer.rejected > 0 || answer.results.is_empty() => StatusCode::BAD_REQUEST,
        Ok(()) => StatusCode::ACCEPTED,
    };
    answer.error = match delivered {
        Err(error) => Some(ApiError::new("unavailable", error.to_string())),
        Ok(()) if answer.results.is_empty() => {
            let message = "the body holds no event; send one, an array of them, or lines";
            Some(ApiError::bad_request(message))
        }
        Ok(()) => None,
    };
    let mut response = json(status, &answer);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        let retry = header::HeaderValue::from_static("1");
        response.headers_mut().insert(header::RETRY_AFTER, retry);
    }
    response
}

/// Judges one event from within the process, whose envelope is complete. Its cost, where it will be
/// counted, and what is to be sent.
pub(crate) fn take_one(
    sidecar: &Sidecar,
    event: &[u8],
) -> Result<(Option<Nanos>, Outgoing), Refusal> {
    let caller = Caller::default();
    let mut judging = Judging::new(sidecar, &caller, &sidecar.config.source);
    let (_, outcome) = judging.take_whole(event, &mut Vec::new())?;
    let name = match &outcome {
        Outcome::Accepted(accepted) => return Ok((accepted.cost_usd, judging.finish())),
        Outcome::Late(_) => "late",
        Outcome::Duplicate(_) => "duplicate",
        Outcome::Grown(_) => "grown",
        Outcome::Echo(_) => "echo",
        Outcome::Conflict(_) => "conflict",
        Outcome::Rejected { .. } => "rejected",
    };
    counter!(USAGE_EVENTS, "outcome" => name).increment(1);
    Ok((None, judging.finish()))
}

/// What became of one of several events from within the process.
pub(crate) enum Told {
    /// It is sent. Whether it is counted the meter says, as of late ones and duplicates.
    Taken,
    /// It is not sent, because of this.
    Refused(String),
}

/// Judges events from within the process, whose envelopes are complete: what became of each, and what
/// is to be sent.
pub(crate) async fn take_all(
    sidecar: &Sidecar,
    caller: &Caller,
    events: &[Vec<u8>],
) -> (Vec<Told>, Outgoing) {
    let mut judging = Judging::new(sidecar, caller, &sidecar.config.source);
    let mut turn = Turn::begin();
    let mut told = Vec::with_capacity(events.len());
    let mut rejected = 0;
    for event in events {
        turn.give_way().await;
        told.push(match judging.take_whole(event, &mut Vec::new()) {
            Ok(_) => Told::Taken,
            Err(Refusal { reason, detail }) => {
                rejected += 1;
                Told::Refused(format!("{reason}: {detail}"))
            }
        });
    }
    counter!(USAGE_EVENTS, "outcome" => "rejected").increment(rejected);
    (told, judging.finish())
}

/// Names the source of bare events that name none.
const SOURCE_HEADER: &str = "x-spendfuse-source";

/// The id of an event that may be rejected for something else, if it looks like one.
fn id_of(event: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        id: String,
    }
    let named = serde_json::from_slice::<Named>(event).ok();
    named
        .map(|named| named.id)
        .filter(|id| id.len() <= MAX_TEXT_BYTES)
}

/// The source of bare events of this request, where it names one.
fn source_of(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let Some(value) = headers.get(SOURCE_HEADER) else {
        return Ok(None);
    };
    let text = std::str::from_utf8(value.as_bytes())
        .map_err(|_| ApiError::bad_request(format!("header {SOURCE_HEADER} is not UTF-8")))?;
    Ok(Some(text).filter(|text| !text.is_empty()))
}
