//! Answers that the proxy gives itself, in the form of the provider whose client asked: its SDK makes
//! the exception of it that it makes of the provider's own.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::{Value, json};
use spendfuse_sidecar::RefusedCall;

use crate::upstream::Shape;

const SHOULD_RETRY: &str = "x-should-retry";

/// A call that a budget refuses.
pub(crate) fn of_call(shape: Shape, refused: &RefusedCall) -> Response {
    let RefusedCall {
        status,
        code,
        message,
        budget,
        retry_after_seconds,
    } = refused;
    // botocore asks again after a 429, whatever the headers say.
    let status = match shape {
        Shape::Bedrock => &StatusCode::FORBIDDEN,
        _ => status,
    };
    let kind = match (shape, *status) {
        (Shape::Anthropic, StatusCode::PAYMENT_REQUIRED) => "billing_error",
        (Shape::Anthropic, StatusCode::FORBIDDEN) => "permission_error",
        (Shape::Anthropic, _) => "rate_limit_error",
        _ => "insufficient_quota",
    };
    let mut response = response(shape, *status, kind, code, message);
    let headers = response.headers_mut();
    headers.insert("x-spendfuse-decision", HeaderValue::from_static("block"));
    put(headers, "x-spendfuse-budget", budget.as_deref());
    if let Some(seconds) = retry_after_seconds {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(*seconds));
    }
    response
}

/// A request that cannot be forwarded, or an upstream that did not answer.
pub(crate) fn of_request(shape: Shape, status: StatusCode, code: &str, message: &str) -> Response {
    let kind = match status.is_client_error() {
        true => "invalid_request_error",
        false => "api_error",
    };
    response(shape, status, kind, code, message)
}

/// The same where the next moment may be a better one, and asking again costs nothing: SDKs do so.
pub(crate) fn of_moment(shape: Shape, status: StatusCode, code: &str, message: &str) -> Response {
    let mut response = of_request(shape, status, code, message);
    let headers = response.headers_mut();
    headers.remove(SHOULD_RETRY);
    headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn response(shape: Shape, status: StatusCode, kind: &str, code: &str, message: &str) -> Response {
    let body = body(shape, status, kind, code, message);
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let content_type = HeaderValue::from_static("application/json");
    headers.insert(header::CONTENT_TYPE, content_type);
    if shape == Shape::Bedrock {
        let name = HeaderValue::from_static(amazons_name(status));
        headers.insert("x-amzn-errortype", name);
    }
    // What is refused here costs nothing to ask again, but clients sleep for hours before they do.
    headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn body(shape: Shape, status: StatusCode, kind: &str, code: &str, message: &str) -> Value {
    match shape {
        Shape::OpenAi | Shape::Azure => json!({
            "error": {"message": message, "type": kind, "param": null, "code": code},
        }),
        Shape::Bedrock => json!({"message": message}),
        Shape::Anthropic => json!({
            "type": "error",
            "error": {"type": kind, "message": message},
        }),
        Shape::Gemini => json!({
            "error": {
                "code": status.as_u16(),
                "message": message,
                "status": google_status(status),
                "details": [{
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "reason": code.to_ascii_uppercase(),
                    "domain": "spendfuse",
                }],
            },
        }),
    }
}

/// As Bedrock's errors are called.
fn amazons_name(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "AccessDeniedException",
        StatusCode::NOT_FOUND => "ResourceNotFoundException",
        StatusCode::TOO_MANY_REQUESTS => "ThrottlingException",
        status if status.is_client_error() => "ValidationException",
        _ => "ServiceUnavailableException",
    }
}

/// As google.rpc.Code names it.
fn google_status(status: StatusCode) -> &'static str {
    match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::PAYMENT_REQUIRED => "RESOURCE_EXHAUSTED",
        StatusCode::FORBIDDEN => "PERMISSION_DENIED",
        StatusCode::NOT_FOUND => "NOT_FOUND",
        status if status.is_client_error() => "INVALID_ARGUMENT",
        _ => "UNAVAILABLE",
    }
}

/// Sets a header where there is a value that headers can have.
pub(crate) fn put(headers: &mut HeaderMap, name: &'static str, value: Option<&str>) {
    if let Some(Ok(value)) = value.map(HeaderValue::from_str) {
        headers.insert(name, value);
    }
}
