//! What follows from a call's kind.

use crate::route::Call;
use crate::upstream::Shape;

impl Call {
    /// Whose errors its caller understands, at an upstream of this shape.
    pub(crate) fn shape(self, upstream: Shape) -> Shape {
        match self {
            Self::Messages => Shape::Anthropic,
            Self::Generate { .. } | Self::Interactions | Self::Imagen => Shape::Gemini,
            Self::Converse | Self::Invoke => Shape::Bedrock,
            _ if upstream == Shape::Azure => Shape::Azure,
            _ => Shape::OpenAi,
        }
    }

    /// As `operation` of an event.
    pub(crate) fn operation(self) -> &'static str {
        match self {
            Self::Completions { operation }
            | Self::Generate { operation }
            | Self::Cohere { operation } => operation,
            Self::Interactions => "generate_content",
            Self::Responses => "responses",
            Self::Embeddings => "embeddings",
            Self::Messages | Self::Converse => "chat",
            Self::Invoke => "invoke_model",
            Self::Images | Self::Imagen => "image_generation",
            Self::Videos => "video_generation",
            Self::Transcription => "transcription",
            Self::Speech => "speech",
        }
    }

    /// Whether it is charged by what it asks alone.
    pub(crate) fn generates_nothing(self) -> bool {
        matches!(self.operation(), "embeddings" | "rerank" | "ocr")
    }

    /// Whether its answer is text that another model could write as well.
    pub(crate) fn writes_text(self) -> bool {
        let is_of_sound_or_pictures = matches!(
            self,
            Self::Images | Self::Imagen | Self::Videos | Self::Transcription | Self::Speech
        );
        !self.generates_nothing() && !is_of_sound_or_pictures
    }

    /// Whether its answer may be made in the background, and says what it cost when it is asked for.
    pub(crate) fn may_be_asked_for(self, in_background: bool) -> bool {
        match self {
            Self::Videos => true,
            Self::Responses | Self::Interactions => in_background,
            _ => false,
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
            Self::Interactions => "gemini.interactions",
            Self::Cohere { .. } => "cohere",
            // What is paid by the piece has no tokens.
            Self::Imagen | Self::Videos => "spendfuse",
        }
    }
}
