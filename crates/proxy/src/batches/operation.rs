//! A batch of Google's: its answers stand in it once it is done.

use serde::Deserialize;
use serde_json::value::RawValue;
use spendfuse_domain::UnixMillis;

use super::line::Line;
use super::results::Reader;

/// Stands in every answer that costs something.
const USAGE: &[u8] = b"usageMetadata";

/// A batch, or a list of some.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Operation<'b> {
    #[serde(borrow)]
    operations: Vec<Operation<'b>>,
    #[serde(borrow)]
    metadata: Option<Metadata<'b>>,
    #[serde(borrow)]
    response: Option<Output<'b>>,
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

/// An answer, and what is known of its batch.
#[derive(Debug)]
struct Item<'b> {
    json: &'b RawValue,
    model: String,
    made: Option<UnixMillis>,
}

/// Tells the answers in `body`: a batch that is under way has none.
pub(super) async fn tell(reader: &mut Reader, body: &[u8]) {
    let Some(items) = items(body) else {
        let names_usage = body.windows(USAGE.len()).any(|at| at == USAGE);
        if names_usage {
            reader.tell_unread();
        }
        return;
    };
    for Item { json, model, made } in items {
        reader.model = model;
        reader.made = made;
        reader.tell(Line::of_item(json)).await;
    }
}

/// `None` where that is no batch as it should be.
fn items(body: &[u8]) -> Option<Vec<Item<'_>>> {
    let mut whole: Operation<'_> = serde_json::from_slice(body).ok()?;
    let mut all = std::mem::take(&mut whole.operations);
    all.push(whole);
    Some(all.into_iter().flat_map(items_of).collect())
}

fn items_of(batch: Operation<'_>) -> impl Iterator<Item = Item<'_>> {
    let metadata = batch.metadata.unwrap_or_default();
    let told = metadata.end_time.or(metadata.update_time);
    let made = told.and_then(|time| UnixMillis::parse_rfc3339(&time).ok());
    let model = metadata.model.unwrap_or_default();
    let model = model.trim_start_matches("models/").to_owned();
    let output = batch.response.or(metadata.output).unwrap_or_default();
    let inlined = output
        .inlined_responses
        .or(output.inlined_embed_content_responses);
    let answers = inlined.unwrap_or_default().inlined_responses;
    answers.into_iter().map(move |json| Item {
        json,
        model: model.clone(),
        made,
    })
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
        for batch in [both, copy, list] {
            let text = batch.to_string();
            let items = items(text.as_bytes()).unwrap();
            assert_eq!(items.len(), 2, "{text}");
            assert_eq!(items[0].model, "gemini-3");
            assert_eq!(items[0].made, Some(UnixMillis(1_795_341_600_000)));
            assert!(items[0].json.get().contains("r-1"));
        }
        for text in [
            r#"{"name":"batches/b","metadata":{"state":"BATCH_STATE_RUNNING"}}"#,
            r#"{"done":true,"response":{"responsesFile":"files/f"}}"#,
            r#"{"operations":7}"#,
            "[]",
            "",
        ] {
            let items = items(text.as_bytes());
            assert!(items.unwrap_or_default().is_empty(), "{text}");
        }
    }
}
