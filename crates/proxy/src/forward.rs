//! One request from its arrival to its answer.

use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, HttpBody as _, to_bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::Response;
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use metrics::histogram;
use spendfuse_domain::Verdict;
use spendfuse_guard::CheckResponse;
use spendfuse_sidecar::server::Connection;
use spendfuse_sidecar::{ApiError, Question, RefusedCall};

use crate::answer::Seen;
use crate::attribution::Who;
use crate::config::OnDowngrade;
use crate::headers;
use crate::meter::{self, Meter, UnderWay};
use crate::metrics::ADDED_SECONDS;
use crate::proxy::Proxy;
use crate::refusal::{self, put};
use crate::request::{Asked, edited};
use crate::route::{self, Call, Shape, Upstream};
use crate::stream::{Pieces, Streamed};
use crate::wire::{Elements, Events};

/// Bytes of a request that are taken for a token, for what is reserved.
const BYTES_OF_TOKEN: usize = 4;
/// Error bodies that are looked into.
const MAX_ERROR_BYTES: usize = 64 * 1024;

/// Where a request goes.
struct Way {
    name: String,
    upstream: Upstream,
    uri: Uri,
}

/// A permitted call on its way.
struct Permitted {
    way: Way,
    method: Method,
    headers: HeaderMap,
    /// As the caller sent it, but for another model.
    body: Bytes,
    /// With the question for a stream's usage; `None` where it is not asked.
    asking: Option<Bytes>,
    streams: bool,
    /// What the answer says besides the provider's own.
    told: HeaderMap,
    connection: Option<Arc<Connection>>,
    meter: Meter,
}

pub(crate) async fn forward(State(proxy): State<Arc<Proxy>>, request: Request) -> Response {
    let began = Instant::now();
    let (parts, body) = request.into_parts();
    let way = match way(&proxy, &parts.uri) {
        Ok(way) => way,
        Err(refusal) => return *refusal,
    };
    let (_, path) = route::split(parts.uri.path());
    let call = (parts.method == Method::POST).then(|| Call::of(way.upstream.shape, path));
    let Some(call) = call.flatten() else {
        return pass(&proxy, way, parts, body).await;
    };
    let shape = way.upstream.shape;
    let name = way.name.clone();
    match permit(&proxy, way, call, parts, body, began).await {
        Ok(permitted) => {
            // On its own, so that a caller who goes away cuts neither the call nor its metering.
            let answered = tokio::spawn(exchange(proxy, permitted));
            answered.await.unwrap_or_else(|_| {
                let message = "the proxy failed, see its log";
                refusal::of_request(shape, StatusCode::BAD_GATEWAY, "proxy_failed", message)
            })
        }
        Err(Stop::Refused(refused)) => {
            meter::count(&name, "refused");
            refusal::of_call(shape, &refused)
        }
        Err(Stop::Wrong(status, code, message)) => {
            meter::count(&name, "wrong");
            refusal::of_request(shape, status, code, &message)
        }
    }
}

