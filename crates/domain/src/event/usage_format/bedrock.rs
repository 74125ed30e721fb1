//! `bedrock.converse`: `inputTokens` excludes what was read from and written to the cache;
//! `cacheDetails` splits the writes by lifetime. `totalTokens` is not held against the rest, because
//! models differ in whether it contains the cache.

use super::Reading;
use super::anthropic::cache_writes;
use super::walk::{Counts, Meaning, Section, Slot, Word};
use crate::units::UnitKind;

pub(super) fn meaning(section: Section, key: &str) -> Option<Meaning> {
    Some(match (section, key) {
        // The second names are those of `amazon-bedrock-invocationMetrics`.
        (Section::Top, "inputTokens" | "inputTokenCount") => Meaning::Count(Slot::Input),
        (Section::Top, "outputTokens" | "outputTokenCount") => Meaning::Count(Slot::Output),
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
    tokens.input = counts.get(Slot::Input);
    tokens.cache_read = counts.get(Slot::CacheRead);
    tokens.output = counts.get(Slot::Output);
    let (write_5m, write_1h, disputed) = cache_writes(counts);
    tokens.cache_write_5m = write_5m;
    tokens.cache_write_1h = write_1h;
    reading.disputed = disputed;
    reading
}
