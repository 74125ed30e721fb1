//! What an envelope must say to be an [`Event`], and what it is rejected for.

use std::borrow::Cow;
use std::mem::take;

use super::call::call;
use super::content::content_hash;
use super::decode::{REVENUE_TYPE, Reader, SESSION_END_TYPE, USAGE_TYPE, not_cloudevent};
use super::envelope::Envelope;
use super::json::{Field, JsonKind, TextField};
use super::reject::{RejectReason, Rejection, quoted};
use super::sanitize::Sanitizer;
use super::{Body, Event, Flags, MAX_CLOCK_AHEAD_MILLIS};
use crate::dimensions::FixedDimension;
use crate::identity::Identity;
use crate::time::UnixMillis;

#[inline]
pub(super) fn judge<'a>(
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
