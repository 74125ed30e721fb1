//! Where the results of Anthropic's batches are: its SDKs follow the whole address that a batch tells,
//! and would go past the proxy with whatever key they have.

use axum::http::header;
use axum::http::request::Parts;
use axum::http::uri::Authority;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::forward::Way;
use crate::request::{Edit, edited, parsed};

/// Where batches are.
const BATCHES: &str = "/messages/batches";

/// A batch, or a list of some.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Batch<'b> {
    #[serde(borrow)]
    results_url: Option<&'b RawValue>,
    #[serde(borrow)]
    data: Option<Vec<Batch<'b>>>,
}

/// `body` with the proxy's address in the place of the upstream's, as the caller has written it; `None`
/// where there is nothing to replace.
pub(super) fn leading_here(body: &Bytes, way: &Way, parts: &Parts) -> Option<Bytes> {
    let uri = way.uri.to_string();
    let there = uri.split('?').next()?.strip_suffix(way.path.as_str())?;
    let before = parts.uri.path().strip_suffix(way.path.as_str())?;
    // However else the path is written, this is how the SDKs do.
    let version = way.path.split_once(BATCHES);
    let version = version.map_or("/v1", |(version, _)| version);
    let here = format!("{}{before}", origin(parts)?);
    let batches = format!("{here}{version}{BATCHES}");
    replaced(body, there, &here, &batches)
}

/// Where the caller has found the proxy, behind others that say so.
fn origin(parts: &Parts) -> Option<String> {
    // Each of several proxies adds its own.
    let first = |name: &str| {
        let text = parts.headers.get(name)?.to_str().ok()?;
        Some(text.split(',').next().unwrap_or_default().trim())
    };
    let is_host = |text: &&str| text.parse::<Authority>().is_ok();
    let host = first("x-forwarded-host").filter(is_host);
    let host = host.or_else(|| first(header::HOST.as_str()));
    let host = host.or_else(|| Some(parts.uri.authority()?.as_str()))?;
    let is_secure = first("x-forwarded-proto").is_some_and(|one| one.eq_ignore_ascii_case("https"));
    let scheme = if is_secure { "https" } else { "http" };
    Some(format!("{scheme}://{host}"))
}

/// `there` is what the upstream's addresses begin with, `here` the caller's, `batches` those of batches.
fn replaced(body: &Bytes, there: &str, here: &str, batches: &str) -> Option<Bytes> {
    let text = std::str::from_utf8(body).ok()?;
    let told: Batch<'_> = serde_json::from_str(text).ok()?;
    let listed = told.data.unwrap_or_default().into_iter();
    let urls = listed.filter_map(|batch| batch.results_url);
    let edits = urls.chain(told.results_url).filter_map(|raw| {
        let url: String = parsed(raw)?;
        let rest = url.strip_prefix(there);
        let led = match rest.filter(|rest| rest.starts_with('/')) {
            Some(rest) => format!("{here}{rest}"),
            // A gateway tells of the provider behind it.
            None => format!("{batches}/{}/results", name_in(&url)?),
        };
        Some(Edit::of_text(text, raw, &led))
    });
    let edits: Vec<Edit> = edits.collect();
    (!edits.is_empty()).then(|| edited(body, edits))
}

/// The batch whose results are at this address of whatever server.
fn name_in(url: &str) -> Option<&str> {
    let (_, path) = url.split_once("://")?;
    let name = path.strip_suffix("/results")?.rsplit_once(BATCHES)?.1;
    let name = name.strip_prefix('/')?;
    let is_name = !name.is_empty() && !name.contains(['/', '?', '#']);
    is_name.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caller_is_led_to_where_it_has_found_the_proxy() {
        for (headers, wanted) in [
            (&[("host", "h:1")][..], "http://h:1"),
            (
                &[("host", "h:1"), ("x-forwarded-proto", "HTTPS, http")][..],
                "https://h:1",
            ),
            (
                &[("host", "h:1"), ("x-forwarded-host", "a.example, b")][..],
                "http://a.example",
            ),
            (
                &[("host", "h:1"), ("x-forwarded-host", "a b/c")][..],
                "http://h:1",
            ),
        ] {
            let mut request = axum::http::Request::get("/anthropic/v1/messages/batches");
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let (parts, ()) = request.body(()).unwrap().into_parts();
            assert_eq!(origin(&parts).as_deref(), Some(wanted), "{headers:?}");
        }
    }

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
                one.replace("api.anthropic.com", "API.anthropic.com:443"),
                Some(led.to_owned()),
            ),
            (
                one.replace("com/v1", "com.evil/v2/v1"),
                Some(led.to_owned()),
            ),
            (
                one.replace("results\"", "results?signed=1\"")
                    .replace("com/", "com.evil/"),
                None,
            ),
            (one.replace("/b/", "/").replace("com/", "com.evil/"), None),
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
            let batches = format!("{HERE}/v1{BATCHES}");
            let found = replaced(&Bytes::from(body.clone()), THERE, HERE, &batches);
            assert_eq!(found, wanted.map(Bytes::from), "{body}");
        }
    }
}
