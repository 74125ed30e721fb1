//! Numbers in a usage object that no rule reads, and that look as if they were billed: under the
//! readings of known members lies this net, so that what a provider adds tomorrow is seen.

use serde_json::Value;

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
    "page",
    "call",
    "source",
    "credit",
    "classification",
];
/// Parts of names of what only looks so: times, and ratios.
const NOT_BILLED: &[&str] = &["per_second", "latency", "ttl", "rate", "_ms", "time"];

/// The path below `key` of the first number other than zero in `json` that looks billed by its own
/// name, or by that of an object or list around it.
pub(super) fn billed_looking(key: &str, json: &str) -> Option<String> {
    match json.as_bytes().first()? {
        b'0'..=b'9' | b'-' => {
            let is_zero = || json.bytes().all(|byte| matches!(byte, b'0' | b'.' | b'-'));
            (looks_billed(key) && !is_zero()).then(|| key.to_owned())
        }
        b'{' | b'[' => below(key, looks_billed(key), &serde_json::from_str(json).ok()?),
        _ => None,
    }
}

fn below(path: &str, around: bool, value: &Value) -> Option<String> {
    match value {
        Value::Number(number) => {
            let is_zero = number.as_f64().is_some_and(|number| number == 0.0);
            (around && !is_zero).then(|| path.to_owned())
        }
        Value::Array(elements) => {
            let mut elements = elements.iter();
            elements.find_map(|element| below(&format!("{path}.[]"), around, element))
        }
        Value::Object(members) => members.iter().find_map(|(name, member)| {
            let is_number = member.is_number();
            let billed = looks_billed(name) || (around && !is_number);
            below(&format!("{path}.{name}"), billed, member)
        }),
        _ => None,
    }
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
            ("cost_details", r#"{"upstream_inference_cost":null}"#, None),
        ] {
            assert_eq!(billed_looking(key, json).as_deref(), expected, "{key}");
        }
    }
}
