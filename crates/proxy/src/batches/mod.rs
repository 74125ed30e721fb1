//! Providers' batches: handed in as any call is asked about, and counted where their results are read.
//!
//! A batch says what it cost where somebody reads its results: [`Reading`] knows such requests by their
//! paths, `results` tells an event of each line that passes (`line`), `operation` of each answer in a
//! batch of Google's. [`Submission`] is what hands a batch in.

mod address;
mod line;
mod lines;
mod operation;
mod passed;
mod results;
mod submission;

use std::sync::Arc;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{StatusCode, Uri, header};
use axum::response::Response;

use crate::exchange::broke_off;
use crate::forward::{Way, taken_from, unreachable};
use crate::headers;
use crate::hidden::hides_batch;
use crate::lanes::Incoming;
use crate::meter;
use crate::path::{ends, plain};
use crate::proxy::Proxy;
use crate::refusal;
use crate::request::Asked;
use crate::route::model_and_method;
use crate::stream::Streamed;
use crate::unmetered;
use crate::upstream::Shape;
use crate::whole::Whole;

use results::Reader;
pub(crate) use submission::submit;

/// A request that hands a batch in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Submission {
    /// Whose errors its sender understands.
    pub(crate) shape: Shape,
    /// The model in the path; empty where it names none.
    pub(crate) model: String,
}

impl Submission {
    /// What `POST path` hands in; `None` where that is no batch, or one whose results go into a storage
    /// that is not read through the proxy.
    pub(crate) fn of(upstream: Shape, path: &str) -> Option<Self> {
        const OF_GOOGLE: [&str; 2] = ["batchGenerateContent", "asyncBatchEmbedContent"];
        let path = plain(path);
        let new = |shape, model: &str| {
            let model = model.to_owned();
            Some(Self { shape, model })
        };
        if let Some((model, method)) = model_and_method(&path)
            && OF_GOOGLE.iter().any(|one| one.eq_ignore_ascii_case(method))
        {
            return new(Shape::Gemini, model);
        }
        if ends(&path, "messages/batches") {
            return new(Shape::Anthropic, "");
        }
        let is_one = ends(&path, "batches") || ends(&path, "batch/jobs");
        match upstream {
            _ if !is_one => None,
            Shape::Azure => new(Shape::Azure, ""),
            _ => new(Shape::OpenAi, ""),
        }
    }
}

/// A request that reads of a batch what it costs, or where that is to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Lines, one for each answer.
    Lines {
        /// What the results, or their file, are called.
        name: String,
        /// What stands behind the path of whatever says when they were there.
        suffix: &'static str,
        /// Whether they are a batch's, whatever they say.
        is_batch: bool,
    },
    /// A batch of Google's, with its answers in it.
    Operation { name: String },
    /// A batch of Anthropic's, which says where its results are.
    Address,
}

impl Reading {
    /// What `GET path` reads.
    pub(crate) fn of(upstream: Shape, path: &str) -> Option<Self> {
        let path = plain(path);
        let (before, last) = path.rsplit_once('/').unwrap_or(("", path.as_str()));
        let (outer, name) = before.rsplit_once('/').unwrap_or(("", before));
        let lines = |name: &str, suffix, is_batch| {
            let name = name.to_owned();
            Some(Self::Lines {
                name,
                suffix,
                is_batch,
            })
        };
        match last {
            "results" if ends(outer, "messages/batches") => lines(name, "/results", true),
            "content" if ends(outer, "files") => lines(name, "/content", false),
            _ if ends(before, "files") && last.ends_with(":download") => {
                lines(last.trim_end_matches(":download"), ":download", false)
            }
            _ if ends(&path, "messages/batches") || ends(before, "messages/batches") => {
                Some(Self::Address)
            }
            _ if upstream != Shape::Gemini => None,
            _ if ends(&path, "batches") || ends(before, "batches") => Some(Self::Operation {
                name: last.to_owned(),
            }),
            _ => None,
        }
    }
}

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
    // A part of the results has halves of lines at its ends.
    for name in [header::RANGE, header::IF_RANGE] {
        parts.headers.remove(name);
    }
    let (upstream, entrant) = (&way.upstream, &way.entrant);
    let sent = headers::upstream_request(&parts.headers, upstream, shape, entrant, true);
    let method = parts.method.clone();
    let answer = proxy.send(method, way.uri.clone(), sent.clone(), Body::empty());
    let answer = match answer.await {
        Ok(answer) => answer,
        Err(error) => return unreachable(&way.name, shape, &error),
    };
    let (head, body) = answer.into_parts();
    let coding = head.headers.get(header::CONTENT_ENCODING);
    let is_readable = coding.is_none_or(|coding| coding == "identity");
    if !head.status.is_success() || !is_readable {
        if let Reading::Lines {
            name,
            is_batch: true,
            ..
        } = &reading
            && head.status.is_success()
        {
            meter::count_unmetered(&way.name, results::UNREAD);
            let upstream = &way.name;
            tracing::warn!(
                upstream,
                results = name,
                "they are compressed: what they cost is not counted"
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
            let Some(whole) = whole(proxy, body).await else {
                return broke_off(&way.name, shape);
            };
            let is_whole = whole.rest.is_none();
            let mut reader = Reader::new(proxy, way, who, name, true);
            match is_whole {
                true => operation::tell(&mut reader, &whole.read).await,
                false => reader.tell_unread(),
            }
            headers::answer(&head, Body::new(Streamed::passed_on(whole, connection)))
        }
        Reading::Address => {
            let Some(mut whole) = whole(proxy, body).await else {
                return broke_off(&way.name, shape);
            };
            let edited = match &whole.rest {
                None => address::leading_here(&whole.read, &way, &parts),
                Some(_) => None,
            };
            let is_edited = edited.is_some();
            whole.read = edited.unwrap_or(whole.read);
            let mut answer =
                headers::answer(&head, Body::new(Streamed::passed_on(whole, connection)));
            if is_edited {
                answer.headers_mut().remove(header::CONTENT_LENGTH);
            }
            answer
        }
    }
}

