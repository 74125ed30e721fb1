//! From the bytes of a Kafka record to an [`Event`]: structured or binary CloudEvents.
//!
//! Rejected is only what has no identity, workspace, model or usage that could be counted; the rest
//! is sanitized (see [`super::sanitize`]) and flagged.

use std::borrow::Cow;

use serde::de::DeserializeSeed;

use super::envelope::Envelope;
use super::json::{Field, JsonKind, Members, ObjectInto};
use super::judge::judge;
use super::reject::{RejectReason, Rejection};
use super::scan::scan_into;
use super::{Event, MAX_EVENT_BYTES};
use crate::time::UnixMillis;

/// Type of a model call.
pub const USAGE_TYPE: &str = "spendfuse.usage";
/// Type of what a customer paid.
pub const REVENUE_TYPE: &str = "spendfuse.revenue";
/// Type of the end of a session.
pub const SESSION_END_TYPE: &str = "spendfuse.session_end";

/// Decodes the record `value` with `headers`, which the broker accepted at `arrival`.
///
/// Binary mode is recognised by the header `ce_specversion`, unless `content-type` begins with
/// `application/cloudevents` (structured). A `time` that is there but cannot be read, or lies more
/// than five minutes after `arrival`, is counted at `arrival`; an absent one is a missing field.
///
/// # Errors
/// A [`Rejection`] of any reason but `late` and `internal_error`.
pub fn decode<'a>(
    value: &'a [u8],
    headers: &[(&'a str, &'a [u8])],
    arrival: UnixMillis,
) -> Result<Event<'a>, Rejection> {
    decode_with(Reader::Quick, value, headers, arrival)
}

/// As [`decode`], but every byte of JSON is read by `serde_json`: what the quick reading is held
/// against.
///
/// # Errors
/// As [`decode`].
pub fn decode_thoroughly<'a>(
    value: &'a [u8],
    headers: &[(&'a str, &'a [u8])],
    arrival: UnixMillis,
) -> Result<Event<'a>, Rejection> {
    decode_with(Reader::Thorough, value, headers, arrival)
}

/// Who reads JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    /// [`super::scan`], and `serde_json` where that does not know what to do.
    Quick,
    /// `serde_json`.
    Thorough,
}

#[inline]
fn decode_with<'a>(
    reader: Reader,
    value: &'a [u8],
    headers: &[(&'a str, &'a [u8])],
    arrival: UnixMillis,
) -> Result<Event<'a>, Rejection> {
    if value.len() > MAX_EVENT_BYTES {
        let detail = format!(
            "the event has {} bytes, at most {MAX_EVENT_BYTES} are allowed; send counts and names, no content",
            value.len()
        );
        return Err(Rejection::new(RejectReason::TooLarge, detail));
    }
    let text = std::str::from_utf8(value).map_err(|error| {
        let detail = format!(
            "the value is not UTF-8 from byte {} on; send JSON in UTF-8",
            error.valid_up_to()
        );
        Rejection::new(RejectReason::MalformedJson, detail)
    })?;
    // Filled in place: it is more than a kilobyte, and this runs for every event.
    let mut envelope = Envelope::default();
    match content_mode(headers)? {
        Mode::Structured => structured(text, reader, &mut envelope)?,
        Mode::Binary => binary(text, headers, reader, &mut envelope)?,
    }
    judge(&mut envelope, reader, arrival)
}

/// Where the envelope is.
pub(super) enum Mode {
    Structured,
    Binary,
}

pub(super) fn content_mode(headers: &[(&str, &[u8])]) -> Result<Mode, Rejection> {
    let mut mode = Mode::Structured;
    for (name, value) in headers {
        if name.eq_ignore_ascii_case("content-type") {
            let cloudevents = b"application/cloudevents";
            let prefix = value.get(..cloudevents.len()).unwrap_or_default();
            if prefix.eq_ignore_ascii_case(cloudevents) {
                let rest = &value[cloudevents.len()..];
                if rest.starts_with(b"-batch") {
                    return Err(not_cloudevent(
                        "a batch of events in one record; send one event a record",
                    ));
                }
                return Ok(Mode::Structured);
            }
        } else if *name == "ce_specversion" {
            mode = Mode::Binary;
        }
    }
    Ok(mode)
}

fn structured<'a>(
    text: &'a str,
    reader: Reader,
    envelope: &mut Envelope<'a>,
) -> Result<(), Rejection> {
    let kind = read_json(text, reader, envelope)?;
    if kind != JsonKind::Object {
        let detail = format!(
            "the value is {}; send one JSON object with the CloudEvents attributes and data",
            kind.words()
        );
        return Err(not_cloudevent(detail));
    }
    Ok(())
}

fn binary<'a>(
    text: &'a str,
    headers: &[(&'a str, &'a [u8])],
    reader: Reader,
    envelope: &mut Envelope<'a>,
) -> Result<(), Rejection> {
    for (name, value) in headers {
        let field = match *name {
            "ce_specversion" => &mut envelope.specversion,
            "ce_type" => &mut envelope.kind,
            "ce_source" => &mut envelope.source,
            "ce_id" => &mut envelope.id,
            "ce_time" => &mut envelope.time,
            _ => continue,
        };
        let text = std::str::from_utf8(value).map_err(|_| {
            not_cloudevent(format!("header {name} is not UTF-8; send it as UTF-8 text"))
        })?;
        *field = Field::Value(Cow::Borrowed(text));
    }
    envelope.data_kind = read_json(text, reader, &mut envelope.data)?;
    Ok(())
}

/// Reads `text`, which must be one JSON value and nothing else, into the empty `target`.
fn read_json<'a, T: Members<'a> + Default>(
    text: &'a str,
    reader: Reader,
    target: &mut T,
) -> Result<JsonKind, Rejection> {
    if reader == Reader::Quick {
        if let Ok(kind) = scan_into(text, target) {
            return Ok(kind);
        }
        *target = T::default();
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    ObjectInto(target)
        .deserialize(&mut deserializer)
        .and_then(|kind| deserializer.end().map(|()| kind))
        .map_err(|error| {
            // Syntax errors of serde_json name positions and what was expected, never content.
            let detail = if text.trim_ascii().is_empty() {
                "the value is empty; send one JSON object".to_owned()
            } else if error.is_syntax() || error.is_eof() {
                format!("not JSON: {error}; send one JSON object")
            } else {
                let (line, column) = (error.line(), error.column());
                format!("unreadable JSON at line {line} column {column}; send one JSON object")
            };
            Rejection::new(RejectReason::MalformedJson, detail)
        })
}

pub(super) fn not_cloudevent(detail: impl Into<String>) -> Rejection {
    Rejection::new(RejectReason::NotCloudevent, detail)
}