/// Why a call is not forwarded.
enum Stop {
    Refused(Box<RefusedCall>),
    Wrong(StatusCode, &'static str, String),
}

impl Stop {
    fn wrong(message: impl Into<String>) -> Self {
        Self::Wrong(StatusCode::BAD_REQUEST, "cannot_be_metered", message.into())
    }
}

fn way(proxy: &Proxy, uri: &Uri) -> Result<Way, Box<Response>> {
    let refused = |status, code, message: String| {
        Box::new(refusal::of_request(Shape::OpenAi, status, code, &message))
    };
    let (name, path) = route::split(uri.path());
    let Some(upstream) = proxy.config.upstreams.get(name) else {
        let names: Vec<_> = proxy.config.upstreams.keys().map(String::as_str).collect();
        let message = format!(
            "a path begins with the name of an upstream: /{}; others are set in proxy.upstreams",
            names.join(", /")
        );
        return Err(refused(StatusCode::NOT_FOUND, "unknown_upstream", message));
    };
    let query = uri.query().map(|query| format!("?{query}"));
    let address = format!("{}{path}{}", upstream.base_url, query.unwrap_or_default());
    match address.parse() {
        Ok(uri) => Ok(Way {
            name: name.to_owned(),
            upstream: upstream.clone(),
            uri,
        }),
        Err(_) => {
            let message = format!("the path does not fit to the base_url of upstream {name}");
            Err(refused(StatusCode::BAD_REQUEST, "bad_path", message))
        }
    }
}

/// Forwards what is not billed, or of which nothing is known, as it is.
async fn pass(proxy: &Proxy, way: Way, parts: Parts, body: Body) -> Response {
    meter::count(&way.name, "unmetered");
    let connection = parts.extensions.get::<Arc<Connection>>().cloned();
    if let Some(connection) = &connection {
        connection.answers();
    }
    let headers = headers::upstream_request(&parts.headers, &way.upstream, false);
    let sent = proxy.send(parts.method, way.uri, headers, body).await;
    match sent {
        Ok(answer) => {
            let (parts, body) = answer.into_parts();
            let mut answer = Response::new(Body::new(Streamed::opaque(body, connection)));
            *answer.status_mut() = parts.status;
            *answer.headers_mut() = headers::answer(&parts.headers);
            answer
        }
        Err(error) => unreachable(&way.name, way.upstream.shape, &error),
    }
}

fn unreachable(name: &str, shape: Shape, error: &hyper_util::client::legacy::Error) -> Response {
    let cause = std::error::Error::source(error);
    let cause = cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"));
    tracing::warn!(
        upstream = name,
        error = cause,
        "an upstream does not answer"
    );
    let message = format!("upstream {name} does not answer ({cause})");
    refusal::of_request(
        shape,
        StatusCode::BAD_GATEWAY,
        "upstream_unreachable",
        &message,
    )
}

/// Reads a call and asks the guard about it.
async fn permit(
    proxy: &Arc<Proxy>,
    way: Way,
    call: Call,
    parts: Parts,
    body: Body,
    began: Instant,
) -> Result<Permitted, Stop> {
    if let Some(encoding) = parts.headers.get(header::CONTENT_ENCODING)
        && encoding != "identity"
    {
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        let message = "the proxy reads what a call asks for: send its body uncompressed";
        return Err(Stop::Wrong(status, "compressed", message.to_owned()));
    }
    let body = whole(body, proxy.config.max_body_bytes).await?;
    let connection = parts.extensions.get::<Arc<Connection>>().cloned();
    if let Some(connection) = &connection {
        connection.answers();
    }
    let asked = Asked::read(&body).map_err(Stop::wrong)?;
    let who = proxy
        .config
        .attributing
        .of(&parts.headers, &asked)
        .map_err(Stop::wrong)?;
    let in_path =
        route::model_and_method(parts.uri.path()).filter(|_| way.upstream.shape == Shape::Gemini);
    let model = in_path
        .map_or(asked.model.as_str(), |(model, _)| model)
        .to_owned();
    if model.is_empty() {
        return Err(Stop::wrong("the call names no model"));
    }
    let bytes = body.len();
    let answer = ask(proxy, &way.upstream, &who, call, &model, &asked, bytes).await?;
    if answer.decision == Verdict::Block {
        let refused = proxy.sidecar.refused_call(&answer, &parts.headers);
        return Err(Stop::Refused(Box::new(refused)));
    }
    let other = other_model(proxy, &answer, &parts.headers, &asked)?;
    let edits = other.as_deref().and_then(|other| asked.model_edit(other));
    let body = edited(&body, edits.into_iter().collect());
    let asked = if other.is_some() {
        Asked::read(&body).map_err(Stop::wrong)?
    } else {
        asked
    };
    let asks =
        matches!(call, Call::Completions { .. }) && proxy.asks_for_usage(&way.name, &way.upstream);
    let edit = asked.usage_edit().filter(|_| asks);
    let asking = edit.map(|edit| edited(&body, vec![edit.clone()]));
    let mut told = HeaderMap::new();
    let decision = spendfuse_guard::decision_name(answer.decision);
    told.insert("x-spendfuse-decision", HeaderValue::from_static(decision));
    put(
        &mut told,
        "x-spendfuse-reservation",
        answer.reservation_id.as_deref(),
    );
    if other.is_some() {
        put(&mut told, "x-spendfuse-downgraded-from", Some(&model));
    }
    histogram!(ADDED_SECONDS).record(began.elapsed().as_secs_f64());
    let is_array = in_path.is_some_and(|(_, method)| method == "streamGenerateContent");
    Ok(Permitted {
        headers: headers::upstream_request(&parts.headers, &way.upstream, true),
        method: parts.method,
        streams: asked.streams || is_array,
        asking,
        told,
        connection,
        meter: Meter {
            sidecar: Arc::clone(&proxy.sidecar),
            call,
            upstream: way.name.clone(),
            provider: way.upstream.provider.clone(),
            is_private: way.upstream.is_private(),
            who,
            asked_model: other.unwrap_or(model),
            asked_tier: asked.service_tier,
            request_bytes: body.len(),
            reservation: answer.reservation_id,
            call_id: proxy.next_call_id(),
            began,
            seen: Seen::default(),
            under_way: UnderWay::begin(&proxy.under_way),
        },
        way,
        body,
    })
}

async fn whole(body: Body, most: usize) -> Result<Bytes, Stop> {
    let collected = Limited::new(body, most).collect().await;
    collected.map(|body| body.to_bytes()).map_err(|error| {
        if error.is::<LengthLimitError>() {
            let status = StatusCode::PAYLOAD_TOO_LARGE;
            let message = format!("the body has more than {most} bytes (proxy.max_body_bytes)");
            Stop::Wrong(status, "too_large", message)
        } else {
            Stop::wrong("the body broke off")
        }
    })
}

/// May the call go ahead? What it may cost is held meanwhile.
async fn ask(
    proxy: &Proxy,
    upstream: &Upstream,
    who: &Who,
    call: Call,
    model: &str,
    asked: &Asked,
    bytes: usize,
) -> Result<CheckResponse, Stop> {
    // Where the caller sets no limit, the rule of reservations does.
    let output = match call {
        Call::Embeddings => Some(0),
        _ => asked.max_output_tokens,
    };
    let question = |reserves: bool| {
        let mut question = Question::default();
        let mut put = |name: &str, value: &str| question.put(name, value.to_owned());
        for (name, value) in who {
            put(name, value)?;
        }
        put("model", model)?;
        put("provider", &upstream.provider)?;
        put("estimate.model", model)?;
        put("estimate.provider", &upstream.provider)?;
        put(
            "estimate.input_tokens",
            &bytes.div_ceil(BYTES_OF_TOKEN).to_string(),
        )?;
        if let Some(output) = output {
            put("estimate.max_output_tokens", &output.to_string())?;
        }
        put("reserve", if reserves { "1" } else { "0" })?;
        Ok(question)
    };
    let wrong = |error: ApiError| Stop::wrong(error.to_string());
    let reserving = question(true).map_err(wrong)?;
    if let Ok(answer) = proxy.sidecar.ask(reserving).await {
        return Ok(answer);
    }
    // Where nothing more can be held, what is spent still counts.
    let asking = question(false).map_err(wrong)?;
    proxy.sidecar.ask(asking).await.map_err(wrong)
}

/// The model to ask instead, where a budget says so.
fn other_model(
    proxy: &Proxy,
    answer: &CheckResponse,
    headers: &HeaderMap,
    asked: &Asked,
) -> Result<Option<String>, Stop> {
    let Some(other) = answer.downgrade_to.clone() else {
        return Ok(None);
    };
    match proxy.config.on_downgrade {
        OnDowngrade::Ignore => Ok(None),
        OnDowngrade::Apply if asked.model_edit(&other).is_some() => Ok(Some(other)),
        // A model that stands in the path cannot be replaced: the answer would have another form.
        OnDowngrade::Apply => Ok(None),
        OnDowngrade::Refuse => {
            if let Some(reservation) = &answer.reservation_id {
                proxy.sidecar.release(reservation);
            }
            let mut refused = proxy.sidecar.refused_call(answer, headers);
            refused.code = "budget_exceeded";
            refused.message = format!("a budget allows model {other} only");
            Err(Stop::Refused(Box::new(refused)))
        }
    }
}

/// Asks the upstream, and makes the caller's answer of its own.
async fn exchange(proxy: Arc<Proxy>, permitted: Permitted) -> Response {
    let Permitted {
        way,
        method,
        headers,
        body,
        asking,
        streams,
        told,
        connection,
        meter,
    } = permitted;
    let shape = way.upstream.shape;
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
        sent = match refuses_question(answer).await {
            Ok(answer) => Ok(answer),
            Err(None) => {
                proxy.does_not_ask(&way.name);
                send(body).await
            }
            Err(Some(error)) => {
                meter.forget();
                return error;
            }
        };
    }
    let answer = match sent {
        Ok(answer) => answer,
        Err(error) => {
            meter.forget();
            return unreachable(&way.name, shape, &error);
        }
    };
    let (parts, incoming) = answer.into_parts();
    let mut headers = headers::answer(&parts.headers);
    headers.extend(told);
    let body = if !parts.status.is_success() {
        meter.forget();
        Body::new(Streamed::opaque(incoming, connection))
    } else if streams {
        headers.remove(header::CONTENT_LENGTH);
        let pieces = pieces(&parts.headers);
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
            &parts.headers,
            incoming,
            meter,
            connection,
            &mut headers,
        );
        let Some(body) = read.await else {
            let message = format!("the answer of upstream {} broke off", way.name);
            let status = StatusCode::BAD_GATEWAY;
            return refusal::of_request(shape, status, "upstream_broke_off", &message);
        };
        body
    };
    let mut answer = Response::new(body);
    *answer.status_mut() = parts.status;
    *answer.headers_mut() = headers;
    answer
}

