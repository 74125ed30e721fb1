//! What a call's body says, and the edits that are made in it. The body itself is never written anew:
//! order, large numbers, unknown members and signatures survive.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::asked_members::Members;

/// OpenAI makes no more of one call.
const MOST_ANSWERS: u64 = 128;
/// More are asked for by mistake, and no estimate takes them.
const MOST_TOKENS: u64 = 1_000_000_000;
/// Providers take a few kilobytes, bytes; longer ones name nobody, and are not taken apart.
const LONGEST_METADATA: usize = 64 * 1024;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GenerationConfig<'a> {
    /// Gemini's name, and Bedrock's.
    #[serde(alias = "maxTokens", alias = "max_output_tokens")]
    max_output_tokens: Option<u64>,
    #[serde(borrow, alias = "candidate_count")]
    candidate_count: Option<&'a RawValue>,
}

/// A call's body, read.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// Empty where the body names none.
    pub(crate) model: String,
    /// Where the model stands, with its quotes.
    model_at: Option<Range<usize>>,
    /// Whether the answer is to be a stream.
    pub(crate) streams: bool,
    /// Of one answer.
    max_output_tokens: Option<u64>,
    /// How many answers are asked for; each is charged.
    answers: u64,
    pub(crate) service_tier: String,
    /// What is to answer in the place of a model, as Google has them; empty where nothing is.
    pub(crate) agent: String,
    /// Whether the answer is to be made in the background.
    pub(crate) in_background: bool,
    /// How the caller calls the call itself, as vLLM takes it; empty where it does not.
    pub(crate) request_id: String,
    /// Texts by which an app may name its user: `user`, `safety_identifier`, `metadata.NAME`.
    pub(crate) named: Vec<(String, String)>,
    usage_edit: Option<Edit>,
}

/// Bytes that stand in place of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Edit {
    at: Range<usize>,
    text: String,
}

impl Edit {
    /// Puts `new`, as JSON, in the place of the value `raw`, which was borrowed from `text`.
    pub(crate) fn of_text(text: &str, raw: &RawValue, new: &str) -> Self {
        Self {
            at: place_of(text, raw),
            text: serde_json::Value::from(new).to_string(),
        }
    }
}

impl Asked {
    /// Reads `body`, a JSON object.
    ///
    /// # Errors
    /// What is wrong with it, in words for its sender.
    pub(crate) fn read(body: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(body).map_err(|_| "the body is not UTF-8".to_owned())?;
        let members: Members<'_> = serde_json::from_str(text).map_err(|error| {
            format!("the body is not a JSON object that can be metered: {error}")
        })?;
        let place = |raw: &RawValue| place_of(text, raw);
        let counts = [
            members.max_completion_tokens,
            members.max_output_tokens,
            members.max_tokens,
        ];
        let config = members.generation_config.or(members.inference_config);
        let config = config.and_then(parsed::<GenerationConfig<'_>>);
        let (most_of_config, candidates) = config.map_or((None, None), |config| {
            let candidates = config.candidate_count.and_then(parsed::<u64>);
            (config.max_output_tokens, candidates)
        });
        let told = [members.n, members.best_of].into_iter().flatten();
        let answers = told.filter_map(parsed::<u64>).chain(candidates).max();
        let streams = members.stream.is_some_and(|raw| raw.get() == "true");
        Ok(Self {
            model: members.model.and_then(parsed).unwrap_or_default(),
            model_at: members.model.map(place),
            streams,
            max_output_tokens: counts
                .into_iter()
                .flatten()
                .find_map(parsed)
                .or(most_of_config),
            answers: answers.unwrap_or(1).clamp(1, MOST_ANSWERS),
            service_tier: members.service_tier.and_then(parsed).unwrap_or_default(),
            agent: members.agent.and_then(parsed).unwrap_or_default(),
            in_background: members.background.and_then(parsed).unwrap_or_default(),
            request_id: members.request_id.and_then(parsed).unwrap_or_default(),
            named: named(&members),
            usage_edit: streams
                .then(|| usage_edit(text, members.stream_options))
                .flatten(),
        })
    }

    /// Output tokens of all its answers at most; `None` where the body sets no limit.
    pub(crate) fn most_output(&self) -> Option<u64> {
        let each = self.max_output_tokens?;
        Some(each.saturating_mul(self.answers.max(1)).min(MOST_TOKENS))
    }

    /// The edit that asks for the usage of a chat completion's stream; `None` where the caller has
    /// asked for it already, or has written what is not understood.
    pub(crate) fn usage_edit(&self) -> Option<&Edit> {
        self.usage_edit.as_ref()
    }

    /// The edit that puts another model in place of the one that was asked for.
    pub(crate) fn model_edit(&self, model: &str) -> Option<Edit> {
        let at = self.model_at.clone()?;
        let text = serde_json::to_string(model).ok()?;
        Some(Edit { at, text })
    }
}