async fn whole(proxy: &Proxy, body: Incoming) -> Option<Whole> {
    Whole::read(body, proxy.config.max_body_bytes, &proxy.memory).await
}

/// The address of what says when the results at `uri` were there; `None` where it cannot be known.
fn about(uri: &Uri, suffix: &str) -> Option<Uri> {
    let path = uri.path().strip_suffix(suffix)?;
    // Google's files are read under another address than the one that they are described at.
    let path = path.replacen("/download/", "/", 1);
    let query = uri.query().unwrap_or_default().split('&');
    let query = query.filter(|pair| !pair.is_empty() && !pair.starts_with("alt="));
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
    fn batches_are_known_by_their_paths() {
        use Shape::{Anthropic, Azure, Gemini, OpenAi};
        for (upstream, path, wanted) in [
            (OpenAi, "/v1/batches", Some((OpenAi, ""))),
            (OpenAi, "/v1//batche%73/", Some((OpenAi, ""))),
            (Azure, "/openai/batches", Some((Azure, ""))),
            (OpenAi, "/v1/batch/jobs", Some((OpenAi, ""))),
            (Anthropic, "/v1/messages/batches", Some((Anthropic, ""))),
            (
                Gemini,
                "/v1beta/models/gemini-3:batchGenerateContent",
                Some((Gemini, "gemini-3")),
            ),
            (
                Gemini,
                "/v1beta/models/e:asyncBatchEmbedContent",
                Some((Gemini, "e")),
            ),
            (OpenAi, "/v1/vector_stores/v/file_batches", None),
            (OpenAi, "/v1/batches/b/cancel", None),
            (
                Gemini,
                "/v1/projects/p/locations/l/batchPredictionJobs",
                None,
            ),
        ] {
            let found = Submission::of(upstream, path);
            let found = found.as_ref().map(|one| (one.shape, one.model.as_str()));
            assert_eq!(found, wanted, "{path}");
        }
        let lines = |name: &str, suffix, is_batch| {
            let name = name.to_owned();
            Some(Reading::Lines {
                name,
                suffix,
                is_batch,
            })
        };
        let operation = |name: &str| {
            let name = name.to_owned();
            Some(Reading::Operation { name })
        };
        for (upstream, path, wanted) in [
            (
                Anthropic,
                "/v1/messages/batches/b-1/results",
                lines("b-1", "/results", true),
            ),
            (
                OpenAi,
                "/v1/files/f-1/content",
                lines("f-1", "/content", false),
            ),
            (
                Gemini,
                "/download/v1beta/files/f-1:download",
                lines("f-1", ":download", false),
            ),
            (Gemini, "/v1beta/batches/b-1", operation("b-1")),
            (Gemini, "/v1beta/batches", operation("batches")),
            (
                Anthropic,
                "/v1/messages/batches/b-1",
                Some(Reading::Address),
            ),
            (Anthropic, "/v1/messages/batches", Some(Reading::Address)),
            (OpenAi, "/v1/batches/b-1", None),
            (OpenAi, "/v1/files/f-1", None),
            (OpenAi, "/v1/models/results", None),
            (OpenAi, "/", None),
        ] {
            assert_eq!(Reading::of(upstream, path), wanted, "{path}");
        }
    }

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
            ("https://x/v1/files/f/conten%74", "/content", None),
        ] {
            let found = about(&uri.parse().unwrap(), suffix);
            assert_eq!(found.map(|uri| uri.to_string()).as_deref(), wanted);
        }
    }
}
