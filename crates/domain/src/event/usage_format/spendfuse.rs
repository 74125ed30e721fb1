//! `spendfuse` and `otel`: totals that contain everything.
//!
//! OpenTelemetry's generative-AI conventions say the same of `gen_ai.usage.input_tokens` ("should
//! include all types of input tokens, including cached tokens"), so one reading serves both.
//!
//! An Anthropic object sent without its `usage_format` would look right but for its cache fields,
//! which are not contained in `input_tokens`: they are charged on top, as disputed.

use super::contained::{ContainedInput, ContainedOutput};
use super::counts::Counts;
use super::meaning::{Meaning, Section, Slot};
use super::{Reading, UsageFormat, anthropic, bedrock, gemini, openai};

/// Prefixes of attributes: of OpenTelemetry, of OpenLLMetry's first releases.
const OTEL_PREFIXES: [&str; 2] = ["gen_ai.usage.", "llm.usage."];
/// What Vercel's AI SDK puts in front of the names of its usage object.
const VERCEL_PREFIX: &str = "ai.usage.";
/// What pydantic-ai puts behind the prefix for the counts of the provider.
const DETAILS: &str = "details.";

/// `key` without what instrumentations put in front of it.
fn bare(key: &str) -> &str {
    let prefixed = OTEL_PREFIXES.iter();
    let bare = prefixed
        .filter_map(|prefix| key.strip_prefix(prefix))
        .next();
    bare.unwrap_or(key)
}

pub(super) fn meaning(format: UsageFormat, section: Section, key: &str) -> Option<Meaning> {
    if section != Section::Top {
        return (format == UsageFormat::Otel).then(|| details(section, key))?;
    }
    if format == UsageFormat::Otel {
        let name = bare(key);
        let name = name.strip_prefix(DETAILS).unwrap_or(name);
        let key = key.strip_prefix(VERCEL_PREFIX).unwrap_or(key);
        return otel(key, name).or_else(|| contained(name));
    }
    contained(bare(key))
}

fn contained(name: &str) -> Option<Meaning> {
    Some(Meaning::Count(match name {
        "input_tokens" => Slot::Input,
        "cache_read_tokens" | "cache_read.input_tokens" => Slot::CacheRead,
        "cache_write_tokens" | "cache_creation.input_tokens" | "cache_write.input_tokens" => {
            Slot::CacheWrite
        }
        "cache_write_1h_tokens" => Slot::CacheWrite1h,
        "audio_input_tokens" => Slot::AudioInput,
        "image_input_tokens" => Slot::ImageInput,
        "video_input_tokens" => Slot::VideoInput,
        "audio_input_cached_tokens" => Slot::AudioCached,
        "image_input_cached_tokens" => Slot::ImageCached,
        "video_input_cached_tokens" => Slot::VideoCached,
        "output_tokens" => Slot::Output,
        "reasoning_tokens" | "reasoning.output_tokens" => Slot::Reasoning,
        "audio_output_tokens" => Slot::AudioOutput,
        "image_output_tokens" => Slot::ImageOutput,
        "cache_read_input_tokens" => Slot::ForeignCacheRead,
        "cache_creation_input_tokens" => Slot::ForeignCacheWrite,
        "total_tokens" => Slot::Total,
        _ => return None,
    }))
}

/// The parts of the objects that Vercel's AI SDK and LangChain (`usage_metadata`) give their callers,
/// and of OpenAI's.
fn details(section: Section, key: &str) -> Option<Meaning> {
    let slot = match (section, key) {
        (Section::InputDetails, "cacheReadTokens" | "cache_read") => Slot::CacheRead,
        (Section::InputDetails, "cacheWriteTokens" | "cache_creation" | "cache_write") => {
            Slot::CacheWrite
        }
        // LangChain says zero of all writes where it says these.
        (Section::InputDetails, "ephemeral_5m_input_tokens") => Slot::CacheWrite5m,
        (Section::InputDetails, "ephemeral_1h_input_tokens") => Slot::CacheWrite1h,
        (Section::InputDetails, "audio") => Slot::AudioInput,
        (Section::OutputDetails, "reasoningTokens" | "reasoning") => Slot::Reasoning,
        (Section::OutputDetails, "audio") => Slot::AudioOutput,
        (Section::InputDetails, "noCacheTokens") | (Section::OutputDetails, "textTokens") => {
            return Some(Meaning::NotBilled);
        }
        (Section::Extra, _) => return as_the_provider_said(key),
        (Section::CacheLifetimes, _) => return bedrock::meaning(section, key),
        _ => return openai::meaning(section, key).or_else(|| gemini::meaning(section, key)),
    };
    Some(Meaning::Count(slot))
}

