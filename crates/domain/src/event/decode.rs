//! From the bytes of a Kafka record to an [`Event`]: structured or binary CloudEvents.
//!
//! Rejected is only what has no identity, workspace, model or usage that could be counted; the rest
//! is sanitized (see [`super::sanitize`]) and flagged.

use std::borrow::Cow;
use std::mem::take;

use serde::de::DeserializeSeed;

use super::content::content_hash;
use super::envelope::{Data, Envelope};
use super::json::{Field, JsonKind, Members, ObjectInto, TextField};
use super::reject::{RejectReason, Rejection, quoted};
use super::sanitize::{MAX_CALL_MONEY, Sanitizer};
use super::scan::scan_into;
use super::usage_format::{self, UsageFormat};
use super::{Body, Call, Event, Flags, MAX_CLOCK_AHEAD_MILLIS, MAX_EVENT_BYTES, Particulars};
use crate::dimensions::FixedDimension;
use crate::identity::Identity;
use crate::time::UnixMillis;
use crate::units::{Quantity, UnitKind};

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

fn not_cloudevent(detail: impl Into<String>) -> Rejection {
    Rejection::new(RejectReason::NotCloudevent, detail)
}

/// The required text `field` at `path`.
fn required<'a>(
    sanitizer: &mut Sanitizer,
    field: &mut TextField<'a>,
    path: &str,
) -> Result<Cow<'a, str>, Rejection> {
    let what = match take(field) {
        Field::Value(text) if !text.is_empty() => return Ok(sanitizer.shorten(text)),
        Field::Value(_) => "empty",
        Field::Absent => "missing",
        Field::Wrong(kind) => kind.words(),
    };
    let detail = format!("{path} is {what}; it is required, as a text that is not empty");
    Err(Rejection::new(RejectReason::MissingField, detail))
}

#[inline]
fn judge<'a>(
    envelope: &mut Envelope<'a>,
    reader: Reader,
    arrival: UnixMillis,
) -> Result<Event<'a>, Rejection> {
    match &envelope.specversion {
        Field::Value(version) if version == "1.0" => {}
        Field::Value(version) => {
            return Err(not_cloudevent(format!(
                "specversion is {}; only \"1.0\" is supported",
                quoted(version)
            )));
        }
        Field::Absent => {
            return Err(not_cloudevent(
                "specversion is missing; wrap the data in a CloudEvents 1.0 envelope \
                 (specversion, type, source, id, time, data)",
            ));
        }
        Field::Wrong(kind) => {
            return Err(not_cloudevent(format!(
                "specversion is {}; write \"1.0\"",
                kind.words()
            )));
        }
    }
    let mut sanitizer = Sanitizer::default();
    let event_type = required(&mut sanitizer, &mut envelope.kind, "type")?;
    if ![USAGE_TYPE, REVENUE_TYPE, SESSION_END_TYPE].contains(&&*event_type) {
        let detail = format!(
            "type is {}; supported are {USAGE_TYPE}, {REVENUE_TYPE} and {SESSION_END_TYPE}",
            quoted(&event_type)
        );
        return Err(Rejection::new(RejectReason::UnsupportedType, detail));
    }
    let id = required(&mut sanitizer, &mut envelope.id, "id")?;
    let source = required(&mut sanitizer, &mut envelope.source, "source")?;
    let time = event_time(&mut sanitizer, &envelope.time, arrival)?;
    if envelope.data_kind != JsonKind::Object {
        let what = if envelope.has_base64 {
            "given as data_base64"
        } else {
            envelope.data_kind.words()
        };
        let detail = format!("data is {what}; it is required, as a JSON object");
        return Err(Rejection::new(RejectReason::MissingField, detail));
    }
    let data = &mut envelope.data;
    if data.has_prompt {
        sanitizer.flags.insert(Flags::PROMPT_REMOVED);
    }
    let workspace = required(
        &mut sanitizer,
        data.dimension(FixedDimension::Workspace),
        "data.workspace",
    )?;
    let identity = Identity::of(&workspace, &source, &id, final_phase(&data.phase)?);
    let (model, body) = match &*event_type {
        USAGE_TYPE => {
            let model = required(
                &mut sanitizer,
                data.dimension(FixedDimension::Model),
                "data.model",
            )?;
            let call = call(&mut sanitizer, reader, data, &model)?;
            (model, Body::Usage(call))
        }
        REVENUE_TYPE => {
            let amount = sanitizer.revenue(take(&mut data.revenue_usd))?;
            (
                sanitizer.text(take(data.dimension(FixedDimension::Model))),
                Body::Revenue(amount),
            )
        }
        _ => (
            sanitizer.text(take(data.dimension(FixedDimension::Model))),
            Body::SessionEnd,
        ),
    };
    let attribution = sanitizer.attribution(workspace, model, data);
    let needed = match &body {
        Body::Usage(_) => None,
        Body::Revenue(_) => Some(("customer", &attribution.customer)),
        Body::SessionEnd => Some(("session", &attribution.session)),
    };
    if let Some((name, "")) = needed.map(|(name, value)| (name, &**value)) {
        let detail = format!("data.{name} is missing; events of type {event_type} require it");
        return Err(Rejection::new(RejectReason::MissingField, detail));
    }
    let content = content_hash(&attribution, &body);
    Ok(Event {
        identity,
        content,
        source,
        id,
        time,
        flags: sanitizer.flags,
        attribution,
        body,
    })
}

