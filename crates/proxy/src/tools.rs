//! Tools that a provider runs within a call and bills beside its tokens: counted by what the answer
//! shows of them, where its usage does not count them.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

/// Members of usage objects that count tools themselves: Anthropic's and OpenRouter's, xAI's,
/// Perplexity's, Google's.
const COUNTS: [&str; 5] = [
    "server_tool_use",
    "server_side_tool_usage_details",
    "num_search_queries",
    "groundingToolCount",
    "grounding_tool_count",
];
/// Models of Gemini that search once for each answer that is grounded, however many queries that
/// takes; later ones are billed by the query (https://ai.google.dev/gemini-api/docs/google-search).
const SEARCH_ONCE: [&str; 2] = ["gemini-1", "gemini-2"];

/// How often each tool was run, as far as an answer shows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ToolRuns {
    web_searches: usize,
    file_searches: usize,
    /// A container is billed once in a call, however often code runs in it.
    code_interpreters: usize,
    /// Queries that ground an answer of Gemini.
    queries: usize,
}

impl ToolRuns {
    /// Those in the `output` of a response.
    pub(crate) fn of_output(output: &Value) -> Self {
        let mut runs = Self::default();
        let mut containers = HashSet::new();
        for item in output.as_array().into_iter().flatten() {
            match text(item, "type") {
                "web_search_call" if is_search(item) => runs.web_searches += 1,
                "file_search_call" => runs.file_searches += 1,
                "code_interpreter_call" => {
                    let container = text(item, "container_id");
                    let is_another = container.is_empty() || containers.insert(container);
                    runs.code_interpreters += usize::from(is_another);
                }
                _ => {}
            }
        }
        runs
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
        if COUNTS.iter().any(|name| told(name).is_some()) {
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

fn text<'a>(object: &'a Value, name: &str) -> &'a str {
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
        assert_eq!(
            of(&[json!({"output": "text", "usage": usage})]),
            Value::Null
        );
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
