//! Which headers go on, and which are between two neighbours only.

use axum::body::Body;
use axum::http::response::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::Response;

use crate::access::{Entrant, KEY_HEADERS};
use crate::upstream::{Shape, Upstream};

/// Of one connection (RFC 9110, 7.6.1), besides those that `Connection` names.
const OF_CONNECTION: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What is between the caller and the proxy alone.
pub(crate) const OURS: [&str; 2] = ["x-spendfuse-", "sf-"];

/// The headers of a request in this `language` as they go upstream. Host and length are those of the
/// new request.
///
/// A key of ours stays here, wherever it stands.
pub(crate) fn upstream_request(
    from: &HeaderMap,
    upstream: &Upstream,
    language: Shape,
    entrant: &Entrant,
    is_read: bool,
) -> HeaderMap {
    let mut headers = end_to_end(from, |value| entrant.lets_out(value.as_bytes()));
    for name in [header::HOST, header::CONTENT_LENGTH, header::EXPECT] {
        headers.remove(name);
    }
    if is_read {
        // What is read here must be readable: not compressed.
        let identity = HeaderValue::from_static("identity");
        headers.insert(header::ACCEPT_ENCODING, identity);
    }
    put_key(&mut headers, upstream, language);
    headers
}

/// How a caller calls its request: by headers, and as `request_id` of its body.
pub(crate) fn names_of_request(from: &HeaderMap, request_id: String) -> Vec<String> {
    const NAMES: [&str; 4] = ["request-id", "call-id", "correlation-id", "idempotency-key"];
    let is_name = |name: &HeaderName| NAMES.iter().any(|end| name.as_str().ends_with(end));
    let named = from.iter().filter(|(name, _)| is_name(name));
    let named = named.filter_map(|(_, value)| value.to_str().ok().map(str::to_owned));
    let all = named.chain([request_id]);
    all.filter(|name| !name.is_empty()).collect()
}

/// An answer as it goes to the caller: the status and headers of `from`, and `body`.
pub(crate) fn answer(from: &Parts, body: Body) -> Response {
    let mut answer = Response::new(body);
    *answer.status_mut() = from.status;
    *answer.headers_mut() = end_to_end(&from.headers, |_| true);
    answer
}

fn end_to_end(from: &HeaderMap, may_go: impl Fn(&HeaderValue) -> bool) -> HeaderMap {
    let named = from.get_all(header::CONNECTION).iter();
    let named: Vec<String> = named
        .filter_map(|value| value.to_str().ok())
        .flat_map(|names| names.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    let goes_on = |name: &HeaderName| {
        let name = name.as_str();
        !OF_CONNECTION.contains(&name)
            && !OURS.iter().any(|prefix| name.starts_with(prefix))
            && !named.iter().any(|one| one == name)
    };
    let kept = from.iter();
    let kept = kept.filter(|(name, value)| goes_on(name) && may_go(value));
    kept.map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// Puts the proxy's own key for an upstream in place of whatever the caller has sent.
fn put_key(headers: &mut HeaderMap, upstream: &Upstream, language: Shape) {
    let Some(key) = &upstream.key else {
        return;
    };
    let place = match (upstream.shape, language) {
        // Where they speak OpenAI's language, Google and Anthropic look for keys as OpenAI does.
        (Shape::Gemini | Shape::Anthropic, Shape::OpenAi) => Shape::OpenAi,
        (own, _) => own,
    };
    let (name, value) = match place {
        Shape::OpenAi | Shape::Bedrock => ("authorization", format!("Bearer {}", key.reveal())),
        Shape::Azure => ("api-key", key.reveal().to_owned()),
        Shape::Anthropic => ("x-api-key", key.reveal().to_owned()),
        Shape::Gemini => ("x-goog-api-key", key.reveal().to_owned()),
    };
    headers.remove(header::AUTHORIZATION);
    // Of a signature that is gone.
    headers.remove("x-amz-security-token");
    for own in KEY_HEADERS {
        headers.remove(own);
    }
    if let Ok(mut value) = HeaderValue::from_str(&value) {
        value.set_sensitive(true);
        headers.insert(HeaderName::from_static(name), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn names_that_a_caller_gives_its_request_are_known() {
        let from = headers(&[
            ("x-request-id", "mine"),
            ("x-litellm-call-id", "also"),
            ("x-stainless-lang", "js"),
        ]);
        let mut names = names_of_request(&from, "of the body".to_owned());
        names.sort();
        assert_eq!(names, ["also", "mine", "of the body"]);
        assert!(names_of_request(&headers(&[]), String::new()).is_empty());
    }

    #[test]
    fn only_what_is_for_the_upstream_goes_there() {
        let from = headers(&[
            ("host", "localhost:4119"),
            ("connection", "keep-alive, X-Hop"),
            ("x-hop", "1"),
            ("keep-alive", "5"),
            ("x-spendfuse-customer", "c-42"),
            ("sf-tag", "1"),
            ("accept-encoding", "gzip"),
            ("authorization", "Bearer caller"),
            ("anthropic-beta", "a"),
            ("idempotency-key", "i"),
        ]);
        let mut upstream = Upstream::known().remove("anthropic").unwrap();
        let nobody = Entrant::default();
        let sent = upstream_request(&from, &upstream, Shape::Anthropic, &nobody, true);
        let wanted = headers(&[
            ("accept-encoding", "identity"),
            ("authorization", "Bearer caller"),
            ("anthropic-beta", "a"),
            ("idempotency-key", "i"),
        ]);
        assert_eq!(sent, wanted);
        upstream.key = spendfuse_sidecar::Token::new("own");
        let sent = upstream_request(&from, &upstream, Shape::Anthropic, &nobody, false);
        let wanted = headers(&[
            ("accept-encoding", "gzip"),
            ("x-api-key", "own"),
            ("anthropic-beta", "a"),
            ("idempotency-key", "i"),
        ]);
        assert_eq!(sent, wanted);
        let sent = upstream_request(&from, &upstream, Shape::OpenAi, &nobody, false);
        assert_eq!(sent["authorization"], "Bearer own");
        assert!(!sent.contains_key("x-api-key"));
    }
}
