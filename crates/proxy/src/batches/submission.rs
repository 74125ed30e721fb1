//! A batch that is handed in: may its caller spend?

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::body::Body;
use axum::http::header;
use axum::http::request::Parts;
use axum::response::Response;
use serde::Deserialize;
use spendfuse_domain::Verdict;
use spendfuse_guard::CheckResponse;
use spendfuse_sidecar::{ApiError, Question};

use super::Submission;
use crate::attribution::Who;
use crate::forward::{Way, pass};
use crate::permit::{Stop, must_be_plain, other_model, whole};
use crate::proxy::Proxy;
use crate::request::Asked;

/// Models of one batch that are asked about.
const MOST_MODELS: usize = 100;

/// The requests of a batch of Anthropic's, or Mistral's.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Requests {
    requests: Option<Vec<Request>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Request {
    params: Option<Params>,
    /// Mistral's name for them.
    body: Option<Params>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Params {
    model: Option<String>,
}

/// Passes a batch on whose caller may spend, on every model that it names. Nothing is held for it: what
/// it costs is counted when its results are read, which may be a day later.
///
/// # Errors
/// Why it is not passed on.
pub(crate) async fn submit(
    proxy: &Arc<Proxy>,
    way: Way,
    submission: Submission,
    parts: Parts,
    body: Body,
) -> Result<Response, Stop> {
    must_be_plain(&parts.headers)?;
    let length = parts.headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    // Anthropic takes 256 MB: what is too long to be kept goes on as it comes.
    let is_kept = length.is_some_and(|length| length <= proxy.config.max_body_bytes);
    let not_read =
        |error: serde_json::Error| Stop::wrong(format!("the batch cannot be read: {error}"));
    let mut memory = None;
    let mut asked = Asked::default();
    let mut models = BTreeSet::from([submission.model]);
    let body = if is_kept {
        let (body, share) = whole(proxy, &parts.headers, body).await?;
        asked = Asked::read(&body).map_err(Stop::wrong)?;
        models.insert(asked.model.clone());
        let read: Requests = serde_json::from_slice(&body).map_err(not_read)?;
        let requests = read.requests.unwrap_or_default().into_iter();
        let named = requests.flat_map(|request| [request.params, request.body]);
        models.extend(named.flatten().filter_map(|params| params.model));
        memory = Some(share);
        Body::from(body)
    } else {
        body
    };
    models.remove("");
    if models.len() > MOST_MODELS {
        let message = format!("the batch names more than {MOST_MODELS} models: hand in several");
        return Err(Stop::wrong(message));
    }
    let who = proxy
        .config
        .attributing
        .of(&parts.headers, &asked, &way.entrant.caller)
        .map_err(Stop::wrong)?;
    if models.is_empty() {
        models.insert(String::new());
    }
    for model in &models {
        let answer = ask(proxy, &way, &who, model).await?;
        if answer.decision == Verdict::Block {
            let refused = proxy.sidecar.refused_call(&answer, &parts.headers);
            return Err(Stop::Refused(Box::new(refused)));
        }
        // The models of a batch stay what they are, but a cheaper one may be demanded.
        other_model(proxy, &answer, &parts.headers, &asked, false)?;
    }
    let response = pass(proxy, way, parts, body).await;
    drop(memory);
    Ok(response)
}

async fn ask(proxy: &Proxy, way: &Way, who: &Who, model: &str) -> Result<CheckResponse, Stop> {
    let question = || {
        let mut question = Question::default();
        for (name, value) in who {
            question.put(name, value.clone())?;
        }
        question.put("provider", way.upstream.provider.clone())?;
        if !model.is_empty() {
            question.put("model", model.to_owned())?;
        }
        Ok(question)
    };
    let wrong = |error: ApiError| Stop::wrong(error.to_string());
    let question = question().map_err(wrong)?;
    let answer = proxy.sidecar.ask(question, &way.entrant.caller);
    answer.await.map_err(wrong)
}
