//! One pass over a usage object: members that a format knows go to their slots.

use std::borrow::Cow;

use serde::de::{DeserializeSeed, Error, MapAccess};
use serde_json::value::RawValue;

use super::super::json::{Field, JsonKind, Members, ObjectInto, TextField, ignore};
use super::super::redact::{REMOVED_WORD, is_kept_word, kind};
use super::counts::Counts;
use super::meaning::{Meaning, Section, Slot, Word};
use super::unread::billed_looking;
use super::{MAX_COUNT, UsageFormat, values};
use crate::money::Nanos;
use lists::{List, PartList};

mod lists;

/// Parts of one call. Each may have a model of its own, which is looked up in the price book.
const MOST_PARTS: usize = 256;

/// `[]` is taken for an object without members where it lies in fewer objects than this: deeper ones are
/// written so when an event is kept, whatever was in them.
const DEEPEST_EMPTY: usize = 8;

const WORDS: usize = Word::PartModel as usize + 1;

/// One part of a call, as a provider lists it.
#[derive(Clone, Debug)]
pub(super) struct Part<'a> {
    pub(super) kind: Cow<'a, str>,
    pub(super) model: Cow<'a, str>,
    pub(super) counts: Counts,
}

/// Reads the members of one section into the counts.
pub(super) struct SectionReader<'a> {
    format: UsageFormat,
    section: Section,
    /// Names of the objects that lead here, each with a dot behind it.
    path: String,
    pub(super) counts: Counts,
    words: [Cow<'a, str>; WORDS],
    pub(super) parts: Vec<Part<'a>>,
}

impl<'a> SectionReader<'a> {
    pub(super) fn top(format: UsageFormat) -> Self {
        Self {
            format,
            section: Section::Top,
            path: String::new(),
            counts: Counts::default(),
            words: Default::default(),
            parts: Vec::new(),
        }
    }

    /// One of the parts that are listed in a usage object.
    fn part(format: UsageFormat) -> Self {
        Self {
            section: Section::Part,
            path: "iterations.[].".to_owned(),
            ..Self::top(format)
        }
    }

    pub(super) fn format(&self) -> UsageFormat {
        self.format
    }

    #[inline]
    pub(super) fn take_word(&mut self, word: Word) -> Cow<'a, str> {
        std::mem::take(&mut self.words[word as usize])
    }

    /// Reads the value at `key` with `section` in force.
    fn within<T>(&mut self, section: Section, key: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        let outer = std::mem::replace(&mut self.section, section);
        let path_bytes = self.path.len();
        self.path.push_str(key);
        self.path.push('.');
        let result = read(self);
        self.path.truncate(path_bytes);
        self.section = outer;
        result
    }

    /// The count of `field`, `None` where it is null; a problem is noted under `key`.
    fn count(&mut self, field: Field<u64>, key: &str) -> Option<u64> {
        let what = match field {
            Field::Absent => return None,
            Field::Value(count) if count <= MAX_COUNT => return Some(count),
            Field::Value(_) => "larger than that",
            Field::Wrong(kind) => kind.words(),
        };
        let path = format!("{}{key}", self.path);
        self.counts.note_problem(path, what, A_COUNT);
        None
    }

    fn count_or_object<E: Error>(
        &mut self,
        slot: Slot,
        section: Section,
        key: &str,
        json: &'a str,
    ) -> Result<(), E> {
        if matches!(kind(json), JsonKind::Object | JsonKind::Null) {
            let mut value = serde_json::Deserializer::from_str(json);
            let read = |reader: &mut Self| ObjectInto(reader).deserialize(&mut value).map(drop);
            return self.within(section, key, read).map_err(E::custom);
        }
        let is_empty = |inside: &str| inside.trim_ascii().is_empty();
        let list = json
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        if list.is_some_and(is_empty) {
            return Ok(());
        }
        let field = serde_json::from_str(json).map_err(E::custom)?;
        if let Some(count) = self.count(field, key) {
            self.counts.see(slot);
            self.counts.keep_larger(slot, count);
        }
        Ok(())
    }

    fn expect_kind(&mut self, found: JsonKind, expected: JsonKind) {
        let says_nothing = match found {
            JsonKind::Null => true,
            JsonKind::EmptyArray => self.path.matches('.').count() < DEEPEST_EMPTY,
            _ => false,
        };
        if found != expected && !says_nothing {
            let path = self.path.trim_end_matches('.').to_owned();
            let wanted = match expected {
                JsonKind::Array => "a list",
                _ => "an object",
            };
            self.counts.note_problem(path, found.words(), wanted);
        }
    }
}