/// The provider's own object inside of the AI SDK's: its totals are told beside it, but not all of
/// their parts, nor what they were served as, nor what is sold beside them.
fn as_the_provider_said(key: &str) -> Option<Meaning> {
    let formats: [fn(Section, &str) -> Option<Meaning>; 4] = [
        anthropic::meaning,
        openai::meaning,
        gemini::meaning,
        bedrock::meaning,
    ];
    let mut meanings = formats.into_iter();
    let said = meanings.find_map(|meaning| meaning(Section::Top, key))?;
    match said {
        Meaning::Parts
        | Meaning::Count(Slot::ToolInput)
        | Meaning::List(Section::ToolCalls | Section::ToolDetails) => None,
        Meaning::Count(Slot::WebSearches) => Some(said),
        Meaning::Count(_)
        | Meaning::Object(Section::Top | Section::Billed | Section::ToolDetails | Section::Extra) => {
            Some(Meaning::NotBilled)
        }
        part => Some(part),
    }
}

/// The parts of OpenAI's totals where each is an attribute: `prompt_tokens_details.cached_tokens`.
fn flattened(name: &str) -> Option<Meaning> {
    let (total, part) = name.split_once('.')?;
    let section = match total {
        "prompt_tokens_details" | "input_tokens_details" => Section::InputDetails,
        "completion_tokens_details" | "output_tokens_details" => Section::OutputDetails,
        _ => return None,
    };
    details(section, part)
}

/// Names that OpenTelemetry's conventions once had and instrumentations still send, those of
/// modalities, and those of others that write telemetry: `key` is OpenInference's and Vercel's,
/// `name` OpenTelemetry's.
fn otel(key: &str, name: &str) -> Option<Meaning> {
    let by_key = match key {
        // The last is all that the AI SDK has of an embedding.
        "llm.token_count.prompt" | "inputTokens" | "promptTokens" | "tokens" => Slot::Input,
        "llm.token_count.completion" | "outputTokens" | "completionTokens" => Slot::Output,
        "llm.token_count.total" | "totalTokens" => Slot::Total,
        "llm.token_count.prompt_details.cache_read"
        | "cachedInputTokens"
        | "inputTokenDetails.cacheReadTokens" => Slot::CacheRead,
        "llm.token_count.prompt_details.cache_write" | "inputTokenDetails.cacheWriteTokens" => {
            Slot::CacheWrite
        }
        // Bedrock's own object, whose input is without them.
        "cacheReadInputTokens" => Slot::ForeignCacheRead,
        "cacheWriteInputTokens" => Slot::ForeignCacheWrite,
        "anthropic.usage.cache_creation.ephemeral_5m_input_tokens" => Slot::CacheWrite5m,
        "anthropic.usage.cache_creation.ephemeral_1h_input_tokens" => Slot::CacheWrite1h,
        "llm.token_count.prompt_details.audio" => Slot::AudioInput,
        "llm.token_count.completion_details.audio" => Slot::AudioOutput,
        "llm.token_count.completion_details.reasoning"
        | "reasoningTokens"
        | "outputTokenDetails.reasoningTokens" => Slot::Reasoning,
        "operation.cost" | "llm.cost.total" => return Some(Meaning::Charge),
        "inputTokenDetails"
        | "input_token_details"
        | "prompt_tokens_details"
        | "input_tokens_details" => {
            return Some(Meaning::Object(Section::InputDetails));
        }
        "outputTokenDetails"
        | "output_token_details"
        | "completion_tokens_details"
        | "output_tokens_details" => {
            return Some(Meaning::Object(Section::OutputDetails));
        }
        "raw" => return Some(Meaning::Object(Section::Extra)),
        "inputTokenDetails.noCacheTokens" | "outputTokenDetails.textTokens" => {
            return Some(Meaning::NotBilled);
        }
        // Of what the whole is made.
        part if part.starts_with("llm.cost.") => return Some(Meaning::NotBilled),
        _ => return otel_name(name),
    };
    Some(Meaning::Count(by_key))
}

