//! Responses that are asked for after they were made: in the background they say what they used only
//! then.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use tokio::time::timeout;

use crate::attribution::Who;
use crate::batches::about;
use crate::exchange::{broke_off, is_event_stream, pieces, too_long, uncompressed};
use crate::forward::{Way, taken_from, unreachable};
use crate::headers;
use crate::hidden::hides_usage;
use crate::meter::Meter;
use crate::proxy::Proxy;
use crate::refusal;
use crate::request::Asked;
use crate::route::Call;
use crate::stream::Streamed;
use crate::whole::Whole;

/// How long a video waits for what it has cost.
const LONGEST_QUESTION: Duration = Duration::from_secs(10);

/// Passes a response on, and tells its cost where it was made in the background. Asked for again it is
/// the same event, which is counted once.
pub(crate) async fn retrieve(proxy: &Arc<Proxy>, way: Way, call: Call, parts: Parts) -> Response {
    let who = match who(proxy, &way, &parts) {
        Ok(who) => who,
        Err(refusal) => return *refusal,
    };
    if let Some(name) = hides_usage(call, &way.uri, &parts.headers) {
        let message = format!("by `{name}` the answer would not say what it has used");
        let (shape, status) = (way.upstream.shape, StatusCode::BAD_REQUEST);
        return refusal::of_request(shape, status, "cannot_be_metered", &message);
    }
    let connection = taken_from(&parts);
    let (upstream, entrant) = (&way.upstream, &way.entrant);
    let sent = headers::upstream_request(&parts.headers, upstream, upstream.shape, entrant, true);
    let sent = proxy.send(parts.method, way.uri.clone(), sent, Body::empty());
    let answer = match sent.await {
        Ok(answer) => answer,
        Err(error) => return unreachable(&way.name, way.upstream.shape, &error),
    };
    let (head, body) = answer.into_parts();
    if !head.status.is_success() {
        let body = Body::new(Streamed::opaque(body, connection));
        return headers::answer(&head, body);
    }
    let mut meter = Meter::retrieved(proxy, &way, call, who);
    // A response may be asked for as the stream that it is, or was.
    if is_event_stream(&head.headers) {
        let drains = proxy.drains.clone();
        let pieces = pieces(&head.headers);
        let body = Streamed::new(body, pieces, meter, false, connection, drains);
        return headers::answer(&head, Body::new(body));
    }
    let read = Whole::read(body, proxy.config.max_body_bytes, &proxy.memory);
    let Some(whole) = read.await else {
        return broke_off(&way.name, way.upstream.shape);
    };
    if whole.rest.is_some() {
        let body = too_long(proxy, &head.headers, whole, meter, connection);
        return headers::answer(&head, body);
    }
    let most = proxy.config.max_body_bytes;
    let plain = uncompressed(&head.headers, &whole.read, most, &proxy.memory);
    let read = plain.as_deref().unwrap_or(&whole.read);
    meter.seen.take(meter.call, read);
    meter.finish();
    headers::answer(&head, Body::new(Streamed::passed_on(whole, connection)))
}

/// Tells the cost of the video whose content is asked for: whoever knows that it is done need not have
/// asked for anything else.
///
/// # Errors
/// The answer to whoever does not say whom it counts against.
pub(crate) async fn tell_video(
    proxy: &Arc<Proxy>,
    way: &Way,
    parts: &Parts,
) -> Result<(), Box<Response>> {
    let who = who(proxy, way, parts)?;
    // Kept from being cut meanwhile.
    let _connection = taken_from(parts);
    let told = timeout(LONGEST_QUESTION, look_up(proxy, way, parts)).await;
    let Some(told) = told.ok().flatten() else {
        let upstream = &way.name;
        tracing::warn!(upstream, "a video does not say what it has cost");
        return Ok(());
    };
    let mut meter = Meter::retrieved(proxy, way, Call::Videos, who);
    meter.seen.take(meter.call, &told);
    meter.finish();
    Ok(())
}

/// What is said about the video whose content is asked for.
async fn look_up(proxy: &Proxy, way: &Way, parts: &Parts) -> Option<Bytes> {
    let uri = about(&way.uri, "/content")?;
    let (upstream, entrant) = (&way.upstream, &way.entrant);
    let shape = upstream.shape;
    let mut sent = headers::upstream_request(&parts.headers, upstream, shape, entrant, true);
    sent.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    for name in [
        header::RANGE,
        header::IF_RANGE,
        header::IF_NONE_MATCH,
        header::IF_MODIFIED_SINCE,
    ] {
        sent.remove(name);
    }
    let answer = proxy.send(Method::GET, uri, sent, Body::empty()).await;
    let (head, body) = answer.ok()?.into_parts();
    let most = proxy.config.max_body_bytes;
    let whole = Whole::read(body, most, &proxy.memory).await?;
    let is_told = head.status.is_success() && whole.rest.is_none();
    is_told.then_some(whole.read)
}

/// Whom it counts against.
///
/// # Errors
/// The answer to whoever does not say so, as to a call: passed on it would not be counted.
fn who(proxy: &Proxy, way: &Way, parts: &Parts) -> Result<Who, Box<Response>> {
    let attributing = &proxy.config.attributing;
    let who = attributing.of(&parts.headers, &Asked::default(), &way.entrant.caller);
    who.map_err(|message| {
        let (shape, status) = (way.upstream.shape, StatusCode::BAD_REQUEST);
        let refused = refusal::of_request(shape, status, "cannot_be_metered", &message);
        Box::new(refused)
    })
}