impl<'de> Members<'de> for SectionReader<'de> {
    fn member<A: MapAccess<'de>>(
        &mut self,
        key: Cow<'de, str>,
        object: &mut A,
    ) -> Result<(), A::Error> {
        self.counts.note_member();
        let Some(meaning) = self.format.meaning(self.section, &key) else {
            return self.unknown(&key, object.next_value::<&RawValue>()?.get());
        };
        self.counts.note_known();
        match meaning {
            Meaning::Count(slot) => {
                let field = object.next_value()?;
                if let Some(count) = self.count(field, &key) {
                    self.counts.see(slot);
                    self.counts.keep_larger(slot, count);
                }
            }
            Meaning::TextOutput => {
                // Not a count that is read: a wrong one is no reason to refuse the call.
                if let Field::Value(1..) = object.next_value::<Field<u64>>()? {
                    self.counts.note_text_output();
                }
            }
            Meaning::Added(slot) => {
                let field = object.next_value()?;
                if let Some(count) = self.count(field, &key) {
                    self.counts.see(slot);
                    self.counts.add(slot, count);
                }
            }
            Meaning::Units(kind) => {
                let field = object.next_value()?;
                if let Some(count) = self.count(field, &key).filter(|count| *count > 0) {
                    self.counts.add_units(kind, count);
                }
            }
            Meaning::CountOrObject(slot, section) => {
                let json = object.next_value::<&RawValue>()?.get();
                self.count_or_object(slot, section, &key, json)?;
            }
            Meaning::Object(section) => self.within(section, &key, |reader| {
                let kind = object.next_value_seed(ObjectInto(reader))?;
                reader.expect_kind(kind, JsonKind::Object);
                Ok(())
            })?,
            Meaning::List(section) => self.within(section, &key, |reader| {
                let kind = object.next_value_seed(List(reader))?;
                reader.expect_kind(kind, JsonKind::Array);
                Ok(())
            })?,
            Meaning::Parts => {
                let kind = object.next_value_seed(PartList(self))?;
                if kind != JsonKind::Array && kind != JsonKind::Null {
                    let path = format!("{}{key}", self.path);
                    self.counts.note_problem(path, kind.words(), "a list");
                }
            }
            Meaning::Word(word) => {
                if let Field::Value(text) = object.next_value::<TextField<'de>>()? {
                    self.words[word as usize] = match is_kept_word(&text) {
                        true => text,
                        false => Cow::Borrowed(REMOVED_WORD),
                    };
                }
            }
            Meaning::WordOrType(word) => {
                let said = values::word_or_type(object.next_value::<&RawValue>()?.get());
                if let Some(text) = said {
                    self.words[word as usize] = match is_kept_word(&text) {
                        true => Cow::Owned(text),
                        false => Cow::Borrowed(REMOVED_WORD),
                    };
                }
            }
            Meaning::Seconds => {
                let json = object.next_value::<&RawValue>()?.get();
                match kind(json) {
                    // Mistral's seconds of a call without audio: `{}`.
                    JsonKind::Object | JsonKind::Array => self.unknown(&key, json)?,
                    _ => self.seconds(json, &key),
                }
            }
            Meaning::Charge => {
                // Of several names for it one may say nothing.
                let charge = values::charge(object.next_value::<&RawValue>()?.get());
                self.counts.charge = charge.or(self.counts.charge);
            }
            Meaning::IsOwnKey => {
                self.counts.is_own_key = object.next_value::<&RawValue>()?.get() == "true";
            }
            Meaning::ChargeBehind => {
                let details = object.next_value::<&RawValue>()?.get();
                self.counts.charge_behind = values::charge_behind(details);
            }
            Meaning::ChargeTicks => {
                if let Field::Value(ticks) = object.next_value::<Field<u64>>()? {
                    let nanos = ticks.div_ceil(TICKS_PER_NANO);
                    self.counts.charge = Some(Nanos::new(i128::from(nanos)));
                }
            }
            Meaning::Label | Meaning::LabelledCount | Meaning::NotBilled => ignore(object)?,
        }
        Ok(())
    }
}

const A_COUNT: &str = "an integer between 0 and 1,000,000,000";
/// xAI's ticks are 10⁻¹⁰ dollars.
const TICKS_PER_NANO: u64 = 10;

impl SectionReader<'_> {
    /// A member that no rule reads: noted where it is a number that looks billed.
    fn unknown<E>(&mut self, key: &str, json: &str) -> Result<(), E> {
        let path = billed_looking(key, json);
        if let Some(path) = path {
            self.counts.note_unread(format!("{}{path}", self.path));
        }
        Ok(())
    }

    fn seconds(&mut self, json: &str, key: &str) {
        if json == "null" {
            return;
        }
        match values::seconds(json) {
            Some(found) => {
                let seconds = &mut self.counts.audio_seconds;
                *seconds = (*seconds).max(found);
            }
            None => {
                let path = format!("{}{key}", self.path);
                let wanted = "a number of seconds between 0 and 1,000,000,000";
                self.counts.note_problem(path, kind(json).words(), wanted);
            }
        }
    }
}
