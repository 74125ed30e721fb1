//! What is kept of an event's bytes: known members, numbers below `usage` and `units`, short texts.

use std::borrow::Cow;

use serde::de::{DeserializeSeed, MapAccess};
use serde_json::value::RawValue;
use xxhash_rust::xxh3::xxh3_64;

use super::Flags;
use super::decode::{Mode, content_mode};
use super::json::{JsonKind, Members, ObjectInto};
use super::members::{DataMember, EnvelopeMember, Kept};
use super::sanitize::{HASH_SUFFIX_BYTES, shortened};

/// What stands in the place of a text that is not kept. It is a text, as that one was, so that the
/// event is read, or rejected, as it would have been.
const REMOVED: &str = "\"[removed]\"";
/// The same as a text.
pub(super) const REMOVED_WORD: &str = "[removed]";
/// The longest text and the longest name that is kept below `usage` and `units`, bytes.
pub(super) const MAX_COUNTS_TEXT_BYTES: usize = 64;
/// The longest key, and the longest header that says nothing to us, bytes.
const MAX_OPAQUE_BYTES: usize = 1024;
/// Objects and lists below `usage` are kept down to this depth; formats use three levels.
const DEEPEST: usize = 16;
/// Names of removed members that are told, at most.
const MAX_TOLD_NAMES: usize = 16;
/// Longer names are not repeated: they might be text themselves.
const MAX_TOLD_NAME_BYTES: usize = 64;

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

/// Whose members an object has.
#[derive(Clone, Copy)]
enum Table {
    Envelope,
    Data,
    /// Data without an envelope, in which the envelope's members stand too.
    Bare,
}

impl Table {
    fn member(self, name: &str) -> Option<(&'static str, Kept)> {
        let envelope = || EnvelopeMember::named(name).map(|member| (member.name(), member.kept()));
        let data = || DataMember::named(name).map(|member| (member.name(), member.kept()));
        match self {
            Self::Envelope => envelope(),
            Self::Data => data(),
            Self::Bare => data().or_else(envelope),
        }
    }

    /// What stands before its members' names where people are told of them.
    fn prefix(self) -> &'static str {
        match self {
            Self::Envelope | Self::Bare => "",
            Self::Data => "data.",
        }
    }
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

/// Writes what is kept. Each of its methods takes one value as it is written; `None` where it
/// turns out not to be readable.
struct Writer {
    out: Vec<u8>,
    removed: RemovedMembers,
    is_changed: bool,
}

impl Writer {
    /// The value of a record: an event, or a batch of them, which is refused but not lost.
    fn record(&mut self, raw: &str, is_binary: bool) -> Option<()> {
        match kind(raw) {
            JsonKind::Array => {
                let events: Vec<&RawValue> = serde_json::from_str(raw).ok()?;
                self.array(events, |writer, event| writer.event(event, is_binary))
            }
            _ => self.event(raw, is_binary),
        }
    }

    fn event(&mut self, raw: &str, is_binary: bool) -> Option<()> {
        if kind(raw) != JsonKind::Object {
            return self.kind_of(raw);
        }
        let members = members(raw)?;
        let table = if is_binary {
            Table::Data
        } else if members.iter().any(|(name, _)| name == "specversion") {
            Table::Envelope
        } else {
            Table::Bare
        };
        self.known(table, members)
    }

