//! `spendfuse` and `otel`: totals that contain everything.
//!
//! OpenTelemetry's generative-AI conventions say the same of `gen_ai.usage.input_tokens` ("should
//! include all types of input tokens, including cached tokens"), so one reading serves both.
//!
//! An Anthropic object sent without its `usage_format` would look right but for its cache fields,
//! which are not contained in `input_tokens`: they are charged on top, as disputed.

use super::contained::{ContainedInput, ContainedOutput};
use super::walk::{Counts, Meaning, Section, Slot};
use super::{Reading, UsageFormat};

const OTEL_PREFIX: &str = "gen_ai.usage.";

pub(super) fn meaning(format: UsageFormat, section: Section, key: &str) -> Option<Meaning> {
    if section != Section::Top {
        return None;
    }
    if format == UsageFormat::Otel
        && let Some(slot) = otel_slot(key.strip_prefix(OTEL_PREFIX).unwrap_or(key))
    {
        return Some(Meaning::Count(slot));
    }
    Some(Meaning::Count(
        match key.strip_prefix(OTEL_PREFIX).unwrap_or(key) {
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
            "total_tokens" => return Some(Meaning::NotBilled),
            _ => return None,
        },
    ))
}

/// Names that OpenTelemetry's conventions once had and instrumentations still send, and those of
/// modalities.
fn otel_slot(name: &str) -> Option<Slot> {
    Some(match name {
        "prompt_tokens" => Slot::Input,
        "completion_tokens" => Slot::Output,
        "audio.input_tokens" | "input_tokens.audio" | "input_audio_tokens" => Slot::AudioInput,
        "image.input_tokens" | "input_tokens.image" | "input_image_tokens" => Slot::ImageInput,
        "video.input_tokens" | "input_tokens.video" | "input_video_tokens" => Slot::VideoInput,
        "audio.output_tokens" | "output_tokens.audio" | "output_audio_tokens" => Slot::AudioOutput,
        "image.output_tokens" | "output_tokens.image" | "output_image_tokens" => Slot::ImageOutput,
        "input_tokens.cached" | "input_tokens.cache_read" => Slot::CacheRead,
        "input_tokens.cache_write" | "input_tokens.cache_creation" => Slot::CacheWrite,
        "output_tokens.reasoning" | "thinking.output_tokens" => Slot::Reasoning,
        _ => return None,
    })
}

pub(super) fn classes<'a>(counts: &Counts) -> Reading<'a> {
    let mut reading = Reading::default();
    let write_1h = counts.get(Slot::CacheWrite1h);
    let input = ContainedInput {
        total: counts.get(Slot::Input),
        cache_read: counts.get(Slot::CacheRead),
        cache_write: if counts.has(Slot::CacheWrite) {
            counts.get(Slot::CacheWrite)
        } else {
            write_1h
        },
        cache_write_1h: write_1h,
        audio: counts.get(Slot::AudioInput),
        image: counts.get(Slot::ImageInput),
        video: counts.get(Slot::VideoInput),
        audio_cached: counts.get(Slot::AudioCached),
        image_cached: counts.get(Slot::ImageCached),
        video_cached: counts.get(Slot::VideoCached),
    };
    let output = ContainedOutput {
        total: counts.get(Slot::Output),
        reasoning: counts.get(Slot::Reasoning),
        audio: counts.get(Slot::AudioOutput),
        image: counts.get(Slot::ImageOutput),
    };
    let input_disputed = input.take_apart(&mut reading.tokens);
    let output_disputed = output.take_apart(&mut reading.tokens);
    let foreign_read = counts.get(Slot::ForeignCacheRead);
    let foreign_write = counts.get(Slot::ForeignCacheWrite);
    reading.tokens.cache_read += foreign_read;
    reading.tokens.cache_write_5m += foreign_write;
    reading.disputed = input_disputed || output_disputed || foreign_read + foreign_write > 0;
    reading
}
