//! What an upstream's answer says about its cost: read from whole answers and from streams alike.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::route::Call;
use crate::told::{Completion, Generated, Made, Message, Responded, text_bytes};
use crate::tool_calls::ToolCalls;
use crate::tools::ToolRuns;
use crate::wire::Members;

/// What was seen of an answer so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Seen {
    pub(crate) id: String,
    pub(crate) model: String,
    pub(crate) service_tier: String,
    /// The provider's own object; `None` where none has come.
    pub(crate) usage: Option<Map<String, Value>>,
    /// Bytes of generated text and tool calls, for an estimate where no usage comes.
    pub(crate) generated: usize,
    /// Whether `usage` says what the whole answer has used, and not only what it began with.
    pub(crate) is_final: bool,
    /// Whether the answer is made in the background, and will be asked for.
    pub(crate) is_pending: bool,
    /// Whether it was.
    pub(crate) was_background: bool,
    /// When the provider made it, seconds since 1970.
    pub(crate) created_at: Option<i64>,
    /// Of a video that is done.
    pub(crate) video: Option<Video>,
    /// How many images there are.
    pub(crate) images: usize,
    /// Tools that the provider has run.
    pub(crate) tools: ToolRuns,
    /// Tools that the app is asked to run.
    pub(crate) tool_calls: ToolCalls,
    /// The format of `usage`, where it is not that of the call: models behind Bedrock have their own.
    pub(crate) usage_format: Option<&'static str>,
}

/// What a video is paid by.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Video {
    pub(crate) seconds: String,
    pub(crate) size: String,
}

/// Whether a piece of a stream has nothing but the usage that the proxy has asked for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Content,
    UsageOnly,
}

impl Seen {
    /// Takes a whole answer, or the data of one piece of a stream. What is no JSON says nothing:
    /// `[DONE]`, an empty line.
    pub(crate) fn take(&mut self, call: Call, json: &[u8]) -> Piece {
        self.read(call, json).unwrap_or_else(|| {
            // One odd member does not hide what the others say.
            let mut members = Members::default();
            members.push(json);
            let piece = self.read(call, &members.object());
            piece.unwrap_or(Piece::Content)
        })
    }

    /// The same; `None` where it is not as it should be.
    fn read(&mut self, call: Call, json: &[u8]) -> Option<Piece> {
        match call {
            Call::Completions { .. } | Call::Embeddings => {
                return Some(self.take_completion(told(json)?));
            }
            Call::Responses => self.take_responded(told(json)?),
            Call::Messages => self.take_message(told(json)?),
            Call::Images | Call::Transcription | Call::Speech => self.take_made(told(json)?),
            Call::Imagen => self.take_predicted(&told(json)?),
            Call::Videos => self.take_filmed(told(json)?),
            Call::Converse => self.take_conversed(told(json)?),
            Call::Invoke => self.take_invoked(json)?,
            Call::Generate { .. } => self.take_generated(told(json)?),
            Call::Interactions => self.take_interacted(told(json)?),
            Call::Cohere { .. } => self.take_billed(told(json)?),
        }
        Some(Piece::Content)
    }

    /// Of several usages the last one counts: where every chunk has one, they are running totals.
    fn take_completion(&mut self, told: Completion) -> Piece {
        self.name(told.id, told.model, told.service_tier);
        let choices = told.choices.as_deref();
        self.tool_calls.take_choices(choices.unwrap_or_default());
        for choice in choices.unwrap_or_default() {
            let parts = [&choice.delta, &choice.message, &choice.text];
            let parts = parts.into_iter().map(|part| text_bytes(part.as_ref()));
            self.generated += parts.sum::<usize>();
        }
        let is_usage_only = told.usage.is_some() && choices.is_some_and(<[_]>::is_empty);
        if told.usage.is_some() {
            self.usage = told.usage;
            self.is_final = true;
        }
        if is_usage_only {
            Piece::UsageOnly
        } else {
            Piece::Content
        }
    }

    fn take_responded(&mut self, told: Responded) {
        self.generated += text_bytes(told.delta.as_ref());
        let is_done = told
            .kind
            .is_some_and(|kind| kind == "response.output_item.done");
        if let Some(item) = told.item.filter(|_| is_done) {
            self.tools.take_item(&item);
            self.tool_calls.take_item(&item, told.output_index.as_ref());
        }
        self.take_response(told.response.unwrap_or(told.whole));
    }

