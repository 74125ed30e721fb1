//! Usage events: anything an app may write to Kafka.

use serde::de::IgnoredAny;
use serde_json::Value;
use spendfuse_domain::UnixMillis;
use spendfuse_domain::event::{Body, Event, RejectReason, decode, decode_thoroughly, redact};

use crate::Target;

/// The decoder of events. An input may begin with headers, `ce_name: value` a line, and an empty
/// line after them.
pub const EVENT: Target = Target {
    name: "event",
    examples: &["schemas/examples"],
    words: &[
        "\"specversion\":\"1.0\"",
        "\"type\":\"spendfuse.usage\"",
        "\"type\":\"spendfuse.revenue\"",
        "\"id\":\"x\"",
        "\"source\":\"app\"",
        "\"time\":\"2026-11-22T10:15:30Z\"",
        "\"data\":{",
        "\"workspace\":\"acme\"",
        "\"model\":\"gpt-4o\"",
        "\"usage\":{",
        "\"input_tokens\":7,",
        "\"cache_read_tokens\":8,",
        "\"usage_format\":\"openai.chat\",",
        "\"usage_format\":\"gemini\",",
        "\"usage_format\":\"anthropic.messages\",",
        "\"prompt_tokens_details\":{\"cached_tokens\":9}",
        "\"thoughtsTokenCount\":3,",
        "\"cache_creation\":{\"ephemeral_1h_input_tokens\":5}",
        "\"tags\":{\"a\":\"b\"},",
        "\"phase\":\"final\",",
        "\"units\":{\"images\":\"2\"},",
        "\"reported_cost_usd\":\"0.5\",",
        "\"prompt\":\"secret\",",
        "\"x\":[{\"y\":[1.5,true,null]}],",
        "\\u0041",
        "-1",
        "2e1",
        "1234567890123456789",
        "ce_specversion: 1.0\n",
        "content-type: application/cloudevents\n",
    ],
    most_bytes: 2 << 20,
    run,
};

const ARRIVAL: UnixMillis = UnixMillis(1_795_345_000_000);
const MOST_TEXT: usize = 256;
const NOT_READ: [RejectReason; 2] = [RejectReason::MalformedJson, RejectReason::TooLarge];

fn run(input: &[u8]) {
    let (headers, value) = split_headers(input);
    let decoded = decode(value, &headers, ARRIVAL);
    // Which words refuse an event matters too: senders read them in the DLQ.
    let thoroughly = decode_thoroughly(value, &headers, ARRIVAL);
    assert_eq!(decoded, thoroughly, "serde_json reads something else");
    if headers.is_empty() {
        // What is skipped is not looked at (half a surrogate pair), what is read is: between the
        // two readings of serde_json the decoder may take either.
        let text = std::str::from_utf8(value).unwrap_or("?");
        let may_be_json = serde_json::from_str::<IgnoredAny>(text).is_ok();
        let is_json = serde_json::from_str::<Value>(text).is_ok();
        match decoded.as_ref().map_err(|rejection| rejection.reason) {
            Err(RejectReason::MalformedJson) => assert!(!is_json, "refused, but it is JSON"),
            Err(RejectReason::TooLarge) => {}
            _ => assert!(may_be_json, "read, but it is no JSON"),
        }
    }
    let kept = redact(value, &headers);
    assert!(kept.value.len() <= value.len(), "what is kept is larger");
    let decoded_again = decode(&kept.value, &headers, ARRIVAL);
    match (&decoded, &decoded_again) {
        // What was too large, too deep or no text may be an event without what is not kept.
        (Err(rejection), _) if NOT_READ.contains(&rejection.reason) => {}
        (Err(first), Err(second)) => assert_eq!(first.reason, second.reason),
        (first, second) => assert_eq!(first, second, "what is kept is another event"),
    }
    match decoded {
        Ok(event) => {
            check(&event);
            let again = decode(value, &headers, ARRIVAL);
            assert_eq!(again.as_ref(), Ok(&event), "another event the second time");
        }
        Err(rejection) => assert!(rejection.detail.len() < 2_000, "{}", rejection.detail),
    }
}

/// What every counted event has.
fn check(event: &Event<'_>) {
    let who = &event.attribution;
    assert!(!event.id.is_empty() && !event.source.is_empty() && !who.workspace.is_empty());
    assert!(
        event.time <= ARRIVAL.plus(5 * 60_000),
        "counted in the future"
    );
    let tags = who.tags.iter().flat_map(|(name, value)| [name, value]);
    for text in who.texts().into_iter().chain(tags) {
        assert!(text.len() <= MOST_TEXT, "a text of {} bytes", text.len());
    }
    assert!(who.tags.len() <= 16 && who.tags.is_sorted_by(|one, next| one.0 < next.0));
    if let Body::Usage(call) = &event.body {
        assert!(!who.model.is_empty());
        assert!(call.tokens.total() <= 32_000_000_000, "{:?}", call.tokens);
    }
}

type Headers<'a> = Vec<(&'a str, &'a [u8])>;

fn split_headers(input: &[u8]) -> (Headers<'_>, &[u8]) {
    let mut headers = Vec::new();
    let mut rest = input;
    loop {
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
            return (Vec::new(), input);
        };
        let line = &rest[..end];
        rest = &rest[end + 1..];
        if line.is_empty() {
            return (headers, rest);
        }
        let colon = line.windows(2).position(|pair| pair == b": ");
        let Some((name, value)) = colon.map(|at| (&line[..at], &line[at + 2..])) else {
            return (Vec::new(), input);
        };
        match std::str::from_utf8(name) {
            Ok(name) => headers.push((name, value)),
            Err(_) => return (Vec::new(), input),
        }
    }
}
