//! Pictures within a JSON body, in base64: a picture costs by its size on the screen, and not by its bytes.

use crate::event::tokens_in;

/// Of one picture at most, but for models that multiply the number and divide the price: Anthropic's
/// largest are 4,784 (https://docs.claude.com/en/docs/build-with-claude/vision).
const MOST_TOKENS: u64 = 5_000;
/// Smaller bodies have no picture that matters.
const SMALL: usize = 20_000;
/// How PNG, JPEG, GIF and WebP begin in base64.
const BEGINNINGS: [&[u8]; 4] = [b"iVBORw0KGgo", b"/9j/", b"R0lGOD", b"UklGR"];
const DATA_URL: &[u8] = b"data:image/";

/// Tokens of a JSON body before anybody has counted them: of pictures what they cost at most, a token
/// for four bytes of all else.
pub(crate) fn tokens(body: &[u8]) -> u64 {
    if body.len() < SMALL {
        return tokens_in(body.len());
    }
    let (mut bytes, mut pictures) = (0, 0);
    for text in body.split(|byte| *byte == b'"') {
        if is_picture(text) {
            bytes += text.len();
            pictures += tokens_in(text.len()).min(MOST_TOKENS);
        }
    }
    tokens_in(body.len() - bytes) + pictures
}

fn is_picture(text: &[u8]) -> bool {
    let coded = match text.strip_prefix(DATA_URL) {
        Some(rest) => rest.splitn(2, |byte| *byte == b',').nth(1),
        None => {
            let is_known = BEGINNINGS.iter().any(|begin| text.starts_with(begin));
            is_known.then_some(text)
        }
    };
    // A slash may be escaped.
    let is_coded = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=-_\\".contains(byte);
    coded.is_some_and(|coded| coded.iter().all(is_coded))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_not_counted_as_text() {
        let coded = "A".repeat(1_000_000);
        let of = |text: &str| tokens(format!(r#"{{"model":"m","x":"{text}"}}"#).as_bytes());
        let around = tokens_in(r#"{"model":"m","x":""}"#.len());
        for picture in [
            format!("data:image/png;base64,{coded}"),
            format!("iVBORw0KGgo{coded}"),
            format!("/9j/{coded}=="),
        ] {
            assert_eq!(of(&picture), around + MOST_TOKENS);
        }
        // Documents have as many words as their bytes may tell.
        for text in [
            format!("data:application/pdf;base64,{coded}"),
            format!("data:image/png;base64,{coded} and words"),
            coded,
        ] {
            assert!(of(&text) >= 250_000);
        }
        assert_eq!(of("iVBORw0KGgo"), 8);
    }
}
