//! Tool calls that a model asks the app to run, as an answer shows them. What the provider runs itself is
//! in `tools`.

use std::collections::HashSet;

use serde_json::Value;

use crate::told::{Choice, Conversed, Message};
use crate::tools::text;

/// More than an agent runs for one answer; further ones are not counted.
const MOST: usize = 1024;
/// Items of a response that are for the app to run.
const ITEMS: [&str; 6] = [
    "apply_patch_call",
    "computer_call",
    "custom_tool_call",
    "function_call",
    "local_shell_call",
    "shell_call",
];
/// Stands for the place of the one call that a message in OpenAI's older form has.
const ONLY: u64 = u64::MAX;

/// What was asked for so far, each call once.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ToolCalls {
    /// In which choice, and at which place there.
    places: HashSet<(u64, u64)>,
    /// Whether the last call of Gemini's goes on in the next part.
    goes_on: bool,
}

impl ToolCalls {
    pub(crate) fn count(&self) -> usize {
        self.places.len()
    }

    /// Takes choices of a chat completion, whole or a piece of them.
    pub(crate) fn take_choices(&mut self, choices: &[Choice]) {
        for (place, choice) in choices.iter().enumerate() {
            let choice_place = place_told(choice.index.as_ref(), place);
            for message in [&choice.delta, &choice.message].into_iter().flatten() {
                let calls = message.get("tool_calls").and_then(Value::as_array);
                let calls = calls.into_iter().flatten().filter(|call| call.is_object());
                for (place, call) in calls.enumerate() {
                    self.add(choice_place, place_told(call.get("index"), place));
                }
                if message.get("function_call").is_some_and(Value::is_object) {
                    self.add(choice_place, ONLY);
                }
            }
        }
    }

    /// Takes the `output` of a response. At the end of a stream it lists again what came before; only of
    /// a stream that is cut those pieces are all there is.
    pub(crate) fn take_output(&mut self, output: &Value) {
        let Some(items) = output.as_array().filter(|items| !items.is_empty()) else {
            return;
        };
        self.places.clear();
        for (place, item) in items.iter().enumerate() {
            self.take_at(item, place as u64);
        }
    }

    /// Takes an item of a response, done.
    pub(crate) fn take_item(&mut self, item: &Value, index: Option<&Value>) {
        self.take_at(item, place_told(index, self.count()));
    }

    fn take_at(&mut self, item: &Value, place: u64) {
        let environment = item.get("environment");
        // A container is the provider's.
        let is_providers = environment.is_some_and(|of| text(of, "type") == "container_reference");
        if ITEMS.contains(&text(item, "type")) && !is_providers {
            self.add(0, place);
        }
    }

    /// Takes a message of Anthropic's, or an event of its stream.
    pub(crate) fn take_message(&mut self, told: &Message) {
        if let Some(block) = &told.content_block {
            self.take_block(block, place_told(told.index.as_ref(), 0));
        }
        let blocks = told.content.as_ref().and_then(Value::as_array);
        for (place, block) in blocks.into_iter().flatten().enumerate() {
            self.take_block(block, place as u64);
        }
    }

    fn take_block(&mut self, block: &Value, place: u64) {
        if text(block, "type") == "tool_use" {
            self.add(0, place);
        }
    }

    /// Takes candidates of Gemini's. No chunk repeats the parts of another one; a call whose arguments
    /// are streamed is cut into several.
    pub(crate) fn take_candidates(&mut self, candidates: &[Value]) {
        let parts = candidates.iter().filter_map(|candidate| {
            let parts = candidate.get("content")?.get("parts")?;
            parts.as_array()
        });
        for call in parts.flatten().filter_map(|part| part.get("functionCall")) {
            if !call.is_object() {
                continue;
            }
            if !self.goes_on {
                self.add(0, self.count() as u64);
            }
            self.goes_on = call.get("willContinue") == Some(&Value::Bool(true));
        }
    }

