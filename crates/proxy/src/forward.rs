//! One request from its arrival to whoever carries it on.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::Response;
use percent_encoding::percent_decode_str;
use spendfuse_sidecar::server::Connection;

use crate::access::{self, Entrant};
use crate::batches::{self, Reading, Submission};
use crate::config::OnUnmetered;
use crate::exchange::exchange;
use crate::headers;
use crate::meter;
use crate::path::leads_out;
use crate::permit::permit;
use crate::proxy::Proxy;
use crate::refusal;
use crate::retrieve::{retrieve, tell_video};
use crate::route::{self, Call};
use crate::stream::Streamed;
use crate::unmetered;
use crate::upstream::{Shape, Upstream};
use crate::without_caller::WithoutCaller;

/// Where a request goes.
pub(crate) struct Way {
    pub(crate) name: String,
    pub(crate) upstream: Upstream,
    pub(crate) uri: Uri,
    /// What the caller's path has in the place of the name in the upstream's address.
    pub(crate) place: String,
    /// The rest of the caller's path.
    pub(crate) path: String,
    pub(crate) entrant: Entrant,
}

pub(crate) async fn forward(State(proxy): State<Arc<Proxy>>, request: Request) -> Response {
    let began = Instant::now();
    let (parts, body) = request.into_parts();
    if let Some(message) = not_sent_on(&parts) {
        let status = StatusCode::METHOD_NOT_ALLOWED;
        return refusal::of_request(Shape::OpenAi, status, "not_supported", message);
    }
    let way = access::enter(&proxy, &parts).and_then(|entrant| way(&proxy, &parts.uri, entrant));
    let way = match way {
        Ok(way) => way,
        Err(refusal) => return *refusal,
    };
    let path = way.path.as_str();
    let shape = way.upstream.shape;
    if let Err(missing) = access::has_key(&way, &parts.headers) {
        return access::forbidden(shape, &missing);
    }
    let call = match parts.method {
        Method::POST => Call::of(shape, path),
        _ => None,
    };
    if call.is_none()
        && let Err(why) = access::may_pass(&proxy, &way, &parts.method)
    {
        return access::forbidden(shape, &why);
    }
    if parts.method == Method::GET
        && let Some(reading) = Reading::of(shape, path)
    {
        return batches::read(&proxy, way, reading, parts).await;
    }
    let call = match parts.method {
        Method::GET => match route::call_of_answer(shape, path) {
            Some(call) => return retrieve(&proxy, way, call, parts).await,
            None if route::is_content_of_video(shape, path) => {
                if let Err(refusal) = tell_video(&proxy, &way, &parts).await {
                    return *refusal;
                }
                None
            }
            None => None,
        },
        _ => call,
    };
    let Some(call) = call else {
        if is_websocket(&parts.headers) {
            meter::count(&way.name, "wrong");
            let message = "connections of WebSocket (realtime, live) are not supported by the proxy yet: \
                           nothing of them could be metered";
            let status = StatusCode::NOT_IMPLEMENTED;
            return refusal::of_request(shape, status, "not_supported", message);
        }
        if parts.method == Method::POST
            && let Some(submission) = Submission::of(shape, path)
        {
            let (name, shape) = (way.name.clone(), submission.shape);
            let submitted = batches::submit(&proxy, way, submission, parts, body);
            return match submitted.await {
                Ok(response) => response,
                Err(stop) => stop.response(&name, shape),
            };
        }
        if unmetered::may_cost(&parts.method, path) {
            let name = unmetered::name(path);
            if proxy.config.on_unmetered == OnUnmetered::Refuse {
                meter::count(&way.name, "wrong");
                let message = "nothing of this request can be metered (proxy.unmetered = refuse)";
                return access::forbidden(shape, message);
            }
            proxy.passes_unmetered(&way.name, name);
        }
        return pass(&proxy, way, parts, body).await;
    };
    let shape = call.shape(shape);
    let name = way.name.clone();
    match permit(&proxy, way, call, parts, body, began).await {
        Ok(permitted) => {
            let answered = WithoutCaller::new(exchange(proxy, permitted));
            answered.await.unwrap_or_else(|| {
                let message = "the proxy failed, see its log";
                refusal::of_request(shape, StatusCode::BAD_GATEWAY, "proxy_failed", message)
            })
        }
        Err(stop) => stop.response(&name, shape),
    }
}

