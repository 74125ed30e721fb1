//! What kind of call a path is.

use crate::path::{ends, part_after, plain};
use crate::upstream::Shape;

/// A call that costs money, and how its answer is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// `chat/completions` and `completions`.
    Completions { operation: &'static str },
    /// `responses`.
    Responses,
    /// `embeddings`.
    Embeddings,
    /// Anthropic's `messages`.
    Messages,
    /// `models/MODEL:METHOD`.
    Generate { operation: &'static str },
    /// `images/generations`, `images/edits`, `images/variations`.
    Images,
    /// `models/MODEL:predict` of Imagen.
    Imagen,
    /// `videos`, and what is made of one.
    Videos,
    /// `audio/transcriptions` and `audio/translations`.
    Transcription,
    /// `audio/speech`.
    Speech,
    /// Bedrock's `model/MODEL/converse`.
    Converse,
    /// Bedrock's `model/MODEL/invoke`.
    Invoke,
    /// Google's `interactions`.
    Interactions,
    /// Cohere's `v2/chat`, and its embeddings and rankings, which others have taken over.
    Cohere { operation: &'static str },
}

/// A compaction is an answer like any other.
const RESPONSES: [&str; 2] = ["responses", "responses/compact"];
const IMAGES: [&str; 3] = ["images/generations", "images/edits", "images/variations"];
/// A video, one made of another, and one that goes on.
const VIDEOS: [&str; 3] = ["videos", "videos/edits", "videos/extensions"];
/// How the names of Imagen's models begin.
const IMAGEN: [&str; 2] = ["imagen", "imagegeneration"];
const TRANSCRIPTIONS: [&str; 2] = ["audio/transcriptions", "audio/translations"];

impl Call {
    /// The call that `POST path` makes; `None` where nothing is metered. Providers speak each other's
    /// languages beside their own, so the path says which one it is.
    pub(crate) fn of(shape: Shape, path: &str) -> Option<Self> {
        let path = plain(path);
        if let Some(call) = Self::by_method(&path) {
            return Some(call);
        }
        let is = |last: &str| ends(&path, last);
        let is_any = |last: &[&str]| last.iter().any(|last| is(last));
        match shape {
            Shape::Bedrock if is_any(&["converse", "converse-stream"]) => Some(Self::Converse),
            Shape::Bedrock if is_any(&["invoke", "invoke-with-response-stream"]) => {
                Some(Self::Invoke)
            }
            _ if is("chat/completions") => Some(Self::Completions { operation: "chat" }),
            _ if is("completions") => Some(Self::Completions {
                operation: "completion",
            }),
            // Answers as a completion does, but that it counts pages.
            _ if is("v1/ocr") => Some(Self::Completions { operation: "ocr" }),
            _ if is_any(&RESPONSES) => Some(Self::Responses),
            _ if is("embeddings") => Some(Self::Embeddings),
            _ if is("messages") && !is_of_thread(&path) => Some(Self::Messages),
            _ if is_any(&IMAGES) => Some(Self::Images),
            _ if is_any(&VIDEOS) || is_remix(&path) => Some(Self::Videos),
            _ if is_any(&TRANSCRIPTIONS) => Some(Self::Transcription),
            _ if is("audio/speech") => Some(Self::Speech),
            Shape::Gemini if is("interactions") => Some(Self::Interactions),
            _ => Self::of_cohere(&path),
        }
    }

    /// The call of Cohere; its first `chat` streams lines that are no events, and passes.
    fn of_cohere(path: &str) -> Option<Self> {
        const CALLS: [(&str, &str); 5] = [
            ("v2/chat", "chat"),
            ("v1/embed", "embeddings"),
            ("v2/embed", "embeddings"),
            ("v1/rerank", "rerank"),
            ("v2/rerank", "rerank"),
        ];
        let found = CALLS.iter().find(|(last, _)| ends(path, last));
        found.map(|&(_, operation)| Self::Cohere { operation })
    }

    /// The call that the method behind a model's name makes of it, as Google's paths end.
    fn by_method(path: &str) -> Option<Self> {
        let (model, method) = model_and_method(path)?;
        match method {
            "generateContent" | "streamGenerateContent" => Some(Self::Generate {
                operation: "generate_content",
            }),
            "embedContent" | "batchEmbedContents" => Some(Self::Generate {
                operation: "embeddings",
            }),
            "predict" if IMAGEN.iter().any(|name| model.starts_with(name)) => Some(Self::Imagen),
            // An endpoint of one's own is paid by the hour, and its body is whatever its model takes.
            "rawPredict" | "streamRawPredict" if !path.contains("publishers/") => None,
            // Other makers' models at Vertex AI; Anthropic's tokens are counted for nothing.
            "rawPredict" | "streamRawPredict" if path.contains("publishers/anthropic/") => {
                (model != "count-tokens").then_some(Self::Messages)
            }
            "rawPredict" | "streamRawPredict" => Some(Self::Completions { operation: "chat" }),
            _ => None,
        }
    }
}

/// `videos/ID/remix`.
fn is_remix(path: &str) -> bool {
    let before = path.rsplit_once('/').filter(|(_, last)| *last == "remix");
    let video = before.and_then(|(before, _)| before.rsplit_once('/'));
    video.is_some_and(|(before, _)| ends(before, "videos"))
}

/// A message is put into a thread of OpenAI's assistants, which costs nothing.
fn is_of_thread(path: &str) -> bool {
    let mut parts = path.rsplit('/').skip(2);
    parts.next() == Some("threads")
}

/// The call whose answer `GET path` asks for again: one that was made in the background, or is kept.
pub(crate) fn call_of_answer(shape: Shape, path: &str) -> Option<Call> {
    let path = plain(path);
    let (before, _) = path.rsplit_once('/')?;
    let (last, call) = match shape {
        Shape::OpenAi | Shape::Azure if ends(before, "videos") => ("videos", Call::Videos),
        Shape::OpenAi | Shape::Azure => ("responses", Call::Responses),
        Shape::Gemini => ("interactions", Call::Interactions),
        Shape::Anthropic | Shape::Bedrock => return None,
    };
    ends(before, last).then_some(call)
}

/// Whether `GET path` asks for a video of OpenAI's itself, which is there once it is done.
pub(crate) fn is_content_of_video(shape: Shape, path: &str) -> bool {
    let path = plain(path);
    let video = path.rsplit_once('/').and_then(|(before, last)| {
        let is_content = last.eq_ignore_ascii_case("content");
        before.rsplit_once('/').filter(|_| is_content)
    });
    let is_video = video.is_some_and(|(before, _)| ends(before, "videos"));
    is_video && matches!(shape, Shape::OpenAi | Shape::Azure)
}

/// Of `…/models/MODEL:METHOD`, as Gemini's paths end; tuned models and endpoints of Vertex AI stand in
/// the same place.
pub(crate) fn model_and_method(path: &str) -> Option<(&str, &str)> {
    let last = path
        .rsplit_once("models/")
        .or_else(|| path.rsplit_once('/'));
    last?.1.rsplit_once(':')
}

/// The model that a path names: Gemini's, Bedrock's (often an ARN, escaped), or Azure's deployment, which
/// is none but stands for one.
pub(crate) fn model_in_path(shape: Shape, path: &str) -> Option<String> {
    let named = match shape {
        Shape::Bedrock => part_after(path, "model"),
        Shape::Azure => part_after(path, "deployments"),
        Shape::Gemini | Shape::OpenAi | Shape::Anthropic => None,
    };
    named.or_else(|| {
        let path = plain(path);
        Call::by_method(&path)?;
        Some(model_and_method(&path)?.0.to_owned())
    })
}

/// Whether a path asks for a stream, whatever the body says.
pub(crate) fn streams_by_path(shape: Shape, path: &str) -> bool {
    let path = plain(path);
    let is_bedrocks = shape == Shape::Bedrock && path.to_ascii_lowercase().ends_with("-stream");
    is_bedrocks || path.ends_with(":streamGenerateContent") || path.ends_with(":streamRawPredict")
}

/// `/NAME/rest` as the name of an upstream and the path that is asked of it.
pub(crate) fn split(path: &str) -> (&str, &str) {
    let path = path.strip_prefix('/').unwrap_or(path);
    let end = path.find('/').unwrap_or(path.len());
    path.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_cost_money_are_known_by_their_paths() {
        use Shape::{Anthropic, Azure, Bedrock, Gemini, OpenAi};
        let operation = |shape, path| Call::of(shape, path).map(Call::operation);
        for (shape, path, wanted) in [
            (OpenAi, "/v1/chat/completions", Some("chat")),
            (OpenAi, "/chat/completions/", Some("chat")),
            (OpenAi, "/v1/completions", Some("completion")),
            (
                OpenAi,
                "/openai/deployments/d/embeddings",
                Some("embeddings"),
            ),
            (
                Azure,
                "/openai/deployments/d/chat/completions",
                Some("chat"),
            ),
            (Azure, "/openai/v1/responses", Some("responses")),
            (Bedrock, "/model/m/converse", Some("chat")),
            (Bedrock, "/model/m/converse-stream", Some("chat")),
            (
                Bedrock,
                "/model/m/invoke-with-response-stream",
                Some("invoke_model"),
            ),
            (Bedrock, "/model/m/count-tokens", None),
            (Bedrock, "/model/m/async-invoke", None),
            (OpenAi, "/v1/responses", Some("responses")),
            (OpenAi, "/v1/images/edits", Some("image_generation")),
            (OpenAi, "/v1/audio/translations", Some("transcription")),
            (OpenAi, "/v1/audio/speech", Some("speech")),
            (OpenAi, "/v1/videos", Some("video_generation")),
            (OpenAi, "/v1/videos/v/remix", Some("video_generation")),
            (OpenAi, "/v1/videos/v", None),
            (OpenAi, "/v1/remix", None),
            (
                Gemini,
                "/v1beta/models/imagen-4.0-generate-001:predict",
                Some("image_generation"),
            ),
            (Gemini, "/v1beta/models/text-embedding-005:predict", None),
            (Gemini, "/v1beta/models/imagetext@001:predict", None),
            (OpenAi, "/v1/models", None),
            (OpenAi, "/v1/responses/resp_1", None),
            (OpenAi, "/v1/my-embeddings", None),
            (Anthropic, "/v1/messages", Some("chat")),
            (Anthropic, "/v1/messages/count_tokens", None),
            (Anthropic, "/v1/messages/batches", None),
            (
                Gemini,
                "/v1beta/models/gemini-3:streamGenerateContent",
                Some("generate_content"),
            ),
            (
                Gemini,
                "/v1beta/models/e:batchEmbedContents",
                Some("embeddings"),
            ),
            (Gemini, "/v1beta/models/gemini-3:countTokens", None),
            (Gemini, "/v1beta/models", None),
            (Gemini, "/v1beta/interactions", Some("generate_content")),
            (Gemini, "/v1beta/interactions/i-1/cancel", None),
            (OpenAi, "/v2/chat", Some("chat")),
            (OpenAi, "/api/chat", None),
            (OpenAi, "/v2/embed", Some("embeddings")),
            (OpenAi, "/v1/rerank", Some("rerank")),
            (OpenAi, "/v1/ocr", Some("ocr")),
            (Azure, "/vision/v3.2/ocr", None),
            // However it is written.
            (OpenAi, "/v1/chat%2Fcompletion%73", Some("chat")),
            (OpenAi, "/v1/images//generations", Some("image_generation")),
            (OpenAi, "/v1/audio/speech/.", Some("speech")),
            (
                Azure,
                "/openai/deployments/d/Chat/Completions",
                Some("chat"),
            ),
            (
                Gemini,
                "/v1beta/models/gemini-3%3AgenerateContent",
                Some("generate_content"),
            ),
            // Providers speak each other's languages.
            (Gemini, "/v1beta/openai/chat/completions", Some("chat")),
            (Anthropic, "/v1/chat/completions", Some("chat")),
            (Bedrock, "/openai/v1/chat/completions", Some("chat")),
            (OpenAi, "/api/v1/messages", Some("chat")),
            (Azure, "/anthropic/v1/messages", Some("chat")),
            (OpenAi, "/v1/threads/thread_1/messages", None),
            (OpenAi, "/v1/responses/compact", Some("responses")),
            (OpenAi, "/v1/responses/resp_1/cancel", None),
            (
                Gemini,
                "/v1/projects/p/locations/l/publishers/anthropic/models/claude:streamRawPredict",
                Some("chat"),
            ),
            (
                Gemini,
                "/v1/projects/p/locations/l/publishers/anthropic/models/count-tokens:rawPredict",
                None,
            ),
            (
                Gemini,
                "/v1/projects/p/locations/l/publishers/mistralai/models/m:rawPredict",
                Some("chat"),
            ),
            (
                Gemini,
                "/v1/projects/p/locations/l/endpoints/7:rawPredict",
                None,
            ),
            (
                Gemini,
                "/v1/projects/p/locations/l/endpoints/7:generateContent",
                Some("generate_content"),
            ),
            (
                Gemini,
                "/v1beta/tunedModels/mine:generateContent",
                Some("generate_content"),
            ),
        ] {
            assert_eq!(operation(shape, path), wanted, "{path}");
        }
        let path = "/v1beta/models/x:streamGenerateContent";
        assert_eq!(model_and_method(path), Some(("x", "streamGenerateContent")));
    }

    #[test]
    fn models_are_read_from_paths() {
        let arn = "arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fus.anthropic.x-v1%3A0";
        for (shape, path, wanted) in [
            (
                Shape::Bedrock,
                format!("/model/{arn}/converse"),
                "arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.x-v1:0",
            ),
            (
                Shape::Azure,
                "/openai/deployments/my-gpt/chat/completions".to_owned(),
                "my-gpt",
            ),
            (
                Shape::Gemini,
                "/v1beta/models/gemini-3:generateContent".to_owned(),
                "gemini-3",
            ),
            (
                Shape::Gemini,
                "/v1/projects/p/locations/l/publishers/anthropic/models/claude@1:rawPredict"
                    .to_owned(),
                "claude@1",
            ),
            (
                Shape::Gemini,
                "/v1beta/tunedModels/mine%3AgenerateContent".to_owned(),
                "mine",
            ),
        ] {
            assert_eq!(model_in_path(shape, &path).as_deref(), Some(wanted));
        }
        for path in ["/v1beta/openai/chat/completions", "/v1/messages"] {
            assert_eq!(model_in_path(Shape::Gemini, path), None);
        }
        assert_eq!(
            model_in_path(Shape::Azure, "/openai/v1/chat/completions"),
            None
        );
    }

    #[test]
    fn responses_that_are_asked_for_are_known_by_their_paths() {
        for (path, wanted) in [
            ("/v1/responses/resp_1", true),
            ("/v1//responses/resp_1/", true),
            ("/openai/v1/response%73/resp_1", true),
            ("/v1/responses", false),
            ("/v1/responses/resp_1/input_items", false),
            ("/v1/my-responses/resp_1", false),
        ] {
            let call = call_of_answer(Shape::OpenAi, path);
            assert_eq!(call, wanted.then_some(Call::Responses), "{path}");
        }
    }

    #[test]
    fn the_first_part_of_a_path_is_the_upstream() {
        assert_eq!(split("/openai/v1/models"), ("openai", "/v1/models"));
        assert_eq!(split("/mistral"), ("mistral", ""));
        assert_eq!(split("/"), ("", ""));
    }
}
