//! The model call in an event's data: what its usage object counts, and what stands beside it.

use std::borrow::Cow;
use std::mem::take;

use super::decode::Reader;
use super::envelope::Data;
use super::json::Field;
use super::reject::{Rejection, quoted};
use super::sanitize::{MAX_CALL_MONEY, Sanitizer};
use super::usage_format::{self, UsageFormat};
use super::{Call, Flags, Particulars};
use crate::units::{Quantity, UnitKind};

#[inline]
pub(super) fn call<'a>(
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
