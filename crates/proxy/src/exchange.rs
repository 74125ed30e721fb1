//! A permitted call at its upstream, and its answer on the way back.

use std::sync::Arc;

use axum::body::Body;
use axum::http::response::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use serde_json::{Map, Value};
use spendfuse_sidecar::server::{BodyMemory, Connection, gunzip};

use crate::answer::Seen;
use crate::forward::unreachable;
use crate::headers;
use crate::lanes::Incoming;
use crate::meter::Meter;
use crate::permit::Permitted;
use crate::proxy::Proxy;
use crate::refusal::{self, put};
use crate::route::Call;
use crate::stream::{Pieces, Streamed};
use crate::upstream::Shape;
use crate::whole::Whole;
use crate::wire::{Elements, Events, Frames};

/// Error bodies that are looked into.
const MAX_ERROR_BYTES: usize = 64 * 1024;

/// Asks the upstream, and makes the caller's answer of its own.
pub(crate) async fn exchange(proxy: Arc<Proxy>, permitted: Permitted) -> Response {
    let Permitted {
        way,
        method,
        headers,
        body,
        asking,
        streams,
        mut told,
        connection,
        memory,
        mut meter,
    } = permitted;
    let shape = meter.call.shape(way.upstream.shape);
    let send = |body: Bytes| {
        proxy.send(
            method.clone(),
            way.uri.clone(),
            headers.clone(),
            Body::from(body),
        )
    };
    let strips_usage = asking.is_some();
    let mut sent = send(asking.unwrap_or_else(|| body.clone())).await;
    if strips_usage && let Ok(answer) = sent {
        sent = match to_question(answer, &proxy.memory).await {
            ToQuestion::Answer(answer) => Ok(answer),
            ToQuestion::NotKnown => {
                let again = send(body.clone()).await;
                // Whatever else is wrong with a call may name the question, too.
                if again.as_ref().is_ok_and(|one| one.status().is_success()) {
                    proxy.does_not_ask(&way.name);
                }
                again
            }
            ToQuestion::Error(parts, error) => {
                meter.forget();
                let body = Body::new(Streamed::passed_on(error, connection));
                let mut answer = headers::answer(&parts, body);
                answer.headers_mut().extend(told);
                return answer;
            }
            ToQuestion::BrokeOff => {
                meter.forget();
                return broke_off(&way.name, shape);
            }
        };
    }
    let answer = match sent {
        Ok(answer) => answer,
        Err(error) => {
            // What was sent may be charged, whatever has become of the answer.
            match error.is_connect() {
                true => meter.forget(),
                false => drop(meter.finish()),
            }
            return unreachable(&way.name, shape, &error);
        }
    };
    drop((body, memory));
    let (parts, incoming) = answer.into_parts();
    let body = if !parts.status.is_success() {
        meter.forget();
        Body::new(Streamed::opaque(incoming, connection))
    } else if streams || is_event_stream(&parts.headers) {
        let pieces = pieces(&parts.headers);
        if shape == Shape::Bedrock || meter.call == Call::Speech {
            name_by_header(&mut meter, &parts.headers, &headers);
        }
        let drains = proxy.drains.clone();
        Body::new(Streamed::new(
            incoming,
            pieces,
            meter,
            strips_usage,
            connection,
            drains,
        ))
    } else {
        let read = whole_answer(
            &proxy,
            &headers,
            &parts.headers,
            incoming,
            meter,
            connection,
            &mut told,
        );
        let Some(body) = read.await else {
            return broke_off(&way.name, shape);
        };
        body
    };
    let mut answer = headers::answer(&parts, body);
    if streams && parts.status.is_success() {
        // What the caller did not ask for is taken out.
        answer.headers_mut().remove(header::CONTENT_LENGTH);
    }
    answer.headers_mut().extend(told);
    answer
}

pub(crate) fn broke_off(upstream: &str, shape: Shape) -> Response {
    let message = format!("the answer of upstream {upstream} broke off");
    let status = StatusCode::BAD_GATEWAY;
    refusal::of_request(shape, status, "upstream_broke_off", &message)
}

/// What an upstream answers to a call with the question for a stream's usage in it.
enum ToQuestion {
    Answer(Response<Incoming>),
    /// An error that names the question.
    NotKnown,
    /// Another error, which was looked into.
    Error(Parts, Whole),
    /// An error that broke off.
    BrokeOff,
}

async fn to_question(answer: Response<Incoming>, memory: &BodyMemory) -> ToQuestion {
    // Mistral's word for it is 422, as it is of all who check bodies with pydantic.
    let refused = [StatusCode::BAD_REQUEST, StatusCode::UNPROCESSABLE_ENTITY];
    if !refused.contains(&answer.status()) {
        return ToQuestion::Answer(answer);
    }
    let (parts, body) = answer.into_parts();
    let Some(error) = Whole::read(body, MAX_ERROR_BYTES, memory).await else {
        return ToQuestion::BrokeOff;
    };
    let names = |word: &[u8]| error.read.windows(word.len()).any(|at| at == word);
    if names(b"stream_options") || names(b"include_usage") {
        return ToQuestion::NotKnown;
    }
    ToQuestion::Error(parts, error)
}

/// Some servers stream where `stream` is 1 or a text, too.
pub(crate) fn is_event_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.is_some_and(|kind| is_kind(kind, b"text/event-stream"))
}

/// Kinds of content are the same in any letter case (RFC 9110, 8.3.1).
fn is_kind(content_type: &[u8], kind: &[u8]) -> bool {
    let begin = content_type.get(..kind.len());
    begin.is_some_and(|begin| begin.eq_ignore_ascii_case(kind))
}

