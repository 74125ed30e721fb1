//! `anthropic.messages`: `input_tokens` excludes what was read from and written to the cache.
//!
//! `output_tokens` contains thinking, which is billed as output and not reported apart. Web fetches
//! (`server_tool_use.web_fetch_requests`) are not billed beyond their tokens.

use super::Reading;
use super::contained::without;
use super::walk::{Counts, Meaning, Section, Slot};

pub(super) fn meaning(section: Section, key: &str) -> Option<Meaning> {
    Some(match (section, key) {
        (Section::Top, "input_tokens") => Meaning::Count(Slot::Input),
        (Section::Top, "cache_read_input_tokens") => Meaning::Count(Slot::CacheRead),
        (Section::Top, "cache_creation_input_tokens") => Meaning::Count(Slot::CacheWrite),
        (Section::Top, "output_tokens") => Meaning::Count(Slot::Output),
        (Section::Top, "cache_creation") => Meaning::Object(Section::CacheCreation),
        (Section::Top, "server_tool_use") => Meaning::Object(Section::ServerToolUse),
        (Section::CacheCreation, "ephemeral_5m_input_tokens") => Meaning::Count(Slot::CacheWrite5m),
        (Section::CacheCreation, "ephemeral_1h_input_tokens") => Meaning::Count(Slot::CacheWrite1h),
        (Section::ServerToolUse, "web_search_requests") => Meaning::Count(Slot::WebSearches),
        _ => return None,
    })
}

pub(super) fn classes(counts: &Counts) -> Reading {
    let mut reading = Reading {
        web_searches: counts.get(Slot::WebSearches),
        ..Reading::default()
    };
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

/// Writes by lifetime, and whether the split contradicts its total. Without a split all are for
/// five minutes, the default lifetime; what a split leaves over is too.
pub(super) fn cache_writes(counts: &Counts) -> (u64, u64, bool) {
    let total = counts.get(Slot::CacheWrite);
    let (write_5m, write_1h) = (
        counts.get(Slot::CacheWrite5m),
        counts.get(Slot::CacheWrite1h),
    );
    if !counts.has(Slot::CacheWrite5m) && !counts.has(Slot::CacheWrite1h) {
        return (total, 0, false);
    }
    if !counts.has(Slot::CacheWrite) {
        return (write_5m, write_1h, false);
    }
    match without(total, write_5m + write_1h) {
        (rest, false) => (write_5m + rest, write_1h, rest > 0),
        (_, true) => (write_5m, write_1h, true),
    }
}
