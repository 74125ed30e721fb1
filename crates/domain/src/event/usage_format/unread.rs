//! Numbers in a usage object that no rule reads, and that look as if they were billed: under the
//! readings of known members lies this net, so that what a provider adds tomorrow is seen.

use serde_json::value::RawValue;

use crate::event::json::JsonKind;
use crate::event::redact::{MAX_COUNTS_TEXT_BYTES, REMOVED_WORD, kind, members};

/// Parts of names of what is billed.
const BILLED: &[&str] = &[
    "token",
    "unit",
    "cost",
    "tick",
    "character",
    "second",
    "minute",
    "quer",
    "search",
    "image",
    "pixel",
    "page",
    "call",
    "source",
    "credit",
    "classification",
    "request",
    "execution",
    "generation",
    "session",
    "cache",
    "reasoning",
    "grounding",
    "invocation",
];
/// Parts of names of what only looks so: times, and ratios.
const NOT_BILLED: &[&str] = &[
    "per_sec", "latency", "ttl", "rate", "_ms", "time", "millis", "duration", "_id",
];

/// Containers in each other that are looked into; more than that are not kept of an event either.
const DEEPEST: usize = 8;

/// The longest path that is told, bytes.
const LONGEST_PATH: usize = 256;

/// The path below `key` of the first number other than zero in `json` that looks billed by its own
/// name, or by that of an object or list around it. What is not kept of an event is not looked at, so
/// that it reads the same before and after: long names, and objects with half a surrogate pair in a name.
pub(super) fn billed_looking(key: &str, json: &str) -> Option<String> {
    match kind(json) {
        JsonKind::Count | JsonKind::Array | JsonKind::Object if is_kept(key) => {
            below(key, looks_billed(key), json, 0)
        }
        _ => None,
    }
}

fn below(path: &str, around: bool, json: &str, depth: usize) -> Option<String> {
    match kind(json) {
        JsonKind::Count => {
            let is_zero = json.parse::<f64>().is_ok_and(|number| number == 0.0);
            (around && !is_zero).then(|| path.to_owned())
        }
        JsonKind::Array if depth < DEEPEST => {
            let elements: Vec<&RawValue> = serde_json::from_str(json).ok()?;
            let path = format!("{path}.[]");
            let mut elements = elements.iter();
            elements.find_map(|element| below(&path, around, element.get(), depth + 1))
        }
        JsonKind::Object if depth < DEEPEST => {
            let members = members(json)?;
            let mut kept = members.iter().filter(|(name, _)| is_kept(name));
            kept.find_map(|(name, member)| {
                let says_itself = kind(member) == JsonKind::Count && name != "count";
                let billed = looks_billed(name) || (around && !says_itself);
                below(&format!("{path}.{name}"), billed, member, depth + 1)
            })
        }
        _ => None,
    }
}

/// `path` as people may see it: bounded, and without what no provider calls a member, since names
/// come from outside too and could hold a text.
pub(super) fn told(path: &str) -> Box<str> {
    let is_of_a_name = |one: char| one.is_ascii_alphanumeric() || "_-.:[]/".contains(one);
    let told = path.chars().take(LONGEST_PATH);
    told.map(|one| if is_of_a_name(one) { one } else { '?' })
        .collect()
}

fn is_kept(name: &str) -> bool {
    name.len() <= MAX_COUNTS_TEXT_BYTES && name != REMOVED_WORD
}

fn looks_billed(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    has(BILLED) && !has(NOT_BILLED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_told_path_is_bounded_and_holds_names_only() {
        assert_eq!(&*told("new.b-1.[].search_calls"), "new.b-1.[].search_calls");
        assert_eq!(&*told("a\u{1b}[31m tokens\n\u{202e}é"), "a?[31m?tokens???");
        assert_eq!(told(&"é_tokens".repeat(200)).len(), LONGEST_PATH);
    }

    #[test]
    fn billed_looking_numbers_are_named_by_their_path() {
        for (key, json, expected) in [
            ("video_tokens", "7", Some("video_tokens")),
            ("video_tokens", "0", None),
            ("video_tokens", "0.0", None),
            ("index", "7", None),
            ("tokens_per_second", "7", None),
            ("queue_time", "0.5", None),
            (
                "new",
                r#"{"a":1,"b":{"search_calls":2}}"#,
                Some("new.b.search_calls"),
            ),
            (
                "extra_tokens",
                r#"[{"modality":"X","tokenCount":3}]"#,
                Some("extra_tokens.[].tokenCount"),
            ),
            (
                "plugins",
                r#"{"search":{"count":1,"strategy":2}}"#,
                Some("plugins.search.count"),
            ),
            ("search", r#"{"strategy":2}"#, None),
            ("cost_details", r#"{"upstream_inference_cost":null}"#, None),
        ] {
            assert_eq!(billed_looking(key, json).as_deref(), expected, "{key}");
        }
    }
}
