//! Takes the body of `POST /v1/usage` apart into events: one object, an array, or NDJSON.

use serde_json::value::RawValue;
use spendfuse_domain::event::{RejectReason, Rejection};

/// One event of a body, or why that part of the body is none.
pub(crate) type Part<'b> = Result<&'b [u8], Rejection>;

/// The parts of `body`. With a content type of NDJSON each line is an event; else the body is one
/// JSON value, an array meaning several events, and what is not may still be lines.
pub(crate) fn parts<'b>(body: &'b [u8], content_type: &str) -> Vec<Part<'b>> {
    let by_lines = ["ndjson", "jsonl", "json-seq"]
        .iter()
        .any(|name| content_type.contains(name));
    if by_lines {
        return lines(body).map(Ok).collect();
    }
    if body.trim_ascii_start().starts_with(b"[") {
        return match serde_json::from_slice::<Vec<&RawValue>>(body) {
            Ok(events) => events
                .into_iter()
                .map(|event| Ok(event.get().as_bytes()))
                .collect(),
            Err(error) => vec![Err(malformed(&error))],
        };
    }
    match serde_json::from_slice::<&RawValue>(body) {
        Ok(event) => vec![Ok(event.get().as_bytes())],
        Err(_) if lines(body).count() > 1 => lines(body).map(Ok).collect(),
        Err(error) => vec![Err(malformed(&error))],
    }
}

fn lines(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    // Each of a JSON text sequence begins with this, and may be of several lines (RFC 7464).
    const RECORD_SEPARATOR: u8 = 0x1e;
    let separator = match body.contains(&RECORD_SEPARATOR) {
        true => RECORD_SEPARATOR,
        false => b'\n',
    };
    body.split(move |byte| *byte == separator)
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty())
}

fn malformed(error: &serde_json::Error) -> Rejection {
    let detail = format!("the body is not JSON: {error}; send an event, an array, or NDJSON");
    Rejection::new(RejectReason::MalformedJson, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_arrays_and_lines_come_apart() {
        for (body, content_type, count) in [
            ("{\n \"a\": 1\n}", "application/json", 1),
            (
                "[{\"a\":1}, {\"b\":2}]",
                "application/cloudevents-batch+json",
                2,
            ),
            (
                "{\"a\":1}\n\n{\"b\":2}\r\nbroken\n",
                "application/x-ndjson",
                3,
            ),
            ("{\"a\":1}\n{\"b\":2}\n{", "", 3),
            (
                "\u{1e}{\"a\":1}\n\u{1e}{\"b\":\n2}\n",
                "application/json-seq",
                2,
            ),
            ("[]", "", 0),
        ] {
            let parts = parts(body.as_bytes(), content_type);
            assert_eq!(parts.len(), count, "{body}");
            let is_object = |part: &Part<'_>| part.as_ref().is_ok_and(|part| part[0] != 0x1e);
            assert!(parts.iter().all(is_object), "{body}");
        }
        for broken in ["", "[{\"a\":1}, {", "{\"a\":"] {
            let parts = parts(broken.as_bytes(), "application/json");
            assert!(matches!(parts.as_slice(), [Err(_)]), "{broken}");
        }
    }
}
