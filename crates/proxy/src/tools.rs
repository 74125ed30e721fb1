//! Tools that a provider runs within a call and bills beside its tokens: counted by what the answer
//! shows of them, where its usage does not count them.

use std::collections::HashSet;

use serde_json::{Map, Value, json};
use spendfuse_domain::event::usage_format::COUNTS_OF_TOOLS;

/// Models of Gemini that search once for each answer that is grounded, however many queries that
/// takes; later ones are billed by the query (https://ai.google.dev/gemini-api/docs/google-search).
const SEARCH_ONCE: [&str; 2] = ["gemini-1", "gemini-2"];

/// How often each tool was run, as far as an answer shows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ToolRuns {
    web_searches: usize,
    file_searches: usize,
    code_interpreters: usize,
    /// A container is billed once in a call, however often code runs in it.
    containers: HashSet<String>,
    /// Queries that ground an answer of Gemini.
    queries: usize,
}

impl ToolRuns {
    /// Takes the `output` of a response. At the end of a stream it lists again what came before; only of
    /// a stream that is cut those pieces are all there is.
    pub(crate) fn take_output(&mut self, output: &Value) {
        let Some(items) = output.as_array().filter(|items| !items.is_empty()) else {
            return;
        };
        *self = Self::default();
        for item in items {
            self.take_item(item);
        }
    }

    /// Takes an item of a response, done.
    pub(crate) fn take_item(&mut self, item: &Value) {
        match text(item, "type") {
            "web_search_call" if is_search(item) => self.web_searches += 1,
            "file_search_call" => self.file_searches += 1,
            "code_interpreter_call" => {
                let container = text(item, "container_id");
                let is_another =
                    container.is_empty() || self.containers.insert(container.to_owned());
                self.code_interpreters += usize::from(is_another);
            }
            _ => {}
        }
    }

    /// Takes a block that begins in a stream of Anthropic's, whose usage counts tools at its end only.
    pub(crate) fn take_block(&mut self, block: &Value) {
        let is_search =
            (text(block, "type"), text(block, "name")) == ("server_tool_use", "web_search");
        self.web_searches += usize::from(is_search);
    }

    /// Takes the candidates of a chunk. Chunks repeat what grounds them, so the most counts. Google
    /// bills queries that differ and are not empty.
    pub(crate) fn take_candidates(&mut self, candidates: &[Value]) {
        let queries = candidates.iter().filter_map(|candidate| {
            let grounding = candidate.get("groundingMetadata")?;
            grounding.get("webSearchQueries")?.as_array()
        });
        let queries = queries.flatten().filter_map(Value::as_str);
        let queries: HashSet<&str> = queries.filter(|query| !query.trim().is_empty()).collect();
        self.queries = self.queries.max(queries.len());
    }

    /// As units of an event; `None` where there are none, or `usage` counts them itself.
    pub(crate) fn units(&self, usage: Option<&Map<String, Value>>, model: &str) -> Option<Value> {
        let told = |name: &&str| usage?.get(*name).filter(|count| !count.is_null());
        if COUNTS_OF_TOOLS.iter().any(|name| told(name).is_some()) {
            return None;
        }
        let queries = match searches_once(model) {
            true => self.queries.min(1),
            false => self.queries,
        };
        let counts = [
            ("web_search_calls", self.web_searches + queries),
            ("file_search_calls", self.file_searches),
            ("code_interpreter_calls", self.code_interpreters),
        ];
        let run = counts.into_iter().filter(|(_, count)| *count > 0);
        let units: Map<String, Value> = run
            .map(|(name, count)| (name.to_owned(), json!(count.to_string())))
            .collect();
        (!units.is_empty()).then_some(Value::Object(units))
    }
}

/// Whether a search was made, and not a page opened or looked through, which is not billed.
fn is_search(item: &Value) -> bool {
    let action = item.get("action");
    matches!(
        action.map_or("", |action| text(action, "type")),
        "" | "search"
    )
}

fn searches_once(model: &str) -> bool {
    let name = model.rsplit('/').next().unwrap_or(model);
    SEARCH_ONCE.iter().any(|begin| {
        let rest = name.strip_prefix(*begin);
        rest.is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_digit()))
    })
}

