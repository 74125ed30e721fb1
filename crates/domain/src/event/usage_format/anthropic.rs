//! `anthropic.messages`: `input_tokens` excludes what was read from and written to the cache.
//!
//! `output_tokens` contains thinking, which is billed as output by Anthropic, and has a price of its
//! own at others that speak this format. Web fetches (`server_tool_use.web_fetch_requests`) are not
//! billed beyond their tokens.

use super::Reading;
use super::contained::without;
use super::counts::Counts;
use super::meaning::{Meaning, Section, Slot, Word};
use super::walk::Part;
use super::{SubCall, SubCalls};

pub(super) fn meaning(section: Section, key: &str) -> Option<Meaning> {
    use Section::{
        CacheCreation, Extra as Metrics, InputDetails, OutputDetails, Part, ServerToolUse, Top,
    };
    Some(match (section, key) {
        (Top | Part, "input_tokens") => Meaning::Count(Slot::Input),
        (Top | Part, "cache_read_input_tokens") => Meaning::Count(Slot::CacheRead),
        (Top | Part, "cache_creation_input_tokens") => Meaning::Count(Slot::CacheWrite),
        (Top | Part, "output_tokens") => Meaning::Count(Slot::Output),
        (Top | Part, "cache_creation") => Meaning::Object(CacheCreation),
        (Top, "server_tool_use") => Meaning::Object(ServerToolUse),
        (Top, "iterations") => Meaning::Parts,
        (Top, "service_tier") => Meaning::Word(Word::Tier),
        (Top, "speed") => Meaning::Word(Word::Speed),
        (Top, "inference_geo") => Meaning::Word(Word::Geography),
        // Others that speak this format have OpenAI's member besides.
        (Top, "prompt_tokens_details") => Meaning::Object(InputDetails),
        (InputDetails, "cached_tokens") => Meaning::Count(Slot::CacheRead),
        (Top | Part, "output_tokens_details") => Meaning::Object(OutputDetails),
        (OutputDetails, "thinking_tokens" | "reasoning_tokens") => Meaning::Count(Slot::Reasoning),
        (OutputDetails, "text_tokens") => Meaning::TextOutput,
        (Top, "total_tokens") => Meaning::Count(Slot::Total),
        // OpenRouter's, which speaks this format, too.
        (Top, "cost") => Meaning::Charge,
        (Top, "is_byok") => Meaning::IsOwnKey,
        (Top, "cost_details") => Meaning::ChargeBehind,
        // Bedrock's last piece of a stream says the counts once more.
        (Top, "amazon-bedrock-invocationMetrics") => Meaning::Object(Metrics),
        (Metrics, "inputTokenCount") => Meaning::Count(Slot::Input),
        (Metrics, "outputTokenCount") => Meaning::Count(Slot::Output),
        (Metrics, "cacheReadInputTokenCount") => Meaning::Count(Slot::CacheRead),
        (Metrics, "cacheWriteInputTokenCount") => Meaning::Count(Slot::CacheWrite),
        (Part, "type") => Meaning::Word(Word::PartType),
        (Part, "model") => Meaning::Word(Word::PartModel),
        (CacheCreation, "ephemeral_5m_input_tokens") => Meaning::Count(Slot::CacheWrite5m),
        (CacheCreation, "ephemeral_1h_input_tokens") => Meaning::Count(Slot::CacheWrite1h),
        (CacheCreation, "ephemeral_30m_input_tokens") => Meaning::Count(Slot::CacheWrite30m),
        (CacheCreation, "ephemeral_12h_input_tokens") => Meaning::Count(Slot::CacheWrite12h),
        (ServerToolUse, "web_search_requests") => Meaning::Count(Slot::WebSearches),
        (ServerToolUse, "web_fetch_requests" | "tool_search_requests") => Meaning::NotBilled,
        _ => return None,
    })
}

