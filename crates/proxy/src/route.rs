//! What kind of call a path is.

use axum::http::Method;
use percent_encoding::percent_decode_str;

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
    /// `audio/transcriptions` and `audio/translations`.
    Transcription,
    /// `audio/speech`.
    Speech,
    /// Bedrock's `model/MODEL/converse`.
    Converse,
    /// Bedrock's `model/MODEL/invoke`.
    Invoke,
}

const IMAGES: [&str; 3] = ["images/generations", "images/edits", "images/variations"];
const TRANSCRIPTIONS: [&str; 2] = ["audio/transcriptions", "audio/translations"];

impl Call {
    /// The call that `POST path` makes of an upstream with this shape; `None` where nothing is metered.
    pub(crate) fn of(shape: Shape, path: &str) -> Option<Self> {
        let path = path.trim_end_matches('/');
        if shape == Shape::Gemini {
            let (_, method) = model_and_method(path)?;
            let operation = match method {
                "generateContent" | "streamGenerateContent" => "generate_content",
                "embedContent" | "batchEmbedContents" => "embeddings",
                _ => return None,
            };
            return Some(Self::Generate { operation });
        }
        let ends = |last: &str| {
            let before = path.strip_suffix(last);
            before.is_some_and(|before| before.is_empty() || before.ends_with('/'))
        };
        match shape {
            Shape::Anthropic => ends("messages").then_some(Self::Messages),
            Shape::Bedrock if ends("converse") || ends("converse-stream") => Some(Self::Converse),
            Shape::Bedrock if ends("invoke") || ends("invoke-with-response-stream") => {
                Some(Self::Invoke)
            }
            Shape::Bedrock => None,
            _ if ends("chat/completions") => Some(Self::Completions { operation: "chat" }),
            _ if ends("completions") => Some(Self::Completions {
                operation: "completion",
            }),
            _ if ends("responses") => Some(Self::Responses),
            _ if ends("embeddings") => Some(Self::Embeddings),
            _ if IMAGES.into_iter().any(ends) => Some(Self::Images),
            _ if TRANSCRIPTIONS.into_iter().any(ends) => Some(Self::Transcription),
            _ if ends("audio/speech") => Some(Self::Speech),
            _ => None,
        }
    }

    /// As `operation` of an event.
    pub(crate) fn operation(self) -> &'static str {
        match self {
            Self::Completions { operation } | Self::Generate { operation } => operation,
            Self::Responses => "responses",
            Self::Embeddings => "embeddings",
            Self::Messages | Self::Converse => "chat",
            Self::Invoke => "invoke_model",
            Self::Images => "image_generation",
            Self::Transcription => "transcription",
            Self::Speech => "speech",
        }
    }

    /// As `usage_format` of an event.
    pub(crate) fn usage_format(self) -> &'static str {
        match self {
            Self::Completions { .. } | Self::Embeddings => "openai.chat",
            Self::Responses | Self::Images | Self::Transcription | Self::Speech => {
                "openai.responses"
            }
            Self::Messages => "anthropic.messages",
            Self::Generate { .. } => "gemini",
            Self::Converse | Self::Invoke => "bedrock.converse",
        }
    }
}

/// Whether `GET path` asks for a response that was made in the background, or is kept.
pub(crate) fn is_response(shape: Shape, path: &str) -> bool {
    let asked = path.rsplit_once("responses/");
    matches!(shape, Shape::OpenAi | Shape::Azure)
        && asked.is_some_and(|(_, id)| !id.is_empty() && !id.contains('/'))
}

/// Whether a request that nothing is metered of costs nothing, and tells of nobody: the provider's
/// models, and counting tokens. To the letter, as servers resolve `..` in paths.
pub(crate) fn is_harmless(method: &Method, path: &str) -> bool {
    let versions = ["/v1beta/", "/v1/", "/"];
    let rest = versions
        .iter()
        .find_map(|version| path.strip_prefix(version));
    let rest = rest.unwrap_or_default();
    let plain = |name: &str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:@".contains(&byte);
        !name.starts_with('.') && name.bytes().all(is_plain)
    };
    match *method {
        Method::GET => rest == "models" || rest.strip_prefix("models/").is_some_and(plain),
        Method::POST => {
            let model = rest.strip_prefix("models/");
            let model = model.and_then(|rest| rest.strip_suffix(":countTokens"));
            rest == "messages/count_tokens" || model.is_some_and(plain)
        }
        _ => false,
    }
}

/// Of `…/models/MODEL:METHOD`, as Gemini's paths end.
pub(crate) fn model_and_method(path: &str) -> Option<(&str, &str)> {
    let (_, last) = path.rsplit_once("models/")?;
    last.rsplit_once(':')
}

/// The model that a path names: Gemini's, Bedrock's (often an ARN, escaped), or Azure's deployment, which
/// is none but stands for one.
pub(crate) fn model_in_path(shape: Shape, path: &str) -> Option<String> {
    let after = |begin: &str| {
        let (_, rest) = path.split_once(begin)?;
        rest.split('/').next()
    };
    let model = match shape {
        Shape::Gemini => model_and_method(path)?.0,
        Shape::Bedrock => after("/model/")?,
        Shape::Azure => after("/deployments/")?,
        Shape::OpenAi | Shape::Anthropic => return None,
    };
    Some(percent_decode_str(model).decode_utf8_lossy().into_owned())
}

/// Whether a path asks for a stream, whatever the body says.
pub(crate) fn streams_by_path(shape: Shape, path: &str) -> bool {
    let path = path.trim_end_matches('/');
    match shape {
        Shape::Gemini => path.ends_with(":streamGenerateContent"),
        Shape::Bedrock => path.ends_with("-stream"),
        _ => false,
    }
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
        ] {
            assert_eq!(model_in_path(shape, &path).as_deref(), Some(wanted));
        }
        assert_eq!(
            model_in_path(Shape::Azure, "/openai/v1/chat/completions"),
            None
        );
    }

    #[test]
    fn only_lists_of_models_and_counting_are_harmless() {
        for (method, path, wanted) in [
            (Method::GET, "/v1/models", true),
            (Method::GET, "/v1beta/models/gemini-2.5-pro", true),
            (Method::POST, "/v1/messages/count_tokens", true),
            (Method::POST, "/v1beta/models/gemini-3:countTokens", true),
            (Method::GET, "/v1/files", false),
            (Method::GET, "/v1/models/../files", false),
            (Method::GET, "/v1/models/..", false),
            (Method::GET, "/v1/models/%2e%2e", false),
            (Method::GET, "/v1/files/models", false),
            (Method::DELETE, "/v1/models/ft:gpt-4o", false),
            (Method::POST, "/v1/models/x:predict", false),
        ] {
            assert_eq!(is_harmless(&method, path), wanted, "{path}");
        }
    }

    #[test]
    fn the_first_part_of_a_path_is_the_upstream() {
        assert_eq!(split("/openai/v1/models"), ("openai", "/v1/models"));
        assert_eq!(split("/mistral"), ("mistral", ""));
        assert_eq!(split("/"), ("", ""));
    }
}
