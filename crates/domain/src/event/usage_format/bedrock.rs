//! `bedrock.converse`: `inputTokens` excludes what was read from and written to the cache;
//! `cacheDetails` splits the writes by lifetime. Models differ in whether `totalTokens` contains the
//! cache, so that it says only what it has beyond all of that.

use super::Reading;
use super::anthropic::cache_writes;
use super::contained::without;
use super::counts::Counts;
use super::meaning::{Meaning, Section, Slot, Word};
use crate::units::UnitKind;

pub(super) fn meaning(section: Section, key: &str) -> Option<Meaning> {
    Some(match (section, key) {
        // The second names are those of `amazon-bedrock-invocationMetrics`, the third Nova Sonic's,
        // the others those of Llama's and Titan's own answers.
        (
            Section::Top,
            "inputTokens"
            | "inputTokenCount"
            | "totalInputTokens"
            | "prompt_token_count"
            | "inputTextTokenCount",
        ) => Meaning::Count(Slot::Input),
        (
            Section::Top,
            "outputTokens" | "outputTokenCount" | "totalOutputTokens" | "generation_token_count",
        ) => Meaning::Count(Slot::Output),
        // Nova Sonic's, since the session began; `delta` has the last of it.
        (Section::Top, "details") => Meaning::Object(Section::ToolDetails),
        (Section::ToolDetails, "total") => Meaning::Object(Section::Speech),
        (Section::ToolDetails, "delta") => Meaning::NotBilled,
        (Section::Speech, "input") => Meaning::Object(Section::InputDetails),
        (Section::Speech, "output") => Meaning::Object(Section::OutputDetails),
        (Section::InputDetails, "speechTokens") => Meaning::Count(Slot::AudioInput),
        (Section::OutputDetails, "speechTokens") => Meaning::Count(Slot::AudioOutput),
        (Section::InputDetails | Section::OutputDetails, "textTokens") => Meaning::NotBilled,
        (Section::Top, "amazon-bedrock-invocationMetrics") => Meaning::Object(Section::Top),
        (Section::Top, "serviceTier" | "service_tier") => Meaning::WordOrType(Word::Tier),
        (Section::Top, "totalTokens" | "totalTokenCount") => Meaning::Count(Slot::Total),
        (Section::Top, "cacheReadInputTokens" | "cacheReadInputTokenCount") => {
            Meaning::Count(Slot::CacheRead)
        }
        (Section::Top, "cacheWriteInputTokens" | "cacheWriteInputTokenCount") => {
            Meaning::Count(Slot::CacheWrite)
        }
        (Section::Top, "cacheDetails") => Meaning::List(Section::CacheLifetimes),
        (Section::CacheLifetimes, "ttl") => Meaning::Label,
        (Section::CacheLifetimes, "inputTokens") => Meaning::LabelledCount,
        (Section::CacheLifetimes, "5m") => Meaning::Count(Slot::CacheWrite5m),
        (Section::CacheLifetimes, "1h") => Meaning::Count(Slot::CacheWrite1h),
        (Section::CacheLifetimes, "30m") => Meaning::Count(Slot::CacheWrite30m),
        (Section::CacheLifetimes, "12h") => Meaning::Count(Slot::CacheWrite12h),
        // Guardrails: the metrics of an application, or the usage in them.
        (Section::Top, "usage") => Meaning::Object(Section::Top),
        (Section::Top, "contentPolicyUnits") => Meaning::Units(UnitKind::GuardrailContentUnits),
        (Section::Top, "contentPolicyImageUnits") => Meaning::Units(UnitKind::GuardrailImageUnits),
        (Section::Top, "topicPolicyUnits") => Meaning::Units(UnitKind::GuardrailTopicUnits),
        (Section::Top, "sensitiveInformationPolicyUnits") => {
            Meaning::Units(UnitKind::GuardrailSensitiveUnits)
        }
        (Section::Top, "contextualGroundingPolicyUnits") => {
            Meaning::Units(UnitKind::GuardrailGroundingUnits)
        }
        (Section::Top, "automatedReasoningPolicyUnits") => {
            Meaning::Units(UnitKind::GuardrailReasoningUnits)
        }
        // Word filters and patterns are free; the others say what the units were counted of.
        (
            Section::Top,
            "wordPolicyUnits"
            | "sensitiveInformationPolicyFreeUnits"
            | "automatedReasoningPolicies"
            | "guardrailCoverage"
            | "guardrailProcessingLatency",
        ) => Meaning::NotBilled,
        _ => return None,
    })
}

pub(super) fn classes<'a>(counts: &Counts) -> Reading<'a> {
    let mut reading = Reading::default();
    let tokens = &mut reading.tokens;
    let (heard, said) = (counts.get(Slot::AudioInput), counts.get(Slot::AudioOutput));
    let (input, more_heard) = without(counts.get(Slot::Input), heard);
    let (output, more_said) = without(counts.get(Slot::Output), said);
    (tokens.input, tokens.audio_input) = (input, heard);
    (tokens.output, tokens.audio_output) = (output, said);
    tokens.cache_read = counts.get(Slot::CacheRead);
    let (write_5m, write_1h, disputed) = cache_writes(counts);
    tokens.cache_write_5m = write_5m;
    tokens.cache_write_1h = write_1h;
    reading.disputed = disputed || more_heard || more_said;
    reading
}
