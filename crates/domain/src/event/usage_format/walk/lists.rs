//! Lists in a usage object: of labelled counts, and of parts of a call.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{MOST_PARTS, Part, SectionReader};
use crate::event::json::{
    Field, JsonKind, Members, ObjectInto, TextField, ignore, scalars_by_kind,
};
use crate::event::redact::{REMOVED_WORD, is_kept_word};
use crate::event::usage_format::UsageFormat;
use crate::event::usage_format::meaning::{Meaning, Section, Word};
use crate::event::usage_format::unread::billed_looking;

/// A list of parts of the call.
pub(super) struct PartList<'r, 'a>(pub(super) &'r mut SectionReader<'a>);

impl<'de> DeserializeSeed<'de> for PartList<'_, 'de> {
    type Value = JsonKind;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<JsonKind, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for PartList<'_, 'de> {
    type Value = JsonKind;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any value")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<JsonKind, A::Error> {
        let outer = self.0;
        let mut part = SectionReader::part(outer.format);
        while array.next_element_seed(ObjectInto(&mut part))?.is_some() {
            let mut read = std::mem::replace(&mut part, SectionReader::part(outer.format));
            outer.counts.take_notes(&mut read.counts);
            if outer.parts.len() == MOST_PARTS {
                let path = format!("{}iterations", outer.path);
                let wanted = "of 256 parts at most";
                outer.counts.note_problem(path, "too long a list", wanted);
                continue;
            }
            outer.parts.push(Part {
                kind: read.take_word(Word::PartType),
                model: read.take_word(Word::PartModel),
                counts: read.counts,
            });
        }
        Ok(JsonKind::Array)
    }
    scalars_by_kind!();
    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<JsonKind, A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(JsonKind::Object)
    }
}

/// A list of labelled counts.
pub(super) struct List<'r, 'a>(pub(super) &'r mut SectionReader<'a>);

impl<'de> DeserializeSeed<'de> for List<'_, 'de> {
    type Value = JsonKind;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<JsonKind, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for List<'_, 'de> {
    type Value = JsonKind;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any value")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<JsonKind, A::Error> {
        let reader = self.0;
        let mut element = Labelled::new(reader.format, reader.section);
        while array.next_element_seed(ObjectInto(&mut element))?.is_some() {
            let finished =
                std::mem::replace(&mut element, Labelled::new(reader.format, reader.section));
            let count = reader.count(finished.count, "[]").unwrap_or(0);
            if let Some(path) = finished.unread {
                reader
                    .counts
                    .note_unread(format!("{}[].{path}", reader.path));
            }
            let Field::Value(label) = finished.label else {
                continue;
            };
            match reader.format.meaning(reader.section, &label) {
                Some(Meaning::Count(slot)) => {
                    reader.counts.see(slot);
                    reader.counts.add(slot, count);
                }
                Some(Meaning::TextOutput) if count > 0 => reader.counts.note_text_output(),
                None if count > 0 => {
                    let kept = is_kept_word(&label);
                    let label = if kept { &*label } else { REMOVED_WORD };
                    let path = format!("{}[].{label}", reader.path);
                    reader.counts.note_unread(path);
                }
                _ => {}
            }
        }
        Ok(JsonKind::Array)
    }
    scalars_by_kind!();
    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<JsonKind, A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(JsonKind::Object)
    }
}

/// One element of a list.
struct Labelled<'de> {
    format: UsageFormat,
    section: Section,
    label: TextField<'de>,
    count: Field<u64>,
    /// Path of the first other number that looks billed.
    unread: Option<String>,
}

impl Labelled<'_> {
    fn new(format: UsageFormat, section: Section) -> Self {
        Self {
            format,
            section,
            label: Field::Absent,
            count: Field::Absent,
            unread: None,
        }
    }
}

impl<'de> Members<'de> for Labelled<'de> {
    fn member<A: MapAccess<'de>>(
        &mut self,
        key: Cow<'de, str>,
        object: &mut A,
    ) -> Result<(), A::Error> {
        match self.format.meaning(self.section, &key) {
            Some(Meaning::Label) => self.label = object.next_value()?,
            Some(Meaning::LabelledCount) => self.count = object.next_value()?,
            Some(_) => ignore(object)?,
            None => {
                let path = billed_looking(&key, object.next_value::<&RawValue>()?.get());
                self.unread = self.unread.take().or(path);
            }
        }
        Ok(())
    }
}
