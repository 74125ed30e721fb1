//! Images that no answer tells of: how many were asked for, and the tokens that they are made of.

use serde_json::{Map, Value, json};

/// Models whose images are paid by the piece alone.
const BY_PIECE: &str = "dall-e";
/// More are asked for by mistake: OpenAI makes 10 at once.
const MOST: usize = 16;
/// Tokens of a square image (1024x1024) and of a longer one (1536x1024, 1024x1536) by its quality, as
/// OpenAI's guide to image generation has them for gpt-image-1
/// (https://platform.openai.com/docs/guides/image-generation, "Cost and latency").
const LOW: Tokens = Tokens(272, 408);
const MEDIUM: Tokens = Tokens(1056, 1584);
const HIGH: Tokens = Tokens(4160, 6240);
/// Of one image at most.
pub(crate) const MOST_TOKENS: u64 = 6240;

/// Of a square image, and of a longer one.
struct Tokens(usize, usize);

/// How many images a request asks for that says `n`.
pub(crate) fn asked_for(n: Option<usize>) -> usize {
    n.unwrap_or(1).clamp(1, MOST)
}

/// Tokens of `images`; none of what is paid by the piece. A quality that is not said, or is the
/// model's to choose, counts as the highest, and such a size as a longer one.
pub(crate) fn tokens(model: &str, images: usize, quality: &str, size: &str) -> Map<String, Value> {
    if model.contains(BY_PIECE) {
        return Map::new();
    }
    let Tokens(square, longer) = match quality {
        "low" => LOW,
        "medium" => MEDIUM,
        _ => HIGH,
    };
    let each = match size {
        "1024x1024" => square,
        _ => longer,
    };
    let tokens = json!(each * images);
    let usage = ["output_tokens", "image_output_tokens"];
    usage
        .map(|name| (name.to_owned(), tokens.clone()))
        .into_iter()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_counts_as_the_dearest() {
        for (images, quality, size, wanted) in [
            (1, "", "", 6240),
            (2, "auto", "1024x1024", 8320),
            (1, "medium", "1024x1536", 1584),
            (3, "low", "1024x1024", 816),
        ] {
            let usage = tokens("gpt-image-1", images, quality, size);
            let wanted = json!({"output_tokens": wanted, "image_output_tokens": wanted});
            assert_eq!(Value::Object(usage), wanted);
        }
        assert!(tokens("dall-e-3", 1, "hd", "").is_empty());
        let counts = [None, Some(0), Some(3), Some(1000)].map(asked_for);
        assert_eq!(counts, [1, 1, 3, 16]);
    }
}
