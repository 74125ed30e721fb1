//! Events as they are sent, and their numbers in them.

use std::fmt::Write as _;

use spendfuse_tests::lab::WORKSPACE;
use spendfuse_tests::traffic::{MODEL, PROVIDER};

use super::{SOURCE, is_looping};
use crate::ledger::Call;

/// A call's event.
pub(super) fn text(number: usize, time: &str, call: &Call) -> String {
    let mut text = format!(
        "{{\"specversion\":\"1.0\",\"type\":\"spendfuse.usage\",\"source\":\"{SOURCE}\",\
         \"id\":\"call-{number}\",\"time\":\"{time}\",\"data\":{{\"workspace\":\"{WORKSPACE}\",\
         \"customer\":\"{}\",\"feature\":\"{}\",\"plan\":\"{}\",\"session\":\"{}\",\
         \"provider\":\"{PROVIDER}\",\"model\":\"{MODEL}\",",
        call.customer, call.feature, call.plan, call.session
    );
    if is_looping(&call.session) {
        // The same prompt in every step: the detector blocks the session.
        text.push_str("\"prompt_fingerprint\":\"9f2c41d0a1b2c3d4\",");
    }
    let _ = write!(text, "{}}}}}", usage(number, call));
    text
}

/// The counts as one of the formats writes them.
fn usage(number: usize, call: &Call) -> String {
    let Call {
        input,
        cached,
        output,
        ..
    } = call;
    let fresh = input - cached;
    match number % 8 {
        0 => format!(
            "\"usage_format\":\"openai.chat\",\"usage\":{{\"prompt_tokens\":{input},\
             \"prompt_tokens_details\":{{\"cached_tokens\":{cached}}},\"completion_tokens\":{output}}}"
        ),
        1 => format!(
            "\"usage_format\":\"anthropic.messages\",\"usage\":{{\"input_tokens\":{fresh},\
             \"cache_read_input_tokens\":{cached},\"output_tokens\":{output}}}"
        ),
        2 => format!(
            "\"usage_format\":\"gemini\",\"usage\":{{\"promptTokenCount\":{input},\
             \"cachedContentTokenCount\":{cached},\"candidatesTokenCount\":{output}}}"
        ),
        3 => format!(
            "\"usage_format\":\"bedrock.converse\",\"usage\":{{\"inputTokens\":{fresh},\
             \"cacheReadInputTokens\":{cached},\"outputTokens\":{output}}}"
        ),
        _ => format!(
            "\"usage\":{{\"input_tokens\":{input},\"cache_read_tokens\":{cached},\
             \"output_tokens\":{output}}}"
        ),
    }
}

/// The event's number in an id or in a malformed text.
pub fn number_in(value: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(value).ok()?;
    let digits = |rest: &str| -> Option<usize> {
        let end = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        rest[..end].parse().ok()
    };
    let after = |mark: &str| text.split_once(mark).and_then(|(_, rest)| digits(rest));
    after("\"id\":\"call-")
        .or_else(|| after("not JSON "))
        // Of a proxy: its own name of the call, and the provider's of the answer.
        .or_else(|| after("-call-"))
}

/// The event's number in an id: of the run's own, or of an answer that a proxy has named.
pub fn number_of(id: &str) -> Option<usize> {
    id.rsplit_once("call-")?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_known_by_their_numbers_whoever_has_named_them() {
        let of_proxy = br#"{"source":"spendfuse-proxy:openai","id":"sf-76e047a5ba4c77aa-0-call-41","data":{"tags":{"call":"41"},"call_id":"sf-76e047a5ba4c77aa-0"}}"#;
        assert_eq!(number_in(of_proxy), Some(41));
        assert_eq!(number_in(br#"{"id":"call-7","data":{}}"#), Some(7));
        assert_eq!(number_in(b"not JSON 9"), Some(9));
        assert_eq!(number_in(br#"{"id":"sf-76e047a5ba4c77aa-0-"}"#), None);
        for (id, number) in [
            ("call-7", Some(7)),
            ("sf-76e047a5ba4c77aa-0-call-41", Some(41)),
            ("sf-76e047a5ba4c77aa-0-", None),
        ] {
            assert_eq!(number_of(id), number, "{id}");
        }
    }
}
