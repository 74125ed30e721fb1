//! One pass over a usage object: members that a format knows go to their slots.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::super::json::{
    Field, JsonKind, Members, ObjectInto, TextField, ignore, scalars_by_kind,
};
use super::super::redact::{REMOVED_WORD, is_kept_word, kind};
use super::{MAX_COUNT, UsageFormat};
use crate::money::Nanos;
use crate::units::{Quantity, UnitKind};

/// What a count means; which slots contain which others is the format's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    Input,
    CacheRead,
    CacheWrite,
    CacheWrite5m,
    CacheWrite1h,
    /// Written for half an hour, at the price of five minutes.
    CacheWrite30m,
    /// Written for twelve hours, at the price of one.
    CacheWrite12h,
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
    RerankUnits,
    /// Audio that may be within the input or beside it.
    FreeAudio,
    /// Reasoning that may be within the output or beside it.
    FreeReasoning,
    /// Reasoning beside the output.
    Thoughts,
    Citations,
    BilledInput,
    BilledOutput,
}

/// Those that say something of the input, by their bits in [`Counts::seen`].
const INPUT_BITS: u32 = bits(&[
    Slot::Input,
    Slot::BilledInput,
    Slot::CacheRead,
    Slot::CacheWrite,
    Slot::CacheWrite5m,
    Slot::CacheWrite1h,
    Slot::CacheWrite30m,
    Slot::CacheWrite12h,
    Slot::ForeignCacheRead,
    Slot::ForeignCacheWrite,
    Slot::AudioInput,
    Slot::ImageInput,
    Slot::VideoInput,
    Slot::ToolInput,
    Slot::Total,
]);

const fn bits(slots: &[Slot]) -> u32 {
    match slots {
        [] => 0,
        [slot, others @ ..] => 1 << *slot as u32 | bits(others),
    }
}

const SLOTS: usize = Slot::BilledOutput as usize + 1;
/// Each has a bit in [`Counts::seen`].
const _: () = assert!(SLOTS <= u32::BITS as usize);
/// Parts of one call. Each may have a model of its own, which is looked up in the price book.
const MOST_PARTS: usize = 256;

/// A word in the usage object that says at which price, or of which model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Tier,
    Speed,
    Geography,
    /// How much was searched, which a search costs by: `low`, `medium`, `high`.
    SearchSize,
    /// In one of several parts of a call: its type.
    PartType,
    /// In one of several parts of a call: its model.
    PartModel,
}

const WORDS: usize = Word::PartModel as usize + 1;

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
    /// One of several parts of a call.
    Part,
    /// What Cohere bills.
    Billed,
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
    /// A count that adds up with others of its slot.
    Added(Slot),
    /// A word.
    Word(Word),
    /// A word, or an object whose `type` is one.
    WordOrType(Word),
    /// Units that are sold beside tokens.
    Units(UnitKind),
    /// Seconds of audio, which may have a fraction.
    Seconds,
    /// What the provider says that it charges, in dollars.
    Charge,
    /// The same in xAI's ticks, ten billion to the dollar.
    ChargeTicks,
    /// A list of parts of the call, each with counts of its own.
    Parts,
    /// Without effect on the bill, or within another count.
    NotBilled,
}

/// One part of a call, as a provider lists it.
#[derive(Clone, Debug)]
pub(super) struct Part<'a> {
    pub(super) kind: Cow<'a, str>,
    pub(super) model: Cow<'a, str>,
    pub(super) counts: Counts,
}

/// The counts that were found.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    values: [u64; SLOTS],
    seen: u32,
    members: u32,
    /// Members that the format knows, nulls included.
    known: u32,
    problem: Option<Problem>,
    /// The first number that nothing reads and that looks billed.
    unread: Option<Box<str>>,
    pub(super) audio_seconds: Quantity,
    /// Each kind once.
    pub(super) units: Vec<(UnitKind, u64)>,
    pub(super) charge: Option<Nanos>,
}

#[derive(Clone, Debug)]
struct Problem {
    path: String,
    what: &'static str,
    wanted: &'static str,
}

impl Counts {
    pub(super) fn get(&self, slot: Slot) -> u64 {
        self.values[slot as usize]
    }

    pub(super) fn has(&self, slot: Slot) -> bool {
        self.seen & (1 << slot as u32) != 0
    }

    /// A total is all that is said.
    pub(super) fn has_only_total(&self) -> bool {
        self.seen == 1 << Slot::Total as u32
    }

    /// Anything is said of the input; an answer alone is the end of a stream without its start.
    pub(super) fn says_input(&self) -> bool {
        self.seen & INPUT_BITS != 0
    }

    /// Members there are, but none that the format knows.
    pub(super) fn nothing_known(&self) -> bool {
        self.known == 0 && self.members > 0
    }

    /// How well the format fits: whether all that looks billed is read, and how much is known.
    pub(super) fn fit(&self) -> (bool, u32) {
        (self.unread.is_none(), self.known)
    }

    /// The path of the first number that nothing reads and that looks billed.
    pub(super) fn unread(&mut self) -> Option<Box<str>> {
        self.unread.take()
    }

