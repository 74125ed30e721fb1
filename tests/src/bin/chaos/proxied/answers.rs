//! What a provider answers, whole and streamed, and what is charged where it breaks off.

use serde_json::{Value, json};
use spendfuse_tests::random::Random;
use spendfuse_tests::traffic::MODEL;

use crate::ledger::Call;

/// Of one piece of a stream.
const TEXT: &str = "Nothing is as it was, and all of it is counted.";
/// Pieces of an answer that is broken off.
const BEGINNING: usize = 3;
/// Bytes of text that make a token where nobody has counted them.
const BYTES_OF_TOKEN: u64 = 4;

/// Whose protocol a call is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    OpenAi,
    Anthropic,
}

impl Language {
    pub fn any(random: &mut Random) -> Self {
        random.one_of(&[Self::OpenAi, Self::Anthropic])
    }

    /// Where the proxy takes such calls.
    pub fn path(self) -> &'static str {
        match self {
            Self::OpenAi => "/openai/v1/chat/completions",
            Self::Anthropic => "/anthropic/v1/messages",
        }
    }

    /// A whole answer with this id.
    pub fn whole(self, id: &str, call: &Call) -> Value {
        match self {
            Self::OpenAi => json!({
                "id": id, "object": "chat.completion", "created": 1, "model": MODEL,
                "choices": [{"index": 0, "finish_reason": "stop",
                    "message": {"role": "assistant", "content": TEXT}}],
                "usage": chat_usage(call),
            }),
            Self::Anthropic => message(
                id,
                call,
                call.output,
                &json!([{"type": "text", "text": TEXT}]),
            ),
        }
    }

    /// A stream, event by event; of OpenAI's with its usage only where that is asked for.
    pub fn stream(self, id: &str, call: &Call, asks_usage: bool) -> Vec<String> {
        match self {
            Self::OpenAi => chat_stream(id, call, asks_usage),
            Self::Anthropic => message_stream(id, call),
        }
    }

    /// What goes out before such a stream is broken off: its id, some text, and no final usage.
    pub fn beginning(events: &[String]) -> &[String] {
        &events[..BEGINNING]
    }

    /// What is charged then: of Anthropic's what it told at first, of OpenAI's a token for four bytes of
    /// the request and of the text that came.
    pub fn charged(self, call: &Call, body_bytes: u64) -> Call {
        match self {
            Self::OpenAi => Call {
                input: body_bytes.div_ceil(BYTES_OF_TOKEN),
                cached: 0,
                output: (BEGINNING * TEXT.len()).div_ceil(BYTES_OF_TOKEN as usize) as u64,
                ..call.clone()
            },
            Self::Anthropic => Call {
                output: told_at_first(call),
                ..call.clone()
            },
        }
    }
}

fn chat_usage(call: &Call) -> Value {
    json!({
        "prompt_tokens": call.input, "completion_tokens": call.output,
        "total_tokens": call.input + call.output,
        "prompt_tokens_details": {"cached_tokens": call.cached},
    })
}

fn chat_stream(id: &str, call: &Call, asks_usage: bool) -> Vec<String> {
    let chunk = |choices: Value, usage: Value| {
        let chunk = json!({
            "id": id, "object": "chat.completion.chunk", "created": 1, "model": MODEL,
            "choices": choices, "usage": usage,
        });
        format!("data: {chunk}\n\n")
    };
    let text = json!([{"index": 0, "finish_reason": null, "delta": {"content": TEXT}}]);
    let end = json!([{"index": 0, "finish_reason": "stop", "delta": {}}]);
    let mut events = vec![chunk(text, Value::Null); BEGINNING];
    events.push(chunk(end, Value::Null));
    if asks_usage {
        events.push(chunk(json!([]), chat_usage(call)));
    }
    events.push("data: [DONE]\n\n".to_owned());
    events
}

/// More output tokens than the text of a beginning could be taken for.
fn told_at_first(call: &Call) -> u64 {
    call.output / 2 + TEXT.len() as u64
}

fn message(id: &str, call: &Call, output: u64, content: &Value) -> Value {
    json!({
        "id": id, "type": "message", "role": "assistant", "model": MODEL, "content": content,
        "stop_reason": null, "stop_sequence": null,
        "usage": {"input_tokens": call.input - call.cached,
            "cache_read_input_tokens": call.cached, "output_tokens": output},
    })
}

fn message_stream(id: &str, call: &Call) -> Vec<String> {
    let begun = message(id, call, told_at_first(call), &json!([]));
    let events = [
        json!({"type": "message_start", "message": begun}),
        json!({"type": "content_block_start", "index": 0,
            "content_block": {"type": "text", "text": ""}}),
        json!({"type": "content_block_delta", "index": 0,
            "delta": {"type": "text_delta", "text": TEXT}}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": null},
            "usage": {"output_tokens": call.output}}),
        json!({"type": "message_stop"}),
    ];
    let event = |event: &Value| {
        let kind = event["type"].as_str().unwrap_or_default();
        format!("event: {kind}\ndata: {event}\n\n")
    };
    events.iter().map(event).collect()
}