    /// The members that `table` knows.
    fn known(&mut self, table: Table, members: Vec<(Cow<'_, str>, &str)>) -> Option<()> {
        let mut next = b'{';
        for (name, raw) in members {
            let Some((name, kept)) = table.member(&name) else {
                self.remove(table, &name);
                continue;
            };
            self.name(&mut next, name);
            self.value(kept, raw)?;
        }
        self.end(next, b'{', b'}');
        Some(())
    }

    fn value(&mut self, kept: Kept, raw: &str) -> Option<()> {
        match (kept, kind(raw)) {
            (Kept::Scalar, _) => self.scalar(raw),
            // Half a surrogate pair in it makes the event no less readable.
            (Kept::Unread, _) => self.scalar(raw).or_else(|| self.kind_of(raw)),
            (Kept::Presence, JsonKind::Null) => self.put(raw),
            (Kept::Presence, JsonKind::Boolean | JsonKind::Count) => self.instead(raw, "0"),
            (Kept::Presence, _) => self.instead(raw, removed_text(raw)),
            (Kept::Counts, _) => self.counts(raw, 0),
            (Kept::Tags, JsonKind::Object) => self.tags(raw),
            (Kept::Units, JsonKind::Object) => self.units(raw),
            (Kept::Flags, JsonKind::Array) => self.flags(raw),
            (Kept::Data, JsonKind::Object) => self.known(Table::Data, members(raw)?),
            (Kept::Tags | Kept::Units | Kept::Flags | Kept::Data, _) => self.kind_of(raw),
        }
    }

    fn remove(&mut self, table: Table, name: &str) {
        self.is_changed = true;
        self.removed.count += 1;
        if self.removed.names.len() < MAX_TOLD_NAMES {
            let told = name.len() <= MAX_TOLD_NAME_BYTES;
            let path = told.then(|| format!("{}{name}", table.prefix()));
            self.removed.names.push(path.unwrap_or_default());
        }
    }

    fn tags(&mut self, raw: &str) -> Option<()> {
        let mut next = b'{';
        for (name, value) in members(raw)? {
            let kept = shortened(&name);
            self.is_changed |= kept.is_some();
            self.name(&mut next, kept.as_deref().unwrap_or(&name));
            self.scalar(value)?;
        }
        self.end(next, b'{', b'}');
        Some(())
    }

    fn units(&mut self, raw: &str) -> Option<()> {
        let mut next = b'{';
        for (name, value) in members(raw)? {
            self.counts_name(&mut next, &name);
            match &*name {
                "quality" | "size" => self.scalar(value)?,
                _ => self.counts(value, 1)?,
            }
        }
        self.end(next, b'{', b'}');
        Some(())
    }

    /// Flags that senders tell; of everything else in the list only what type it has.
    fn flags(&mut self, raw: &str) -> Option<()> {
        let items: Vec<&RawValue> = serde_json::from_str(raw).ok()?;
        self.array(items, |writer, item| match Flags::told(item) {
            Some(_) => writer.put(item),
            None => writer.kind_of(item),
        })
    }

    /// Numbers at any depth, with their names and short texts.
    fn counts(&mut self, raw: &str, depth: usize) -> Option<()> {
        match kind(raw) {
            JsonKind::Object | JsonKind::Array if depth >= DEEPEST => self.kind_of(raw),
            JsonKind::Object => {
                let Some(members) = members(raw) else {
                    return self.unreadable(raw, depth);
                };
                let mut next = b'{';
                for (name, value) in members {
                    self.counts_name(&mut next, &name);
                    self.counts(value, depth + 1)?;
                }
                self.end(next, b'{', b'}');
                Some(())
            }
            JsonKind::Array => {
                let items: Vec<&RawValue> = serde_json::from_str(raw).ok()?;
                self.array(items, |writer, item| writer.counts(item, depth + 1))
            }
            JsonKind::Text => {
                let Ok(text) = serde_json::from_str::<String>(raw) else {
                    return self.unreadable(raw, depth);
                };
                if is_kept_word(&text) {
                    self.put(raw)
                } else {
                    self.instead(raw, removed_text(raw))
                }
            }
            _ => self.put(raw),
        }
    }

    /// A name or text in `raw` has half a surrogate pair. Decoding passes over what it does not know,
    /// however it is written, so that the event may be counted all the same.
    fn unreadable(&mut self, raw: &str, depth: usize) -> Option<()> {
        (depth > 0).then(|| self.kind_of(raw))?
    }

    fn counts_name(&mut self, next: &mut u8, name: &str) {
        if name.len() <= MAX_COUNTS_TEXT_BYTES {
            return self.name(next, name);
        }
        self.is_changed = true;
        self.name(next, REMOVED_WORD);
    }

    /// A number, true, false or null as it is, a text cut as decoding cuts it.
    fn scalar(&mut self, raw: &str) -> Option<()> {
        match kind(raw) {
            JsonKind::Object | JsonKind::Array => self.kind_of(raw),
            JsonKind::Text => {
                let text: String = serde_json::from_str(raw).ok()?;
                match shortened(&text).filter(|_| !is_number(&text)) {
                    None => self.put(raw),
                    Some(short) => {
                        self.text(&short);
                        self.is_changed = true;
                        Some(())
                    }
                }
            }
            _ => self.put(raw),
        }
    }

    /// Of a value of a wrong type only what type that is.
    fn kind_of(&mut self, raw: &str) -> Option<()> {
        match kind(raw) {
            JsonKind::Object => self.instead(raw, "{}"),
            JsonKind::Array => self.instead(raw, "[]"),
            JsonKind::Text => self.instead(raw, removed_text(raw)),
            _ => self.put(raw),
        }
    }

    fn array(
        &mut self,
        items: Vec<&RawValue>,
        mut write: impl FnMut(&mut Self, &str) -> Option<()>,
    ) -> Option<()> {
        let mut next = b'[';
        for item in items {
            self.out.push(next);
            next = b',';
            write(self, item.get())?;
        }
        self.end(next, b'[', b']');
        Some(())
    }

    /// A member's name; `next` is what stands before it: the object's beginning or a comma.
    fn name(&mut self, next: &mut u8, name: &str) {
        self.out.push(*next);
        *next = b',';
        self.text(name);
        self.out.push(b':');
    }

    /// The end of an object or array, and its beginning where it has no items.
    fn end(&mut self, next: u8, begin: u8, end: u8) {
        if next == begin {
            self.out.push(begin);
        }
        self.out.push(end);
    }

    fn text(&mut self, text: &str) {
        serde_json::to_writer(&mut self.out, text).expect("a text always becomes JSON");
    }

    fn put(&mut self, raw: &str) -> Option<()> {
        self.out.extend_from_slice(raw.as_bytes());
        Some(())
    }

    fn instead(&mut self, raw: &str, kept: &str) -> Option<()> {
        self.is_changed |= raw != kept;
        self.put(kept)
    }
}

/// What stands in the place of `raw`, which has two bytes at least: never more of them, so that no
/// event outgrows what it may be.
fn removed_text(raw: &str) -> &'static str {
    if raw.len() < REMOVED.len() {
        "\"\""
    } else {
        REMOVED
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
