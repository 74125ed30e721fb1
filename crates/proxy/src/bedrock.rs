//! What answers of Bedrock say about their cost: its own, and those of the models behind it.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as STANDARD;

use crate::answer::{Seen, told};
use crate::told::{Chunk, Conversed, Invoked, text_bytes};

impl Seen {
    pub(crate) fn take_conversed(&mut self, told: Conversed) {
        self.generated += text_bytes(told.delta.as_ref()) + text_bytes(told.output.as_ref());
        self.tool_calls.take_conversed(&told);
        let tier = told.service_tier.and_then(|tier| tier.get("type").cloned());
        self.name(None, None, tier);
        if told.usage.is_some() {
            self.usage = told.usage;
            self.is_final = true;
        }
    }

    /// A model's own answer, or in a stream `{"bytes": …}` with a piece of it in base64. Anthropic's
    /// says more about caches than what Bedrock adds at the end.
    pub(crate) fn take_invoked(&mut self, json: &[u8]) -> Option<()> {
        let chunk = serde_json::from_slice::<Chunk>(json).unwrap_or_default();
        let piece = chunk.bytes.and_then(|text| STANDARD.decode(text).ok());
        let json = piece.as_deref().unwrap_or(json);
        let mut invoked: Invoked = told(json)?;
        if invoked.is_anthropics() {
            self.usage_format = Some("anthropic.messages");
            if let Some(message) = told(json) {
                self.take_message(message);
            }
            // Bedrock names its answers itself.
            self.id.clear();
        } else {
            let members = invoked.others.values();
            self.generated += members.map(|one| text_bytes(Some(one))).sum::<usize>();
        }
        if let Some(metrics) = invoked.metrics.take() {
            self.is_final = true;
            if self.usage_format.is_none() {
                self.usage = Some(metrics);
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::tests::seen;
    use crate::upstream::Shape;
    use serde_json::{Value, json};

    #[test]
    fn bedrock_tells_at_the_end_of_its_own_streams() {
        let (seen, _) = seen(
            Shape::Bedrock,
            "/model/m/converse-stream",
            &[
                json!({"contentBlockIndex": 0, "delta": {"text": "hello"}, "p": "abc"}),
                json!({"stopReason": "end_turn"}),
                json!({"metrics": {"latencyMs": 7}, "serviceTier": {"type": "flex"},
                    "usage": {"inputTokens": 3, "outputTokens": 4, "totalTokens": 7}}),
            ],
        );
        assert_eq!((seen.generated, seen.is_final), (5, true));
        assert_eq!(seen.service_tier, "flex");
        assert_eq!(seen.usage.unwrap()["outputTokens"], 4);
    }

    #[test]
    fn a_model_behind_bedrock_tells_in_its_own_words_or_in_bedrocks() {
        let chunk = |piece: Value| json!({"bytes": STANDARD.encode(piece.to_string()), "p": "a"});
        let metrics = json!({"inputTokenCount": 3, "outputTokenCount": 4});
        let path = "/model/m/invoke-with-response-stream";
        let titan = [
            chunk(json!({"outputText": "hello", "index": 0})),
            chunk(json!({"outputText": "", "amazon-bedrock-invocationMetrics": metrics})),
        ];
        let (other, _) = seen(Shape::Bedrock, path, &titan);
        assert_eq!(Value::Object(other.usage.unwrap()), metrics);
        assert_eq!((other.generated, other.usage_format), (5, None));
        let usage = json!({"input_tokens": 3, "cache_read_input_tokens": 9, "output_tokens": 1});
        let claude = [
            chunk(json!({"type": "message_start", "message": {"id": "msg_1", "usage": usage}})),
            chunk(json!({"type": "message_delta", "usage": {"output_tokens": 4}})),
            chunk(json!({"type": "message_stop", "amazon-bedrock-invocationMetrics": metrics})),
        ];
        let (claude, _) = seen(Shape::Bedrock, path, &claude);
        let wanted = json!({"input_tokens": 3, "cache_read_input_tokens": 9, "output_tokens": 4});
        assert_eq!(Value::Object(claude.usage.unwrap()), wanted);
        assert_eq!(claude.usage_format, Some("anthropic.messages"));
        assert_eq!(claude.id, "");
    }
}
