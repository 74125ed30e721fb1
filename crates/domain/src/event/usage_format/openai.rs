//! `openai.chat` and `openai.responses`: totals that contain their `…_details`.
//!
//! Both names of each total are accepted in both formats (images and realtime use the names of
//! responses with other details), and so are the cache fields of providers that speak OpenAI's
//! language: DeepSeek's `prompt_cache_hit_tokens`, OpenRouter's `cache_write_tokens`.

use super::Reading;
use super::contained::{ContainedInput, ContainedOutput, reconcile};
use super::walk::{Counts, Meaning, Section, Slot};

pub(super) fn meaning(section: Section, key: &str) -> Option<Meaning> {
    let slot = match (section, key) {
        (
            Section::Top,
            "prompt_tokens_details" | "input_tokens_details" | "input_token_details",
        ) => {
            return Some(Meaning::Object(Section::InputDetails));
        }
        (
            Section::Top,
            "completion_tokens_details" | "output_tokens_details" | "output_token_details",
        ) => return Some(Meaning::Object(Section::OutputDetails)),
        (Section::InputDetails, "cached_tokens_details") => {
            return Some(Meaning::Object(Section::CachedDetails));
        }
        (Section::Top, "prompt_tokens" | "input_tokens") => Slot::Input,
        (Section::Top, "completion_tokens" | "output_tokens") => Slot::Output,
        (Section::Top, "total_tokens") => Slot::Total,
        (Section::Top, "prompt_cache_hit_tokens") => Slot::CacheRead,
        (Section::InputDetails, "cached_tokens") => Slot::CacheRead,
        (Section::InputDetails, "cache_write_tokens" | "cache_creation_tokens") => Slot::CacheWrite,
        (Section::InputDetails, "audio_tokens") => Slot::AudioInput,
        (Section::InputDetails, "image_tokens") => Slot::ImageInput,
        (Section::InputDetails, "video_tokens") => Slot::VideoInput,
        (Section::CachedDetails, "audio_tokens") => Slot::AudioCached,
        (Section::CachedDetails, "image_tokens") => Slot::ImageCached,
        (Section::OutputDetails, "reasoning_tokens") => Slot::Reasoning,
        (Section::OutputDetails, "audio_tokens") => Slot::AudioOutput,
        (Section::OutputDetails, "image_tokens") => Slot::ImageOutput,
        _ => return None,
    };
    Some(Meaning::Count(slot))
}

pub(super) fn classes(counts: &Counts) -> Reading {
    let mut reading = Reading::default();
    let input = ContainedInput {
        total: counts.get(Slot::Input),
        cache_read: counts.get(Slot::CacheRead),
        cache_write: counts.get(Slot::CacheWrite),
        audio: counts.get(Slot::AudioInput),
        image: counts.get(Slot::ImageInput),
        video: counts.get(Slot::VideoInput),
        audio_cached: counts.get(Slot::AudioCached),
        image_cached: counts.get(Slot::ImageCached),
        ..ContainedInput::default()
    };
    let output = ContainedOutput {
        total: counts.get(Slot::Output),
        reasoning: counts.get(Slot::Reasoning),
        audio: counts.get(Slot::AudioOutput),
        image: counts.get(Slot::ImageOutput),
    };
    let input_disputed = input.take_apart(&mut reading.tokens);
    let output_disputed = output.take_apart(&mut reading.tokens);
    let total_disputed = reconcile(&mut reading.tokens, counts.get(Slot::Total));
    reading.disputed = input_disputed || output_disputed || total_disputed;
    reading
}
