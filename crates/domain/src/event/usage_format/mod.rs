//! Token counts in the formats of the providers, read into disjoint classes.
//!
//! One [`walk`](walk) over the JSON serves all formats: each format's file says which member means
//! which [`Slot`](meaning::Slot) and how the slots become [`TokenClasses`]. A provider's own usage
//! object is accepted verbatim: nulls say nothing, and unknown members are ignored, but for
//! [numbers that look billed](unread), which are flagged.

use std::borrow::Cow;

use serde::de::DeserializeSeed;

use super::decode::Reader;
use super::json::{JsonKind, ObjectInto};
use super::reject::{RejectReason, Rejection};
use super::scan::scan_into;
use crate::money::Nanos;
use crate::tokens::{TokenClass, TokenClasses};
use crate::units::{Quantity, UnitKind};

mod anthropic;
mod bedrock;
mod contained;
mod counts;
mod gemini;
mod meaning;
mod models;
mod openai;
mod spendfuse;
mod total;
mod unread;
mod values;
mod walk;

use counts::Counts;
use meaning::{Meaning, Section, Slot, Word};
use walk::SectionReader;

/// The most tokens in one class of one call.
pub(super) const MAX_COUNT: u64 = 1_000_000_000;

/// Parts of what was read from a cache that have rates of their own: where they are told, where all of
/// their kind are, and the class of those that are not cached.
const CACHED_MEDIA: [(Slot, [Slot; 2], TokenClass, UnitKind); 2] = [
    (
        Slot::AudioCached,
        [Slot::AudioInput, Slot::ToolAudio],
        TokenClass::AudioInput,
        UnitKind::CachedAudioTokens,
    ),
    (
        Slot::ImageCached,
        [Slot::ImageInput, Slot::ToolImage],
        TokenClass::ImageInput,
        UnitKind::CachedImageTokens,
    ),
];

/// Path of a part of a call that nothing says the model of.
const PART_OF_NOBODY: &str = "iterations.[].model";

/// Members of usage objects that count tools themselves: Anthropic's and OpenRouter's, xAI's,
/// Perplexity's, Google's.
pub const COUNTS_OF_TOOLS: [&str; 5] = [
    "server_tool_use",
    "server_side_tool_usage_details",
    "num_search_queries",
    "groundingToolCount",
    "grounding_tool_count",
];

/// How `data.usage` is to be read; named by `data.usage_format`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum UsageFormat {
    /// spendfuse's own names; the default.
    #[default]
    Spendfuse,
    /// As spendfuse's own, but nobody has counted: whoever tells of the call has estimated it.
    Estimated,
    /// OpenTelemetry's `gen_ai.usage.*` attributes, with or without that prefix.
    Otel,
    /// OpenAI chat completions, embeddings, and whoever speaks their language.
    OpenAiChat,
    /// OpenAI responses, images and realtime.
    OpenAiResponses,
    /// Anthropic messages.
    AnthropicMessages,
    /// Gemini API and Vertex AI `generateContent`.
    Gemini,
    /// Amazon Bedrock `Converse`.
    BedrockConverse,
    /// Gemini interactions.
    GeminiInteractions,
    /// Cohere chat, embeddings and rerank.
    Cohere,
}

impl UsageFormat {
    /// Every format.
    pub const ALL: [Self; 10] = [
        Self::Spendfuse,
        Self::Estimated,
        Self::Otel,
        Self::OpenAiChat,
        Self::OpenAiResponses,
        Self::AnthropicMessages,
        Self::Gemini,
        Self::BedrockConverse,
        Self::GeminiInteractions,
        Self::Cohere,
    ];

    /// The name in events.
    pub fn name(self) -> &'static str {
        match self {
            Self::Spendfuse => "spendfuse",
            Self::Estimated => "estimated",
            Self::Otel => "otel",
            Self::OpenAiChat => "openai.chat",
            Self::OpenAiResponses => "openai.responses",
            Self::AnthropicMessages => "anthropic.messages",
            Self::Gemini => "gemini",
            Self::BedrockConverse => "bedrock.converse",
            Self::GeminiInteractions => "gemini.interactions",
            Self::Cohere => "cohere",
        }
    }

    /// The format with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    fn meaning(self, section: Section, key: &str) -> Option<Meaning> {
        match self {
            Self::Spendfuse | Self::Estimated | Self::Otel => {
                spendfuse::meaning(self, section, key)
            }
            Self::OpenAiChat | Self::OpenAiResponses | Self::Cohere => {
                openai::meaning(section, key)
            }
            Self::AnthropicMessages => anthropic::meaning(section, key),
            Self::Gemini | Self::GeminiInteractions => gemini::meaning(section, key),
            Self::BedrockConverse => bedrock::meaning(section, key),
        }
    }

    /// Whether its classes are held to the provider's total, whatever they are.
    fn holds_to_total(self) -> bool {
        !matches!(
            self,
            Self::Spendfuse
                | Self::Estimated
                | Self::Otel
                | Self::AnthropicMessages
                | Self::BedrockConverse
        )
    }

    fn classes<'a>(self, counts: &Counts) -> Reading<'a> {
        match self {
            Self::Spendfuse | Self::Estimated | Self::Otel => spendfuse::classes(counts),
            Self::OpenAiChat | Self::OpenAiResponses | Self::Cohere => openai::classes(counts),
            Self::AnthropicMessages => anthropic::classes(counts),
            Self::Gemini | Self::GeminiInteractions => gemini::classes(counts),
            Self::BedrockConverse => bedrock::classes(counts),
        }
    }
}

