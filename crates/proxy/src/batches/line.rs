//! What a line of a batch's results says.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::answer::Seen;
use crate::request::parsed;
use crate::route::Call;

/// One answer of a batch, or why there is none.
#[derive(Debug, PartialEq)]
pub(super) enum Line {
    /// No line of a batch, or half of one.
    Foreign,
    /// It does not say what it costs.
    Unread,
    /// It costs nothing: there is no answer, or one that is free.
    Free,
    Answer(Box<Answer>),
}

#[derive(Debug, PartialEq)]
pub(super) struct Answer {
    pub(super) call: Call,
    pub(super) seen: Seen,
}

/// A line in every language: `result` is Anthropic's, `response` OpenAI's and Google's.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Read<'l> {
    custom_id: Option<IgnoredAny>,
    key: Option<IgnoredAny>,
    #[serde(borrow)]
    result: Option<&'l RawValue>,
    #[serde(borrow)]
    response: Option<&'l RawValue>,
    error: Option<IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Outcome<'l> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(borrow)]
    message: Option<&'l RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Response<'l> {
    status_code: Option<u16>,
    request_id: Option<String>,
    #[serde(borrow)]
    body: Option<&'l RawValue>,
    #[serde(rename = "usageMetadata")]
    usage: Option<IgnoredAny>,
    candidates: Option<IgnoredAny>,
    embedding: Option<IgnoredAny>,
    /// Of an embedding.
    #[serde(rename = "tokenCount")]
    token_count: Option<Value>,
}

/// The beginning of an answer of OpenAI's, whatever it answers.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Body<'l> {
    object: Option<String>,
    id: Option<String>,
    #[serde(borrow)]
    usage: Option<&'l RawValue>,
    /// Of Mistral's OCR.
    usage_info: Option<IgnoredAny>,
}

impl Response<'_> {
    fn has_failed(&self) -> bool {
        let status = self.status_code;
        status.is_some_and(|status| !(200..300).contains(&status))
    }

    fn tokens(&self) -> Option<u64> {
        match self.token_count.as_ref()? {
            // As Google writes what may have 64 bits.
            Value::String(digits) => digits.parse().ok(),
            count => count.as_u64(),
        }
    }
}

