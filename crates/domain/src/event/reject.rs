//! Why an event is not counted: the reasons of the DLQ.

use std::fmt;

/// Why an event was rejected; the value of DLQ header `spendfuse_reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RejectReason {
    /// The value is not JSON, or not UTF-8.
    MalformedJson,
    /// JSON, but not a CloudEvent 1.0.
    NotCloudevent,
    /// A CloudEvent of a type that is not ours.
    UnsupportedType,
    /// `data.phase` is something else than `final`.
    UnsupportedPhase,
    /// A required field is absent, empty or not a text.
    MissingField,
    /// Token or unit counts that cannot be read: negative, above 10⁹, not integers.
    BadUsage,
    /// Money that cannot be read where it is required, or of 10⁶ dollars and more a call.
    BadMoney,
    /// Larger than [`MAX_EVENT_BYTES`](super::MAX_EVENT_BYTES).
    TooLarge,
    /// Older than the dedupe horizon; raised by the meter, not by the decoder.
    Late,
    /// The pipeline itself cannot process it; raised by the meter, not by the decoder.
    InternalError,
}

impl RejectReason {
    /// Every reason, in the order of the contract.
    pub const ALL: [Self; 10] = [
        Self::MalformedJson,
        Self::NotCloudevent,
        Self::UnsupportedType,
        Self::UnsupportedPhase,
        Self::MissingField,
        Self::BadUsage,
        Self::BadMoney,
        Self::TooLarge,
        Self::Late,
        Self::InternalError,
    ];

    /// The name in headers, metrics and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::MalformedJson => "malformed_json",
            Self::NotCloudevent => "not_cloudevent",
            Self::UnsupportedType => "unsupported_type",
            Self::UnsupportedPhase => "unsupported_phase",
            Self::MissingField => "missing_field",
            Self::BadUsage => "bad_usage",
            Self::BadMoney => "bad_money",
            Self::TooLarge => "too_large",
            Self::Late => "late",
            Self::InternalError => "internal_error",
        }
    }

    /// The reason with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }
}

impl fmt::Display for RejectReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// A rejected event: why, and in words what is wrong, where, and how to mend it.
///
/// The detail never quotes what could be prompt text: only names of known fields, kinds, sizes, and
/// values that look like identifiers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct Rejection {
    /// The reason's class.
    pub reason: RejectReason,
    /// What is wrong, where (JSON path), and how to mend it.
    pub detail: String,
}

impl Rejection {
    /// A rejection for `reason`.
    pub fn new(reason: RejectReason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
        }
    }
}

/// `text` in quotes where it looks like an identifier (at most 64 of `A–Z a–z 0–9 . _ - /`), else
/// only its length: it might be prompt text in the wrong place.
pub(super) fn quoted(text: &str) -> String {
    let identifier = !text.is_empty()
        && text.len() <= 64
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte));
    if identifier {
        format!("\"{text}\"")
    } else {
        format!("a text of {} bytes", text.len())
    }
}
