//! Events as JSON: an [`Event`] written out as a structured CloudEvent, and bare data objects
//! completed to one.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::{DeserializeSeed, MapAccess};
use serde_json::value::RawValue;

use super::decode::{REVENUE_TYPE, SESSION_END_TYPE, USAGE_TYPE};
use super::json::{JsonKind, Members, ObjectInto};
use super::reject::{RejectReason, Rejection};
use super::{Body, Call, Event, Flags};
use crate::dimensions::FixedDimension;
use crate::fingerprint::to_hex;
use crate::money::Nanos;
use crate::time::UnixMillis;
use crate::tokens::TokenClass;

/// `event` as a structured CloudEvent with usage in the format `spendfuse`. Decoding it gives the
/// same event again, but for flags that said what had been sanitized.
pub fn encode(event: &Event<'_>) -> Vec<u8> {
    let envelope = EnvelopeOut {
        specversion: "1.0",
        kind: match event.body {
            Body::Usage(_) => USAGE_TYPE,
            Body::Revenue(_) => REVENUE_TYPE,
            Body::SessionEnd => SESSION_END_TYPE,
        },
        source: &event.source,
        id: &event.id,
        time: event.time,
        data: DataOut::of(event),
    };
    serde_json::to_vec(&envelope).expect("texts and numbers always become JSON")
}

#[derive(Serialize)]
struct EnvelopeOut<'e> {
    specversion: &'static str,
    #[serde(rename = "type")]
    kind: &'e str,
    source: &'e str,
    id: &'e str,
    time: UnixMillis,
    data: DataOut<'e>,
}

#[derive(Serialize)]
struct DataOut<'e> {
    #[serde(flatten)]
    texts: Texts<'e>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tags: BTreeMap<&'e str, &'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revenue_usd: Option<Nanos>,
    #[serde(flatten)]
    call: Option<CallOut<'e>>,
}

impl<'e> DataOut<'e> {
    fn of(event: &'e Event<'_>) -> Self {
        let who = &event.attribution;
        let names = FixedDimension::BY_NUMBER
            .into_iter()
            .map(FixedDimension::name);
        Self {
            texts: given(names.zip(who.texts())),
            tags: who
                .tags
                .iter()
                .map(|(name, value)| (&**name, &**value))
                .collect(),
            revenue_usd: match event.body {
                Body::Revenue(amount) => Some(amount),
                Body::Usage(_) | Body::SessionEnd => None,
            },
            call: match &event.body {
                Body::Usage(call) => Some(CallOut::of(call, event.flags)),
                Body::Revenue(_) | Body::SessionEnd => None,
            },
        }
    }
}

/// Members that are texts, absent ones left out.
type Texts<'e> = BTreeMap<&'static str, &'e str>;

fn given<'e, 'a: 'e>(
    texts: impl IntoIterator<Item = (&'static str, &'e Cow<'a, str>)>,
) -> Texts<'e> {
    let texts = texts.into_iter().filter(|(_, text)| !text.is_empty());
    texts.map(|(name, text)| (name, &**text)).collect()
}

