//! What rarer answers say about their cost: Google's interactions and images, Cohere's, and videos.

use serde_json::Value;

use crate::answer::{Seen, Video};
use crate::told::{Billed, Filmed, Interacted, Predicted, text_bytes};

impl Seen {
    pub(crate) fn take_predicted(&mut self, told: &Predicted) {
        let made = told.predictions.iter();
        let made = made.filter(|one| one.bytes_base64_encoded.is_some() || one.gcs_uri.is_some());
        self.images += made.count();
    }

    /// A video is made in the background, and charged once it is done.
    pub(crate) fn take_filmed(&mut self, told: Filmed) {
        let Filmed {
            seconds,
            size,
            whole,
        } = told;
        let text = |value: Option<Value>| match value {
            Some(Value::String(text)) => text,
            Some(Value::Number(number)) => number.to_string(),
            _ => String::new(),
        };
        self.was_background = true;
        let created_at = whole.created_at.as_ref().and_then(Value::as_i64);
        self.created_at = created_at.or(self.created_at);
        if let Some(status) = whole.status.as_ref().and_then(Value::as_str) {
            self.is_pending = matches!(status, "queued" | "in_progress");
            self.is_final = status == "completed";
        }
        self.name(whole.id, whole.model, None);
        if self.is_final {
            self.usage = Some(serde_json::Map::new());
            self.video = Some(Video {
                seconds: text(seconds),
                size: text(size),
            });
        }
    }

    pub(crate) fn take_interacted(&mut self, told: Interacted) {
        self.generated += text_bytes(told.delta.as_ref()) + text_bytes(told.outputs.as_ref());
        let part = told.interaction.unwrap_or(told.whole);
        if let Some(status) = part.status.as_ref().and_then(Value::as_str) {
            self.is_pending = matches!(status, "queued" | "in_progress");
        }
        self.name(part.id, part.model.or(part.agent), part.service_tier);
        self.is_final |= part.usage.is_some() && !self.is_pending;
        self.overwrite(part.usage);
    }

    /// Embeddings and rankings tell beside their version what they bill.
    pub(crate) fn take_billed(&mut self, told: Billed) {
        self.generated += text_bytes(told.message.as_ref()) + text_bytes(told.delta.as_ref());
        self.name(told.id, told.model, None);
        let at_end = told.delta.as_ref().and_then(|delta| delta.get("usage"));
        let beside = told
            .meta
            .as_ref()
            .filter(|meta| meta.get("billed_units").is_some());
        let usage = told.usage.as_ref().or(at_end).or(beside);
        if let Some(Value::Object(usage)) = usage {
            let counts = usage
                .iter()
                .filter(|(name, _)| *name != "api_version" && *name != "warnings");
            self.usage = Some(
                counts
                    .map(|(name, count)| (name.clone(), count.clone()))
                    .collect(),
            );
            self.is_final = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::tests::seen;
    use crate::upstream::Shape;
    use serde_json::json;

    #[test]
    fn interactions_and_cohere_tell_whole_and_at_the_end_of_streams() {
        let usage = json!({"total_input_tokens": 7, "total_output_tokens": 9});
        let whole =
            json!({"id": "i-1", "agent": "deep-research", "status": "completed", "usage": usage});
        let streamed = [
            json!({"event_type": "interaction.start", "interaction": {"id": "i-1", "status": "in_progress"}}),
            json!({"event_type": "content.delta", "delta": {"type": "text", "text": "abc"}}),
            json!({"event_type": "interaction.complete", "interaction": whole}),
        ];
        for pieces in [&[whole.clone()][..], &streamed] {
            let (seen, _) = seen(Shape::Gemini, "/v1beta/interactions", pieces);
            assert_eq!((&*seen.id, &*seen.model), ("i-1", "deep-research"));
            assert_eq!((seen.is_final, seen.is_pending), (true, false));
            assert_eq!(seen.usage.map(Value::Object), Some(usage.clone()));
        }
        let usage = json!({"billed_units": {"input_tokens": 5, "output_tokens": 2}});
        for pieces in [
            &[json!({"id": "c-1", "message": {}, "usage": usage})][..],
            &[
                json!({"type": "message-start", "id": "c-1"}),
                json!({"type": "message-end", "delta": {"usage": usage}}),
            ],
            &[
                json!({"id": "c-1", "embeddings": {}, "meta": {"api_version": {"version": "2"}, "billed_units": usage["billed_units"]}}),
            ],
        ] {
            let (seen, _) = seen(Shape::OpenAi, "/v2/chat", pieces);
            assert_eq!((&*seen.id, seen.is_final), ("c-1", true));
            assert_eq!(seen.usage.map(Value::Object), Some(usage.clone()));
        }
    }

    #[test]
    fn images_are_counted_as_they_came_and_videos_once_they_are_done() {
        let (images, _) = seen(
            Shape::Gemini,
            "/v1beta/models/imagen-4.0-generate-001:predict",
            &[json!({"predictions": [
                {"mimeType": "image/png", "bytesBase64Encoded": "x"},
                {"gcsUri": "gs://b/o"},
                {"raiFilteredReason": "no"},
            ]})],
        );
        assert_eq!((images.images, images.is_final), (2, false));
        let video = |status: &str| {
            json!({"id": "video_1", "object": "video", "model": "sora-2-pro", "status": status,
                "created_at": 7, "seconds": "8", "size": "1024x1792"})
        };
        for (status, is_pending, is_final) in [
            ("queued", true, false),
            ("in_progress", true, false),
            ("failed", false, false),
            ("completed", false, true),
        ] {
            let (seen, _) = seen(Shape::OpenAi, "/v1/videos", &[video(status)]);
            assert_eq!((seen.is_pending, seen.is_final), (is_pending, is_final));
            assert_eq!((&*seen.id, seen.created_at), ("video_1", Some(7)));
            let seconds = seen.video.map(|video| (video.seconds, video.size));
            let wanted = ("8".to_owned(), "1024x1792".to_owned());
            assert_eq!(seconds, is_final.then_some(wanted));
        }
    }
}