/// Why a request is not sent on, whatever its path.
fn not_sent_on(parts: &Parts) -> Option<&'static str> {
    const OVERRIDES: [&str; 3] = [
        "x-http-method",
        "x-http-method-override",
        "x-method-override",
    ];
    match parts.method {
        Method::GET
        | Method::HEAD
        | Method::POST
        | Method::PUT
        | Method::PATCH
        | Method::DELETE
        | Method::OPTIONS => {
            let overrides = OVERRIDES
                .iter()
                .any(|name| parts.headers.contains_key(*name));
            (overrides || overrides_in_query(&parts.uri)).then_some(
                "what puts another method or header in the place of the request's is not sent on",
            )
        }
        // A trace has the upstream's key in it; others are read as POST by some servers.
        _ => Some("requests of this method are not sent on"),
    }
}

/// Google's clients in browsers write methods and headers into the query.
fn overrides_in_query(uri: &Uri) -> bool {
    const OVERRIDES: [&str; 2] = ["$httpMethod", "$httpHeaders"];
    uri.query().unwrap_or_default().split('&').any(|pair| {
        let name = pair.split('=').next().unwrap_or_default();
        let name = percent_decode_str(name).decode_utf8_lossy();
        OVERRIDES.iter().any(|one| one.eq_ignore_ascii_case(&name))
    })
}

/// The upgrade would be lost here, and the upstream's answer to what is left says nothing of it.
fn is_websocket(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(header::UPGRADE).map(HeaderValue::as_bytes);
    upgrade.is_some_and(|kind| kind.eq_ignore_ascii_case(b"websocket"))
}

fn way(proxy: &Proxy, uri: &Uri, entrant: Entrant) -> Result<Way, Box<Response>> {
    let refused = |status, code, message: String| {
        Box::new(refusal::of_request(Shape::OpenAi, status, code, &message))
    };
    let (name, path) = route::split(uri.path());
    let Some((name, upstream)) = access::upstream_for(proxy, &entrant, name) else {
        let names = access::names_for(proxy, &entrant);
        let message = format!(
            "a path begins with the name of an upstream: /{}; others are set in proxy.upstreams",
            names.join(", /")
        );
        return Err(refused(StatusCode::NOT_FOUND, "unknown_upstream", message));
    };
    let query = entrant.query(uri, upstream.key.is_some());
    let query = query.map(|query| format!("?{query}"));
    let Some((base, place, path)) = upstream.base_for(path) else {
        let address = &upstream.base_url;
        let message = format!(
            "a path of {name} goes on with what stands in the place of the name in {address}"
        );
        return Err(refused(StatusCode::BAD_REQUEST, "bad_path", message));
    };
    if leads_out(path) {
        let message = format!("a path that leads out of upstream {name} by `..` is not sent on");
        return Err(refused(StatusCode::BAD_REQUEST, "bad_path", message));
    }
    let address = format!("{base}{path}{}", query.unwrap_or_default());
    match address.parse() {
        Ok(uri) => Ok(Way {
            name: name.to_owned(),
            upstream: upstream.clone(),
            uri,
            place: place.to_owned(),
            path: path.to_owned(),
            entrant,
        }),
        Err(_) => {
            let message = format!("the path does not fit to the base_url of upstream {name}");
            Err(refused(StatusCode::BAD_REQUEST, "bad_path", message))
        }
    }
}

/// Forwards what is not billed, or of which nothing is known, as it is.
pub(crate) async fn pass(proxy: &Proxy, way: Way, parts: Parts, body: Body) -> Response {
    meter::count_unmetered(&way.name, unmetered::name(&way.path));
    let connection = taken_from(&parts);
    let (upstream, entrant) = (&way.upstream, &way.entrant);
    let headers =
        headers::upstream_request(&parts.headers, upstream, upstream.shape, entrant, false);
    let sent = proxy.send(parts.method, way.uri, headers, body).await;
    match sent {
        Ok(answer) => {
            let (head, body) = answer.into_parts();
            headers::answer(&head, Body::new(Streamed::opaque(body, connection)))
        }
        Err(error) => unreachable(&way.name, way.upstream.shape, &error),
    }
}

/// The connection of a request that its caller has nothing to do for any more.
pub(crate) fn taken_from(parts: &Parts) -> Option<Arc<Connection>> {
    let connection = parts.extensions.get::<Arc<Connection>>().cloned();
    if let Some(connection) = &connection {
        connection.answers();
    }
    connection
}

pub(crate) fn unreachable(
    name: &str,
    shape: Shape,
    error: &hyper_util::client::legacy::Error,
) -> Response {
    let cause = std::error::Error::source(error);
    let cause = cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"));
    tracing::warn!(
        upstream = name,
        error = cause,
        "an upstream does not answer"
    );
    let message = format!("upstream {name} does not answer ({cause})");
    let (status, code) = (StatusCode::BAD_GATEWAY, "upstream_unreachable");
    // Nothing was sent: without a proxy, too, SDKs ask again.
    match error.is_connect() {
        true => refusal::of_moment(shape, status, code, &message),
        false => refusal::of_request(shape, status, code, &message),
    }
}
