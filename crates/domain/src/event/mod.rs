//! Usage events as the pipeline sees them: decoded, sanitized, with disjoint token classes.
//!
//! Fields borrow from the bytes that they were read from; an absent text is the empty text, as in
//! scopes.

use std::borrow::Cow;

use crate::identity::Identity;
use crate::money::Nanos;
use crate::time::UnixMillis;
use crate::tokens::TokenClasses;
use crate::units::Units;

mod call;
mod content;
mod decode;
mod encode;
mod envelope;
mod flags;
mod impose;
mod json;
mod judge;
mod members;
mod rare;
mod redact;
mod reject;
mod sanitize;
mod scan;
pub mod usage_format;

pub use crate::dimensions::Attribution;
pub use decode::{REVENUE_TYPE, SESSION_END_TYPE, USAGE_TYPE, decode, decode_thoroughly};
pub use encode::{EnvelopeDefaults, complete, encode};
pub use flags::Flags;
pub use impose::impose;
pub use members::member_meant;
pub use rare::{Particulars, Rare};
pub use redact::{Redacted, RemovedMembers, redact, redact_bytes, redact_header};
pub use reject::{RejectReason, Rejection};
pub use usage_format::{SubCall, SubCalls, UsageFormat};

/// The largest event that is read, bytes.
pub const MAX_EVENT_BYTES: usize = 64 * 1024;
/// The longest text that is kept whole, bytes; longer ones become prefix + hash of this length at
/// most.
pub const MAX_TEXT_BYTES: usize = 256;
/// The most tags that are kept.
pub const MAX_TAGS: usize = 16;
/// An event may be this far ahead of its arrival, milliseconds; beyond, it counts at its arrival.
pub const MAX_CLOCK_AHEAD_MILLIS: i64 = 5 * 60 * 1000;

/// One accepted event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event<'a> {
    /// Which billed response it is about.
    pub identity: Identity,
    /// Hash over what the event says (not over its bytes): two events with one identity and
    /// different hashes are a conflict.
    pub content: u32,
    /// CloudEvents `source`.
    pub source: Cow<'a, str>,
    /// CloudEvents `id`.
    pub id: Cow<'a, str>,
    /// When it happened, by the sender's clock; clamped to the arrival where it lay in the future.
    pub time: UnixMillis,
    /// What was sanitized.
    pub flags: Flags,
    /// Against whom it counts.
    pub attribution: Attribution<'a>,
    /// What happened.
    pub body: Body<'a>,
}

/// The three types of event.
// Usage is nearly every event: boxing it would cost an allocation on the hot path.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug, PartialEq)]
pub enum Body<'a> {
    /// `spendfuse.usage`: a model call.
    Usage(Call<'a>),
    /// `spendfuse.revenue`: what a customer paid; may be negative.
    Revenue(Nanos),
    /// `spendfuse.session_end`: closes the session at once.
    SessionEnd,
}

/// One model call.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct Call<'a> {
    /// `chat`, `completion`, `responses`, `generate_content`, `embeddings`, …; empty = chat.
    pub operation: Cow<'a, str>,
    /// `default`, `batch`, `flex`, `priority`, or the provider's word for what it served; empty =
    /// default.
    pub service_tier: Cow<'a, str>,
    pub tokens: TokenClasses,
    pub rare: Rare<'a>,
    pub units: Units<'a>,
    /// Tool calls that the model asked for in this step; absent = 0.
    pub tool_calls: u32,
    /// First 16 hex digits of the keyed fingerprint as a number; `None` = absent.
    pub prompt_fingerprint: Option<u64>,
    pub tool_fingerprint: Option<u64>,
    pub call_id: Cow<'a, str>,
    /// 1 for the first attempt; 0 = absent.
    pub attempt: u32,
    /// `ok`, `error`, …; empty = ok.
    pub status: Cow<'a, str>,
    pub latency_ms: Option<u32>,
    /// What the app says it cost.
    pub reported_cost: Option<Nanos>,
    /// The model that was asked for, where the response names another.
    pub request_model: Cow<'a, str>,
    pub response_id: Cow<'a, str>,
    pub trace_id: Cow<'a, str>,
    pub span_id: Cow<'a, str>,
    pub parent_span_id: Cow<'a, str>,
    pub region: Cow<'a, str>,
    pub api_key_id: Cow<'a, str>,
    /// The hold that a check gave for this call, which ends with it.
    pub reservation_id: Cow<'a, str>,
}

impl Event<'_> {
    /// What decides the home partition: `root_session`, else `session`, else `None` (the identity
    /// decides, see [`Event::home`]).
    pub fn session_key(&self) -> Option<&str> {
        let attribution = &self.attribution;
        [&attribution.root_session, &attribution.session]
            .into_iter()
            .find(|key| !key.is_empty())
            .map(|key| &**key)
    }

    /// The partition in which this event is counted, among `partitions`.
    pub fn home(&self, partitions: u32) -> u32 {
        crate::routing::home(self.session_key(), self.identity, partitions)
    }
}