#[derive(Serialize)]
struct CallOut<'e> {
    #[serde(flatten)]
    texts: Texts<'e>,
    usage: BTreeMap<&'static str, u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    units: BTreeMap<&'static str, String>,
    #[serde(skip_serializing_if = "is_zero")]
    tool_calls: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_fingerprint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_fingerprint: Option<String>,
    #[serde(skip_serializing_if = "is_zero")]
    attempt: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_ms: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reported_cost_usd: Option<Nanos>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_limit_usd: Option<Nanos>,
    /// Those that were told; the others are found again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    flags: Vec<&'static str>,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl<'e> CallOut<'e> {
    fn of(call: &'e Call<'_>, flags: Flags) -> Self {
        let texts = [
            ("operation", &call.operation),
            ("service_tier", &call.service_tier),
            ("speed", &call.rare.speed),
            ("inference_geo", &call.rare.inference_geo),
            ("call_id", &call.call_id),
            ("status", &call.status),
            ("request_model", &call.request_model),
            ("response_id", &call.response_id),
            ("trace_id", &call.trace_id),
            ("span_id", &call.span_id),
            ("parent_span_id", &call.parent_span_id),
            ("region", &call.region),
            ("api_key_id", &call.api_key_id),
            ("reservation_id", &call.reservation_id),
        ];
        let tokens = &call.tokens;
        let counts = TokenClass::ALL.map(|class| match class {
            TokenClass::Input => (class.column(), tokens.context()),
            TokenClass::CacheWrite5m => (
                "cache_write_tokens",
                tokens.cache_write_5m + tokens.cache_write_1h,
            ),
            TokenClass::Output => (class.column(), tokens.generated()),
            part => (part.column(), tokens[part]),
        });
        let mut units: BTreeMap<&'static str, String> = call
            .units
            .entries
            .iter()
            .map(|(unit, quantity)| (unit.name(), quantity.to_string()))
            .collect();
        for (name, text) in [("quality", &call.units.quality), ("size", &call.units.size)] {
            if !text.is_empty() {
                units.insert(name, text.clone().into_owned());
            }
        }
        Self {
            texts: given(texts),
            usage: counts.into_iter().filter(|(_, count)| *count > 0).collect(),
            units,
            tool_calls: call.tool_calls,
            prompt_fingerprint: call.prompt_fingerprint.map(to_hex),
            tool_fingerprint: call.tool_fingerprint.map(to_hex),
            attempt: call.attempt,
            latency_ms: call.latency_ms,
            reported_cost_usd: call.reported_cost,
            session_limit_usd: call.rare.session_limit,
            flags: flags.and(Flags::TOLD).names().collect(),
        }
    }
}

/// What a bare data object lacks.
#[derive(Clone, Copy, Debug)]
pub struct EnvelopeDefaults<'d> {
    /// CloudEvents `source` where the object names none.
    pub source: &'d str,
    /// Workspace where the object names none; empty = the object must name it.
    pub workspace: &'d str,
    /// Time where the object names none.
    pub now: UnixMillis,
}

/// `value` as a structured CloudEvent: unchanged where it has a `specversion`, else taken for a bare
/// data object with an `id`, to which the envelope is added.
///
/// `id`, `source`, `time` and `type` of a bare object move to the envelope; everything else stays in
/// `data` as it is written there. The result may still be rejected by [`decode`](super::decode()).
///
/// # Errors
/// `malformed_json` where `value` is no JSON, `not_cloudevent` where it is no object, and
/// `missing_field` where a bare object has no `id`, by which a repetition could be told.
pub fn complete<'v>(
    value: &'v [u8],
    defaults: &EnvelopeDefaults<'_>,
) -> Result<Cow<'v, [u8]>, Rejection> {
    let malformed = |detail: String| Rejection::new(RejectReason::MalformedJson, detail);
    let text = std::str::from_utf8(value)
        .map_err(|_| malformed("the event is not UTF-8; send JSON in UTF-8".to_owned()))?;
    let mut bare = BareObject::default();
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let kind = ObjectInto(&mut bare)
        .deserialize(&mut deserializer)
        .and_then(|kind| deserializer.end().map(|()| kind))
        .map_err(|error| malformed(format!("not JSON: {error}; send one JSON object an event")))?;
    if kind != JsonKind::Object {
        let detail = format!(
            "the event is {}; send a CloudEvent or a data object with an id",
            kind.words()
        );
        return Err(Rejection::new(RejectReason::NotCloudevent, detail));
    }
    if bare.get("specversion").is_some() {
        return Ok(Cow::Borrowed(value));
    }
    let id = bare.get("id").ok_or_else(|| {
        let detail =
            "id is missing; add what names this one response, best the provider's response id";
        Rejection::new(RejectReason::MissingField, detail)
    })?;
    let quote =
        |text: &str| serde_json::value::to_raw_value(text).expect("a text always becomes JSON");
    let (usage_type, source) = (quote(USAGE_TYPE), quote(defaults.source));
    let (time, workspace) = (quote(&defaults.now.to_string()), quote(defaults.workspace));
    let mut data = bare.data();
    if bare.get("workspace").is_none() && !defaults.workspace.is_empty() {
        data.insert("workspace", &workspace);
    }
    let envelope = CompletedOut {
        specversion: "1.0",
        kind: bare.get("type").unwrap_or(&usage_type),
        source: bare.get("source").unwrap_or(&source),
        id,
        time: bare.get("time").unwrap_or(&time),
        data,
    };
    Ok(Cow::Owned(
        serde_json::to_vec(&envelope).expect("raw JSON always becomes JSON"),
    ))
}