/// The answer, unless it is an error about the question for a stream's usage (`Err(None)`).
async fn refuses_question(
    answer: Response<Incoming>,
) -> Result<Response<Incoming>, Option<Response>> {
    if answer.status() != StatusCode::BAD_REQUEST {
        return Ok(answer);
    }
    let (parts, body) = answer.into_parts();
    let body = to_bytes(Body::new(body), MAX_ERROR_BYTES)
        .await
        .unwrap_or_default();
    let names = |word: &[u8]| body.windows(word.len()).any(|at| at == word);
    if names(b"stream_options") || names(b"include_usage") {
        return Err(None);
    }
    let mut error = Response::new(Body::from(body));
    *error.status_mut() = parts.status;
    *error.headers_mut() = headers::answer(&parts.headers);
    Err(Some(error))
}

fn pieces(headers: &HeaderMap) -> Pieces {
    let is_compressed = headers
        .get(header::CONTENT_ENCODING)
        .is_some_and(|name| name != "identity");
    let content_type = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let content_type = content_type.unwrap_or_default();
    if is_compressed {
        Pieces::Opaque
    } else if content_type.starts_with(b"application/json") {
        Pieces::Elements(Elements::default())
    } else {
        Pieces::Events(Events::default())
    }
}

/// Reads an answer that comes whole, and tells its cost beside it; `None` where it broke off.
async fn whole_answer(
    proxy: &Proxy,
    from: &HeaderMap,
    incoming: Incoming,
    mut meter: Meter,
    connection: Option<Arc<Connection>>,
    headers: &mut HeaderMap,
) -> Option<Body> {
    let most = proxy.config.max_body_bytes;
    let is_short = incoming
        .size_hint()
        .upper()
        .is_none_or(|length| length <= most as u64);
    let body = match is_short {
        true => Limited::new(incoming, most).collect().await,
        false => {
            meter.finish();
            return Some(Body::new(Streamed::opaque(incoming, connection)));
        }
    };
    let Ok(body) = body.map(|body| body.to_bytes()) else {
        // It may be charged all the same.
        meter.finish();
        return None;
    };
    let plain = uncompressed(from, &body, most);
    meter
        .seen
        .take(meter.call, plain.as_deref().unwrap_or(&body));
    if meter.seen.id.is_empty() {
        let named = ["x-request-id", "request-id", "apim-request-id"];
        let named = named.iter().find_map(|name| from.get(*name)?.to_str().ok());
        meter.seen.id = named.unwrap_or_default().to_owned();
    }
    if let Some(cost) = meter.finish() {
        put(headers, "x-spendfuse-cost-usd", Some(&cost.to_string()));
    }
    Some(Body::from(body))
}

/// What an upstream has compressed although it was not asked to; `None` where it is plain.
fn uncompressed(headers: &HeaderMap, body: &[u8], most: usize) -> Option<Vec<u8>> {
    use std::io::Read as _;
    let encoding = headers.get(header::CONTENT_ENCODING)?;
    if encoding != "gzip" {
        return None;
    }
    let mut plain = Vec::new();
    let read = MultiGzDecoder::new(body)
        .take(most as u64)
        .read_to_end(&mut plain);
    read.ok().map(|_| plain)
}
