//! `bedrock.converse`: `inputTokens` excludes what was read from and written to the cache;
//! `cacheDetails` splits the writes by lifetime. `totalTokens` is not held against the rest, because
//! models differ in whether it contains the cache.

use super::Reading;
use super::anthropic::cache_writes;
use super::walk::{Counts, Meaning, Section, Slot};

pub(super) fn meaning(section: Section, key: &str) -> Option<Meaning> {
    Some(match (section, key) {
        (Section::Top, "inputTokens") => Meaning::Count(Slot::Input),
        (Section::Top, "outputTokens") => Meaning::Count(Slot::Output),
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
        _ => return None,
    })
}

pub(super) fn classes(counts: &Counts) -> Reading {
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