fn otel_name(name: &str) -> Option<Meaning> {
    Some(Meaning::Count(match name {
        "prompt_tokens" => Slot::Input,
        "completion_tokens" => Slot::Output,
        "total_tokens" => Slot::Total,
        // Within the input, unless the total says otherwise.
        "cache_read_input_tokens" => Slot::CacheRead,
        "cache_creation_input_tokens" | "cache_write_input_tokens" => Slot::CacheWrite,
        // The last of each are pydantic-ai's, of Google's lists.
        "audio.input_tokens"
        | "input_tokens.audio"
        | "input_audio_tokens"
        | "audio_prompt_tokens" => Slot::AudioInput,
        "image.input_tokens"
        | "input_tokens.image"
        | "input_image_tokens"
        | "image_prompt_tokens" => Slot::ImageInput,
        "video.input_tokens"
        | "input_tokens.video"
        | "input_video_tokens"
        | "video_prompt_tokens" => Slot::VideoInput,
        "audio.cache_read.input_tokens" | "cache_audio_read_tokens" | "audio_cache_tokens" => {
            Slot::AudioCached
        }
        "image.cache_read.input_tokens" | "image_cache_tokens" => Slot::ImageCached,
        "video.cache_read.input_tokens" | "video_cache_tokens" => Slot::VideoCached,
        "audio.output_tokens"
        | "output_tokens.audio"
        | "output_audio_tokens"
        | "audio_candidates_tokens" => Slot::AudioOutput,
        "image.output_tokens"
        | "output_tokens.image"
        | "output_image_tokens"
        | "image_candidates_tokens" => Slot::ImageOutput,
        "input_tokens.cached"
        | "input_tokens.cache_read"
        | "cached_tokens"
        | "cached_content_tokens" => Slot::CacheRead,
        "input_tokens.cache_write" | "input_tokens.cache_creation" => Slot::CacheWrite,
        "output_tokens.reasoning" | "thinking.output_tokens" | "thoughts_tokens" => Slot::Reasoning,
        // Of Google's agents, before they were within the output.
        "experimental.reasoning_tokens" => Slot::Thoughts,
        "server_tool_use.web_search_requests" | "web_search_requests" => Slot::WebSearches,
        "cost" => return Some(Meaning::Charge),
        "text.output_tokens" | "text_candidates_tokens" => return Some(Meaning::TextOutput),
        // The last is the most that Google's agents may think, not what they have thought.
        "text.input_tokens"
        | "text.cache_read.input_tokens"
        | "text_prompt_tokens"
        | "document_prompt_tokens"
        | "text_cache_tokens"
        | "document_cache_tokens"
        | "accepted_prediction_tokens"
        | "rejected_prediction_tokens"
        | "experimental.system_instruction_tokens"
        | "experimental.reasoning_tokens_limit" => {
            return Some(Meaning::NotBilled);
        }
        _ => return flattened(name),
    }))
}

pub(super) fn classes<'a>(counts: &Counts) -> Reading<'a> {
    let mut reading = Reading {
        web_searches: counts.get(Slot::WebSearches),
        ..Reading::default()
    };
    let (write_5m, write_1h) = anthropic::split_writes(counts);
    let mut input = ContainedInput {
        total: counts.get(Slot::Input),
        cache_read: counts.get(Slot::CacheRead),
        cache_write: match counts.get(Slot::CacheWrite) {
            0 => write_5m + write_1h,
            all => all,
        },
        cache_write_1h: write_1h,
        audio: counts.get(Slot::AudioInput),
        image: counts.get(Slot::ImageInput),
        video: counts.get(Slot::VideoInput),
        audio_cached: counts.get(Slot::AudioCached),
        image_cached: counts.get(Slot::ImageCached),
        video_cached: counts.get(Slot::VideoCached),
    };
    let mut output = ContainedOutput {
        total: counts.get(Slot::Output),
        reasoning: counts.get(Slot::Reasoning),
        audio: counts.get(Slot::AudioOutput),
        image: counts.get(Slot::ImageOutput),
    };
    // Some have what is cached beside the input, or thoughts beside the output: their total decides.
    let total = counts.get(Slot::Total);
    // Google's agents have theirs beside the output, unless their total says otherwise.
    let thoughts = match counts.get(Slot::Thoughts) {
        thoughts if input.total + output.total == total => {
            output.reasoning = output.reasoning.max(thoughts);
            0
        }
        thoughts => thoughts,
    };
    openai::include(&mut input, &mut output, 0, total.saturating_sub(thoughts));
    let input_disputed = input.take_apart(&mut reading.tokens);
    let output_disputed = output.take_apart(&mut reading.tokens);
    reading.tokens.reasoning += thoughts;
    let foreign_read = counts.get(Slot::ForeignCacheRead);
    let foreign_write = counts.get(Slot::ForeignCacheWrite);
    reading.tokens.cache_read += foreign_read;
    reading.tokens.cache_write_5m += foreign_write;
    let is_foreign = foreign_read + foreign_write > 0 && reading.tokens.total() != total;
    reading.disputed = input_disputed || output_disputed || is_foreign;
    reading
}
