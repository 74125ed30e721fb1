//! CloudEvents' binary mode over HTTP: the envelope in `ce-…` headers, the body is the data.

use axum::http::{HeaderMap, header};
use percent_encoding::percent_decode;
use serde_json::value::RawValue;
use spendfuse_domain::event::{RejectReason, Rejection};

const ATTRIBUTES: [&str; 5] = ["specversion", "id", "source", "type", "time"];

/// The event in structured mode; `None` where the headers say no binary mode.
pub(super) fn structured(headers: &HeaderMap, body: &[u8]) -> Option<Result<Vec<u8>, Rejection>> {
    let content_type = headers.get(header::CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok());
    let is_structured =
        content_type.is_some_and(|kind| kind.starts_with("application/cloudevents"));
    let given: Vec<_> = ATTRIBUTES
        .iter()
        .filter_map(|name| Some((*name, headers.get(format!("ce-{name}"))?.as_bytes())))
        .collect();
    (!is_structured && !given.is_empty()).then(|| put_together(&given, body))
}

fn put_together(attributes: &[(&str, &[u8])], body: &[u8]) -> Result<Vec<u8>, Rejection> {
    let data: &RawValue = serde_json::from_slice(body).map_err(|error| {
        let detail = format!("the data is not JSON: {error}; with ce- headers the body is `data`");
        Rejection::new(RejectReason::MalformedJson, detail)
    })?;
    let mut event = String::from("{");
    for (name, value) in attributes {
        // As the HTTP binding of CloudEvents (1.0.2, 3.1.3.2) writes what is not plain ASCII.
        let value = serde_json::Value::from(percent_decode(value).decode_utf8_lossy());
        event.push_str(&format!("\"{name}\":{value},"));
    }
    event.push_str("\"data\":");
    event.push_str(data.get());
    event.push('}');
    Ok(event.into_bytes())
}
