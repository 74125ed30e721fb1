//! The JSON of an event as it stands there: envelope and data, nothing judged yet.

use std::borrow::Cow;

use serde::de::{IgnoredAny, MapAccess};
use serde_json::value::RawValue;

use super::json::{Field, JsonKind, Members, ObjectInto, TextField, WrittenField, ignore};
use super::members::{DataMember, EnvelopeMember, Property};
use crate::dimensions::FixedDimension;

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
        let Some(member) = EnvelopeMember::named(&key) else {
            return ignore(object);
        };
        match member {
            EnvelopeMember::SpecVersion => self.specversion = object.next_value()?,
            EnvelopeMember::Type => self.kind = object.next_value()?,
            EnvelopeMember::Source => self.source = object.next_value()?,
            EnvelopeMember::Id => self.id = object.next_value()?,
            EnvelopeMember::Time => self.time = object.next_value()?,
            EnvelopeMember::Data => {
                self.data_kind = object.next_value_seed(ObjectInto(&mut self.data))?;
            }
            EnvelopeMember::DataBase64 => {
                self.has_base64 = true;
                ignore(object)?;
            }
            // Nothing depends on them.
            EnvelopeMember::DataContentType
            | EnvelopeMember::DataSchema
            | EnvelopeMember::Subject => ignore(object)?,
        }
        Ok(())
    }
}

/// The members of `data`, of all types of event.
#[derive(Debug, Default)]
pub(super) struct Data<'a> {
    dimensions: DimensionFields<'a>,
    pub tags: Tags<'a>,
    pub tags_kind: JsonKind,
    pub request_model: TextField<'a>,
    pub operation: TextField<'a>,
    pub service_tier: TextField<'a>,
    pub speed: TextField<'a>,
    pub inference_geo: TextField<'a>,
    /// Read once the format is known, which may be named after it.
    pub usage: Option<&'a RawValue>,
    pub usage_format: TextField<'a>,
    pub units: RawUnits<'a>,
    pub units_kind: JsonKind,
    pub tool_calls: Field<u64>,
    pub prompt_fingerprint: WrittenField<'a>,
    pub tool_fingerprint: WrittenField<'a>,
    pub call_id: TextField<'a>,
    pub attempt: Field<u64>,
    pub phase: TextField<'a>,
    pub status: TextField<'a>,
    pub latency_ms: Field<u64>,
    pub reported_cost_usd: WrittenField<'a>,
    pub revenue_usd: WrittenField<'a>,
    pub response_id: TextField<'a>,
    pub trace_id: TextField<'a>,
    pub span_id: TextField<'a>,
    pub parent_span_id: TextField<'a>,
    pub region: TextField<'a>,
    pub api_key_id: TextField<'a>,
    pub reservation_id: TextField<'a>,
    pub session_limit_usd: WrittenField<'a>,
    /// As they are written: hardly any event has some.
    pub flags: Option<&'a RawValue>,
    /// Whether a member that holds prompt text was there with a value.
    pub has_prompt: bool,
}

/// The dimensions by their numbers.
#[derive(Debug)]
struct DimensionFields<'a>([TextField<'a>; FixedDimension::COUNT]);

impl Default for DimensionFields<'_> {
    // That of arrays is written elsewhere and copied, for every event.
    #[inline(always)]
    fn default() -> Self {
        Self([const { Field::Absent }; FixedDimension::COUNT])
    }
}

impl<'a> Data<'a> {
    #[inline]
    pub(super) fn dimension(&mut self, dimension: FixedDimension) -> &mut TextField<'a> {
        &mut self.dimensions.0[dimension as usize]
    }
}

impl<'de> Members<'de> for Data<'de> {
    fn member<A: MapAccess<'de>>(
        &mut self,
        key: Cow<'de, str>,
        object: &mut A,
    ) -> Result<(), A::Error> {
        let Some(member) = DataMember::named(&key) else {
            return ignore(object);
        };
        let property = match member {
            DataMember::Dimension(dimension) => {
                *self.dimension(dimension) = object.next_value()?;
                return Ok(());
            }
            DataMember::Property(property) => property,
        };
        match property {
            Property::Tags => {
                self.tags_kind = object.next_value_seed(ObjectInto(&mut self.tags))?
            }
            Property::RequestModel => self.request_model = object.next_value()?,
            Property::Operation => self.operation = object.next_value()?,
            Property::ServiceTier => self.service_tier = object.next_value()?,
            Property::Speed => self.speed = object.next_value()?,
            Property::InferenceGeo => self.inference_geo = object.next_value()?,
            Property::Usage => self.usage = Some(object.next_value()?),
            Property::UsageFormat => self.usage_format = object.next_value()?,
            Property::Units => {
                self.units_kind = object.next_value_seed(ObjectInto(&mut self.units))?
            }
            Property::ToolCalls => self.tool_calls = object.next_value()?,
            Property::PromptFingerprint => self.prompt_fingerprint = object.next_value()?,
            Property::ToolFingerprint => self.tool_fingerprint = object.next_value()?,
            Property::CallId => self.call_id = object.next_value()?,
            Property::Attempt => self.attempt = object.next_value()?,
            Property::Phase => self.phase = object.next_value()?,
            Property::Status => self.status = object.next_value()?,
            Property::LatencyMs => self.latency_ms = object.next_value()?,
            Property::ReportedCostUsd => self.reported_cost_usd = object.next_value()?,
            Property::RevenueUsd => self.revenue_usd = object.next_value()?,
            Property::ResponseId => self.response_id = object.next_value()?,
            Property::TraceId => self.trace_id = object.next_value()?,
            Property::SpanId => self.span_id = object.next_value()?,
            Property::ParentSpanId => self.parent_span_id = object.next_value()?,
            Property::Region => self.region = object.next_value()?,
            Property::ApiKeyId => self.api_key_id = object.next_value()?,
            Property::ReservationId => self.reservation_id = object.next_value()?,
            Property::SessionLimitUsd => self.session_limit_usd = object.next_value()?,
            Property::Flags => self.flags = Some(object.next_value()?),
            Property::Prompt
            | Property::Messages
            | Property::Input
            | Property::Output
            | Property::Completion
            | Property::Content => {
                // Skipped without being read: not even its escapes are looked at.
                self.has_prompt |= object.next_value::<Option<IgnoredAny>>()?.is_some();
            }
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
