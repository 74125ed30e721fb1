//! `openai.chat` and `openai.responses`: totals that contain their `…_details`.
//!
//! Both names of each total are accepted in both formats (images and realtime use the names of
//! responses with other details), and so are the cache fields of providers that speak OpenAI's
//! language: DeepSeek's `prompt_cache_hit_tokens`, OpenRouter's `cache_write_tokens`, Moonshot's
//! `cached_tokens` at the top, Alibaba's writes, LiteLLM's names of Anthropic. Cohere's
//! `billed_units`, where they are, are what is billed; the tokens beside them are not.
//!
//! Providers differ in what a total contains (xAI's reasoning is beside the output, Mistral's audio
//! beside the prompt): their own `total_tokens` decides where one reading adds up to it.

use super::Reading;
use super::anthropic::{cache_writes, split_writes};
use super::contained::{ContainedInput, ContainedOutput, reconcile};
use super::counts::Counts;
use super::meaning::{Meaning, Section, Slot, Word};
use super::total::add_unsaid_input;
use crate::units::{Quantity, UnitKind};

pub(super) fn meaning(section: Section, key: &str) -> Option<Meaning> {
    match section {
        Section::Top => top(key),
        Section::InputDetails => input_details(key),
        Section::OutputDetails => Some(match key {
            // The short names are LangChain's.
            "reasoning_tokens" | "reasoning" | "thinking_tokens" => Meaning::Count(Slot::Reasoning),
            "audio_tokens" | "audio" => Meaning::Count(Slot::AudioOutput),
            "image_tokens" => Meaning::Count(Slot::ImageOutput),
            "text_tokens" => Meaning::TextOutput,
            // Within the output, rejected predictions too.
            "accepted_prediction_tokens" | "rejected_prediction_tokens" => Meaning::NotBilled,
            _ => return None,
        }),
        Section::CachedDetails => Some(match key {
            "audio_tokens" => Meaning::Count(Slot::AudioCached),
            "image_tokens" => Meaning::Count(Slot::ImageCached),
            "text_tokens" => Meaning::NotBilled,
            _ => return None,
        }),
        Section::CacheCreation => Some(match key {
            "ephemeral_5m_input_tokens" | "ttl_5m_tokens" => Meaning::Count(Slot::CacheWrite5m),
            "ephemeral_30m_input_tokens" | "ttl_30m_tokens" => Meaning::Count(Slot::CacheWrite30m),
            "ephemeral_1h_input_tokens" | "ttl_1h_tokens" => Meaning::Count(Slot::CacheWrite1h),
            "ephemeral_12h_input_tokens" | "ttl_12h_tokens" => Meaning::Count(Slot::CacheWrite12h),
            _ => return None,
        }),
        // xAI, OpenRouter, and the connectors of Mistral's agents. Searches of the web and of X have one
        // price.
        Section::ServerToolUse => Some(match key {
            "web_search_calls"
            | "x_search_calls"
            | "web_search_requests"
            | "web_search"
            | "web_search_premium" => Meaning::Added(Slot::WebSearches),
            "code_interpreter_calls" | "code_execution_calls" | "code_interpreter" => {
                Meaning::Units(UnitKind::CodeInterpreterCalls)
            }
            "file_search_calls" | "collections_search_calls" | "document_library" => {
                Meaning::Units(UnitKind::FileSearchCalls)
            }
            "document_search_calls" | "attachment_search_calls" => {
                Meaning::Units(UnitKind::DocumentSearchCalls)
            }
            "image_generation_calls" | "image_generation" => {
                Meaning::Units(UnitKind::ImageGenerationCalls)
            }
            "mcp_calls" | "web_fetch_requests" => Meaning::NotBilled,
            _ => return None,
        }),
        Section::Billed => Some(match key {
            "input_tokens" => Meaning::Count(Slot::BilledInput),
            "output_tokens" => Meaning::Count(Slot::BilledOutput),
            "image_tokens" => Meaning::Count(Slot::ImageInput),
            "search_units" => Meaning::Count(Slot::RerankUnits),
            "images" => Meaning::Units(UnitKind::Images),
            _ => return None,
        }),
        Section::ToolDetails => Some(match key {
            "input_tokens" => Meaning::Count(Slot::Input),
            "output_tokens" => Meaning::Count(Slot::Output),
            _ => return None,
        }),
        // Perplexity's.
        Section::ToolCalls => Some(match key {
            "search_web" => Meaning::Object(Section::Searches),
            _ => return None,
        }),
        Section::Searches => Some(match key {
            "invocation" => Meaning::Added(Slot::WebSearches),
            _ => return None,
        }),
        Section::Extra => Some(match key {
            "google" => Meaning::Object(Section::Extra),
            "traffic_type" => Meaning::Word(Word::Tier),
            _ => return None,
        }),
        Section::CacheLifetimes | Section::Part | Section::Speech => None,
    }
}