/// `body` with `edits`, which do not overlap.
pub(crate) fn edited(body: &Bytes, mut edits: Vec<Edit>) -> Bytes {
    if edits.is_empty() {
        return body.clone();
    }
    edits.sort_by_key(|edit| edit.at.start);
    let mut whole = BytesMut::with_capacity(body.len() + 64);
    let mut done = 0;
    for edit in edits {
        whole.extend_from_slice(&body[done..edit.at.start]);
        whole.extend_from_slice(edit.text.as_bytes());
        done = edit.at.end;
    }
    whole.extend_from_slice(&body[done..]);
    whole.freeze()
}

/// The value that `raw` holds; `None` where it is of another kind.
pub(crate) fn parsed<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> Option<T> {
    serde_json::from_str(raw.get()).ok()
}

/// Where `raw`, which was borrowed from `text`, stands in it.
fn place_of(text: &str, raw: &RawValue) -> Range<usize> {
    let start = raw.get().as_ptr() as usize - text.as_ptr() as usize;
    start..start + raw.get().len()
}

fn named(members: &Members<'_>) -> Vec<(String, String)> {
    let mut named = Vec::new();
    let texts = [
        ("user", members.user),
        ("safety_identifier", members.safety_identifier),
    ];
    for (name, raw) in texts {
        if let Some(text) = raw.and_then(parsed::<String>) {
            named.push((name.to_owned(), text));
        }
    }
    let metadata = members
        .metadata
        .filter(|raw| raw.get().len() <= LONGEST_METADATA);
    let metadata = metadata.and_then(parsed::<serde_json::Map<_, _>>);
    for (name, value) in metadata.unwrap_or_default() {
        if let serde_json::Value::String(text) = value {
            named.push((format!("metadata.{name}"), text));
        }
    }
    named
}

const ASK: &str = r#""include_usage":true"#;

