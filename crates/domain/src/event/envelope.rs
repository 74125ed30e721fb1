//! The JSON of an event as it stands there: envelope and data, nothing judged yet.

use std::borrow::Cow;

use serde::de::{IgnoredAny, MapAccess};
use serde_json::value::RawValue;

use super::json::{Field, JsonKind, Members, ObjectInto, TextField, ignore};

/// Keys directly under `data` that hold prompt text in the APIs that events are made from.
pub(super) const PROMPT_KEYS: [&str; 6] = [
    "prompt",
    "messages",
    "input",
    "output",
    "completion",
    "content",
];

/// A CloudEvent's context attributes and its data.
#[derive(Debug, Default)]
pub(super) struct Envelope<'a> {
    pub specversion: TextField<'a>,
    pub kind: TextField<'a>,
    pub source: TextField<'a>,
    pub id: TextField<'a>,
    pub time: TextField<'a>,
    pub data: Data<'a>,
    /// What `data` is; only an object is read.
    pub data_kind: JsonKind,
    pub has_base64: bool,
}

impl<'de> Members<'de> for Envelope<'de> {
    fn member<A: MapAccess<'de>>(
        &mut self,
        key: Cow<'de, str>,
        object: &mut A,
    ) -> Result<(), A::Error> {
        match &*key {
            "specversion" => self.specversion = object.next_value()?,
            "type" => self.kind = object.next_value()?,
            "source" => self.source = object.next_value()?,
            "id" => self.id = object.next_value()?,
            "time" => self.time = object.next_value()?,
            "data" => self.data_kind = object.next_value_seed(ObjectInto(&mut self.data))?,
            "data_base64" => {
                self.has_base64 = true;
                ignore(object)?;
            }
            _ => ignore(object)?,
        }
        Ok(())
    }
}

/// The members of `data`, of all types of event.
#[derive(Debug, Default)]
pub(super) struct Data<'a> {
    pub workspace: TextField<'a>,
    pub customer: TextField<'a>,
    pub feature: TextField<'a>,
    pub user: TextField<'a>,
    pub agent: TextField<'a>,
    pub plan: TextField<'a>,
    pub session: TextField<'a>,
    pub root_session: TextField<'a>,
    pub environment: TextField<'a>,
    pub account: TextField<'a>,
    pub tags: Tags<'a>,
    pub tags_kind: JsonKind,
    pub provider: TextField<'a>,
    pub model: TextField<'a>,
    pub request_model: TextField<'a>,
    pub operation: TextField<'a>,
    pub service_tier: TextField<'a>,
    /// Read once the format is known, which may be named after it.
    pub usage: Option<&'a RawValue>,
    pub usage_format: TextField<'a>,
    pub units: RawUnits<'a>,
    pub units_kind: JsonKind,
    pub tool_calls: Field<u64>,
    pub prompt_fingerprint: TextField<'a>,
    pub tool_fingerprint: TextField<'a>,
    pub call_id: TextField<'a>,
    pub attempt: Field<u64>,
    pub phase: TextField<'a>,
    pub status: TextField<'a>,
    pub latency_ms: Field<u64>,
    pub reported_cost_usd: TextField<'a>,
    pub revenue_usd: TextField<'a>,
    pub response_id: TextField<'a>,
    pub trace_id: TextField<'a>,
    pub span_id: TextField<'a>,
    pub parent_span_id: TextField<'a>,
    pub region: TextField<'a>,
    pub api_key_id: TextField<'a>,
    /// Whether one of [`PROMPT_KEYS`] was there with a value.
    pub has_prompt: bool,
}

impl<'de> Members<'de> for Data<'de> {
    fn member<A: MapAccess<'de>>(
        &mut self,
        key: Cow<'de, str>,
        object: &mut A,
    ) -> Result<(), A::Error> {
        match &*key {
            "workspace" => self.workspace = object.next_value()?,
            "customer" => self.customer = object.next_value()?,
            "feature" => self.feature = object.next_value()?,
            "user" => self.user = object.next_value()?,
            "agent" => self.agent = object.next_value()?,
            "plan" => self.plan = object.next_value()?,
            "session" => self.session = object.next_value()?,
            "root_session" => self.root_session = object.next_value()?,
            "environment" => self.environment = object.next_value()?,
            "account" => self.account = object.next_value()?,
            "tags" => self.tags_kind = object.next_value_seed(ObjectInto(&mut self.tags))?,
            "provider" => self.provider = object.next_value()?,
            "model" => self.model = object.next_value()?,
            "request_model" => self.request_model = object.next_value()?,
            "operation" => self.operation = object.next_value()?,
            "service_tier" => self.service_tier = object.next_value()?,
            "usage" => self.usage = Some(object.next_value()?),
            "usage_format" => self.usage_format = object.next_value()?,
            "units" => self.units_kind = object.next_value_seed(ObjectInto(&mut self.units))?,
            "tool_calls" => self.tool_calls = object.next_value()?,
            "prompt_fingerprint" => self.prompt_fingerprint = object.next_value()?,
            "tool_fingerprint" => self.tool_fingerprint = object.next_value()?,
            "call_id" => self.call_id = object.next_value()?,
            "attempt" => self.attempt = object.next_value()?,
            "phase" => self.phase = object.next_value()?,
            "status" => self.status = object.next_value()?,
            "latency_ms" => self.latency_ms = object.next_value()?,
            "reported_cost_usd" => self.reported_cost_usd = object.next_value()?,
            "revenue_usd" => self.revenue_usd = object.next_value()?,
            "response_id" => self.response_id = object.next_value()?,
            "trace_id" => self.trace_id = object.next_value()?,
            "span_id" => self.span_id = object.next_value()?,
            "parent_span_id" => self.parent_span_id = object.next_value()?,
            "region" => self.region = object.next_value()?,
            "api_key_id" => self.api_key_id = object.next_value()?,
            other if PROMPT_KEYS.contains(&other) => {
                // Skipped without being read: not even its escapes are looked at.
                self.has_prompt |= object.next_value::<Option<IgnoredAny>>()?.is_some();
            }
            _ => ignore(object)?,
        }
        Ok(())
    }
}

/// `tags` in the order of the event.
#[derive(Debug, Default)]
pub(super) struct Tags<'a>(pub Vec<(Cow<'a, str>, TextField<'a>)>);

impl<'de> Members<'de> for Tags<'de> {
    fn member<A: MapAccess<'de>>(
        &mut self,
        key: Cow<'de, str>,
        object: &mut A,
    ) -> Result<(), A::Error> {
        let value = object.next_value()?;
        self.0.push((key, value));
        Ok(())
    }
}

/// `units` as they stand there: quantities as their JSON text, so that none passes through a float.
#[derive(Debug, Default)]
pub(super) struct RawUnits<'a> {
    pub quantities: Vec<(Cow<'a, str>, &'a RawValue)>,
    pub quality: TextField<'a>,
    pub size: TextField<'a>,
}

impl<'de> Members<'de> for RawUnits<'de> {
    fn member<A: MapAccess<'de>>(
        &mut self,
        key: Cow<'de, str>,
        object: &mut A,
    ) -> Result<(), A::Error> {
        match &*key {
            "quality" => self.quality = object.next_value()?,
            "size" => self.size = object.next_value()?,
            _ => {
                let quantity = object.next_value()?;
                self.quantities.push((key, quantity));
            }
        }
        Ok(())
    }
}
