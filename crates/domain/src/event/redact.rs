//! Prompt text taken out of a rejected event before it goes to the DLQ.

use std::borrow::Cow;
use std::ops::Range;

use serde::de::{DeserializeSeed, MapAccess};
use serde_json::value::RawValue;

use super::envelope::PROMPT_KEYS;
use super::json::{Members, ObjectInto};

/// What stands in the place of a removed value.
const REMOVED: &[u8] = b"\"[removed]\"";

/// `value` without the values of prompt-like keys (`prompt`, `messages`, `input`, `output`,
/// `completion`, `content`), byte for byte the same everywhere else.
///
/// In JSON these are the keys directly under `data` and, because in binary mode the value is the
/// data itself, the outermost ones; each of their values but `null` becomes `"[removed]"`.
///
/// Where the value is not JSON nobody can tell where a prompt ends. There everything behind the
/// first `prompt:`, `"prompt":` or `'prompt':` (and so on for the other keys), however deep, is
/// replaced; without such a key the bytes stay as they are.
pub fn redact(value: &[u8]) -> Cow<'_, [u8]> {
    let parsed = std::str::from_utf8(value).ok().and_then(prompt_values);
    match parsed {
        Some(spans) if spans.is_empty() => Cow::Borrowed(value),
        Some(spans) => Cow::Owned(without(value, &spans)),
        None => match first_prompt_key(value) {
            Some(start) => Cow::Owned([&value[..start], REMOVED].concat()),
            None => Cow::Borrowed(value),
        },
    }
}

/// Where values of prompt-like keys stand in `text`, ascending; `None` where it is not JSON.
fn prompt_values(text: &str) -> Option<Vec<Range<usize>>> {
    let mut finder = Finder {
        text_start: text.as_ptr().addr(),
        within_data: false,
        spans: Vec::new(),
    };
    let mut deserializer = serde_json::Deserializer::from_str(text);
    ObjectInto(&mut finder)
        .deserialize(&mut deserializer)
        .ok()?;
    deserializer.end().ok()?;
    Some(finder.spans)
}

struct Finder {
    text_start: usize,
    within_data: bool,
    spans: Vec<Range<usize>>,
}

impl<'de> Members<'de> for Finder {
    fn member<A: MapAccess<'de>>(
        &mut self,
        key: Cow<'de, str>,
        object: &mut A,
    ) -> Result<(), A::Error> {
        let value = object.next_value::<&'de RawValue>()?.get();
        if PROMPT_KEYS.contains(&&*key) && value != "null" {
            let start = value.as_ptr().addr() - self.text_start;
            self.spans.push(start..start + value.len());
        } else if key == "data" && !self.within_data {
            self.within_data = true;
            let mut deserializer = serde_json::Deserializer::from_str(value);
            // Skipped as raw it was well formed; read in full, an escape may still be wrong.
            ObjectInto(&mut *self)
                .deserialize(&mut deserializer)
                .map_err(serde::de::Error::custom)?;
            self.within_data = false;
        }
        Ok(())
    }
}

/// The position behind the colon of the first prompt-like key in bytes that are not JSON.
fn first_prompt_key(value: &[u8]) -> Option<usize> {
    let ends_of = |key: &str| {
        let key = key.as_bytes().to_vec();
        (0..value.len()).find_map(move |start| key_end(value, start, &key))
    };
    PROMPT_KEYS.into_iter().filter_map(ends_of).min()
}

/// Where the value of `key` begins, if `key` with a colon stands at `start`.
fn key_end(value: &[u8], start: usize, key: &[u8]) -> Option<usize> {
    let behind = value[start..].strip_prefix(key)?;
    let inside_a_word = start
        .checked_sub(1)
        .is_some_and(|before| value[before].is_ascii_alphanumeric() || value[before] == b'_');
    if inside_a_word {
        return None;
    }
    let unquoted = match behind {
        [b'"' | b'\'', rest @ ..] => rest,
        _ => behind,
    };
    let colon = unquoted.trim_ascii_start().strip_prefix(b":")?;
    Some(value.len() - colon.len())
}

fn without(value: &[u8], spans: &[Range<usize>]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(value.len());
    let mut position = 0;
    for span in spans {
        kept.extend_from_slice(&value[position..span.start]);
        kept.extend_from_slice(REMOVED);
        position = span.end;
    }
    kept.extend_from_slice(&value[position..]);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redacted(text: &str) -> String {
        String::from_utf8(redact(text.as_bytes()).into_owned()).unwrap()
    }

    #[test]
    fn only_prompt_values_directly_under_data_are_replaced() {
        assert_eq!(
            redacted(
                r#"{ "id":1,"data": {"prompt" : [{"a":"b}"}],"usage":{"output":"2"},"out\u0070ut":"x\"y" , "content":null}}"#
            ),
            r#"{ "id":1,"data": {"prompt" : "[removed]","usage":{"output":"2"},"out\u0070ut":"[removed]" , "content":null}}"#
        );
        assert_eq!(
            redacted(r#"{"messages":"hi"}"#),
            r#"{"messages":"[removed]"}"#
        );
        let clean = r#"{"data":{"workspace":"a","data":{"prompt":"deeper"}}, "x":1.0e5}"#;
        assert!(matches!(redact(clean.as_bytes()), Cow::Borrowed(_)));
    }

    #[test]
    fn what_is_not_json_loses_everything_behind_the_first_prompt_key() {
        for (text, expected) in [
            (
                r#"{"data":{"a":1,"prompt": "x "y" z"}}"#,
                r#"{"data":{"a":1,"prompt":"[removed]""#,
            ),
            (
                "{'data': {'content': 'x'}}",
                "{'data': {'content':\"[removed]\"",
            ),
            ("prompt: tell me", "prompt:\"[removed]\""),
            (r#"{"data":{"my_prompt":"x""#, r#"{"data":{"my_prompt":"x""#),
            ("plain", "plain"),
        ] {
            assert_eq!(redacted(text), expected);
        }
        let not_utf8 = b"{\"prompt\":\"\xff\"}";
        assert_eq!(&*redact(not_utf8), b"{\"prompt\":\"[removed]\"");
    }
}
