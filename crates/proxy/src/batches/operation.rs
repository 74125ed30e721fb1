//! A batch that has its answers in it once it is done: Google's, and Mistral's where that is asked for.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use spendfuse_domain::UnixMillis;

use super::results::Reader;
use super::when::time_of;
use crate::request::parsed;

/// How a member begins that stands in every answer which costs something.
const USAGE: &[u8] = b"\"usage";

/// A batch, or a list of some.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Operation<'b> {
    #[serde(borrow)]
    operations: Option<Vec<Operation<'b>>>,
    name: Option<String>,
    #[serde(borrow)]
    metadata: Option<&'b RawValue>,
    #[serde(borrow)]
    response: Option<Output<'b>>,
    /// The same of Mistral's.
    #[serde(borrow)]
    data: Option<Vec<Operation<'b>>>,
    id: Option<String>,
    model: Option<String>,
    #[serde(borrow)]
    outputs: Option<Vec<&'b RawValue>>,
    completed_at: Option<Value>,
    created_at: Option<Value>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata<'b> {
    model: Option<String>,
    end_time: Option<String>,
    update_time: Option<String>,
    /// The same as the response.
    #[serde(borrow)]
    output: Option<Output<'b>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Output<'b> {
    #[serde(borrow)]
    inlined_responses: Option<Inlined<'b>>,
    #[serde(borrow)]
    inlined_embed_content_responses: Option<Inlined<'b>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Inlined<'b> {
    #[serde(borrow)]
    inlined_responses: Vec<&'b RawValue>,
}

/// What is known of a batch.
#[derive(Debug)]
struct Batch<'b> {
    /// Empty where it has none.
    name: String,
    model: String,
    made: Option<UnixMillis>,
    answers: Vec<&'b RawValue>,
}

/// Tells the answers in `body`: a batch that is under way has none.
pub(super) async fn tell(reader: &mut Reader, body: &[u8]) {
    let batches = batches(body).unwrap_or_default();
    let has_answers = batches.iter().any(|batch| !batch.answers.is_empty());
    if !has_answers && body.windows(USAGE.len()).any(|at| at == USAGE) {
        reader.tell_unread();
    }
    for batch in batches {
        reader.begin(batch.name, batch.model, batch.made);
        reader.tell_answers(&batch.answers).await;
    }
}

/// `None` where that is no batch as it should be.
fn batches(body: &[u8]) -> Option<Vec<Batch<'_>>> {
    let mut whole: Operation<'_> = serde_json::from_slice(body).ok()?;
    let lists = [whole.operations.take(), whole.data.take()];
    let listed = lists.into_iter().flatten().flatten();
    Some(listed.chain([whole]).map(Batch::of).collect())
}

impl<'b> Batch<'b> {
    fn of(batch: Operation<'b>) -> Self {
        // Mistral's is whatever somebody has written.
        let metadata = batch.metadata.and_then(parsed::<Metadata<'b>>);
        let metadata = metadata.unwrap_or_default();
        let ended = metadata.end_time.or(metadata.update_time);
        let made = [ended.map(Value::from), batch.completed_at, batch.created_at];
        let name = batch.name.or(batch.id).unwrap_or_default();
        let model = batch.model.or(metadata.model).unwrap_or_default();
        let output = batch.response.or(metadata.output).unwrap_or_default();
        let inlined = output
            .inlined_responses
            .or(output.inlined_embed_content_responses);
        let inlined = inlined.map(|inlined| inlined.inlined_responses);
        Self {
            name: name.trim_start_matches("batches/").to_owned(),
            model: model.trim_start_matches("models/").to_owned(),
            made: made.into_iter().flatten().find_map(time_of),
            answers: batch.outputs.or(inlined).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_batch_has_its_answers_once_it_is_done() {
        let answers = json!({"inlinedResponses": {"inlinedResponses": [
            {"response": {"responseId": "r-1"}, "metadata": {"key": "a"}},
            {"error": {"code": 3}},
        ]}});
        let metadata = json!({"model": "models/gemini-3", "state": "BATCH_STATE_SUCCEEDED",
            "endTime": "2026-11-22T10:00:00Z", "output": answers});
        let both =
            json!({"name": "batches/b", "metadata": metadata, "done": true, "response": answers});
        let copy = json!({"name": "batches/b", "metadata": metadata, "done": true});
        let list = json!({"operations": [both], "nextPageToken": ""});
        let of_mistral = json!({"id": "b", "object": "batch", "metadata": {"model": 7},
            "model": "x", "outputs": [{"custom_id": "r-1"}, {}], "completed_at": 1_795_341_600});
        let list_of_mistral = json!({"data": [of_mistral], "total": 1});
        for (batch, model) in [
            (both, "gemini-3"),
            (copy, "gemini-3"),
            (list, "gemini-3"),
            (of_mistral, "x"),
            (list_of_mistral, "x"),
        ] {
            let text = batch.to_string();
            let batches = batches(text.as_bytes()).unwrap();
            let found = &batches[0];
            assert_eq!((found.name.as_str(), found.model.as_str()), ("b", model));
            assert_eq!(found.answers.len(), 2, "{text}");
            assert_eq!(found.made, Some(UnixMillis(1_795_341_600_000)));
            assert!(found.answers[0].get().contains("r-1"));
        }
        for text in [
            r#"{"name":"batches/b","metadata":{"state":"BATCH_STATE_RUNNING"}}"#,
            r#"{"done":true,"response":{"responsesFile":"files/f"}}"#,
            r#"{"id":"b","outputs":null,"completed_at":null}"#,
            r#"{"operations":7}"#,
            "[]",
            "",
        ] {
            let batches = batches(text.as_bytes()).unwrap_or_default();
            let none = batches.iter().all(|batch| batch.answers.is_empty());
            assert!(none, "{text}");
        }
    }
}