/// The parts of a call that the top level does not contain, and what each is charged as.
///
/// The top level is the sum of the messages of the model that answered. Beside it are billed:
/// compactions (at that model), an advisor's calls, and attempts of other models that were declined
/// after they had begun to answer; one that was declined at once costs nothing. The last message is
/// the answer, whatever the call calls its model (a gateway's name, the one that the stream began with).
pub(super) fn sub_calls<'a>(parts: Vec<Part<'a>>, named: &str) -> SubCalls<'a> {
    let is_message = |part: &&Part<'_>| matches!(&*part.kind, "message" | "fallback_message");
    let answer = parts.iter().rev().find(is_message);
    let answered = answer.map_or("", |part| &*part.model).to_owned();
    let answered = match &*answered {
        "" => named,
        answered => answered,
    };
    let beside = |part: &Part<'_>| match &*part.kind {
        "compaction" => true,
        "message" | "fallback_message" => {
            let is_another = !part.model.is_empty() && !is_same_model(&part.model, answered);
            is_another && part.counts.get(Slot::Output) > 0
        }
        _ => !part.model.is_empty(),
    };
    parts
        .into_iter()
        .filter(beside)
        .map(|part| SubCall {
            tokens: classes(&part.counts).tokens,
            model: part.model,
        })
        .collect()
}

/// Whether a part has tokens of which nothing says whose they are: an advisor without its model, or a
/// type of a later day. What it costs is not known.
pub(super) fn has_part_of_nobody(parts: &[Part<'_>]) -> bool {
    let is_known = |part: &Part<'_>| {
        matches!(&*part.kind, "message" | "fallback_message" | "compaction") || part.kind.is_empty()
    };
    let is_nobodys = |part: &&Part<'_>| !is_known(part) && part.model.is_empty();
    { parts.iter().filter(is_nobodys) }.any(|part| classes(&part.counts).tokens.total() > 0)
}

/// Whether both names are of one model, where either may have a date behind it, or a region and a
/// vendor in front.
fn is_same_model(one: &str, other: &str) -> bool {
    let [one, other] = [one, other].map(|name| without_date(name).to_ascii_lowercase());
    one.ends_with(&*other) || other.ends_with(&*one)
}

fn without_date(name: &str) -> &str {
    let name = name.split('@').next().unwrap_or(name);
    match name.rsplit_once('-') {
        Some((model, date)) if date.len() == 8 && date.bytes().all(|one| one.is_ascii_digit()) => {
            model
        }
        _ => name,
    }
}

pub(super) fn classes<'a>(counts: &Counts) -> Reading<'a> {
    let mut reading = Reading {
        web_searches: counts.get(Slot::WebSearches),
        ..Reading::default()
    };
    let tokens = &mut reading.tokens;
    tokens.input = counts.get(Slot::Input);
    tokens.cache_read = counts.get(Slot::CacheRead);
    tokens.reasoning = counts.get(Slot::Reasoning).min(counts.get(Slot::Output));
    tokens.output = counts.get(Slot::Output) - tokens.reasoning;
    let (write_5m, write_1h, disputed) = cache_writes(counts);
    tokens.cache_write_5m = write_5m;
    tokens.cache_write_1h = write_1h;
    reading.disputed = disputed;
    reading
}

const SHORT_LIVED: [Slot; 2] = [Slot::CacheWrite5m, Slot::CacheWrite30m];
const LONG_LIVED: [Slot; 2] = [Slot::CacheWrite1h, Slot::CacheWrite12h];

/// Writes that cost as those for five minutes and for an hour, as far as they are split.
pub(super) fn split_writes(counts: &Counts) -> (u64, u64) {
    let sum = |slots: [Slot; 2]| slots.into_iter().map(|slot| counts.get(slot)).sum();
    (sum(SHORT_LIVED), sum(LONG_LIVED))
}

/// Writes by lifetime, and whether the split contradicts its total. Without a split all are for
/// five minutes, the default lifetime; what a split leaves over is too.
pub(super) fn cache_writes(counts: &Counts) -> (u64, u64, bool) {
    let total = counts.get(Slot::CacheWrite);
    let is_split = SHORT_LIVED.iter().chain(&LONG_LIVED);
    if !is_split.into_iter().any(|slot| counts.has(*slot)) {
        return (total, 0, false);
    }
    let (write_5m, write_1h) = split_writes(counts);
    if !counts.has(Slot::CacheWrite) {
        return (write_5m, write_1h, false);
    }
    match without(total, write_5m + write_1h) {
        (rest, false) => (write_5m + rest, write_1h, rest > 0),
        (_, true) => (write_5m, write_1h, true),
    }
}
