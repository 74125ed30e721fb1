//! Writes what is kept of an event, member by member.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::{
    MAX_COUNTS_TEXT_BYTES, MAX_TOLD_NAMES, REMOVED, REMOVED_WORD, RemovedMembers, is_kept_word,
    is_number, kind, members,
};
use crate::event::Flags;
use crate::event::json::JsonKind;
use crate::event::members::{DataMember, EnvelopeMember, Kept};
use crate::event::sanitize::shortened;

/// Objects and lists below `usage` are kept down to this depth; formats use three levels.
const DEEPEST: usize = 16;
/// Longer names are not repeated: they might be text themselves.
const MAX_TOLD_NAME_BYTES: usize = 64;

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

/// Writes what is kept. Each of its methods takes one value as it is written; `None` where it
/// turns out not to be readable.
pub(super) struct Writer {
    pub(super) out: Vec<u8>,
    pub(super) removed: RemovedMembers,
    pub(super) is_changed: bool,
}

impl Writer {
    /// The value of a record: an event, or a batch of them, which is refused but not lost.
    pub(super) fn record(&mut self, raw: &str, is_binary: bool) -> Option<()> {
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