pub(crate) fn text<'a>(object: &'a Value, name: &str) -> &'a str {
    object.get(name).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::Seen;
    use crate::route::Call;
    use crate::upstream::Shape;

    /// The units of an answer that came in these pieces.
    fn units(shape: Shape, path: &str, model: &str, pieces: &[Value]) -> Value {
        let call = Call::of(shape, path).unwrap();
        let mut seen = Seen::default();
        for piece in pieces {
            seen.take(call, piece.to_string().as_bytes());
        }
        let units = seen.tools.units(seen.usage.as_ref(), model);
        units.unwrap_or_default()
    }

    #[test]
    fn tools_of_a_response_are_counted_once_whole_or_streamed() {
        let search = |action: Value| json!({"type": "web_search_call", "action": action});
        let runs =
            |container: &str| json!({"type": "code_interpreter_call", "container_id": container});
        let output = json!([
            search(json!({"type": "search", "query": "x"})),
            search(json!({"type": "open_page", "url": "x"})),
            search(json!({"type": "find_in_page"})),
            search(Value::Null),
            {"type": "web_search_call"},
            {"type": "file_search_call"},
            runs("c-1"), runs("c-1"), runs("c-2"),
            {"type": "message"}, 7
        ]);
        let wanted = json!({"web_search_calls": "3", "file_search_calls": "1",
            "code_interpreter_calls": "2"});
        let usage = json!({"input_tokens": 3, "output_tokens": 4});
        let end = json!({"id": "resp_1", "output": output, "usage": usage});
        let of = |pieces: &[Value]| units(Shape::OpenAi, "/v1/responses", "gpt-5", pieces);
        assert_eq!(of(std::slice::from_ref(&end)), wanted);
        let streamed = [
            json!({"type": "response.created", "response": {"id": "resp_1", "output": []}}),
            json!({"type": "response.output_item.done", "item": output[0]}),
            json!({"type": "response.completed", "response": end}),
        ];
        assert_eq!(of(&streamed), wanted);
        // Cut, its pieces are all there is.
        let done = |item: Value| json!({"type": "response.output_item.done", "item": item});
        let cut: Vec<Value> = [0, 1, 5, 6, 7, 8].map(|at| done(output[at].clone())).into();
        let so_far = json!({"web_search_calls": "1", "file_search_calls": "1",
            "code_interpreter_calls": "2"});
        assert_eq!(of(&cut), so_far);
        let failed = json!({"type": "response.failed", "response": {"id": "r", "output": []}});
        assert_eq!(of(&[&cut[..], &[failed]].concat()), so_far);
        assert_eq!(
            of(&[json!({"output": "text", "usage": usage})]),
            Value::Null
        );
    }

    #[test]
    fn searches_of_messages_are_counted_where_no_usage_comes_that_does() {
        let block = |name: &str| {
            json!({"type": "content_block_start", "index": 1,
                "content_block": {"type": "server_tool_use", "id": "s", "name": name, "input": {}}})
        };
        let pieces = [block("web_search"), block("web_fetch"), block("web_search")];
        let path = "/v1/messages";
        let cut = units(Shape::Anthropic, path, "claude", &pieces);
        assert_eq!(cut, json!({"web_search_calls": "2"}));
        let end = json!({"type": "message_delta",
            "usage": {"output_tokens": 5, "server_tool_use": {"web_search_requests": 2}}});
        let whole = [&pieces[..], &[end]].concat();
        assert_eq!(units(Shape::Anthropic, path, "claude", &whole), Value::Null);
    }

    #[test]
    fn what_the_usage_counts_is_not_counted_again() {
        let of = |usage: Value| {
            let answer = json!({"output": [{"type": "web_search_call"}], "usage": usage});
            units(Shape::OpenAi, "/v1/responses", "grok-4", &[answer])
        };
        let counted = json!({"input_tokens": 3, "output_tokens": 4,
            "server_side_tool_usage_details": {"web_search_calls": 1}});
        assert_eq!(of(counted), Value::Null);
        let silent = json!({"input_tokens": 3, "server_side_tool_usage_details": null});
        assert_eq!(of(silent), json!({"web_search_calls": "1"}));
    }

    #[test]
    fn queries_of_gemini_are_counted_as_its_models_are_billed() {
        let chunk = |queries: Value| json!({"candidates": [{"groundingMetadata": {"webSearchQueries": queries}}]});
        let chunks = [
            chunk(json!(["one"])),
            chunk(json!(["one", "", "two", "one"])),
            json!({"candidates": [{"content": {"parts": []}}]}),
        ];
        let path = "/v1beta/models/m:streamGenerateContent";
        for (model, wanted) in [
            ("gemini-3-pro", "2"),
            ("gemini-20-pro", "2"),
            ("gemini-2.5-flash", "1"),
            ("publishers/google/models/gemini-2.0-flash-001", "1"),
        ] {
            let found = units(Shape::Gemini, path, model, &chunks);
            assert_eq!(found, json!({"web_search_calls": wanted}), "{model}");
        }
        let none = units(Shape::Gemini, path, "gemini-3-pro", &[chunk(json!([""]))]);
        assert_eq!(none, Value::Null);
    }
}
