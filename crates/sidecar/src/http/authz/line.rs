//! JSON in a header: one line of ASCII, at most 1 KiB, because gateways hold headers in small
//! buffers and pass nothing else on from a refused subrequest.

use std::fmt::Write as _;

use axum::http::HeaderValue;
use serde::Serialize;
use spendfuse_guard::Warning;

use super::refusal::Refusal;
use crate::http::{ApiError, Refused};

const MOST_BYTES: usize = 1024;
/// Bytes that a message may take where the whole does not fit.
const SHORT_MESSAGE: usize = 400;

/// The refusal's body, shortened where it must be: first its message, then what a client can do
/// without.
pub(super) fn refusal(refusal: &Refusal) -> Option<HeaderValue> {
    let mut shorter = refusal.clone();
    let steps: [fn(&mut Refusal); 4] = [
        |_| {},
        |refusal| cut(&mut refusal.message),
        |refusal| refusal.help_url = None,
        |refusal| refusal.scope = None,
    ];
    steps.into_iter().find_map(|shorten| {
        shorten(&mut shorter);
        header(&Refused { error: &shorter })
    })
}

/// An error's body; its message is cut where it must be.
pub(super) fn error(error: &ApiError) -> Option<HeaderValue> {
    let mut shorter = error.clone();
    header(&Refused { error }).or_else(|| {
        cut(&mut shorter.message);
        header(&Refused { error: &shorter })
    })
}

/// The first of the warnings, as many as there is room for; `None` where there are none.
pub(super) fn warnings(warnings: &[Warning]) -> Option<HeaderValue> {
    let mut counts = (1..=warnings.len()).rev();
    counts.find_map(|count| header(&warnings[..count]))
}

/// `None` where it does not fit.
fn header(value: &(impl Serialize + ?Sized)) -> Option<HeaderValue> {
    let line = ascii(&serde_json::to_string(value).ok()?);
    let fits = line.len() <= MOST_BYTES;
    fits.then(|| HeaderValue::from_str(&line).ok()).flatten()
}

/// JSON with everything beyond printable ASCII as `\uXXXX`.
fn ascii(json: &str) -> String {
    let mut line = String::with_capacity(json.len());
    for character in json.chars() {
        if matches!(character, ' '..='~') {
            line.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            let _ = write!(line, "\\u{unit:04x}");
        }
    }
    line
}

/// Cuts a message so that it takes at most [`SHORT_MESSAGE`] bytes in a line.
fn cut(message: &mut String) {
    let mut bytes = 0;
    let end = message.char_indices().find(|(_, character)| {
        // Escaped: `\uXXXX` once or twice, or a backslash and the character.
        bytes += match character {
            '"' | '\\' => 2,
            ' '..='~' => 1,
            other => 6 * other.len_utf16(),
        };
        bytes > SHORT_MESSAGE
    });
    if let Some((end, _)) = end {
        message.truncate(end);
        message.push_str("...");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn refused(message: &str, scope: &str, help_url: &str) -> Value {
        let whole = Refusal {
            code: "budget_exceeded",
            message: message.to_owned(),
            budget: Some("daily".to_owned()),
            scope: Some(scope.to_owned()),
            spent: Some("$5.000123".to_owned()),
            limit: Some("$5.00".to_owned()),
            reserved: Some("$0.00".to_owned()),
            pending: Some("$0.00".to_owned()),
            asked: None,
            reserve_rule: None,
            resets_at: None,
            help_url: Some(help_url.to_owned()),
        };
        let line = refusal(&whole).unwrap();
        assert!(line.len() <= MOST_BYTES);
        assert!(
            line.as_bytes()
                .iter()
                .all(|byte| matches!(byte, b' '..=b'~'))
        );
        serde_json::from_slice(line.as_bytes()).unwrap()
    }

    #[test]
    fn a_refusal_is_one_line_of_ascii_and_says_the_same() {
        let error = refused(
            "Größe\n\"erreicht\" 🙂\u{7f}",
            "acme",
            "https://example.com",
        );
        assert_eq!(error["error"]["message"], "Größe\n\"erreicht\" 🙂\u{7f}");
        assert_eq!(error["error"]["scope"], "acme");
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_the_budget_stays() {
        let long = "🙂".repeat(2000);
        let error = refused(&long, "acme", "https://example.com");
        assert!(error["error"]["message"].as_str().unwrap().ends_with("..."));
        assert_eq!(error["error"]["help_url"], "https://example.com");
        let error = refused("no", &"s".repeat(2000), &"h".repeat(2000));
        assert_eq!(error["error"]["budget"], "daily");
        assert_eq!(error["error"]["scope"], Value::Null);
    }
}