/// The event's own time, or its arrival where that cannot be.
fn event_time(
    sanitizer: &mut Sanitizer,
    field: &TextField<'_>,
    arrival: UnixMillis,
) -> Result<UnixMillis, Rejection> {
    let parsed = match field {
        Field::Value(text) if !text.is_empty() => UnixMillis::parse_rfc3339(text).ok(),
        Field::Wrong(_) => None,
        Field::Absent | Field::Value(_) => {
            return Err(Rejection::new(
                RejectReason::MissingField,
                "time is missing; add when the call happened, such as \"2026-11-22T10:15:30.123Z\"",
            ));
        }
    };
    match parsed {
        Some(time) if time.since(arrival) <= MAX_CLOCK_AHEAD_MILLIS => Ok(time),
        Some(_) => {
            sanitizer.flags.insert(Flags::TIME_CLAMPED);
            Ok(arrival)
        }
        None => {
            sanitizer.flags.insert(Flags::TIME_CLAMPED);
            sanitizer.flags.insert(Flags::FIELD_DROPPED);
            Ok(arrival)
        }
    }
}

/// `final`, the only phase that there is so far; never guessed.
fn final_phase(field: &TextField<'_>) -> Result<&'static str, Rejection> {
    let what = match field {
        Field::Absent => return Ok("final"),
        Field::Value(phase) if phase.is_empty() || phase == "final" => return Ok("final"),
        Field::Value(phase) => quoted(phase),
        Field::Wrong(kind) => kind.words().to_owned(),
    };
    let detail = format!(
        "data.phase is {what}; only \"final\" is supported: report each response once, when it is complete"
    );
    Err(Rejection::new(RejectReason::UnsupportedPhase, detail))
}

/// The tier that was served, as the usage object says, before the one that was asked for. Only a
/// batch is what it was sent as: providers call its answers `default` or `standard`.
fn served_tier<'a>(served: Cow<'a, str>, asked: Cow<'a, str>) -> Cow<'a, str> {
    if served.is_empty() {
        return asked;
    }
    let is_usual = ["default", "standard", "on_demand"]
        .into_iter()
        .any(|usual| served.eq_ignore_ascii_case(usual));
    let was_batch = asked.eq_ignore_ascii_case("batch") || asked.eq_ignore_ascii_case("batches");
    if is_usual && (was_batch || asked.is_empty()) {
        asked
    } else {
        served
    }
}

/// What the usage object says was served, before what the event says, which is what was asked for.
fn served_or_asked<'a>(served: Cow<'a, str>, asked: Cow<'a, str>) -> Cow<'a, str> {
    if served.is_empty() { asked } else { served }
}

#[inline]
fn call<'a>(
    sanitizer: &mut Sanitizer,
    reader: Reader,
    data: &mut Data<'a>,
    model: &str,
) -> Result<Call<'a>, Rejection> {
    let mut units = sanitizer.units(take(&mut data.units), data.units_kind)?;
    let format = match &data.usage_format {
        Field::Absent => UsageFormat::Spendfuse,
        Field::Value(name) if name.is_empty() => UsageFormat::Spendfuse,
        Field::Value(name) => UsageFormat::from_name(name)
            .ok_or_else(|| usage_format::unknown_format(&quoted(name)))?,
        Field::Wrong(kind) => return Err(usage_format::unknown_format(kind.words())),
    };
    let raw = data.usage.map_or("null", |raw| raw.get());
    let reading = usage_format::read_with(reader, format, raw, model, !units.is_empty())?;
    for (kind, quantity) in [
        (
            UnitKind::WebSearchCalls,
            Quantity::whole(reading.web_searches),
        ),
        (UnitKind::RerankUnits, Quantity::whole(reading.rerank_units)),
        (UnitKind::AudioSeconds, reading.audio_seconds),
    ] {
        units.raise(kind, quantity);
    }
    if units.quality.is_empty() && !reading.search_size.is_empty() {
        units.quality = sanitizer.shorten(reading.search_size);
    }
    for (kind, count) in &reading.units {
        units.raise(*kind, Quantity::whole(*count));
    }
    let says_nothing =
        reading.tokens.total() == 0 && units.is_empty() && reading.sub_calls.is_empty();
    for (applies, flag) in [
        (reading.disputed, Flags::DISPUTED),
        (reading.unread.is_some(), Flags::PARTLY_READ),
        (says_nothing || reading.incomplete, Flags::NO_USAGE),
        (format == UsageFormat::Estimated, Flags::USAGE_ESTIMATED),
    ] {
        if applies {
            sanitizer.flags.insert(flag);
        }
    }
    sanitizer.told_flags(data.flags);
    let asked_tier = sanitizer.text(take(&mut data.service_tier));
    let asked_speed = sanitizer.text(take(&mut data.speed));
    let asked_geo = sanitizer.text(take(&mut data.inference_geo));
    let reported_cost = sanitizer.reported_cost(take(&mut data.reported_cost_usd))?;
    let mut sub_calls = reading.sub_calls;
    for part in &mut sub_calls {
        part.model = sanitizer.shorten(take(&mut part.model));
    }
    Ok(Call {
        operation: sanitizer.text(take(&mut data.operation)),
        service_tier: served_tier(sanitizer.shorten(reading.service_tier), asked_tier),
        tokens: reading.tokens,
        rare: Particulars {
            sub_calls,
            speed: served_or_asked(sanitizer.shorten(reading.speed), asked_speed),
            inference_geo: served_or_asked(sanitizer.shorten(reading.inference_geo), asked_geo),
            unread: reading.unread,
            session_limit: sanitizer.session_limit(take(&mut data.session_limit_usd)),
        }
        .into(),
        units,
        tool_calls: sanitizer.count(data.tool_calls).unwrap_or(0),
        prompt_fingerprint: sanitizer.fingerprint(take(&mut data.prompt_fingerprint)),
        tool_fingerprint: sanitizer.fingerprint(take(&mut data.tool_fingerprint)),
        call_id: sanitizer.text(take(&mut data.call_id)),
        attempt: sanitizer.count(data.attempt).unwrap_or(0),
        status: sanitizer.text(take(&mut data.status)),
        latency_ms: sanitizer.count(data.latency_ms),
        reported_cost: reported_cost.or(reading.charge.filter(|charge| *charge < MAX_CALL_MONEY)),
        request_model: sanitizer.text(take(&mut data.request_model)),
        response_id: sanitizer.text(take(&mut data.response_id)),
        trace_id: sanitizer.text(take(&mut data.trace_id)),
        span_id: sanitizer.text(take(&mut data.span_id)),
        parent_span_id: sanitizer.text(take(&mut data.parent_span_id)),
        region: sanitizer.text(take(&mut data.region)),
        api_key_id: sanitizer.text(take(&mut data.api_key_id)),
        reservation_id: sanitizer.text(take(&mut data.reservation_id)),
    })
}
