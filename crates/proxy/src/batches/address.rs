//! Where the results of Anthropic's batches are: its SDKs follow the whole address that a batch tells,
//! and would go past the proxy with whatever key they have.

use axum::http::header;
use axum::http::request::Parts;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::forward::Way;
use crate::request::{Edit, edited, parsed};

/// A batch, or a list of some.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Batch<'b> {
    #[serde(borrow)]
    results_url: Option<&'b RawValue>,
    #[serde(borrow)]
    data: Vec<Batch<'b>>,
}

/// `body` with the proxy's address in the place of the upstream's, as the caller has written it; `None`
/// where there is nothing to replace.
pub(super) fn leading_here(body: &Bytes, way: &Way, parts: &Parts) -> Option<Bytes> {
    let uri = way.uri.to_string();
    let there = uri.split('?').next()?.strip_suffix(way.path.as_str())?;
    let before = parts.uri.path().strip_suffix(way.path.as_str())?;
    let text = |name: &str| parts.headers.get(name)?.to_str().ok();
    let host = parts.uri.authority().map(|authority| authority.as_str());
    let host = text(header::HOST.as_str()).or(host)?;
    let scheme = text("x-forwarded-proto").filter(|scheme| *scheme == "https");
    let here = format!("{}://{host}{before}", scheme.unwrap_or("http"));
    replaced(body, there, &here)
}

fn replaced(body: &Bytes, there: &str, here: &str) -> Option<Bytes> {
    let text = std::str::from_utf8(body).ok()?;
    let told: Batch<'_> = serde_json::from_str(text).ok()?;
    let urls = told.data.iter().filter_map(|batch| batch.results_url);
    let urls = urls.chain(told.results_url);
    let edits = urls.filter_map(|raw| {
        let url: String = parsed(raw)?;
        let rest = url.strip_prefix(there)?;
        rest.starts_with('/')
            .then(|| Edit::of_text(text, raw, &format!("{here}{rest}")))
    });
    let edits: Vec<Edit> = edits.collect();
    (!edits.is_empty()).then(|| edited(body, edits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_upstreams_own_addresses_are_replaced_and_nothing_else() {
        const THERE: &str = "https://api.anthropic.com";
        const HERE: &str = "http://127.0.0.1:4119/anthropic";
        let one = r#"{"id": "b", "results_url" : "https://api.anthropic.com/v1/messages/batches/b/results","n":1e400}"#;
        let led = r#"{"id": "b", "results_url" : "http://127.0.0.1:4119/anthropic/v1/messages/batches/b/results","n":1e400}"#;
        for (body, wanted) in [
            (one.to_owned(), Some(led.to_owned())),
            (
                format!(r#"{{"data":[{one}, {one}],"has_more":false}}"#),
                Some(format!(r#"{{"data":[{led}, {led}],"has_more":false}}"#)),
            ),
            (r#"{"results_url":null}"#.to_owned(), None),
            (
                r#"{"results_url":"https://api.anthropic.com.evil/x"}"#.to_owned(),
                None,
            ),
            (
                r#"{"results_url":"https://storage.example/x"}"#.to_owned(),
                None,
            ),
            ("[]".to_owned(), None),
        ] {
            let found = replaced(&Bytes::from(body.clone()), THERE, HERE);
            assert_eq!(found, wanted.map(Bytes::from), "{body}");
        }
    }
}