    fn take_response(&mut self, told: Completion) {
        // Most events of a stream have none.
        if let Some(status) = told.status.as_ref().and_then(Value::as_str) {
            self.is_pending = matches!(status, "queued" | "in_progress");
        }
        self.was_background |= told.background == Some(Value::Bool(true));
        let created_at = told.created_at.as_ref().and_then(Value::as_f64);
        self.created_at = created_at.map(|seconds| seconds as i64).or(self.created_at);
        // A response has all that was run for it so far: the last one of a stream counts.
        if let Some(output) = &told.output {
            self.tools.take_output(output);
            self.tool_calls.take_output(output);
        }
        self.take_completion(told);
    }

    /// Anthropic's counts are totals so far: what a later event names stands, nothing is added.
    pub(crate) fn take_message(&mut self, told: Message) {
        self.generated += text_bytes(told.delta.as_ref()) + text_bytes(told.content.as_ref());
        self.tool_calls.take_message(&told);
        if let Some(block) = &told.content_block {
            self.tools.take_block(block);
        }
        // The beginning of a stream has its usage in `message`, its end and a whole answer beside.
        self.is_final |= told.whole.usage.is_some();
        let begun = told.message.unwrap_or_default();
        for part in [begun, told.whole] {
            self.name(part.id, part.model, part.service_tier);
            self.overwrite(part.usage);
        }
    }

    fn take_generated(&mut self, told: Generated) {
        self.name(told.response_id, told.model_version, None);
        let candidates = told.candidates.unwrap_or_default();
        self.tools.take_candidates(&candidates);
        self.tool_calls.take_candidates(&candidates);
        for candidate in &candidates {
            self.generated += text_bytes(candidate.get("content"));
        }
        self.is_final |= told.usage_metadata.is_some();
        self.overwrite(told.usage_metadata);
    }

    fn take_made(&mut self, told: Made) {
        self.images += told.data.map_or(0, |images| images.len());
        self.generated += told.text.map_or(0, |text| text.len());
        if told.usage.is_some() {
            self.usage = told.usage;
            self.is_final = true;
        }
    }

    pub(crate) fn overwrite(&mut self, usage: Option<Map<String, Value>>) {
        if let Some(usage) = usage {
            let said = usage.into_iter().filter(|(_, value)| !value.is_null());
            self.usage.get_or_insert_default().extend(said);
        }
    }

    pub(crate) fn name(
        &mut self,
        id: Option<Value>,
        model: Option<Value>,
        service_tier: Option<Value>,
    ) {
        let told = [
            (&mut self.id, id),
            (&mut self.model, model),
            (&mut self.service_tier, service_tier),
        ];
        for (known, told) in told {
            if let Some(Value::String(told)) = told
                && !told.is_empty()
            {
                *known = told;
            }
        }
    }
}