impl Line {
    pub(super) fn read(line: &[u8]) -> Self {
        let Ok(read) = serde_json::from_slice::<Read<'_>>(line) else {
            return Self::Foreign;
        };
        if let Some(result) = read.result {
            // Many a file of somebody's own has results.
            let outcome = parsed::<Outcome<'_>>(result);
            let outcome = outcome.filter(|one| !one.kind.is_empty() && read.custom_id.is_some());
            return outcome.map_or(Self::Foreign, |outcome| Self::of_outcome(&outcome));
        }
        let is_named = read.custom_id.is_some() || read.key.is_some();
        if let Some(response) = read.response {
            let Some(told) = parsed::<Response<'_>>(response) else {
                let is_odd = is_named && response.get().starts_with('{');
                return if is_odd { Self::Unread } else { Self::Foreign };
            };
            let is_googles = told.usage.is_some()
                || told.candidates.is_some()
                || told.embedding.is_some()
                || is_named && told.token_count.is_some();
            let body = told.body.filter(|body| body.get().starts_with('{'));
            // Mistral's requests need no name.
            let is_openais =
                read.custom_id.is_some() || body.is_some() && told.status_code.is_some();
            return match body {
                _ if is_openais && told.has_failed() => Self::Free,
                Some(body) if is_openais => Self::of_body(body, &told),
                None if is_openais => Self::Unread,
                None if is_googles => Self::of_google(response, &told),
                _ => Self::Foreign,
            };
        }
        match read.error {
            Some(_) if is_named => Self::Free,
            _ => Self::Foreign,
        }
    }

    /// An answer in a batch that has its answers in it, named or not.
    pub(super) fn of_item(item: &RawValue) -> Self {
        match Self::read(item.get().as_bytes()) {
            // Where there is no answer there is an error.
            Self::Foreign if !item.get().contains("\"usage") => Self::Free,
            Self::Foreign => Self::Unread,
            line => line,
        }
    }

    fn of_outcome(outcome: &Outcome<'_>) -> Self {
        match (outcome.kind.as_str(), outcome.message) {
            ("succeeded", Some(message)) => Self::answer(Call::Messages, message, None),
            ("errored" | "canceled" | "expired", _) => Self::Free,
            _ => Self::Unread,
        }
    }

    fn of_body(body: &RawValue, told: &Response<'_>) -> Self {
        let Some(begun) = parsed::<Body<'_>>(body) else {
            return Self::Unread;
        };
        let is_moderation = begun.id.is_some_and(|id| id.starts_with("modr-"));
        let counts_input = begun
            .usage
            .is_some_and(|usage| usage.get().contains("\"input_tokens\""));
        let call = match begun.object.as_deref() {
            Some("response") => Call::Responses,
            Some("list") => Call::Embeddings,
            Some("text_completion") => Call::Completions {
                operation: "completion",
            },
            None if is_moderation => return Self::Free,
            None if begun.usage_info.is_some() => Call::Completions { operation: "ocr" },
            None if counts_input => Call::Images,
            _ => Call::Completions { operation: "chat" },
        };
        Self::answer(call, body, told.request_id.clone())
    }

    fn of_google(response: &RawValue, told: &Response<'_>) -> Self {
        let is_embedding = told.embedding.is_some() || told.token_count.is_some();
        let operation = match is_embedding {
            true => "embeddings",
            false => "generate_content",
        };
        let call = Call::Generate { operation };
        let mut seen = Seen::default();
        seen.take(call, response.get().as_bytes());
        if let Some(tokens) = told.tokens().filter(|_| !seen.is_final) {
            let usage = [("tokenCount".to_owned(), Value::from(tokens))];
            seen.usage = Some(Map::from_iter(usage));
            seen.is_final = true;
        }
        Self::of_seen(call, seen)
    }

    /// `request_id` names an answer that has no name of its own.
    fn answer(call: Call, json: &RawValue, request_id: Option<String>) -> Self {
        let mut seen = Seen::default();
        seen.take(call, json.get().as_bytes());
        if seen.id.is_empty() {
            seen.id = request_id.unwrap_or_default();
        }
        Self::of_seen(call, seen)
    }

    fn of_seen(call: Call, mut seen: Seen) -> Self {
        if !seen.is_final {
            return Self::Unread;
        }
        "batch".clone_into(&mut seen.service_tier);
        Self::Answer(Box::new(Answer { call, seen }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn answers_of_every_kind_say_what_they_used() {
        let of_openai = |body: Value| {
            json!({"id": "batch_req_1", "custom_id": "a", "error": null,
                "response": {"status_code": 200, "request_id": "req-1", "body": body}})
        };
        let usage = json!({"input_tokens": 7, "output_tokens": 9});
        let usage_of_chat = json!({"prompt_tokens": 7, "completion_tokens": 9});
        for (line, call, id, usage) in [
            (
                json!({"custom_id": "a", "result": {"type": "succeeded", "message":
                    {"id": "msg_1", "model": "claude", "content": [], "usage": usage}}}),
                Call::Messages,
                "msg_1",
                &usage,
            ),
            (
                of_openai(json!({"id": "chatcmpl-1", "object": "chat.completion",
                    "service_tier": "default", "choices": [], "usage": usage_of_chat})),
                Call::Completions { operation: "chat" },
                "chatcmpl-1",
                &usage_of_chat,
            ),
            (
                of_openai(
                    json!({"id": "resp_1", "object": "response", "background": false,
                    "status": "completed", "output": [], "usage": usage}),
                ),
                Call::Responses,
                "resp_1",
                &usage,
            ),
            (
                of_openai(json!({"object": "list", "data": [], "usage": usage_of_chat})),
                Call::Embeddings,
                "req-1",
                &usage_of_chat,
            ),
            (
                of_openai(json!({"created": 1, "data": [{"b64_json": "x"}], "usage": usage})),
                Call::Images,
                "req-1",
                &usage,
            ),
            // Mistral's, which need no name.
            (
                json!({"response": {"status_code": 200, "request_id": "req-1", "body":
                    {"pages": [], "model": "mistral-ocr-latest", "usage_info": usage}}}),
                Call::Completions { operation: "ocr" },
                "req-1",
                &usage,
            ),
            (
                json!({"key": "a", "response": {"responseId": "r-1", "candidates": [],
                    "usageMetadata": usage}}),
                Call::Generate {
                    operation: "generate_content",
                },
                "r-1",
                &usage,
            ),
            (
                json!({"key": "a", "response": {"tokenCount": "7", "embedding": {"values": [0.5]}}}),
                Call::Generate {
                    operation: "embeddings",
                },
                "",
                &json!({"tokenCount": 7}),
            ),
        ] {
            let Line::Answer(answer) = Line::read(line.to_string().as_bytes()) else {
                panic!("{line}");
            };
            assert_eq!((answer.call, answer.seen.id.as_str()), (call, id));
            assert_eq!(answer.seen.usage.map(Value::Object).as_ref(), Some(usage));
            assert_eq!(answer.seen.service_tier, "batch");
        }
    }

    #[test]
    fn what_costs_nothing_what_says_nothing_and_what_is_no_batch() {
        for (line, wanted) in [
            (
                r#"{"custom_id":"a","result":{"type":"errored","error":{}}}"#,
                Line::Free,
            ),
            (
                r#"{"custom_id":"a","result":{"type":"expired"}}"#,
                Line::Free,
            ),
            (
                r#"{"custom_id":"a","response":{"status_code":429,"body":{}},"error":null}"#,
                Line::Free,
            ),
            (
                r#"{"custom_id":"a","response":null,"error":{"code":"batch_expired"}}"#,
                Line::Free,
            ),
            (
                r#"{"custom_id":"a","response":{"status_code":200,"body":{"id":"modr-1","results":[]}}}"#,
                Line::Free,
            ),
            (r#"{"key":"a","error":{"code":3}}"#, Line::Free),
            (
                r#"{"custom_id":"a","response":{"status_code":429,"body":null}}"#,
                Line::Free,
            ),
            (
                r#"{"response":{"status_code":500,"body":{}},"error":"boom"}"#,
                Line::Free,
            ),
            (
                r#"{"custom_id":"a","response":{"status_code":"200","body":{}}}"#,
                Line::Unread,
            ),
            (
                r#"{"custom_id":"a","result":{"type":"succeeded"}}"#,
                Line::Unread,
            ),
            (
                r#"{"custom_id":"a","response":{"status_code":200,"body":{"id":"x"}}}"#,
                Line::Unread,
            ),
            (r#"{"key":"a","response":{"embedding":{}}}"#, Line::Unread),
            (r#"{"custom_id":"a","resul"#, Line::Foreign),
            // What a batch is made of, and other files.
            (
                r#"{"custom_id":"a","method":"POST","url":"/v1/embeddings","body":{}}"#,
                Line::Foreign,
            ),
            (
                r#"{"messages":[{"role":"user","content":"x"}]}"#,
                Line::Foreign,
            ),
            (
                r#"{"response":{"body":{"usage":{"prompt_tokens":1}}}}"#,
                Line::Foreign,
            ),
            (r#"{"prompt":"x","response":"y"}"#, Line::Foreign),
            (r#"{"key":"a","response":"y"}"#, Line::Foreign),
            (
                r#"{"response":{"status_code":404,"body":"no"}}"#,
                Line::Foreign,
            ),
            (r#"{"result":{"type":"succeeded"}}"#, Line::Foreign),
            (r#"{"custom_id":"a","result":"y"}"#, Line::Foreign),
            ("{}", Line::Foreign),
        ] {
            assert_eq!(Line::read(line.as_bytes()), wanted, "{line}");
        }
    }
}
