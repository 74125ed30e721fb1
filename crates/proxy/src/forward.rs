//! One request from its arrival to whoever carries it on.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, Uri};
use axum::response::Response;
use spendfuse_sidecar::server::Connection;
use tokio::sync::oneshot;

use crate::exchange::exchange;
use crate::headers;
use crate::meter;
use crate::permit::permit;
use crate::proxy::Proxy;
use crate::refusal;
use crate::retrieve::retrieve;
use crate::route::{self, Call, Shape, Upstream};
use crate::stream::Streamed;

/// Where a request goes.
pub(crate) struct Way {
    pub(crate) name: String,
    pub(crate) upstream: Upstream,
    pub(crate) uri: Uri,
}

pub(crate) async fn forward(State(proxy): State<Arc<Proxy>>, request: Request) -> Response {
    let began = Instant::now();
    let (parts, body) = request.into_parts();
    let way = match way(&proxy, &parts.uri) {
        Ok(way) => way,
        Err(refusal) => return *refusal,
    };
    let (_, path) = route::split(parts.uri.path());
    let shape = way.upstream.shape;
    let call = match parts.method {
        Method::POST => Call::of(shape, path),
        Method::GET if route::is_response(shape, path) => {
            return retrieve(&proxy, way, parts).await;
        }
        _ => None,
    };
    let Some(call) = call else {
        return pass(&proxy, way, parts, body).await;
    };
    let name = way.name.clone();
    match permit(&proxy, way, call, parts, body, began).await {
        Ok(permitted) => {
            let (_here, gone) = oneshot::channel();
            // On its own, so that a caller who goes away cuts neither the call nor its metering.
            let answered = tokio::spawn(exchange(proxy, permitted, gone));
            answered.await.ok().flatten().unwrap_or_else(|| {
                let message = "the proxy failed, see its log";
                refusal::of_request(shape, StatusCode::BAD_GATEWAY, "proxy_failed", message)
            })
        }
        Err(stop) => stop.response(&name, shape),
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
pub(crate) async fn pass(proxy: &Proxy, way: Way, parts: Parts, body: Body) -> Response {
    meter::count(&way.name, "unmetered");
    let connection = taken_from(&parts);
    let headers = headers::upstream_request(&parts.headers, &way.upstream, false);
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
    refusal::of_request(
        shape,
        StatusCode::BAD_GATEWAY,
        "upstream_unreachable",
        &message,
    )
}
