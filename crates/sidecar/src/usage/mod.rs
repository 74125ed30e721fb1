//! `POST /v1/usage`: events in, one result each out, and 202 only when the good ones are safe.

mod binary;
mod body;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use metrics::counter;
use serde::{Deserialize, Serialize};
use spendfuse_domain::UnixMillis;
use spendfuse_domain::event::{
    EnvelopeDefaults, Event, MAX_TEXT_BYTES, RejectReason, Rejection, complete, decode, redact,
};
use spendfuse_domain::row::PriceBasis;
use spendfuse_guard::CheckRequest;

use crate::http::{ApiError, Shared, Sidecar};
use crate::metrics::{MEMBERS_REMOVED, USAGE_EVENTS};
use crate::spool::SpooledEvent;

/// The answer.
#[derive(Debug, Serialize)]
struct UsageResponse {
    accepted: usize,
    rejected: usize,
    results: Vec<EventResult>,
    /// Why the accepted ones are not safe (503).
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ApiError>,
}

/// What became of one event, in the order of the body.
#[derive(Debug, Serialize)]
struct EventResult {
    index: usize,
    /// The event's id, where it could be read.
    id: Option<String>,
    #[serde(flatten)]
    outcome: Outcome,
}

#[derive(Debug, Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
enum Outcome {
    Accepted(Accepted),
    Rejected {
        reason: &'static str,
        detail: String,
    },
}

#[derive(Debug, Serialize)]
struct Accepted {
    source: String,
    /// What the call costs by the price book in force here; null where it is not a call.
    cost_usd: Option<String>,
    priced: Option<&'static str>,
    flags: Vec<&'static str>,
    /// Budgets that it counts against.
    budgets: Vec<String>,
}

pub(crate) async fn post_usage(
    State(sidecar): Shared,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let content_type = headers.get(header::CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok());
    let binary = binary::structured(&headers, &body);
    let parts = match &binary {
        None => body::parts(&body, content_type.unwrap_or_default()),
        Some(Ok(event)) => vec![Ok(event.as_slice())],
        Some(Err(rejection)) => vec![Err(rejection.clone())],
    };
    if parts.len() > sidecar.config.max_usage_events {
        let most = sidecar.config.max_usage_events;
        let message = format!("{} events at once; send at most {most}", parts.len());
        return ApiError::new("too_many_events", message).response(StatusCode::PAYLOAD_TOO_LARGE);
    }
    let now = sidecar.clock.now().wall;
    let mut results = Vec::with_capacity(parts.len());
    let mut safe = Vec::with_capacity(parts.len());
    for (index, part) in parts.into_iter().enumerate() {
        let id = part.as_ref().ok().and_then(|event| id_of(event));
        let taken = part.and_then(|event| take(&sidecar, event, now));
        results.push(match taken {
            Ok(taken) => {
                safe.push(taken.outgoing);
                EventResult {
                    index,
                    id: Some(taken.id),
                    outcome: Outcome::Accepted(taken.accepted),
                }
            }
            Err(rejection) => EventResult {
                index,
                id,
                outcome: Outcome::Rejected {
                    reason: rejection.reason.name(),
                    detail: rejection.detail,
                },
            },
        });
    }
    let accepted = safe.len();
    let rejected = results.len() - accepted;
    counter!(USAGE_EVENTS, "outcome" => "rejected").increment(rejected as u64);
    let delivered = sidecar.delivery.deliver(safe).await;
    let status = match &delivered {
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
        Ok(()) if rejected > 0 || accepted == 0 => StatusCode::BAD_REQUEST,
        Ok(()) => StatusCode::ACCEPTED,
    };
    let response = UsageResponse {
        accepted,
        rejected,
        results,
        error: delivered
            .err()
            .map(|error| ApiError::new("unavailable", error.to_string())),
    };
    let mut response = (status, axum::Json(response)).into_response();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        let retry = header::HeaderValue::from_static("1");
        response.headers_mut().insert(header::RETRY_AFTER, retry);
    }
    response
}

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

/// An event that will be counted.
struct Taken {
    id: String,
    accepted: Accepted,
    outgoing: SpooledEvent,
}

/// Judges one event as the meter will, and makes it ready to be sent.
fn take(sidecar: &Sidecar, event: &[u8], now: UnixMillis) -> Result<Taken, Rejection> {
    let defaults = EnvelopeDefaults {
        source: &sidecar.config.source,
        workspace: &sidecar.config.default_workspace,
        now,
    };
    let whole = complete(event, &defaults)?;
    let decoded = decode(&whole, &[], now)?;
    let accepted = accept(sidecar, &decoded)?;
    let key = match decoded.session_key() {
        Some(key) => key.as_bytes().to_vec(),
        None => decoded.identity.0.to_be_bytes().to_vec(),
    };
    // Prompts never enter: neither the spool nor the topic.
    let kept = redact(&whole, &[]);
    counter!(MEMBERS_REMOVED).increment(kept.removed.count);
    Ok(Taken {
        id: decoded.id.to_string(),
        accepted,
        outgoing: SpooledEvent {
            partition: decoded.home(sidecar.config.partitions),
            key,
            value: kept.value.into_owned(),
        },
    })
}

fn accept(sidecar: &Sidecar, event: &Event<'_>) -> Result<Accepted, Rejection> {
    let priced = sidecar.prices.price(event).transpose();
    let priced =
        priced.map_err(|error| Rejection::new(RejectReason::BadMoney, error.to_string()))?;
    let mut flags = event.flags;
    if let Some(priced) = &priced {
        flags.insert(priced.flags);
    }
    let request = CheckRequest {
        attribution: event.attribution.clone(),
        ..CheckRequest::default()
    };
    let decision = sidecar.guard.check(&request, sidecar.clock.now());
    let mut budgets: Vec<_> = decision.budgets().map(|(id, _)| id.to_string()).collect();
    budgets.sort();
    Ok(Accepted {
        source: event.source.to_string(),
        cost_usd: priced.map(|priced| priced.parts.total().to_string()),
        priced: priced.map(|priced| PriceBasis::name(priced.basis)),
        flags: flags.names().collect(),
        budgets,
    })
}
