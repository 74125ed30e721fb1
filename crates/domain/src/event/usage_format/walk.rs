//! One pass over a usage object: members that a format knows go to their slots.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::super::json::{
    Field, JsonKind, Members, ObjectInto, TextField, ignore, scalars_by_kind,
};
use super::{MAX_COUNT, UsageFormat};

/// What a count means; which slots contain which others is the format's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    Input,
    CacheRead,
    CacheWrite,
    CacheWrite5m,
    CacheWrite1h,
    ForeignCacheRead,
    ForeignCacheWrite,
    AudioInput,
    ImageInput,
    VideoInput,
    AudioCached,
    ImageCached,
    VideoCached,
    ToolInput,
    ToolAudio,
    ToolImage,
    ToolVideo,
    Output,
    Reasoning,
    AudioOutput,
    ImageOutput,
    Total,
    WebSearches,
}

const SLOTS: usize = Slot::WebSearches as usize + 1;

/// An object or list inside of the usage object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    Top,
    InputDetails,
    OutputDetails,
    CachedDetails,
    ToolDetails,
    CacheCreation,
    ServerToolUse,
    CacheLifetimes,
}

/// What a format makes of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// A count.
    Count(Slot),
    /// An object with more counts.
    Object(Section),
    /// A list of labelled counts, such as `{"modality": "AUDIO", "tokenCount": 7}`; the labels'
    /// meanings are looked up in the section.
    List(Section),
    /// In an element of a list: its label.
    Label,
    /// In an element of a list: its count.
    LabelledCount,
}

/// The counts that were found.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    values: [u64; SLOTS],
    seen: u32,
    members: u32,
    problem: Option<Problem>,
}

#[derive(Clone, Debug)]
struct Problem {
    path: String,
    what: &'static str,
}

impl Counts {
    pub(super) fn get(&self, slot: Slot) -> u64 {
        self.values[slot as usize]
    }

    pub(super) fn has(&self, slot: Slot) -> bool {
        self.seen & (1 << slot as u32) != 0
    }

    /// Members there are, but none that the format knows.
    pub(super) fn nothing_known(&self) -> bool {
        self.seen == 0 && self.members > 0
    }

    pub(super) fn problem(&self) -> Option<String> {
        let Problem { path, what } = self.problem.as_ref()?;
        Some(format!(
            "data.usage.{path} is {what}; it must be an integer between 0 and 1,000,000,000"
        ))
    }

    fn see(&mut self, slot: Slot) {
        self.seen |= 1 << slot as u32;
    }

    /// Of two names for one slot the larger count stands.
    fn keep_larger(&mut self, slot: Slot, count: u64) {
        let value = &mut self.values[slot as usize];
        *value = count.max(*value);
    }

    /// Elements of a list with equal labels add up.
    fn add(&mut self, slot: Slot, count: u64) {
        self.values[slot as usize] += count;
    }

    fn note_problem(&mut self, path: String, what: &'static str) {
        self.problem.get_or_insert(Problem { path, what });
    }
}

/// Reads the members of one section into the counts.
pub(super) struct SectionReader {
    format: UsageFormat,
    section: Section,
    /// Names of the objects that lead here, each with a dot behind it.
    path: String,
    pub(super) counts: Counts,
}

impl SectionReader {
    pub(super) fn top(format: UsageFormat) -> Self {
        Self {
            format,
            section: Section::Top,
            path: String::new(),
            counts: Counts::default(),
        }
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

    /// The count of `field`, zero where it is null; a problem is noted under `key`.
    fn count(&mut self, field: Field<u64>, key: &str) -> u64 {
        let what = match field {
            Field::Absent => return 0,
            Field::Value(count) if count <= MAX_COUNT => return count,
            Field::Value(_) => "larger than that",
            Field::Wrong(kind) => kind.words(),
        };
        let path = format!("{}{key}", self.path);
        self.counts.note_problem(path, what);
        0
    }

    fn expect_kind(&mut self, found: JsonKind, expected: JsonKind) {
        if found != expected && found != JsonKind::Null {
            let path = self.path.trim_end_matches('.').to_owned();
            self.counts.note_problem(path, "not of the provider's form");
        }
    }
}

impl<'de> Members<'de> for SectionReader {
    fn member<A: MapAccess<'de>>(
        &mut self,
        key: Cow<'de, str>,
        object: &mut A,
    ) -> Result<(), A::Error> {
        self.counts.members += 1;
        match self.format.meaning(self.section, &key) {
            Some(Meaning::Count(slot)) => {
                let field = object.next_value()?;
                let count = self.count(field, &key);
                self.counts.see(slot);
                self.counts.keep_larger(slot, count);
            }
            Some(Meaning::Object(section)) => self.within(section, &key, |reader| {
                let kind = object.next_value_seed(ObjectInto(reader))?;
                reader.expect_kind(kind, JsonKind::Object);
                Ok(())
            })?,
            Some(Meaning::List(section)) => self.within(section, &key, |reader| {
                let kind = object.next_value_seed(List(reader))?;
                reader.expect_kind(kind, JsonKind::Array);
                Ok(())
            })?,
            Some(Meaning::Label | Meaning::LabelledCount) | None => ignore(object)?,
        }
        Ok(())
    }
}

/// A list of labelled counts.
struct List<'r>(&'r mut SectionReader);

impl<'de> DeserializeSeed<'de> for List<'_> {
    type Value = JsonKind;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<JsonKind, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for List<'_> {
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
            let count = reader.count(finished.count, "[]");
            let Field::Value(label) = finished.label else {
                continue;
            };
            if let Some(Meaning::Count(slot)) = reader.format.meaning(reader.section, &label) {
                reader.counts.see(slot);
                reader.counts.add(slot, count);
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
}

impl Labelled<'_> {
    fn new(format: UsageFormat, section: Section) -> Self {
        Self {
            format,
            section,
            label: Field::Absent,
            count: Field::Absent,
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
            _ => ignore(object)?,
        }
        Ok(())
    }
}
