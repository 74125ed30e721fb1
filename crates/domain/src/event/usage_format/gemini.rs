//! `gemini`: `promptTokenCount` contains the cached tokens, `candidatesTokenCount` does not contain
//! the thoughts, and what tools put into the prompt comes on top.
//!
//! Their own `totalTokenCount` decides where another reading, and only that, adds up to it.
//!
//! Names are accepted as the REST API writes them and as the Python SDK does (`prompt_token_count`).
//! Documents and text are plain input.

use super::Reading;
use super::contained::{ContainedInput, ContainedOutput, reconcile};
use super::counts::Counts;
use super::meaning::{Meaning, Section, Slot, Word};
use super::total::add_unsaid_input;
use crate::units::UnitKind;

pub(super) fn meaning(section: Section, key: &str) -> Option<Meaning> {
    match section {
        Section::Top => top(key),
        Section::ToolCalls => Some(match key {
            "type" => Meaning::Label,
            "count" => Meaning::LabelledCount,
            "google_search" => Meaning::Count(Slot::WebSearches),
            // Paid by the tokens that they bring.
            "url_context" | "code_execution" => Meaning::NotBilled,
            _ => return None,
        }),
        _ => match key {
            "modality" => Some(Meaning::Label),
            "tokenCount" | "token_count" | "tokens" => Some(Meaning::LabelledCount),
            label => modality(section, label),
        },
    }
}

fn top(key: &str) -> Option<Meaning> {
    Some(match key {
        // `total_…` are the names of the interactions API.
        // Vertex's embeddings count tokens in `statistics`, and older ones characters in `metadata`.
        "promptTokenCount" | "prompt_token_count" | "total_input_tokens" | "token_count"
        | "tokenCount" => Meaning::Count(Slot::Input),
        "billableCharacterCount" | "billable_character_count" => {
            Meaning::Units(UnitKind::Characters)
        }
        "cachedContentTokenCount" | "cached_content_token_count" | "total_cached_tokens" => {
            Meaning::Count(Slot::CacheRead)
        }
        "toolUsePromptTokenCount" | "tool_use_prompt_token_count" | "total_tool_use_tokens" => {
            Meaning::Count(Slot::ToolInput)
        }
        "trafficType" | "traffic_type" | "serviceTier" | "service_tier" => {
            Meaning::Word(Word::Tier)
        }
        // The live API calls the candidates a response.
        "candidatesTokenCount"
        | "candidates_token_count"
        | "responseTokenCount"
        | "response_token_count"
        | "total_output_tokens" => Meaning::Count(Slot::Output),
        "thoughtsTokenCount" | "thoughts_token_count" | "total_thought_tokens" => {
            Meaning::Count(Slot::Reasoning)
        }
        "totalTokenCount" | "total_token_count" | "total_tokens" => Meaning::Count(Slot::Total),
        // Embeddings say `promptTokenDetails`.
        "promptTokensDetails"
        | "prompt_tokens_details"
        | "promptTokenDetails"
        | "prompt_token_details"
        | "input_tokens_by_modality" => Meaning::List(Section::InputDetails),
        "cacheTokensDetails" | "cache_tokens_details" | "cached_tokens_by_modality" => {
            Meaning::List(Section::CachedDetails)
        }
        "toolUsePromptTokensDetails"
        | "tool_use_prompt_tokens_details"
        | "tool_use_tokens_by_modality" => Meaning::List(Section::ToolDetails),
        "candidatesTokensDetails"
        | "candidates_tokens_details"
        | "responseTokensDetails"
        | "response_tokens_details"
        | "output_tokens_by_modality" => Meaning::List(Section::OutputDetails),
        "grounding_tool_count" | "groundingToolCount" => Meaning::List(Section::ToolCalls),
        _ => return None,
    })
}

