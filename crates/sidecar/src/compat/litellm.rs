//! LiteLLM's generic API logger: its proxy tells what it billed without a line of code in it.
//!
//! What it sends holds prompts and answers. They are dropped before anything else, and never
//! stored. It does not try again after 4xx, and by default after nothing at all.

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use spendfuse_domain::UnixMillis;

use super::events::{Draft, Summary, Taking, name};
use super::unavailable;
use crate::http::{Shared, json as answer};
use crate::keys::Caller;
use crate::usage::parts;

const SOURCE: &str = "litellm";

/// A `StandardLoggingPayload` without what is said in the call.
#[derive(Deserialize)]
struct Payload {
    #[serde(default)]
    id: Value,
    #[serde(default)]
    call_type: Value,
    #[serde(default)]
    cache_hit: Value,
    #[serde(default)]
    status: Value,
    #[serde(default)]
    custom_llm_provider: Value,
    #[serde(default)]
    model: Value,
    #[serde(default)]
    model_group: Value,
    #[serde(default)]
    prompt_tokens: Value,
    #[serde(default)]
    completion_tokens: Value,
    #[serde(default, rename = "endTime")]
    end_time: Value,
    #[serde(default)]
    session_id: Value,
    #[serde(default)]
    response_cost: Value,
    #[serde(default)]
    end_user: Value,
    #[serde(default)]
    request_tags: Value,
    #[serde(default)]
    metadata: Option<Metadata>,
}

#[derive(Default, Deserialize)]
struct Metadata {
    #[serde(default)]
    usage_object: Value,
    #[serde(default)]
    session_id: Value,
    #[serde(default)]
    user_api_key_user_id: Value,
    #[serde(default)]
    user_api_key_team_id: Value,
    #[serde(default)]
    user_api_key_team_alias: Value,
    #[serde(default)]
    user_api_key_end_user_id: Value,
    #[serde(default)]
    spend_logs_metadata: Value,
}

/// What a payload comes to.
enum Told {
    Call(Box<Draft>),
    /// A call that nobody was charged for, or none at all.
    NotBilled,
}

pub(crate) async fn ingest(State(sidecar): Shared, caller: Caller, body: Bytes) -> Response {
    let shared = Arc::clone(&sidecar);
    let taking = async move {
        let mut taking = Taking::new(&shared, &caller);
        let mut skipped = 0_usize;
        // An array, a line each, or a single one.
        for part in parts(&body, "") {
            match part.map_err(|error| error.detail).and_then(payload) {
                Ok(Told::Call(draft)) => taking.add(Ok(*draft)).await?,
                Ok(Told::NotBilled) => skipped += 1,
                Err(reason) => taking.add(Err(reason)).await?,
            }
        }
        taking.send().await?;
        Ok(told_back(&taking.summary, skipped))
    };
    match sidecar.background.run(taking).await {
        Ok(told) => answer(StatusCode::OK, &told),
        Err(error) => unavailable(&error),
    }
}

fn told_back(summary: &Summary, skipped: usize) -> Value {
    json!({
        "accepted": summary.accepted, "skipped": skipped, "rejected": summary.rejected,
        "reasons": summary.reasons,
    })
}

fn payload(text: &[u8]) -> Result<Told, String> {
    let read = serde_json::from_slice(text);
    told(&read.map_err(|error| format!("cannot be read: {error}"))?)
}

fn told(payload: &Payload) -> Result<Told, String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let kind = text(&payload.call_type);
    let is_call = kind.is_empty() || !kind.starts_with('/');
    let failed = payload.status == "failure";
    if payload.cache_hit == true || failed || !is_call {
        return Ok(Told::NotBilled);
    }
    let id = text(&payload.id);
    let id = id.split("_cache_hit").next().unwrap_or_default();
    if id.is_empty() {
        return Err("a payload without id".to_owned());
    }
    let nothing = Metadata::default();
    let metadata = payload.metadata.as_ref().unwrap_or(&nothing);
    let usage = match &metadata.usage_object {
        Value::Object(usage) if !usage.is_empty() => Cow::Borrowed(usage),
        _ => Cow::Owned(totals(payload)),
    };
    let customer = first([&payload.end_user, &metadata.user_api_key_end_user_id]);
    let session = first([&payload.session_id, &metadata.session_id]);
    let team = first([
        &metadata.user_api_key_team_alias,
        &metadata.user_api_key_team_id,
    ]);
    let time = payload.end_time.as_f64().filter(|time| *time > 0.0);
    let time = time.map(|seconds| UnixMillis((seconds * 1000.0) as i64).to_string());
    let cost = payload.response_cost.as_f64().filter(|cost| *cost > 0.0);
    let cost = cost.map_or(Value::Null, |cost| format!("{cost:.9}").into());
    let mut draft = Draft::call(SOURCE, id.to_owned())
        .at(time.as_deref())
        .with("customer", name(Some(customer)))
        .with("user", name(Some(&metadata.user_api_key_user_id)))
        .with("session", name(Some(session)))
        .with("provider", name(Some(&payload.custom_llm_provider)))
        .with("model", name(Some(&payload.model)))
        .with("request_model", name(Some(&payload.model_group)))
        .with("usage", Value::Object(usage.into_owned()))
        .with("usage_format", "openai.chat")
        .with("reported_cost_usd", cost)
        .tagged("team", team);
    if let Value::Object(own) = &metadata.spend_logs_metadata {
        for (name, value) in own {
            draft = draft.tagged(name, value);
        }
    }
    for tag in payload.request_tags.as_array().into_iter().flatten() {
        let tag = tag.as_str().unwrap_or_default();
        let (name, value) = tag.split_once([':', '=']).unwrap_or((tag, "true"));
        draft = draft.tagged(name, &value.into());
    }
    Ok(Told::Call(Box::new(draft)))
}

fn totals(payload: &Payload) -> Map<String, Value> {
    let counts = [
        ("prompt_tokens", &payload.prompt_tokens),
        ("completion_tokens", &payload.completion_tokens),
    ];
    let known = counts.into_iter().filter(|(_, count)| count.is_number());
    known
        .map(|(name, count)| (name.to_owned(), count.clone()))
        .collect()
}

fn first<const N: usize>(values: [&Value; N]) -> &Value {
    let is_said = |value: &&Value| !value.is_null() && **value != "";
    values.into_iter().find(is_said).unwrap_or(&Value::Null)
}