    /// Takes an answer of Bedrock's own, or an event of its stream.
    pub(crate) fn take_conversed(&mut self, told: &Conversed) {
        if let Some(begun) = &told.start {
            self.take_use(begun, place_told(told.content_block_index.as_ref(), 0));
        }
        let output = told.output.as_ref();
        let blocks = output.and_then(|output| output.pointer("/message/content")?.as_array());
        for (place, block) in blocks.into_iter().flatten().enumerate() {
            self.take_use(block, place as u64);
        }
    }

    fn take_use(&mut self, block: &Value, place: u64) {
        let call = block.get("toolUse").filter(|call| call.is_object());
        if call.is_some_and(|call| text(call, "type") != "server_tool_use") {
            self.add(0, place);
        }
    }

    fn add(&mut self, choice: u64, place: u64) {
        if self.places.len() < MOST {
            self.places.insert((choice, place));
        }
    }
}

/// The place that an answer names itself, else the one where it stands.
fn place_told(index: Option<&Value>, place: usize) -> u64 {
    index.and_then(Value::as_u64).unwrap_or(place as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::Seen;
    use crate::route::Call;
    use crate::upstream::Shape;
    use serde_json::json;

    /// How many calls an answer asks for that came in these pieces.
    fn counted(shape: Shape, path: &str, pieces: &[Value]) -> usize {
        let call = Call::of(shape, path).unwrap();
        let mut seen = Seen::default();
        for piece in pieces {
            seen.take(call, piece.to_string().as_bytes());
        }
        seen.tool_calls.count()
    }

    #[test]
    fn calls_of_a_chat_completion_are_counted_by_choice_and_index() {
        let of = |pieces: &[Value]| counted(Shape::OpenAi, "/v1/chat/completions", pieces);
        let call = json!({"id": "call_1", "type": "function", "function": {"name": "f"}});
        let whole = json!({"choices": [{"index": 0, "message": {"tool_calls": [call, call]}}],
            "usage": {"prompt_tokens": 1}});
        assert_eq!(of(&[whole]), 2);
        let delta = |choice: u64, index: u64| {
            json!({"choices": [{"index": choice, "delta": {"tool_calls":
                [{"index": index, "function": {"arguments": "{"}}]}}]})
        };
        assert_eq!(of(&[delta(0, 0), delta(0, 0), delta(0, 1), delta(0, 1)]), 2);
        assert_eq!(of(&[delta(0, 0), delta(1, 0)]), 2);
        let older = json!({"choices": [{"index": 0, "delta": {"function_call": {"name": "f"}}}]});
        assert_eq!(of(&[older.clone(), older]), 1);
        let none = json!({"choices": [{"index": 0, "message":
            {"content": "x", "tool_calls": null, "function_call": null}}]});
        assert_eq!(of(&[none]), 0);
        let odd = json!({"choices": [{"index": "x", "message": {"tool_calls": [7, call]}},
            {"message": {"tool_calls": 7}}, {"message": 7}]});
        assert_eq!(of(&[odd]), 1);
    }

    #[test]
    fn calls_of_a_response_are_counted_that_the_app_runs() {
        let of = |pieces: &[Value]| counted(Shape::OpenAi, "/v1/responses", pieces);
        let output = json!([
            {"type": "reasoning"},
            {"type": "function_call", "call_id": "a"},
            {"type": "custom_tool_call", "call_id": "b"},
            {"type": "web_search_call"}, {"type": "mcp_call"}, {"type": "mcp_approval_request"},
            {"type": "shell_call", "environment": {"type": "container_reference"}},
            {"type": "message"}, 7
        ]);
        let end = json!({"id": "resp_1", "output": output});
        assert_eq!(of(std::slice::from_ref(&end)), 2);
        let items = |output: Value| of(&[json!({"output": output})]);
        let by_hand = ["apply_patch_call", "computer_call", "local_shell_call"];
        assert_eq!(items(json!(by_hand.map(|kind| json!({"type": kind})))), 3);
        let local = json!({"type": "shell_call", "environment": {"type": "local"}});
        assert_eq!(
            items(json!([local, {"type": "shell_call", "environment": null}])),
            2
        );

        let done = |index: usize| {
            json!({"type": "response.output_item.done", "output_index": index,
                "item": output[index]})
        };
        let created = json!({"type": "response.created", "response": {"output": []}});
        let added = json!({"type": "response.output_item.added", "item": output[1]});
        let cut = [created, added, done(0), done(1), done(2), done(3)];
        assert_eq!(of(&cut), 2);
        let completed = json!({"type": "response.completed", "response": end});
        assert_eq!(of(&[&cut[..], &[completed]].concat()), 2);
        let without_index = json!({"type": "response.output_item.done", "item": output[1]});
        assert_eq!(of(&[without_index.clone(), without_index]), 2);
    }

    #[test]
    fn calls_of_a_message_are_counted_but_those_of_the_provider() {
        let blocks = [
            "text",
            "tool_use",
            "server_tool_use",
            "tool_use",
            "mcp_tool_use",
        ];
        let blocks = blocks.map(|kind| json!({"type": kind, "name": "f", "input": {}}));
        let path = "/v1/messages";
        let whole = json!({"id": "msg_1", "content": blocks, "usage": {"output_tokens": 1}});
        assert_eq!(counted(Shape::Anthropic, path, &[whole]), 2);
        let begun = json!({"type": "message_start", "message": {"id": "msg_1", "content": []}});
        let starts = blocks.iter().enumerate().map(|(index, block)| {
            json!({"type": "content_block_start", "index": index, "content_block": block})
        });
        let goes_on = json!({"type": "content_block_delta", "index": 1,
            "delta": {"type": "input_json_delta", "partial_json": "{"}});
        let pieces: Vec<Value> = [begun].into_iter().chain(starts).chain([goes_on]).collect();
        assert_eq!(counted(Shape::Anthropic, path, &pieces), 2);
        let text = json!({"content": [{"type": "text", "text": "tool_use"}]});
        assert_eq!(counted(Shape::Anthropic, path, &[text]), 0);
    }

    #[test]
    fn calls_of_gemini_are_counted_once_however_their_arguments_come() {
        let path = "/v1beta/models/m:streamGenerateContent";
        let of = |pieces: &[Value]| counted(Shape::Gemini, path, pieces);
        let chunk = |parts: Value| json!({"candidates": [{"content": {"parts": parts}}]});
        let call = json!({"functionCall": {"name": "f", "args": {}}});
        assert_eq!(of(&[chunk(json!([call, {"text": "x"}, call]))]), 2);
        assert_eq!(of(&[chunk(json!([call])), chunk(json!([call]))]), 2);
        let begun = json!({"functionCall": {"name": "f", "willContinue": true}});
        let goes_on = json!({"functionCall": {"partialArgs": [], "willContinue": true}});
        let ends = json!({"functionCall": {}});
        let streamed = [begun, goes_on, ends].map(|part| chunk(json!([part])));
        assert_eq!(of(&[&streamed[..], &streamed[..]].concat()), 2);
        assert_eq!(
            of(&[chunk(json!([{"text": "x"}, {"functionCall": null}]))]),
            0
        );
    }

    #[test]
    fn calls_of_bedrocks_own_answers_are_counted() {
        let call = json!({"toolUse": {"toolUseId": "t", "name": "f", "input": {}}});
        let theirs = json!({"toolUse": {"name": "f", "type": "server_tool_use"}});
        let whole =
            json!({"output": {"message": {"content": [call, {"text": "x"}, call, theirs]}}});
        assert_eq!(counted(Shape::Bedrock, "/model/m/converse", &[whole]), 2);
        let start = |index: u64| json!({"contentBlockIndex": index, "start": call, "p": "a"});
        let goes_on = json!({"contentBlockIndex": 2, "delta": {"toolUse": {"input": "{"}}});
        let pieces = [start(1), start(2), goes_on];
        let path = "/model/m/converse-stream";
        assert_eq!(counted(Shape::Bedrock, path, &pieces), 2);
    }

    #[test]
    fn what_is_kept_of_them_is_bounded() {
        let calls = json!(vec![json!({}); MOST + 1]);
        let whole = json!({"choices": [{"message": {"tool_calls": calls}}]});
        assert_eq!(
            counted(Shape::OpenAi, "/v1/chat/completions", &[whole]),
            MOST
        );
    }
}
