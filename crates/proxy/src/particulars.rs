//! What a call costs besides tokens, as its request says it: images, text that is read out, and audio.

use axum::http::HeaderMap;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::event::tokens_in;
use crate::form::Form;
use crate::images;
use crate::path::plain;
use crate::pictures;
use crate::request::parsed;
use crate::route::Call;

/// Models that are paid by the character; others' speech by tokens, which nobody tells.
const BY_CHARACTER: &str = "tts-1";
/// Of text that is read out: about 15 characters a second, and 21 tokens of audio.
const AUDIO_TOKENS: (usize, usize) = (7, 5);
/// Of a second of audio that is listened to: one for 100 ms
/// (https://platform.openai.com/docs/guides/realtime-costs).
const AUDIO_TOKENS_OF_SECOND: u64 = 10;
/// Bytes of a second of audio where nobody says how long it is: 128 kbit/s.
const BYTES_OF_SECOND: usize = 16_000;
/// The model of images that name none, as OpenAI has it.
const USUAL_IMAGES: &str = "dall-e-2";
/// And of videos.
const USUAL_VIDEOS: &str = "sora-2";
/// Images that Imagen makes where nobody says how many.
const USUAL_COUNT: usize = 4;

/// The model that answers a call which names none; empty where that is for the server to say. Cohere
/// demands a name since its second version only, Mistral's OCR takes null.
pub(crate) fn usual_model(call: Call, path: &str) -> &'static str {
    match call {
        Call::Cohere { operation } if plain(path).contains("v1/") => match operation {
            "rerank" => "rerank-v3.5",
            _ => "embed-english-v3.0",
        },
        Call::Completions { operation: "ocr" } => "mistral-ocr-latest",
        _ => "",
    }
}

/// What a request says.
#[derive(Debug, Default)]
pub(crate) struct Particulars {
    pub(crate) model: Option<String>,
    pub(crate) streams: bool,
    /// Whether servers may read its form in different ways.
    pub(crate) is_ambiguous: bool,
    quality: String,
    size: String,
    /// How many are asked for.
    images: usize,
    /// Of the text to be read out.
    characters: usize,
    file_bytes: usize,
    files: usize,
}

/// The same in JSON.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Told<'a> {
    quality: Option<String>,
    size: Option<String>,
    #[serde(borrow)]
    n: Option<&'a RawValue>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
}

impl Particulars {
    /// What `body` says for this call; `None` where the call costs tokens alone, and its body is for
    /// others to read. Said to be `is_form` where it is no JSON.
    pub(crate) fn read(call: Call, headers: &HeaderMap, body: &[u8]) -> Option<(Self, bool)> {
        let usual = match call {
            Call::Images => Some(USUAL_IMAGES.to_owned()),
            Call::Videos => Some(USUAL_VIDEOS.to_owned()),
            Call::Transcription | Call::Speech => None,
            Call::Imagen => return Some((Self::of_imagen(body), false)),
            _ => return None,
        };
        if let Some(form) = Form::read(headers, body) {
            let text = |name: &str| form.field(name).to_owned();
            let read = Self {
                model: Some(text("model"))
                    .filter(|name| !name.is_empty())
                    .or(usual),
                streams: form.field("stream") == "true",
                is_ambiguous: form.is_ambiguous,
                quality: text("quality"),
                size: text("size"),
                images: images::asked_for(form.field("n").parse().ok()),
                characters: 0,
                file_bytes: form.file_bytes,
                files: form.files,
            };
            return Some((read, true));
        }
        let told: Told<'_> = serde_json::from_slice(body).unwrap_or_default();
        let input = told.input.and_then(parsed::<String>);
        let count = told.n.and_then(parsed::<u64>);
        let count = count.and_then(|count| usize::try_from(count).ok());
        let read = Self {
            model: usual,
            quality: told.quality.unwrap_or_default(),
            size: told.size.unwrap_or_default(),
            images: images::asked_for(count),
            characters: input.map_or(0, |input| input.chars().count()),
            ..Self::default()
        };
        Some((read, false))
    }