fn top(key: &str) -> Option<Meaning> {
    Some(match key {
        // Ollama's own API says how many it evaluated.
        "prompt_tokens" | "input_tokens" | "total_input_tokens" | "prompt_eval_count" => {
            Meaning::Count(Slot::Input)
        }
        "completion_tokens" | "output_tokens" | "total_output_tokens" | "eval_count" => {
            Meaning::Count(Slot::Output)
        }
        "total_tokens" => Meaning::Count(Slot::Total),
        "prompt_tokens_details"
        | "input_tokens_details"
        | "input_token_details"
        | "prompt_token_details" => Meaning::Object(Section::InputDetails),
        "completion_tokens_details"
        | "output_tokens_details"
        | "output_token_details"
        | "completion_token_details" => Meaning::Object(Section::OutputDetails),
        "prompt_cache_hit_tokens"
        | "cached_tokens"
        | "num_cached_tokens"
        | "cache_read_input_tokens"
        | "total_cached_tokens" => Meaning::Count(Slot::CacheRead),
        "cache_creation_input_tokens" | "cache_write_tokens" => Meaning::Count(Slot::CacheWrite),
        "reasoning_tokens" => Meaning::Count(Slot::FreeReasoning),
        "total_thought_tokens" => Meaning::Count(Slot::Thoughts),
        // The second name is that of what the connectors of Mistral's agents have found.
        "total_tool_use_tokens" | "connector_tokens" => Meaning::Count(Slot::ToolInput),
        "audio_tokens" => Meaning::Count(Slot::FreeAudio),
        // Alibaba's own API: within the input, which may have them in its details, too.
        "image_tokens" => Meaning::Count(Slot::ImageInput),
        "video_tokens" => Meaning::Count(Slot::VideoInput),
        "image_count" => Meaning::Units(UnitKind::Images),
        "video_duration" => Meaning::Units(UnitKind::VideoSeconds),
        "citation_tokens" => Meaning::Count(Slot::Citations),
        "num_search_queries" => Meaning::Count(Slot::WebSearches),
        "server_side_tool_usage_details" | "server_tool_use" | "connectors" => {
            Meaning::Object(Section::ServerToolUse)
        }
        "prompt_audio_seconds" | "seconds" => Meaning::Seconds,
        // Documents that Mistral reads, and texts that others speak.
        "pages_processed" => Meaning::Units(UnitKind::Pages),
        "characters" | "usage_characters" => Meaning::Units(UnitKind::Characters),
        "search_context_size" => Meaning::Word(Word::SearchSize),
        "billed_units" => Meaning::Object(Section::Billed),
        // Cohere's counts before what it does not bill; only there where nothing is said of billing.
        "tokens" => Meaning::Object(Section::ToolDetails),
        "service_tier" => Meaning::Word(Word::Tier),
        "extra_properties" => Meaning::Object(Section::Extra),
        "speed" => Meaning::Word(Word::Speed),
        "inference_geo" => Meaning::Word(Word::Geography),
        "tool_calls_details" => Meaning::Object(Section::ToolCalls),
        // DeepInfra's is the second name.
        "cost" | "estimated_cost" => Meaning::Charge,
        "is_byok" => Meaning::IsOwnKey,
        "cost_details" => Meaning::ChargeBehind,
        "cost_in_usd_ticks" => Meaning::ChargeTicks,
        // Voyage: within its total. So are its pixels, but they have a price of their own.
        "text_tokens" => Meaning::NotBilled,
        // Other sums of what is read, and what it would cost elsewhere; the modalities of Google's
        // interactions, which this format's name does not go with.
        "num_server_side_tools_used"
        | "market_cost"
        | "requests"
        | "prompt_cache_miss_tokens"
        | "request_count"
        | "context_details"
        | "input_tokens_by_modality"
        | "output_tokens_by_modality"
        | "tool_use_tokens_by_modality"
        | "cached_tokens_by_modality" => Meaning::NotBilled,
        _ => return None,
    })
}

