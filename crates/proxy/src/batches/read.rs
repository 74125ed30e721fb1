//! What reads a batch, on its way to the upstream and back.

use std::sync::Arc;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::Response;
use bytes::Bytes;
use tokio::time::timeout;

use super::results::{LONGEST_TELLING, Reader, UNREAD};
use super::{Reading, address, operation};
use crate::exchange::{broke_off, uncompressed};
use crate::forward::{Way, taken_from, unreachable};
use crate::headers;
use crate::hidden::hides_batch;
use crate::lanes::Incoming;
use crate::meter;
use crate::path::plain;
use crate::proxy::Proxy;
use crate::refusal;
use crate::request::Asked;
use crate::stream::Streamed;
use crate::unmetered;
use crate::whole::Whole;

/// Headers that say what an answer's very bytes are.
const OF_BYTES: [&str; 7] = [
    "content-length",
    "content-encoding",
    "etag",
    "content-md5",
    "digest",
    "content-digest",
    "repr-digest",
];

/// Passes what is read on as it is, and tells what it says of costs. They count against whoever reads;
/// read again the same events are told, which are counted once.
pub(crate) async fn read(
    proxy: &Arc<Proxy>,
    way: Way,
    reading: Reading,
    mut parts: Parts,
) -> Response {
    let shape = way.upstream.shape;
    let wrong = |message: &str| {
        let status = StatusCode::BAD_REQUEST;
        refusal::of_request(shape, status, "cannot_be_metered", message)
    };
    let attributing = &proxy.config.attributing;
    let who = match attributing.of(&parts.headers, &Asked::default(), &way.entrant.caller) {
        Ok(who) => who,
        Err(message) => return wrong(&message),
    };
    if let Reading::Operation { .. } = reading
        && let Some(name) = hides_batch(&way.uri, &parts.headers)
    {
        return wrong(&format!(
            "by `{name}` the answer would not say what it has used"
        ));
    }
    if !matches!(reading, Reading::Lines { .. }) {
        meter::count_unmetered(&way.name, unmetered::name(&way.path));
    }
    let connection = taken_from(&parts);
    let is_any_file = matches!(
        reading,
        Reading::Lines {
            is_batch: false,
            ..
        }
    );
    if !is_any_file {
        ask_for_all(&mut parts.headers);
    }
    let (upstream, entrant) = (&way.upstream, &way.entrant);
    let mut sent = headers::upstream_request(&parts.headers, upstream, shape, entrant, true);
    let send = |headers: HeaderMap| {
        let method = parts.method.clone();
        proxy.send(method, way.uri.clone(), headers, Body::empty())
    };
    let mut answer = send(sent.clone()).await;
    let may_be_lines = |head: &Response<Incoming>| {
        head.status() == StatusCode::PARTIAL_CONTENT && !is_media(head.headers())
    };
    if is_any_file && answer.as_ref().is_ok_and(may_be_lines) {
        drop(answer);
        ask_for_all(&mut sent);
        answer = send(sent.clone()).await;
    }
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return unreachable(&way.name, shape, &error),
    };
    let (head, body) = answer.into_parts();
    let is_lines = matches!(reading, Reading::Lines { .. });
    let is_part = is_any_file && head.status == StatusCode::PARTIAL_CONTENT;
    let is_part = is_part && is_media(&head.headers);
    let is_success = head.status.is_success();
    if is_success && reading == Reading::Address && is_coded_otherwise(&head.headers) {
        // Whoever waits for a batch is not to fail by it: its results may be asked for here all the same.
        proxy.passes_unmetered(&way.name, unmetered::name(&way.path));
        let body = Body::new(Streamed::opaque(body, connection));
        return headers::answer(&head, body);
    }
    if !is_success || is_part || is_lines && is_coded(&head.headers) {
        if is_success && !is_part {
            meter::count_unmetered(&way.name, UNREAD);
            let (upstream, path) = (&way.name, &way.path);
            tracing::warn!(
                upstream,
                path,
                "results, or a file, are compressed: what they may cost is not counted"
            );
        }
        let body = Body::new(Streamed::opaque(body, connection));
        return headers::answer(&head, body);
    }
    match reading {
        Reading::Lines {
            name,
            suffix,
            is_batch,
        } => {
            let about = about(&way.uri, suffix);
            let reader = Reader::new(proxy, way, who, name, is_batch).asking(about, sent);
            headers::answer(&head, reader.pass_on(body, connection))
        }
        Reading::Operation { name } => {
            let (whole, text) = match whole(proxy, &way, &head.headers, body).await {
                Ok(read) => read,
                Err(refusal) => return *refusal,
            };
            let upstream = way.name.clone();
            let mut reader = Reader::new(proxy, way, who, name, true);
            let told = timeout(LONGEST_TELLING, operation::tell(&mut reader, &text)).await;
            if told.is_err() {
                meter::count(&upstream, "wrong");
                let message = "nobody takes the events of the batch's answers; ask again";
                let status = StatusCode::SERVICE_UNAVAILABLE;
                return refusal::of_moment(shape, status, "overloaded", message);
            }
            headers::answer(&head, Body::new(Streamed::passed_on(whole, connection)))
        }
        Reading::Address => {
            let (mut whole, text) = match whole(proxy, &way, &head.headers, body).await {
                Ok(read) => read,
                Err(refusal) => return *refusal,
            };
            let edited = address::leading_here(&text, &way, &parts);
            let is_edited = edited.is_some();
            whole.read = edited.unwrap_or(whole.read);
            let mut answer =
                headers::answer(&head, Body::new(Streamed::passed_on(whole, connection)));
            if is_edited {
                for name in OF_BYTES {
                    answer.headers_mut().remove(name);
                }
            }
            answer
        }
    }
}