/// Asks for `usage` in a stream: it is there only where `stream_options.include_usage` is true.
fn usage_edit(text: &str, options: Option<&RawValue>) -> Option<Edit> {
    #[derive(Deserialize)]
    struct Options<'a> {
        #[serde(borrow)]
        include_usage: Option<&'a RawValue>,
    }
    let Some(options) = options.filter(|options| options.get() != "null") else {
        return match options {
            Some(null) => Some(Edit {
                at: place_of(text, null),
                text: format!("{{{ASK}}}"),
            }),
            None => Some(inserted(text, 0, &format!(r#""stream_options":{{{ASK}}}"#))),
        };
    };
    let read: Options<'_> = parsed(options)?;
    match read.include_usage.map(RawValue::get) {
        None => Some(inserted(text, place_of(text, options).start, ASK)),
        Some("false") => {
            let place = place_of(text, read.include_usage?);
            Some(Edit {
                at: place,
                text: "true".to_owned(),
            })
        }
        Some(_) => None,
    }
}

/// `member` as the first of the object that begins at or after `from`.
fn inserted(text: &str, from: usize, member: &str) -> Edit {
    let begin = text[from..]
        .find('{')
        .map_or(from, |brace| from + brace + 1);
    let is_empty = text[begin..].trim_start().starts_with('}');
    let comma = if is_empty { "" } else { "," };
    Edit {
        at: begin..begin,
        text: format!("{member}{comma}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn injected(body: &str) -> String {
        let asked = Asked::read(body.as_bytes()).unwrap();
        let edits = asked.usage_edit().cloned().into_iter().collect();
        String::from_utf8(edited(&Bytes::copy_from_slice(body.as_bytes()), edits).to_vec()).unwrap()
    }

    #[test]
    fn usage_is_asked_for_where_the_caller_did_not() {
        for (body, wanted) in [
            (
                r#" {"stream":true, "big":12345678901234567890}"#,
                r#" {"stream_options":{"include_usage":true},"stream":true, "big":12345678901234567890}"#,
            ),
            (
                r#"{"stream":true,"stream_options":null}"#,
                r#"{"stream":true,"stream_options":{"include_usage":true}}"#,
            ),
            (
                r#"{"stream":true,"stream_options": { } }"#,
                r#"{"stream":true,"stream_options": {"include_usage":true } }"#,
            ),
            (
                r#"{"stream_options":{"include_obfuscation":false},"stream":true}"#,
                r#"{"stream_options":{"include_usage":true,"include_obfuscation":false},"stream":true}"#,
            ),
            (
                r#"{"stream_options":{"include_usage" : false},"stream":true}"#,
                r#"{"stream_options":{"include_usage" : true},"stream":true}"#,
            ),
        ] {
            assert_eq!(injected(body), wanted);
        }
        for unchanged in [
            r#"{"stream":true,"stream_options":{"include_usage":true}}"#,
            r#"{"stream":true,"stream_options":7}"#,
            r#"{"stream":true,"stream_options":{"include_usage":"yes"}}"#,
            r#"{"stream":false}"#,
            r#"{"stream":"true"}"#,
            "{}",
        ] {
            assert_eq!(injected(unchanged), unchanged);
        }
    }

    #[test]
    fn another_model_stands_in_the_place_of_the_first() {
        let body =
            Bytes::from_static(br#"{"x":"\"model\":\"no\"","model" : "a\u0062c","y":1e400}"#);
        let asked = Asked::read(&body).unwrap();
        assert_eq!(asked.model, "abc");
        let edit = asked.model_edit("d\"e").unwrap();
        let wanted = r#"{"x":"\"model\":\"no\"","model" : "d\"e","y":1e400}"#;
        assert_eq!(edited(&body, vec![edit]), wanted);
    }

    #[test]
    fn limits_and_names_are_read_from_every_maker() {
        let asked = |body: &str| Asked::read(body.as_bytes()).unwrap();
        for (body, wanted) in [
            (r#"{"max_tokens":5}"#, Some(5)),
            (r#"{"max_tokens":5,"max_completion_tokens":7}"#, Some(7)),
            (r#"{"generationConfig":{"maxOutputTokens":9}}"#, Some(9)),
            (r#"{"generation_config":{"max_output_tokens":9}}"#, Some(9)),
            (r#"{"inferenceConfig":{"maxTokens":8}}"#, Some(8)),
            (r#"{"max_tokens":"many"}"#, None),
            // Each answer is charged.
            (r#"{"max_tokens":5,"n":10}"#, Some(50)),
            (r#"{"max_tokens":5,"n":2,"best_of":3}"#, Some(15)),
            (r#"{"max_tokens":5,"n":null}"#, Some(5)),
            (r#"{"max_tokens":5,"n":0}"#, Some(5)),
            (r#"{"max_tokens":5,"n":1000000}"#, Some(640)),
            (r#"{"n":10}"#, None),
            (
                r#"{"generationConfig":{"maxOutputTokens":9,"candidateCount":4}}"#,
                Some(36),
            ),
            // A count that is none takes no limit away.
            (
                r#"{"generationConfig":{"maxOutputTokens":9,"candidateCount":"many"}}"#,
                Some(9),
            ),
        ] {
            assert_eq!(asked(body).most_output(), wanted, "{body}");
        }
        let body = r#"{"user":"u","metadata":{"user_id":"m","n":1}}"#;
        let named = [("user", "u"), ("metadata.user_id", "m")];
        assert_eq!(
            asked(body).named,
            named.map(|(name, text)| (name.to_owned(), text.to_owned()))
        );
    }

    #[test]
    fn a_body_that_can_be_read_in_two_ways_is_refused() {
        for body in [
            r#"{"model":"cheap","model":"dear"}"#,
            r#"{"model":"cheap","mod\u0065l":"dear"}"#,
            r#"{"model":"cheap","MoDel":"dear"}"#,
            r#"{"stream":false,"model":"m","Stream":true}"#,
            r#"{"stream":null,"stream":true}"#,
            "[]",
            "",
            "{",
            "\u{feff}{}",
        ] {
            assert!(Asked::read(body.as_bytes()).is_err(), "{body}");
        }
    }
}
