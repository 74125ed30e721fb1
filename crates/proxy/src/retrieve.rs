//! Responses that are asked for after they were made: in the background they say what they used only
//! then.

use std::sync::Arc;

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;

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

/// Passes a response on, and tells its cost where it was made in the background. Asked for again it is
/// the same event, which is counted once.
pub(crate) async fn retrieve(proxy: &Arc<Proxy>, way: Way, call: Call, parts: Parts) -> Response {
    let who = &proxy.config.attributing;
    let who = who.of(&parts.headers, &Asked::default(), &way.entrant.caller);
    let who = match who {
        Ok(who) => who,
        // As a call is: passed on it would not be counted.
        Err(message) => {
            let (shape, status) = (way.upstream.shape, StatusCode::BAD_REQUEST);
            return refusal::of_request(shape, status, "cannot_be_metered", &message);
        }
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