/// What a modality such as `AUDIO` means (in Python's text form `MediaModality.AUDIO`).
fn modality(section: Section, label: &str) -> Option<Meaning> {
    let name = label.rsplit('.').next().unwrap_or(label);
    let slots = match section {
        Section::InputDetails => [Slot::AudioInput, Slot::ImageInput, Slot::VideoInput],
        Section::CachedDetails => [Slot::AudioCached, Slot::ImageCached, Slot::VideoCached],
        Section::ToolDetails => [Slot::ToolAudio, Slot::ToolImage, Slot::ToolVideo],
        // Generated video is billed by the second, see units.
        Section::OutputDetails => [Slot::AudioOutput, Slot::ImageOutput, Slot::ImageOutput],
        _ => return None,
    };
    let place = |known: &[&str]| known.iter().position(|one| one.eq_ignore_ascii_case(name));
    if let Some(index) = place(&["AUDIO", "IMAGE", "VIDEO"]) {
        return Some(Meaning::Count(slots[index]));
    }
    place(&["TEXT", "DOCUMENT", "MODALITY_UNSPECIFIED"])?;
    Some(match section {
        Section::OutputDetails => Meaning::TextOutput,
        _ => Meaning::NotBilled,
    })
}

pub(super) fn classes<'a>(counts: &Counts) -> Reading<'a> {
    let mut reading = Reading {
        web_searches: counts.get(Slot::WebSearches),
        ..Reading::default()
    };
    let mut prompt = ContainedInput {
        total: counts.get(Slot::Input),
        cache_read: counts.get(Slot::CacheRead),
        audio: counts.get(Slot::AudioInput),
        image: counts.get(Slot::ImageInput),
        video: counts.get(Slot::VideoInput),
        audio_cached: counts.get(Slot::AudioCached),
        image_cached: counts.get(Slot::ImageCached),
        video_cached: counts.get(Slot::VideoCached),
        ..ContainedInput::default()
    };
    let tools = ContainedInput {
        total: counts.get(Slot::ToolInput),
        audio: counts.get(Slot::ToolAudio),
        image: counts.get(Slot::ToolImage),
        video: counts.get(Slot::ToolVideo),
        ..ContainedInput::default()
    };
    let mut candidates = ContainedOutput {
        total: counts.get(Slot::Output),
        reasoning: 0,
        audio: counts.get(Slot::AudioOutput),
        image: counts.get(Slot::ImageOutput),
    };
    let thoughts = counts.get(Slot::Reasoning);
    let total = counts.get(Slot::Total);
    read_by_total(&mut prompt, tools.total, &mut candidates, thoughts, total);
    let tokens = &mut reading.tokens;
    tokens.reasoning = thoughts;
    let prompt_disputed = prompt.take_apart(tokens);
    let tools_disputed = tools.take_apart(tokens);
    let output_disputed = candidates.take_apart(tokens);
    add_unsaid_input(tokens, counts);
    let total_disputed = reconcile(tokens, total);
    reading.disputed = prompt_disputed || tools_disputed || output_disputed || total_disputed;
    reading
}

/// Where the counts do not add up to `total` (zero = not given) as Google documents them, and do in
/// another reading, that one holds: as gateways and some models count, thoughts are within the
/// candidates, what `tools` put in is within the prompt, or the cached tokens are beside it.
fn read_by_total(
    prompt: &mut ContainedInput,
    tools: u64,
    candidates: &mut ContainedOutput,
    thoughts: u64,
    total: u64,
) {
    let stated = prompt.total + tools + candidates.total + thoughts;
    if total == 0 || stated == total {
        return;
    }
    let thoughts = if thoughts > candidates.total {
        0
    } else {
        thoughts
    };
    let tools = if tools > prompt.total { 0 } else { tools };
    let cached = prompt.cache_read;
    let readings = [
        (0, 0, thoughts),
        (0, tools, 0),
        (0, tools, thoughts),
        (cached, 0, 0),
        (cached, 0, thoughts),
        (cached, tools, 0),
        (cached, tools, thoughts),
    ];
    let adds_up =
        |(cached, tools, thoughts): &(u64, u64, u64)| stated + cached == total + tools + thoughts;
    if let Some((cached, tools, thoughts)) = readings.into_iter().find(adds_up) {
        prompt.total = prompt.total + cached - tools;
        candidates.total -= thoughts;
    }
}