pub(crate) fn pieces(headers: &HeaderMap) -> Pieces {
    let is_compressed = headers
        .get(header::CONTENT_ENCODING)
        .is_some_and(|name| name != "identity");
    let content_type = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let content_type = content_type.unwrap_or_default();
    let is_binary = [&b"audio/"[..], b"application/octet-stream"]
        .iter()
        .any(|kind| is_kind(content_type, kind));
    if is_compressed || is_binary {
        Pieces::Opaque
    } else if is_kind(content_type, b"application/vnd.amazon.eventstream") {
        Pieces::Frames(Frames::default())
    } else if is_kind(content_type, b"application/json") {
        Pieces::Elements(Elements::default())
    } else {
        Pieces::Events(Events::default())
    }
}

/// Reads an answer that comes whole, and tells its cost beside it; `None` where it broke off.
async fn whole_answer(
    proxy: &Proxy,
    sent: &HeaderMap,
    from: &HeaderMap,
    incoming: Incoming,
    mut meter: Meter,
    connection: Option<Arc<Connection>>,
    told: &mut HeaderMap,
) -> Option<Body> {
    let most = proxy.config.max_body_bytes;
    let Some(whole) = Whole::read(incoming, most, &proxy.memory).await else {
        // It may be charged all the same.
        meter.finish();
        return None;
    };
    if whole.rest.is_some() {
        return Some(too_long(proxy, from, whole, meter, connection));
    }
    let body = whole.read.clone();
    let passed_on = Body::new(Streamed::passed_on(whole, connection));
    let plain = uncompressed(from, &body, most, &proxy.memory);
    meter
        .seen
        .take(meter.call, plain.as_deref().unwrap_or(&body));
    if meter.call == Call::Imagen
        && meter.seen.images == 0
        && is_object(plain.as_deref().unwrap_or(&body))
    {
        // All that was made was filtered.
        meter.forget();
        return Some(passed_on);
    }
    if meter.seen == Seen::default() {
        // Compressed as nobody asked for, or no JSON.
        meter.unread = body.len();
    }
    if meter.seen.id.is_empty() {
        name_by_header(&mut meter, from, sent);
    }
    if meter.call == Call::Invoke {
        count_by_headers(&mut meter, from);
    }
    if let Some(cost) = meter.finish() {
        put(told, "x-spendfuse-cost-usd", Some(&cost.to_string()));
    }
    Some(passed_on)
}

/// Whether an answer could be read.
fn is_object(body: &[u8]) -> bool {
    serde_json::from_slice::<Map<String, Value>>(body).is_ok()
}

/// What becomes of an answer that is too long to be kept: it is read on its way.
pub(crate) fn too_long(
    proxy: &Proxy,
    from: &HeaderMap,
    whole: Whole,
    meter: Meter,
    connection: Option<Arc<Connection>>,
) -> Body {
    let is_readable = !matches!(pieces(from), Pieces::Opaque);
    let drains = proxy.drains.clone();
    let streamed = Streamed::too_long(whole, is_readable, meter, connection, drains);
    Body::new(streamed)
}

/// Names a call whose answer has no id by the name that the provider has given the request. A name that
/// the caller has `sent` is no name: all its calls could have one.
fn name_by_header(meter: &mut Meter, from: &HeaderMap, sent: &HeaderMap) {
    let named = [
        "x-request-id",
        "request-id",
        "apim-request-id",
        "x-amzn-requestid",
    ];
    let is_callers = |value: &HeaderValue| sent.values().any(|one| one == value);
    let named = named.iter().filter_map(|name| from.get(*name));
    let mut named = named.filter(|value| !is_callers(value));
    let named = named.find_map(|value| value.to_str().ok());
    meter.seen.id = named.unwrap_or_default().to_owned();
}

/// Bedrock counts in headers what a model does not say itself in a form that is known.
fn count_by_headers(meter: &mut Meter, from: &HeaderMap) {
    const COUNTS: [(&str, &str); 4] = [
        ("x-amzn-bedrock-input-token-count", "inputTokens"),
        ("x-amzn-bedrock-output-token-count", "outputTokens"),
        (
            "x-amzn-bedrock-cache-read-input-token-count",
            "cacheReadInputTokens",
        ),
        (
            "x-amzn-bedrock-cache-write-input-token-count",
            "cacheWriteInputTokens",
        ),
    ];
    let text = |name: &str| from.get(name)?.to_str().ok();
    if let Some(tier) = text("x-amzn-bedrock-service-tier") {
        meter.seen.service_tier = tier.to_owned();
    }
    if meter.seen.is_final {
        return;
    }
    let count = |(header, name): (&str, &str)| {
        let count: u64 = text(header)?.parse().ok()?;
        Some((name.to_owned(), count.into()))
    };
    let usage: Map<String, Value> = COUNTS.into_iter().filter_map(count).collect();
    if !usage.is_empty() {
        meter.seen.is_final = true;
        meter.seen.usage_format = None;
        meter.seen.usage = Some(usage);
    }
}

/// What an upstream has compressed although it was not asked to; `None` where it is plain.
pub(crate) fn uncompressed(
    headers: &HeaderMap,
    body: &[u8],
    most: usize,
    memory: &BodyMemory,
) -> Option<Vec<u8>> {
    let encoding = headers.get(header::CONTENT_ENCODING)?;
    if encoding != "gzip" {
        return None;
    }
    gunzip(body, &mut memory.share(), most).ok()
}
