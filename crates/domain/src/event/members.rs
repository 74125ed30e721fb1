//! The members of an event that are known, in one table each for envelope and data, which has the
//! dimensions besides: decoding reads what stands there, and [redaction](super::redact()) keeps it. A member that is in none is
//! neither read nor kept.

use crate::dimensions::FixedDimension;
use crate::spelling::closest;

/// What of a known member's value is kept of an event's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// A number, true or false, or a text of at most 256 bytes, as decoding keeps it.
    Scalar,
    /// As [`Kept::Scalar`]; decoding does not look at it.
    Unread,
    /// Only that it was there.
    Presence,
    /// An object of such texts, by names of any kind.
    Tags,
    /// Numbers at any depth, and short texts beside them.
    Counts,
    /// A list, of whose texts only flags that senders tell.
    Flags,
    /// As [`Kept::Counts`], and the texts that prices depend on.
    Units,
    /// The data of the event, by their own table.
    Data,
}

macro_rules! known_members {
    ($(#[$attribute:meta])* $table:ident { $($member:ident = $name:literal, $kept:ident;)* }) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum $table {
            $($member,)*
        }

        impl $table {
            /// Every member, in the order of the table.
            pub(super) const ALL: &'static [Self] = &[$(Self::$member,)*];

            // Always: then the name's match and that of the member become one.
            #[inline(always)]
            pub(super) fn named(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$member),)*
                    _ => None,
                }
            }

            pub(super) fn name(self) -> &'static str {
                match self {
                    $(Self::$member => $name,)*
                }
            }

            pub(super) fn kept(self) -> Kept {
                match self {
                    $(Self::$member => Kept::$kept,)*
                }
            }
        }
    };
}

known_members! {
    /// CloudEvents' own attributes.
    EnvelopeMember {
        SpecVersion = "specversion", Scalar;
        Type = "type", Scalar;
        Source = "source", Scalar;
        Id = "id", Scalar;
        Time = "time", Scalar;
        DataContentType = "datacontenttype", Unread;
        DataSchema = "dataschema", Unread;
        Subject = "subject", Unread;
        Data = "data", Data;
        DataBase64 = "data_base64", Presence;
    }
}

known_members! {
    /// The members of `data` that are no dimensions, of all types of event.
    Property {
        Tags = "tags", Tags;
        RequestModel = "request_model", Scalar;
        Operation = "operation", Scalar;
        ServiceTier = "service_tier", Scalar;
        Speed = "speed", Scalar;
        InferenceGeo = "inference_geo", Scalar;
        Usage = "usage", Counts;
        UsageFormat = "usage_format", Scalar;
        Units = "units", Units;
        ToolCalls = "tool_calls", Scalar;
        PromptFingerprint = "prompt_fingerprint", Scalar;
        ToolFingerprint = "tool_fingerprint", Scalar;
        CallId = "call_id", Scalar;
        Attempt = "attempt", Scalar;
        Phase = "phase", Scalar;
        Status = "status", Scalar;
        LatencyMs = "latency_ms", Scalar;
        ReportedCostUsd = "reported_cost_usd", Scalar;
        RevenueUsd = "revenue_usd", Scalar;
        ResponseId = "response_id", Scalar;
        TraceId = "trace_id", Scalar;
        SpanId = "span_id", Scalar;
        ParentSpanId = "parent_span_id", Scalar;
        Region = "region", Scalar;
        ApiKeyId = "api_key_id", Scalar;
        ReservationId = "reservation_id", Scalar;
        SessionLimitUsd = "session_limit_usd", Scalar;
        Flags = "flags", Flags;
        // They hold prompt text in the APIs that events are made from. That one was there stays to
        // be seen: flag `prompt_removed`.
        Prompt = "prompt", Presence;
        Messages = "messages", Presence;
        Input = "input", Presence;
        Output = "output", Presence;
        Completion = "completion", Presence;
        Content = "content", Presence;
    }
}

/// The members of `data`, of all types of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DataMember {
    Dimension(FixedDimension),
    Property(Property),
}

impl DataMember {
    #[inline(always)]
    pub(super) fn named(name: &str) -> Option<Self> {
        match FixedDimension::named(name) {
            Some(dimension) => Some(Self::Dimension(dimension)),
            None => Property::named(name).map(Self::Property),
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Dimension(dimension) => dimension.name(),
            Self::Property(property) => property.name(),
        }
    }

    pub(super) fn kept(self) -> Kept {
        match self {
            Self::Dimension(_) => Kept::Scalar,
            Self::Property(property) => property.kept(),
        }
    }
}

/// The known member that `path` is probably meant to be, as [`RemovedMembers`] names it: `customer`
/// for `data.custommer`. Members of which nothing is kept are never meant.
///
/// [`RemovedMembers`]: super::RemovedMembers
pub fn member_meant(path: &str) -> Option<&'static str> {
    let keeps = |kept: Kept| kept != Kept::Presence;
    let data = Property::ALL.iter().filter(|member| keeps(member.kept()));
    let mut known = FixedDimension::NAMES.to_vec();
    known.extend(data.map(|member| member.name()));
    let Some(name) = path.strip_prefix("data.") else {
        // Of the envelope, or of data without one.
        let envelope = EnvelopeMember::ALL.iter();
        let envelope = envelope.filter(|member| keeps(member.kept()));
        known.extend(envelope.map(|member| member.name()));
        return closest(path, &known);
    };
    closest(name, &known)
}
