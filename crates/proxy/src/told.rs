//! Answers as upstreams write them, as far as they tell of their cost.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

/// A chunk of a chat completion, a whole one, a list of embeddings.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Completion {
    pub(crate) id: Option<Value>,
    pub(crate) model: Option<Value>,
    /// What answers in the place of a model, as Google has them.
    pub(crate) agent: Option<Value>,
    pub(crate) service_tier: Option<Value>,
    /// Mistral's OCR has it under the second name.
    #[serde(alias = "usage_info")]
    pub(crate) usage: Option<Map<String, Value>>,
    pub(crate) choices: Option<Vec<Choice>>,
    pub(crate) status: Option<Value>,
    pub(crate) background: Option<Value>,
    pub(crate) created_at: Option<Value>,
    /// Items of a response.
    pub(crate) output: Option<Value>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Choice {
    pub(crate) index: Option<Value>,
    pub(crate) delta: Option<Value>,
    pub(crate) message: Option<Value>,
    pub(crate) text: Option<Value>,
}

/// A response, or an event about one.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Responded {
    pub(crate) response: Option<Completion>,
    pub(crate) delta: Option<Value>,
    #[serde(rename = "type")]
    pub(crate) kind: Option<Value>,
    pub(crate) item: Option<Value>,
    /// Where the item stands.
    pub(crate) output_index: Option<Value>,
    #[serde(flatten)]
    pub(crate) whole: Completion,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Message {
    pub(crate) message: Option<Completion>,
    pub(crate) delta: Option<Value>,
    pub(crate) content: Option<Value>,
    pub(crate) content_block: Option<Value>,
    /// Of the block.
    pub(crate) index: Option<Value>,
    #[serde(flatten)]
    pub(crate) whole: Completion,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Generated {
    pub(crate) response_id: Option<Value>,
    pub(crate) model_version: Option<Value>,
    pub(crate) usage_metadata: Option<Map<String, Value>>,
    pub(crate) candidates: Option<Vec<Value>>,
}

/// An interaction of Google's, or an event about one.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Interacted {
    pub(crate) interaction: Option<Completion>,
    pub(crate) delta: Option<Value>,
    pub(crate) outputs: Option<Value>,
    #[serde(flatten)]
    pub(crate) whole: Completion,
}

/// An answer of Cohere's, or an event about one.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Billed {
    pub(crate) id: Option<Value>,
    pub(crate) model: Option<Value>,
    pub(crate) message: Option<Value>,
    pub(crate) delta: Option<Value>,
    pub(crate) usage: Option<Value>,
    pub(crate) meta: Option<Value>,
}

/// Images, or what was said in audio; or an event about them.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Made {
    pub(crate) usage: Option<Map<String, Value>>,
    pub(crate) data: Option<Vec<IgnoredAny>>,
    pub(crate) text: Option<String>,
}

/// Images of Imagen; what was filtered has none, and is not charged.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Predicted {
    pub(crate) predictions: Vec<Prediction>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Prediction {
    pub(crate) bytes_base64_encoded: Option<IgnoredAny>,
    /// Where it was put instead.
    pub(crate) gcs_uri: Option<IgnoredAny>,
}

/// A video that is made, or was.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Filmed {
    pub(crate) seconds: Option<Value>,
    pub(crate) size: Option<Value>,
    #[serde(flatten)]
    pub(crate) whole: Completion,
}

/// Bedrock's own answer, or an event of its stream.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Conversed {
    pub(crate) usage: Option<Map<String, Value>>,
    pub(crate) service_tier: Option<Value>,
    /// How a block begins.
    pub(crate) start: Option<Value>,
    pub(crate) content_block_index: Option<Value>,
    pub(crate) delta: Option<Value>,
    pub(crate) output: Option<Value>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Chunk {
    pub(crate) bytes: Option<String>,
}

/// The answer of a model behind Bedrock.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Invoked {
    #[serde(rename = "amazon-bedrock-invocationMetrics")]
    pub(crate) metrics: Option<Map<String, Value>>,
    #[serde(flatten)]
    pub(crate) others: Map<String, Value>,
}

impl Invoked {
    pub(crate) fn is_anthropics(&self) -> bool {
        let kind = self.others.get("type").and_then(Value::as_str);
        kind.is_some_and(|kind| kind.starts_with("message") || kind.starts_with("content_block"))
    }
}

/// Bytes of all texts in `value`, at any depth; names of members are not counted.
pub(crate) fn text_bytes(value: Option<&Value>) -> usize {
    match value {
        Some(Value::String(text)) => text.len(),
        Some(Value::Array(items)) => items.iter().map(|item| text_bytes(Some(item))).sum(),
        Some(Value::Object(members)) => members.values().map(|one| text_bytes(Some(one))).sum(),
        _ => 0,
    }
}