fn input_details(key: &str) -> Option<Meaning> {
    Some(match key {
        // The short names are LangChain's.
        "cached_tokens" | "cache_read" => Meaning::Count(Slot::CacheRead),
        "cache_write_tokens" | "cache_creation_tokens" | "cache_creation_input_tokens" => {
            Meaning::Count(Slot::CacheWrite)
        }
        "cache_creation" => Meaning::CountOrObject(Slot::CacheWrite, Section::CacheCreation),
        "cache_creation_token_details" | "cache_write_tokens_details" => {
            Meaning::Object(Section::CacheCreation)
        }
        "audio_tokens" | "audio" => Meaning::Count(Slot::AudioInput),
        "image_tokens" => Meaning::Count(Slot::ImageInput),
        "video_tokens" => Meaning::Count(Slot::VideoInput),
        "cached_tokens_details" => Meaning::Object(Section::CachedDetails),
        // LiteLLM's, which may say the same in `server_tool_use`: the larger count stands.
        "web_search_requests" => Meaning::Units(UnitKind::WebSearchCalls),
        // LiteLLM's, of embeddings that are sold by the image.
        "image_count" => Meaning::Units(UnitKind::Images),
        "text_tokens" => Meaning::NotBilled,
        _ => return None,
    })
}

pub(super) fn classes<'a>(counts: &Counts) -> Reading<'a> {
    let mut reading = Reading {
        web_searches: counts.get(Slot::WebSearches),
        rerank_units: counts.get(Slot::RerankUnits),
        ..Reading::default()
    };
    if counts.has(Slot::BilledInput) || counts.has(Slot::BilledOutput) {
        reading.tokens.input = counts.get(Slot::BilledInput);
        reading.tokens.image_input = counts.get(Slot::ImageInput);
        reading.tokens.output = counts.get(Slot::BilledOutput);
        return reading;
    }
    let total = counts.get(Slot::Total);
    let (_, write_1h, _) = cache_writes(counts);
    let (write_5m, _) = split_writes(counts);
    let split = write_5m + write_1h;
    let mut input = ContainedInput {
        total: counts.get(Slot::Input),
        cache_read: counts.get(Slot::CacheRead),
        cache_write: counts.get(Slot::CacheWrite).max(split),
        cache_write_1h: write_1h,
        audio: counts.get(Slot::AudioInput),
        image: counts.get(Slot::ImageInput),
        video: counts.get(Slot::VideoInput),
        audio_cached: counts.get(Slot::AudioCached),
        image_cached: counts.get(Slot::ImageCached),
        ..ContainedInput::default()
    };
    let mut output = ContainedOutput {
        total: counts.get(Slot::Output),
        reasoning: counts.get(Slot::Reasoning),
        audio: counts.get(Slot::AudioOutput),
        image: counts.get(Slot::ImageOutput),
    };
    let tokens = &mut reading.tokens;
    // Perplexity bills what it read and thought beside what its total says.
    let citations = counts.get(Slot::Citations);
    let free_reasoning = counts.get(Slot::FreeReasoning);
    let beside_the_total = if counts.has(Slot::Citations) {
        free_reasoning
    } else {
        output.reasoning = output.reasoning.max(free_reasoning);
        0
    };
    let tools = counts.get(Slot::ToolInput);
    let thoughts = counts.get(Slot::Thoughts);
    let itemised = total.saturating_sub(tools + thoughts);
    let free_audio = counts.get(Slot::FreeAudio);
    include(&mut input, &mut output, free_audio, itemised);
    let input_disputed = input.take_apart(tokens);
    let output_disputed = output.take_apart(tokens);
    tokens.input += tools;
    tokens.reasoning += thoughts;
    // Mistral's audio is in the total, and billed by the second.
    let has_seconds_alone = counts.audio_seconds > Quantity(0)
        && !counts.has(Slot::FreeAudio)
        && !counts.has(Slot::AudioInput);
    if !has_seconds_alone {
        add_unsaid_input(tokens, counts);
    }
    let total_disputed = !has_seconds_alone && reconcile(tokens, total);
    tokens.input += citations;
    tokens.reasoning += beside_the_total;
    reading.disputed = input_disputed || output_disputed || total_disputed;
    reading
}

/// Makes `input` and `output` contain what is beside them, where that and no other reading adds up
/// to `total` (zero = not given). `free_audio` is in the input, or beside it.
pub(super) fn include(
    input: &mut ContainedInput,
    output: &mut ContainedOutput,
    free_audio: u64,
    total: u64,
) {
    let stated = input.total + output.total;
    let cached = input.cache_read + input.cache_write;
    input.audio = input.audio.max(free_audio);
    if total == 0 {
        return;
    }
    if stated == total {
        // The parts are within, whatever their own counts say.
        output.limit_parts();
        return;
    }
    let beside = [
        (0, 0, output.reasoning),
        (0, free_audio, 0),
        (cached, 0, 0),
        (cached, 0, output.reasoning),
        (cached, free_audio, 0),
        (0, free_audio, output.reasoning),
        (cached, free_audio, output.reasoning),
    ];
    let adds_up =
        |(cached, audio, reasoning): &(u64, u64, u64)| stated + cached + audio + reasoning == total;
    if let Some((cached, audio, reasoning)) = beside.into_iter().find(adds_up) {
        input.total += cached + audio;
        output.total += reasoning;
    }
}
