//! The sidecar's token on TCP: `x-spendfuse-token: …`, or `Authorization: Bearer …`.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use metrics::counter;

use super::ApiError;
use crate::config::Token;
use crate::metrics::FAILED_LOGINS;

/// Failed logins are logged this often at most, with how many there were.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// The token's own header. Gateways pass `Authorization` on as their caller sent it: there it is
/// the provider's key, which is none of the sidecar's business.
pub(super) const TOKEN_HEADER: &str = "x-spendfuse-token";

pub(super) async fn demand_token(
    State(token): State<Token>,
    request: Request,
    next: Next,
) -> Response {
    if presents(&token, request.headers()) {
        return next.run(request).await;
    }
    let presented = [TOKEN_HEADER, header::AUTHORIZATION.as_str()];
    let presented = presented.map(|name| request.headers().contains_key(name));
    let reason = if presented.contains(&true) {
        "wrong"
    } else {
        "missing"
    };
    counter!(FAILED_LOGINS, "reason" => reason).increment(1);
    log_failure(reason);
    let message =
        format!("send the sidecar's token in `{TOKEN_HEADER}` or as `Authorization: Bearer`");
    let mut response = ApiError::new("unauthorized", message).response(StatusCode::UNAUTHORIZED);
    let scheme = HeaderValue::from_static("Bearer");
    response
        .headers_mut()
        .insert(header::WWW_AUTHENTICATE, scheme);
    super::authz::forbid_retry(response.headers_mut());
    response
}

/// Whether one of the two headers holds the token. A foreign `Authorization` beside the token's own
/// header is not looked at.
fn presents(token: &Token, headers: &HeaderMap) -> bool {
    let own = headers.get(TOKEN_HEADER);
    if own.is_some_and(|value| token.is(value.as_bytes())) {
        return true;
    }
    let bearer = headers.get(header::AUTHORIZATION);
    let bearer = bearer.and_then(|value| bearer_of(value.as_bytes()));
    bearer.is_some_and(|given| token.is(given))
}

/// What follows the scheme, whose letter case is free (RFC 9110, 11.1).
fn bearer_of(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked("bearer".len())?;
    let given = rest.trim_ascii_start();
    (scheme.eq_ignore_ascii_case(b"bearer") && given.len() < rest.len()).then_some(given)
}

/// Never what was presented: it may be the right token of something else.
fn log_failure(reason: &'static str) {
    static SINCE_LAST: Mutex<(u64, Option<Instant>)> = Mutex::new((0, None));
    let mut since_last = SINCE_LAST.lock().unwrap_or_else(PoisonError::into_inner);
    let (count, logged_at) = &mut *since_last;
    *count += 1;
    if logged_at.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
        tracing::warn!(count, reason, "requests without the sidecar's token");
        *since_last = (0, Some(Instant::now()));
    }
}
