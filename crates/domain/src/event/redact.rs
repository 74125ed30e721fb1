//! What is kept of an event's bytes: known members, numbers below `usage` and `units`, short texts.

mod writer;

use std::borrow::Cow;

use serde::de::{DeserializeSeed, MapAccess};
use serde_json::value::RawValue;
use xxhash_rust::xxh3::xxh3_64;

use super::decode::{Mode, content_mode};
use super::json::{JsonKind, Members, ObjectInto};
use super::members::EnvelopeMember;
use super::sanitize::{HASH_SUFFIX_BYTES, shortened};
use writer::Writer;

/// What stands in the place of a text that is not kept. It is a text, as that one was, so that the
/// event is read, or rejected, as it would have been.
const REMOVED: &str = "\"[removed]\"";
/// The same as a text.
pub(super) const REMOVED_WORD: &str = "[removed]";
/// The longest text and the longest name that is kept below `usage` and `units`, bytes.
pub(super) const MAX_COUNTS_TEXT_BYTES: usize = 64;
/// The longest key, and the longest header that says nothing to us, bytes.
const MAX_OPAQUE_BYTES: usize = 1024;
/// Names of removed members that are told, at most.
const MAX_TOLD_NAMES: usize = 16;

/// What is kept of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redacted<'v> {
    /// The bytes; those of the event itself where nothing had to go, and never more of them.
    pub value: Cow<'v, [u8]>,
    /// Members that nobody knows and that are gone.
    pub removed: RemovedMembers,
}

/// Members that were removed with their values, because they are not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemovedMembers {
    /// How many.
    pub count: u64,
    /// The first sixteen, `data.` before those of the data; the empty text stands for a name of
    /// more than 64 bytes.
    pub names: Vec<String>,
}

impl RemovedMembers {
    /// Adds those of another event; each name is told once.
    pub fn add(&mut self, other: Self) {
        self.count += other.count;
        for name in other.names {
            if self.names.len() < MAX_TOLD_NAMES && !self.names.contains(&name) {
                self.names.push(name);
            }
        }
    }
}

/// What is kept of the event in `value`, which came with `headers` (they say whether it is in
/// binary mode).
///
/// Kept are the members that decoding knows, their texts cut to 256 bytes as decoding cuts them;
/// numbers anywhere below `usage` and `units`, and texts and names of up to 64 bytes there. Of a
/// known member whose value has a wrong type, only that type stays; of one that holds prompt text,
/// that it was there. So the kept event is decoded to the same identity, content and flags, or
/// rejected for the same reason. A value that is not JSON is kept as it is.
pub fn redact<'v>(value: &'v [u8], headers: &[(&str, &[u8])]) -> Redacted<'v> {
    let text = std::str::from_utf8(value).unwrap_or_default();
    let raw = serde_json::from_str::<&RawValue>(text).ok();
    let is_binary = matches!(content_mode(headers), Ok(Mode::Binary));
    let mut writer = Writer {
        out: Vec::with_capacity(value.len()),
        removed: RemovedMembers::default(),
        is_changed: false,
    };
    let written = raw.and_then(|raw| writer.record(raw.get(), is_binary));
    match written {
        Some(()) if writer.is_changed => Redacted {
            value: Cow::Owned(writer.out),
            removed: writer.removed,
        },
        _ => Redacted {
            value: Cow::Borrowed(value),
            removed: RemovedMembers::default(),
        },
    }
}

/// What is kept of a header's name and value: 256 bytes of the name, 1 KiB of the value, with a hash
/// behind where there was more. The attributes of binary mode are cut as decoding cuts them, so that
/// the event stays the same.
pub fn redact_header<'h>(name: &'h str, value: &'h [u8]) -> (Cow<'h, str>, Cow<'h, [u8]>) {
    let short_name = shortened(name).map_or(Cow::Borrowed(name), Cow::Owned);
    let attribute = name.strip_prefix("ce_").and_then(EnvelopeMember::named);
    let text = attribute.and_then(|_| std::str::from_utf8(value).ok());
    let short_text = text.and_then(shortened).map(String::into_bytes);
    let short_value = short_text.map_or_else(|| redact_bytes(value), Cow::Owned);
    (short_name, short_value)
}

/// What is kept of a record's key: up to 1 KiB, or a prefix, `~` and 16 hex digits of the hash of the
/// whole.
pub fn redact_bytes(bytes: &[u8]) -> Cow<'_, [u8]> {
    if bytes.len() <= MAX_OPAQUE_BYTES {
        return Cow::Borrowed(bytes);
    }
    let prefix = &bytes[..MAX_OPAQUE_BYTES - HASH_SUFFIX_BYTES];
    let suffix = format!("~{:016x}", xxh3_64(bytes));
    Cow::Owned([prefix, suffix.as_bytes()].concat())
}

/// The members of one object, in their order and as they are written.
#[derive(Default)]
struct RawMembers<'v>(Vec<(Cow<'v, str>, &'v str)>);

impl<'de> Members<'de> for RawMembers<'de> {
    fn member<A: MapAccess<'de>>(
        &mut self,
        key: Cow<'de, str>,
        object: &mut A,
    ) -> Result<(), A::Error> {
        let value = object.next_value::<&'de RawValue>()?.get();
        self.0.push((key, value));
        Ok(())
    }
}

/// `None` where a name cannot be read: half a surrogate pair.
pub(super) fn members(object: &str) -> Option<Vec<(Cow<'_, str>, &str)>> {
    let mut members = RawMembers::default();
    let mut deserializer = serde_json::Deserializer::from_str(object);
    ObjectInto(&mut members)
        .deserialize(&mut deserializer)
        .ok()?;
    Some(members.0)
}

/// What a value is, by its first byte; numbers are all counts here.
pub(super) fn kind(raw: &str) -> JsonKind {
    match raw.as_bytes().first() {
        Some(b'{') => JsonKind::Object,
        Some(b'[') => JsonKind::Array,
        Some(b'"') => JsonKind::Text,
        Some(b't' | b'f') => JsonKind::Boolean,
        Some(b'n') => JsonKind::Null,
        _ => JsonKind::Count,
    }
}

/// Whether a text beside counts is kept; in the place of others stands [`REMOVED_WORD`].
pub(super) fn is_kept_word(text: &str) -> bool {
    text.len() <= MAX_COUNTS_TEXT_BYTES || is_number(text)
}

/// Digits as a decimal number or a time has them hold no text, however many there are.
fn is_number(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_digit() || b"+-.:eETZ".contains(&byte))
}