#[derive(Serialize)]
struct CompletedOut<'v> {
    specversion: &'static str,
    #[serde(rename = "type")]
    kind: &'v RawValue,
    source: &'v RawValue,
    id: &'v RawValue,
    time: &'v RawValue,
    data: BTreeMap<&'v str, &'v RawValue>,
}

/// Members with their values as they are written, so that no number changes on the way.
#[derive(Default)]
struct BareObject<'v>(BTreeMap<Cow<'v, str>, &'v RawValue>);

impl<'de> Members<'de> for BareObject<'de> {
    fn member<A: MapAccess<'de>>(
        &mut self,
        key: Cow<'de, str>,
        object: &mut A,
    ) -> Result<(), A::Error> {
        let value = object.next_value()?;
        self.0.insert(key, value);
        Ok(())
    }
}

impl<'v> BareObject<'v> {
    /// The member `name`, unless it is null or the empty text.
    fn get(&self, name: &str) -> Option<&'v RawValue> {
        let value = self.0.get(name).copied()?;
        (!["null", "\"\""].contains(&value.get())).then_some(value)
    }

    fn data(&self) -> BTreeMap<&str, &'v RawValue> {
        self.0
            .iter()
            .map(|(name, value)| (&**name, *value))
            .filter(|(name, _)| !["id", "source", "time", "type"].contains(name))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_795_000_000_000);
    const DEFAULTS: EnvelopeDefaults<'_> = EnvelopeDefaults {
        source: "sidecar",
        workspace: "acme",
        now: NOW,
    };

    fn completed(json: &str) -> Result<String, RejectReason> {
        let bytes = complete(json.as_bytes(), &DEFAULTS).map_err(|rejection| rejection.reason)?;
        Ok(String::from_utf8(bytes.into_owned()).unwrap())
    }

    #[test]
    fn a_bare_data_object_gets_its_envelope_and_keeps_its_numbers() {
        let json = completed(
            r#"{"id":"r-1","workspace":"","model":"m","usage":{"input_tokens":5},"units":{"audio_seconds":0.30000000000000004}}"#,
        )
        .unwrap();
        assert!(json.contains("0.30000000000000004"), "{json}");
        let event = crate::event::decode(json.as_bytes(), &[], NOW).unwrap();
        assert_eq!(
            (&*event.source, &*event.id, event.time),
            ("sidecar", "r-1", NOW)
        );
        assert_eq!(event.attribution.workspace, "acme");

        let json = completed(
            r#"{"id":"i","type":"spendfuse.revenue","source":"billing","time":"2026-11-01T00:00:00Z","workspace":"w","customer":"c","revenue_usd":"1"}"#,
        )
        .unwrap();
        let event = crate::event::decode(json.as_bytes(), &[], NOW).unwrap();
        assert_eq!(event.body, Body::Revenue(Nanos::from_dollars(1)));
        assert_eq!(
            (&*event.source, &*event.attribution.workspace),
            ("billing", "w")
        );
        assert_eq!(event.time.to_string(), "2026-11-01T00:00:00Z");
    }

    #[test]
    fn events_stay_as_they_are_and_what_has_no_id_is_refused() {
        let event = r#"{ "specversion":"1.0", "anything": 1 }"#;
        assert_eq!(completed(event).as_deref(), Ok(event));
        for (json, reason) in [
            (r#"{"model":"m"}"#, RejectReason::MissingField),
            (r#"{"id":"","model":"m"}"#, RejectReason::MissingField),
            ("[]", RejectReason::NotCloudevent),
            ("{", RejectReason::MalformedJson),
        ] {
            assert_eq!(completed(json), Err(reason), "{json}");
        }
    }
}