/// A part of a call that is billed at rates of its own: an advisor's answer, a compaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubCall<'a> {
    /// Its model; empty = the call's.
    pub model: Cow<'a, str>,
    /// Tokens in disjoint classes; not in those of the call.
    pub tokens: TokenClasses,
}

/// Parts of one call; hardly any call has some.
pub type SubCalls<'a> = Vec<SubCall<'a>>;

/// What a usage object says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading<'a> {
    /// Tokens in disjoint classes.
    pub tokens: TokenClasses,
    /// Web searches that the provider bills with the tokens.
    pub web_searches: u64,
    /// Units of reranking.
    pub rerank_units: u64,
    /// Other units that are sold beside tokens, each kind once.
    pub units: Vec<(UnitKind, u64)>,
    /// Seconds of audio that are billed instead of tokens.
    pub audio_seconds: Quantity,
    /// The counts contradict their format; the larger reading is in [`tokens`](Self::tokens).
    pub disputed: bool,
    /// The counts cannot be all: output without any input, or no token of a call that searched.
    pub incomplete: bool,
    /// Path of the first number other than zero that no rule reads and that looks billed.
    pub unread: Option<Box<str>>,
    /// Service tier that was served, in the provider's word; empty = not said.
    pub service_tier: Cow<'a, str>,
    /// Speed that was served: `fast`; empty = not said.
    pub speed: Cow<'a, str>,
    /// Where it was served: `us`; empty = not said.
    pub inference_geo: Cow<'a, str>,
    /// How much a search looked at, `low`; empty = not said.
    pub search_size: Cow<'a, str>,
    /// What the provider says that it charges.
    pub charge: Option<Nanos>,
    /// Parts beside [`tokens`](Self::tokens).
    pub sub_calls: SubCalls<'a>,
}

/// Reads the usage object `json` in `format`.
///
/// `has_units` says whether the event has units: then an object without any known count is a call
/// without tokens, else it is taken for an object in another format and refused.
///
/// # Errors
/// `missing_field` where it is null; `bad_usage` where it is no object, a count is no integer
/// between 0 and 10⁹, or none of its members is a count of this format.
pub fn read(format: UsageFormat, json: &str, has_units: bool) -> Result<Reading<'_>, Rejection> {
    read_with(Reader::Quick, format, json, "", has_units)
}