    fn of_imagen(body: &[u8]) -> Self {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Asked {
            parameters: Parameters,
        }
        #[derive(Default, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        struct Parameters {
            sample_count: Option<usize>,
        }
        let asked: Asked = serde_json::from_slice(body).unwrap_or_default();
        let count = asked.parameters.sample_count.unwrap_or(USUAL_COUNT);
        Self {
            images: images::asked_for(Some(count)),
            ..Self::default()
        }
    }

    /// Input tokens of a request with this body, before anybody has counted them.
    pub(crate) fn input_tokens(&self, call: Call, body: &[u8]) -> u64 {
        let text = match self.files {
            0 => pictures::tokens(body),
            _ => tokens_in(body.len().saturating_sub(self.file_bytes)),
        };
        // Files are no text: a recording would be held at a hundred times its price.
        let files = match call {
            Call::Transcription => self.seconds() as u64 * AUDIO_TOKENS_OF_SECOND,
            Call::Images => self.files as u64 * images::MOST_TOKENS,
            _ => 0,
        };
        text + files
    }

    fn seconds(&self) -> usize {
        self.file_bytes.div_ceil(BYTES_OF_SECOND)
    }

    /// Units of an answer that tells no usage, and whether they are exact. `images`: how many it has,
    /// as far as it was read; where none were seen, those that were asked for are charged.
    pub(crate) fn units(&self, call: Call, model: &str, images: usize) -> Option<(Value, bool)> {
        match call {
            Call::Images | Call::Imagen => {
                let mut units = Map::new();
                let count = match images {
                    0 => self.images,
                    seen => seen,
                };
                units.insert("images".to_owned(), json!(count.to_string()));
                for (name, text) in [("quality", &self.quality), ("size", &self.size)] {
                    if !text.is_empty() && text != "auto" {
                        units.insert(name.to_owned(), json!(text));
                    }
                }
                Some((Value::Object(units), images > 0))
            }
            Call::Speech if model.starts_with(BY_CHARACTER) => {
                Some((json!({"characters": self.characters.to_string()}), true))
            }
            Call::Transcription => {
                let seconds = self.seconds();
                Some((json!({"audio_seconds": seconds.to_string()}), false))
            }
            _ => None,
        }
    }

    /// Tokens of images, where nobody tells them: models that are sold by the token have no price for
    /// the piece.
    pub(crate) fn drawn(&self, call: Call, model: &str) -> Map<String, Value> {
        match call {
            Call::Images => images::tokens(model, self.images, &self.quality, &self.size),
            _ => Map::new(),
        }
    }

    /// The same as one number; `None` for what is paid by the piece.
    pub(crate) fn drawn_tokens(&self, model: &str) -> Option<u64> {
        self.drawn(Call::Images, model)
            .get("output_tokens")?
            .as_u64()
    }

    /// Tokens of text that was read out, where nobody tells them.
    pub(crate) fn spoken(&self, input_tokens: u64) -> Map<String, Value> {
        let (tokens, characters) = AUDIO_TOKENS;
        let audio = (self.characters * tokens).div_ceil(characters);
        let usage = [
            ("input_tokens", json!(input_tokens)),
            ("output_tokens", json!(audio)),
            ("audio_output_tokens", json!(audio)),
        ];
        usage
            .map(|(name, count)| (name.to_owned(), count))
            .into_iter()
            .collect()
    }

    /// Bytes of the text that is read out.
    pub(crate) fn text_bytes(&self) -> usize {
        self.characters
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderValue, header};

    #[test]
    fn files_are_not_held_as_text() {
        let kind = HeaderValue::from_static("multipart/form-data; boundary=b");
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, kind)]);
        let recording = "x".repeat(1_600_000);
        let body = format!(
            "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n{recording}\r\n--b--\r\n"
        );
        let tokens = |call: Call| {
            let (read, is_form) = Particulars::read(call, &headers, body.as_bytes()).unwrap();
            assert!(is_form);
            let text = tokens_in(body.len() - recording.len());
            read.input_tokens(call, body.as_bytes()) - text
        };
        assert_eq!(tokens(Call::Transcription), 1000);
        assert_eq!(tokens(Call::Images), 6240);
        let chat = Particulars::default();
        assert_eq!(chat.input_tokens(Call::Responses, &[b'x'; 4000]), 1000);
    }
}
