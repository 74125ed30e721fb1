//! `Authorization: Bearer …` on TCP.

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;

use super::ApiError;
use crate::config::Token;

pub(super) async fn demand_token(
    State(token): State<Token>,
    request: Request,
    next: Next,
) -> Response {
    let given = request.headers().get(header::AUTHORIZATION);
    let given = given.and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    if given.is_some_and(|given| token.is(given)) {
        return next.run(request).await;
    }
    let message = "send `Authorization: Bearer` and the sidecar's token";
    let mut response = ApiError::new("unauthorized", message).response(StatusCode::UNAUTHORIZED);
    let scheme = header::HeaderValue::from_static("Bearer");
    response
        .headers_mut()
        .insert(header::WWW_AUTHENTICATE, scheme);
    response
}