#[inline]
pub(super) fn read_with<'a>(
    reader: Reader,
    format: UsageFormat,
    json: &'a str,
    model: &str,
    has_units: bool,
) -> Result<Reading<'a>, Rejection> {
    // Filled in place: it is more than half a kilobyte, and this runs for every event.
    let mut section = SectionReader::top(format);
    let kind = walk_object(reader, json, &mut section)?;
    let counts = &mut section.counts;
    match kind {
        JsonKind::Object => {}
        JsonKind::Absent | JsonKind::Null => {
            let detail = "data.usage is missing; add the provider's usage object and name its data.usage_format";
            return Err(Rejection::new(RejectReason::MissingField, detail));
        }
        other => {
            return Err(bad(format!(
                "data.usage is {}; it must be an object",
                other.words()
            )));
        }
    }
    if let Some(problem) = counts.problem() {
        return Err(bad(problem));
    }
    if counts.nothing_known() && !has_units {
        return Err(unrecognised(reader, format, json));
    }
    let mut reading = format.classes(counts);
    total::add_what_it_alone_says(&mut reading, counts, model);
    if !format.holds_to_total() && section.parts.is_empty() {
        total::charge_surplus(&mut reading, counts);
    }
    if reading.tokens.output > 0
        && !counts.says_kind_of_output()
        && let Some(class) = models::usual_answer(format, model)
    {
        let output = std::mem::take(&mut reading.tokens.output);
        reading.tokens[class] += output;
    }
    let says_no_input = !counts.says_input() || reading.tokens.context() == 0;
    reading.incomplete = reading.tokens.generated() > 0 && says_no_input && !has_units;
    reading.audio_seconds = counts.audio_seconds;
    for (told, all, uncached, kind) in CACHED_MEDIA {
        let all: u64 = all.into_iter().map(|slot| counts.get(slot)).sum();
        // What does not fit beside the cached tokens is cached, whether or not that is told.
        let without_place = all.saturating_sub(reading.tokens[uncached]);
        let count = counts.get(told).max(without_place);
        let count = count.min(reading.tokens.cache_read);
        if count > 0 {
            counts.add_units(kind, count);
        }
    }
    reading.units = std::mem::take(&mut counts.units);
    reading.charge = counts.whole_charge();
    reading.unread = counts.unread();
    reading.service_tier = section.take_word(Word::Tier);
    reading.speed = section.take_word(Word::Speed);
    reading.inference_geo = section.take_word(Word::Geography);
    reading.search_size = section.take_word(Word::SearchSize);
    // Perplexity's models search once for every call, unless they count it.
    let always_searches = !has_units && models::always_search(model);
    if always_searches || !reading.search_size.is_empty() {
        // That it searches is known of every call of such a model, and says nothing of this one.
        let counted = reading.web_searches > 0 || !reading.units.is_empty();
        reading.incomplete |= reading.tokens.total() == 0 && !counted && !has_units;
        reading.web_searches = reading.web_searches.max(1);
    }
    if !section.parts.is_empty() {
        if anthropic::has_part_of_nobody(&section.parts) {
            reading.unread.get_or_insert(PART_OF_NOBODY.into());
        }
        reading.sub_calls = anthropic::sub_calls(section.parts, model);
    }
    // Sums of counts (Gemini's lists and tool use, surplus of a total) can pass the bound of one.
    if reading.web_searches > MAX_COUNT {
        return Err(bad(
            "data.usage adds up to more than 1,000,000,000 searches",
        ));
    }
    if reading
        .tokens
        .each()
        .into_iter()
        .any(|count| count > MAX_COUNT)
    {
        return Err(bad(
            "data.usage adds up to more than 1,000,000,000 tokens in one class",
        ));
    }
    Ok(reading)
}

/// Reads the usage object `json` into `section`, which is new.
#[inline]
fn walk_object<'a>(
    reader: Reader,
    json: &'a str,
    section: &mut SectionReader<'a>,
) -> Result<JsonKind, Rejection> {
    if reader == Reader::Quick {
        if let Ok(kind) = scan_into(json, section) {
            return Ok(kind);
        }
        *section = SectionReader::top(section.format());
    }
    let mut deserializer = serde_json::Deserializer::from_str(json);
    ObjectInto(section)
        .deserialize(&mut deserializer)
        .map_err(|_| bad("data.usage holds a number or text that cannot be read; write counts as plain integers"))
}

fn bad(detail: impl Into<String>) -> Rejection {
    Rejection::new(RejectReason::BadUsage, detail)
}

/// An object without a single count of its format: most likely another provider's, so say whose.
fn unrecognised(reader: Reader, format: UsageFormat, json: &str) -> Rejection {
    // OpenTelemetry's last: its old names without their prefix are OpenAI's. Anthropic's first: others
    // know its names, too, and take what is cached for a part of the input.
    let mut others = UsageFormat::ALL.to_vec();
    others.sort_by_key(|other| match other {
        UsageFormat::AnthropicMessages => 0,
        UsageFormat::Otel => 2,
        _ => 1,
    });
    let fit = |other: UsageFormat| {
        let mut section = SectionReader::top(other);
        walk_object(reader, json, &mut section).ok()?;
        let counts = section.counts;
        // Advice that fits by a total alone would charge all of it as something that it is not.
        let says_some = counts.has(Slot::Input) || counts.has(Slot::Output);
        says_some.then(|| (counts.fit(), other))
    };
    // Of equally good ones the first.
    let fitting = others.into_iter().rev().filter_map(fit);
    let advice = match fitting.max_by_key(|(fit, _)| *fit) {
        Some((_, other)) => format!(
            "it looks like \"{0}\": set data.usage_format to \"{0}\"",
            other.name()
        ),
        None => "check data.usage_format and the names of its counts".to_owned(),
    };
    bad(format!(
        "data.usage has no count of usage_format \"{}\"; {advice}",
        format.name()
    ))
}

/// The rejection for a `usage_format` that is not known; `what` it is, safe to print.
pub(super) fn unknown_format(what: &str) -> Rejection {
    let known: Vec<&str> = UsageFormat::ALL
        .into_iter()
        .map(UsageFormat::name)
        .collect();
    bad(format!(
        "data.usage_format is {what}; supported are {}",
        known.join(", ")
    ))
}