    pub(super) fn note_unread(&mut self, path: String) {
        self.unread
            .get_or_insert_with(|| super::unread::told(&path));
    }

    pub(super) fn problem(&self) -> Option<String> {
        let Problem { path, what, wanted } = self.problem.as_ref()?;
        Some(format!("data.usage.{path} is {what}; it must be {wanted}"))
    }

    fn see(&mut self, slot: Slot) {
        self.seen |= 1 << slot as u32;
    }

    /// Of two names for one slot the larger count stands.
    fn keep_larger(&mut self, slot: Slot, count: u64) {
        let value = &mut self.values[slot as usize];
        *value = count.max(*value);
    }

    fn add_units(&mut self, kind: UnitKind, count: u64) {
        match self.units.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, units)) => *units = (*units).max(count),
            None => self.units.push((kind, count)),
        }
    }

    /// Elements of a list with equal labels add up.
    fn add(&mut self, slot: Slot, count: u64) {
        self.values[slot as usize] += count;
    }

    fn note_problem(&mut self, path: String, what: &'static str, wanted: &'static str) {
        let problem = Problem { path, what, wanted };
        self.problem.get_or_insert(problem);
    }
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

    fn expect_kind(&mut self, found: JsonKind, expected: JsonKind) {
        if found != expected && found != JsonKind::Null {
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
        self.counts.members += 1;
        let Some(meaning) = self.format.meaning(self.section, &key) else {
            return self.unknown(&key, object.next_value::<&RawValue>()?.get());
        };
        self.counts.known += 1;
        match meaning {
            Meaning::Count(slot) => {
                let field = object.next_value()?;
                if let Some(count) = self.count(field, &key) {
                    self.counts.see(slot);
                    self.counts.keep_larger(slot, count);
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
                let said = word_or_type(object.next_value::<&RawValue>()?.get());
                if let Some(text) = said {
                    self.words[word as usize] = match is_kept_word(&text) {
                        true => Cow::Owned(text),
                        false => Cow::Borrowed(REMOVED_WORD),
                    };
                }
            }
            Meaning::Seconds => self.seconds(object.next_value::<&RawValue>()?.get(), &key),
            Meaning::Charge => self.charge(object.next_value::<&RawValue>()?.get()),
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

/// The text in `json`, or the one in the member `type` of the object in it.
fn word_or_type(json: &str) -> Option<String> {
    match serde_json::from_str(json).ok()? {
        serde_json::Value::String(text) => Some(text),
        serde_json::Value::Object(mut members) => match members.remove("type")? {
            serde_json::Value::String(text) => Some(text),
            _ => None,
        },
        _ => None,
    }
}

const A_COUNT: &str = "an integer between 0 and 1,000,000,000";
/// xAI's ticks are 10⁻¹⁰ dollars.
const TICKS_PER_NANO: u64 = 10;

impl SectionReader<'_> {
    /// A member that no rule reads: noted where it is a number that looks billed.
    fn unknown<E>(&mut self, key: &str, json: &str) -> Result<(), E> {
        let path = super::unread::billed_looking(key, json);
        if let Some(path) = path {
            self.counts.note_unread(format!("{}{path}", self.path));
        }
        Ok(())
    }

    fn seconds(&mut self, json: &str, key: &str) {
        if json == "null" {
            return;
        }
        // Seconds and dollars have the same scale, billionths.
        let parsed = Nanos::parse_usd(json).ok();
        let billionths = parsed.and_then(|parsed| u64::try_from(parsed.amount.get()).ok());
        match billionths {
            Some(billionths) if billionths <= MAX_COUNT * Quantity::ONE => {
                let seconds = &mut self.counts.audio_seconds;
                *seconds = (*seconds).max(Quantity(billionths));
            }
            _ => {
                let path = format!("{}{key}", self.path);
                let wanted = "a number of seconds between 0 and 1,000,000,000";
                self.counts.note_problem(path, kind(json).words(), wanted);
            }
        }
    }

    /// Dollars, as a number or as an object with a total (Perplexity). What cannot be read as such
    /// is not charged anyway, unless an operator trusts it.
    fn charge(&mut self, json: &str) {
        let total: Cow<'_, str> = match serde_json::from_str::<serde_json::Value>(json) {
            Ok(serde_json::Value::Object(cost)) => match cost.get("total_cost") {
                Some(total) => Cow::Owned(total.to_string()),
                None => return,
            },
            _ => Cow::Borrowed(json),
        };
        let parsed = Nanos::parse_usd(total.trim_matches('"')).ok();
        let amount = parsed.map(|parsed| parsed.amount);
        self.counts.charge = amount.filter(|amount| *amount >= Nanos::ZERO);
    }
}

/// A list of parts of the call.
struct PartList<'r, 'a>(&'r mut SectionReader<'a>);

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
            if let Some(problem) = read.counts.problem.take() {
                outer.counts.problem.get_or_insert(problem);
            }
            if let Some(path) = read.counts.unread() {
                outer.counts.unread.get_or_insert(path);
            }
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
struct List<'r, 'a>(&'r mut SectionReader<'a>);

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