/// The whole answer as it came, and as it reads.
///
/// # Errors
/// What its caller is told where it cannot be read: passed on it would not be counted.
async fn whole(
    proxy: &Proxy,
    way: &Way,
    headers: &HeaderMap,
    body: Incoming,
) -> Result<(Whole, Bytes), Box<Response>> {
    let (shape, most) = (way.upstream.shape, proxy.config.max_body_bytes);
    let Some(whole) = Whole::read(body, most, &proxy.memory).await else {
        return Err(Box::new(broke_off(&way.name, shape)));
    };
    let is_whole = whole.rest.is_none();
    let plain = match is_coded(headers) {
        true => uncompressed(headers, &whole.read, most, &proxy.memory).map(Bytes::from),
        false => Some(whole.read.clone()),
    };
    if let Some(text) = plain.filter(|_| is_whole) {
        return Ok((whole, text));
    }
    meter::count(&way.name, "wrong");
    if !is_whole && whole.read.len() <= most {
        let message = "other bodies fill the memory that there is for them \
                       (proxy.max_body_memory); ask again";
        let status = StatusCode::SERVICE_UNAVAILABLE;
        return Err(Box::new(refusal::of_moment(
            shape,
            status,
            "overloaded",
            message,
        )));
    }
    let message = format!(
        "what the batch costs cannot be read: its answer has more than {most} bytes \
         (proxy.max_body_bytes), or is compressed as nobody asked for"
    );
    let status = StatusCode::BAD_GATEWAY;
    Err(Box::new(refusal::of_request(
        shape,
        status,
        "too_large",
        &message,
    )))
}

fn is_coded(headers: &HeaderMap) -> bool {
    let coding = headers.get(header::CONTENT_ENCODING);
    coding.is_some_and(|coding| coding != "identity")
}

/// Whether an answer is compressed as it cannot be read here.
fn is_coded_otherwise(headers: &HeaderMap) -> bool {
    let coding = headers.get(header::CONTENT_ENCODING);
    is_coded(headers) && coding.is_some_and(|coding| coding != "gzip")
}

/// A part of results has halves of lines at its ends.
fn ask_for_all(headers: &mut HeaderMap) {
    for name in [header::RANGE, header::IF_RANGE] {
        headers.remove(name);
    }
}

/// Whether a file is none that has lines, as it is called.
fn is_media(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split('/').next().unwrap_or_default();
    let media = ["audio", "image", "video"];
    media.iter().any(|one| one.eq_ignore_ascii_case(kind))
}

/// The address of what says when the results at `uri` were there; `None` where it cannot be known.
pub(crate) fn about(uri: &Uri, suffix: &str) -> Option<Uri> {
    const OF_CONTENT: [&str; 2] = ["alt=", "variant="];
    // However it is written it is the same, and so is the time that stands there.
    let path = plain(uri.path());
    let end = path.len().checked_sub(suffix.len())?;
    let (path, found) = path.split_at_checked(end)?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~:@/".contains(&byte);
    if !found.eq_ignore_ascii_case(suffix) || !path.bytes().all(is_plain) {
        return None;
    }
    // Google's files are read under another address than the one that they are described at.
    let path = format!("/{path}").replacen("/download/", "/", 1);
    let query = uri.query().unwrap_or_default().split('&');
    let is_of_content = |pair: &&str| OF_CONTENT.iter().any(|name| pair.starts_with(*name));
    let query = query.filter(|pair| !pair.is_empty() && !is_of_content(pair));
    let query: Vec<&str> = query.collect();
    let mark = if query.is_empty() { "" } else { "?" };
    let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
    let address = format!("{scheme}://{authority}{path}{mark}{}", query.join("&"));
    address.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_describes_results_stands_beside_them() {
        for (uri, suffix, wanted) in [
            (
                "https://x/v1/messages/batches/b/results?beta=true",
                "/results",
                Some("https://x/v1/messages/batches/b?beta=true"),
            ),
            (
                "https://x/download/v1beta/files/f:download?alt=media&key=k",
                ":download",
                Some("https://x/v1beta/files/f?key=k"),
            ),
            (
                "https://x//openai/files/f/Conten%74/?api-version=1",
                "/content",
                Some("https://x/openai/files/f?api-version=1"),
            ),
            ("https://x/v1/files/f%3fx/content", "/content", None),
            ("https://x/v1/files/f", "/content", None),
        ] {
            let found = about(&uri.parse().unwrap(), suffix);
            assert_eq!(found.map(|uri| uri.to_string()).as_deref(), wanted);
        }
    }
}
