//! Responses that are asked for after they were made: in the background they say what they used only
//! then.

use std::sync::Arc;

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use spendfuse_domain::UnixMillis;

use crate::answer::Seen;
use crate::attribution::Who;
use crate::exchange::broke_off;
use crate::forward::{Way, taken_from, unreachable};
use crate::headers;
use crate::meter::{self, Meter};
use crate::proxy::Proxy;
use crate::refusal;
use crate::request::Asked;
use crate::route::Call;
use crate::stream::Streamed;
use crate::whole::Whole;

/// Passes a response on, and tells its cost where it was made in the background. Asked for again it is
/// the same event, which is counted once.
pub(crate) async fn retrieve(proxy: &Arc<Proxy>, way: Way, parts: Parts) -> Response {
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
    let connection = taken_from(&parts);
    let sent = headers::upstream_request(&parts.headers, &way.upstream, &way.entrant, true);
    let sent = proxy.send(parts.method, way.uri.clone(), sent, Body::empty());
    let answer = match sent.await {
        Ok(answer) => answer,
        Err(error) => return unreachable(&way.name, way.upstream.shape, &error),
    };
    let (head, body) = answer.into_parts();
    let whole = match head.status.is_success() {
        false => Err(body),
        true => Ok(Whole::read(body, proxy.config.max_body_bytes, &proxy.memory).await),
    };
    let body = match whole {
        Err(body) => Body::new(Streamed::opaque(body, connection)),
        Ok(Some(whole)) => {
            tell(proxy, &way, who, &whole.read);
            Body::new(Streamed::passed_on(whole, connection))
        }
        Ok(None) => return broke_off(&way.name, way.upstream.shape),
    };
    headers::answer(&head, body)
}

fn tell(proxy: &Arc<Proxy>, way: &Way, who: Who, body: &[u8]) {
    let call = Call::Responses;
    let mut seen = Seen::default();
    seen.take(call, body);
    let (Some(made), true) = (seen.created_at, seen.was_background && seen.is_final) else {
        meter::count(&way.name, "unmetered");
        return;
    };
    let mut meter = Meter::begin(proxy, way, call, who, seen.model.clone());
    // Of a server of one's own, too, the same answer has one name.
    meter.call_id = "background".to_owned();
    meter.answered_at = Some(UnixMillis(made.saturating_mul(1000)));
    meter.seen = seen;
    meter.finish();
}
