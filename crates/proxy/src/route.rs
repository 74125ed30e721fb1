//! Which upstream a path leads to, and what kind of call it is.

use std::collections::BTreeMap;
use std::str::FromStr;

/// Whose protocol an upstream speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// OpenAI's, and everybody's who took it over.
    OpenAi,
    /// Anthropic's.
    Anthropic,
    /// Google's Gemini API.
    Gemini,
}

impl FromStr for Shape {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "openai" => Ok(Self::OpenAi),
            "anthropic" => Ok(Self::Anthropic),
            "gemini" => Ok(Self::Gemini),
            _ => Err("write openai, anthropic or gemini"),
        }
    }
}

/// When the proxy asks an OpenAI-like upstream for the usage of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AskUsage {
    /// Where the upstream is known to take the question.
    #[default]
    Auto,
    /// Wherever the caller does not ask itself.
    Always,
    /// Nowhere: streams whose callers do not ask are charged by estimate.
    Never,
}

impl FromStr for AskUsage {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "auto" => Ok(Self::Auto),
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            _ => Err("write auto, always or never"),
        }
    }
}

/// A provider's API behind the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Scheme, host, port and what goes before every path, without a slash at the end.
    pub base_url: String,
    /// Its protocol.
    pub shape: Shape,
    /// Whose prices hold.
    pub provider: String,
    /// Sent in place of the callers' keys; they need none then. Never printed.
    pub key: Option<spendfuse_sidecar::Token>,
    /// When it is asked for a stream's usage.
    pub ask_usage: AskUsage,
}

impl Upstream {
    /// The makers' own APIs, by the first part of a path.
    pub fn known() -> BTreeMap<String, Self> {
        let known = [
            ("openai", "https://api.openai.com", Shape::OpenAi, "openai"),
            (
                "anthropic",
                "https://api.anthropic.com",
                Shape::Anthropic,
                "anthropic",
            ),
            (
                "gemini",
                "https://generativelanguage.googleapis.com",
                Shape::Gemini,
                "gemini",
            ),
        ];
        let upstream = |(name, base_url, shape, provider): (&str, &str, Shape, &str)| {
            let upstream = Self {
                base_url: base_url.to_owned(),
                shape,
                provider: provider.to_owned(),
                key: None,
                ask_usage: AskUsage::Auto,
            };
            (name.to_owned(), upstream)
        };
        known.into_iter().map(upstream).collect()
    }

    /// Whether it is a server of one's own, whose ids are no identities: Ollama counts to 999.
    pub(crate) fn is_private(&self) -> bool {
        self.base_url.starts_with("http://")
    }
}

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
}

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
            _ if ends("chat/completions") => Some(Self::Completions { operation: "chat" }),
            _ if ends("completions") => Some(Self::Completions {
                operation: "completion",
            }),
            _ if ends("responses") => Some(Self::Responses),
            _ if ends("embeddings") => Some(Self::Embeddings),
            _ => None,
        }
    }

    /// As `operation` of an event.
    pub(crate) fn operation(self) -> &'static str {
        match self {
            Self::Completions { operation } | Self::Generate { operation } => operation,
            Self::Responses => "responses",
            Self::Embeddings => "embeddings",
            Self::Messages => "chat",
        }
    }

    /// As `usage_format` of an event.
    pub(crate) fn usage_format(self) -> &'static str {
        match self {
            Self::Completions { .. } | Self::Embeddings => "openai.chat",
            Self::Responses => "openai.responses",
            Self::Messages => "anthropic.messages",
            Self::Generate { .. } => "gemini",
        }
    }
}

/// Whether `GET path` asks for a response that was made in the background, or is kept.
pub(crate) fn is_response(shape: Shape, path: &str) -> bool {
    let asked = path.rsplit_once("responses/");
    shape == Shape::OpenAi && asked.is_some_and(|(_, id)| !id.is_empty() && !id.contains('/'))
}

/// Of `…/models/MODEL:METHOD`, as Gemini's paths end.
pub(crate) fn model_and_method(path: &str) -> Option<(&str, &str)> {
    let (_, last) = path.rsplit_once("models/")?;
    last.rsplit_once(':')
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
        use Shape::{Anthropic, Gemini, OpenAi};
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
            (OpenAi, "/v1/responses", Some("responses")),
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
    fn the_first_part_of_a_path_is_the_upstream() {
        assert_eq!(split("/openai/v1/models"), ("openai", "/v1/models"));
        assert_eq!(split("/mistral"), ("mistral", ""));
        assert_eq!(split("/"), ("", ""));
    }
}