pub(crate) fn told<'j, T: Deserialize<'j>>(json: &'j [u8]) -> Option<T> {
    serde_json::from_slice(json).ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::upstream::Shape;
    use serde_json::json;

    pub(crate) fn seen(shape: Shape, path: &str, pieces: &[Value]) -> (Seen, Vec<Piece>) {
        let call = Call::of(shape, path).unwrap();
        let mut seen = Seen::default();
        let take = |piece: &Value| seen.take(call, piece.to_string().as_bytes());
        let kinds = pieces.iter().map(take).collect();
        (seen, kinds)
    }

    #[test]
    fn of_a_completions_usages_the_last_counts_and_the_lone_one_is_known() {
        let (seen, kinds) = seen(
            Shape::OpenAi,
            "/v1/chat/completions",
            &[
                json!({"id": "chatcmpl-1", "model": "gpt-4o-2024-08-06", "usage": null,
                    "choices": [{"index": 0, "delta": {"role": "assistant", "content": "Hi"}}]}),
                // xAI tells in every chunk.
                json!({"id": "chatcmpl-1", "choices": [{"delta": {}}], "usage": {"prompt_tokens": 1}}),
                json!({"id": "chatcmpl-1", "choices": [], "service_tier": "priority",
                    "usage": {"prompt_tokens": 0, "completion_tokens": 0}}),
                // Azure's first chunk has no choices, and no usage either.
                json!({"choices": [], "prompt_filter_results": [], "usage": null}),
            ],
        );
        use Piece::{Content, UsageOnly};
        assert_eq!(kinds, [Content, Content, UsageOnly, Content]);
        assert_eq!(seen.id, "chatcmpl-1");
        assert_eq!(seen.service_tier, "priority");
        let usage = json!({"prompt_tokens": 0, "completion_tokens": 0});
        assert_eq!(Value::Object(seen.usage.unwrap()), usage);
        assert_eq!(seen.generated, "assistantHi".len());
    }

    #[test]
    fn responses_tell_at_their_end_whole_or_streamed() {
        let end = json!({"id": "resp_1", "model": "gpt-5", "service_tier": "default",
            "usage": {"input_tokens": 3, "output_tokens": 4}});
        let (whole, _) = seen(Shape::OpenAi, "/v1/responses", std::slice::from_ref(&end));
        let (streamed, _) = seen(
            Shape::OpenAi,
            "/v1/responses",
            &[
                json!({"type": "response.created", "response": {"id": "resp_1", "usage": null}}),
                json!({"type": "response.output_text.delta", "delta": "abc"}),
                json!({"type": "response.completed", "response": end}),
            ],
        );
        assert_eq!(streamed.usage, whole.usage);
        assert_eq!((streamed.id, streamed.generated), ("resp_1".to_owned(), 3));
    }

    #[test]
    fn messages_tell_totals_that_replace_each_other() {
        let usage = json!({"input_tokens": 10, "cache_read_input_tokens": 5, "output_tokens": 1});
        let (streamed, _) = seen(
            Shape::Anthropic,
            "/v1/messages",
            &[
                json!({"type": "message_start", "message": {"id": "msg_1", "model": "claude", "usage": usage}}),
                json!({"type": "ping"}),
                json!({"type": "content_block_delta", "delta": {"type": "text_delta", "text": "hello"}}),
                json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"},
                    "usage": {"input_tokens": null, "output_tokens": 380}}),
            ],
        );
        assert_eq!(streamed.id, "msg_1");
        let wanted =
            json!({"input_tokens": 10, "cache_read_input_tokens": 5, "output_tokens": 380});
        assert_eq!(Value::Object(streamed.usage.unwrap()), wanted);
        let (whole, _) = seen(
            Shape::Anthropic,
            "/v1/messages",
            &[
                json!({"id": "msg_2", "type": "message", "model": "claude", "content": [], "usage": usage}),
            ],
        );
        assert_eq!(whole.id, "msg_2");
        assert_eq!(Value::Object(whole.usage.unwrap()), usage);
    }

    #[test]
    fn generated_content_keeps_what_later_chunks_leave_out() {
        let (seen, _) = seen(
            Shape::Gemini,
            "/v1beta/models/gemini-3:streamGenerateContent",
            &[
                json!({"responseId": "r", "modelVersion": "gemini-3-pro",
                    "usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 1}}),
                json!({"usageMetadata": {"candidatesTokenCount": 9}}),
            ],
        );
        let wanted = json!({"promptTokenCount": 7, "candidatesTokenCount": 9});
        assert_eq!(Value::Object(seen.usage.unwrap()), wanted);
        assert_eq!(
            (seen.id.as_str(), seen.model.as_str()),
            ("r", "gemini-3-pro")
        );
    }

    #[test]
    fn an_odd_member_does_not_hide_the_usage() {
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        for (path, odd, usage) in [
            (
                "/v1/chat/completions",
                r#""choices":{}"#.to_owned(),
                "usage",
            ),
            ("/v1/responses", format!(r#""output":{deep}"#), "usage"),
            (
                "/v1/messages",
                r#""usage":{},"index":0"#.to_owned(),
                "usage",
            ),
            (
                "/v1beta/models/m:generateContent",
                format!(r#""candidates":[{deep}]"#),
                "usageMetadata",
            ),
        ] {
            let call = Call::of(Shape::OpenAi, path).unwrap();
            let mut seen = Seen::default();
            let json = format!(r#"{{"id":"a-1",{odd},"{usage}":{{"x":7}}}}"#);
            seen.take(call, json.as_bytes());
            assert_eq!(
                seen.usage.map(Value::Object),
                Some(json!({"x": 7})),
                "{json}"
            );
            assert!(seen.is_final);
        }
    }

    #[test]
    fn what_is_no_json_says_nothing() {
        let call = Call::of(Shape::OpenAi, "/v1/chat/completions").unwrap();
        let mut seen = Seen::default();
        for text in ["[DONE]", "", "null", "{", "7", r#"{"usage":7}"#] {
            assert_eq!(seen.take(call, text.as_bytes()), Piece::Content, "{text}");
        }
        assert_eq!(seen, Seen::default());
    }
}
