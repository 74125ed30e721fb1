//! LiteLLM's generic API logger: its proxy tells what it billed without a line of code in it.
//!
//! What it sends holds prompts and answers. They are dropped before anything else, and never
//! stored. It does not try again after 4xx, and by default after nothing at all.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use spendfuse_domain::UnixMillis;
use spendfuse_domain::event::usage_format::COUNTS_OF_TOOLS;

use super::events::{Draft, Summary, Taking, count, name};
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
    litellm_call_id: Value,
    #[serde(default)]
    call_type: Value,
    #[serde(default)]
    stream: Value,
    /// What the call was made with beside its text.
    #[serde(default)]
    model_parameters: Value,
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
    let nothing = Metadata::default();
    let metadata = payload.metadata.as_ref().unwrap_or(&nothing);
    let usage = match &metadata.usage_object {
        Value::Object(usage) if !usage.is_empty() => usage.clone(),
        _ => totals(payload),
    };
    if !kind.is_empty() && is_of_no_model(payload, &usage) {
        return Ok(Told::NotBilled);
    }
    let (id, answer_id) = ids(payload, &kind);
    if id.is_empty() {
        return Err("a payload without id".to_owned());
    }
    let model = payload.model.as_str().unwrap_or_default();
    let (usage_format, (usage, searches)) = match is_guessed(payload, &kind, &usage) {
        true => ("estimated", (guess(payload), None)),
        false => ("openai.chat", without_searches(usage, model)),
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
    let units = searches.map_or(
        Value::Null,
        |count| json!({"web_search_calls": count.to_string()}),
    );
    let mut draft = Draft::call(SOURCE, id)
        .at(time.as_deref())
        .with("customer", name(Some(customer)))
        .with("user", name(Some(&metadata.user_api_key_user_id)))
        .with("session", name(Some(session)))
        .with("provider", name(Some(&payload.custom_llm_provider)))
        .with("model", name(Some(&payload.model)))
        .with("request_model", name(Some(&payload.model_group)))
        .with("call_id", name(Some(&payload.litellm_call_id)))
        .with("response_id", answer_id)
        .with("usage", Value::Object(usage))
        .with("usage_format", usage_format)
        .with("units", units)
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

/// The event's id, and the answer's own. As the callback names a call (`sdk/python`), so that both of them
/// count it once; and some servers count their answers from one.
fn ids(payload: &Payload, kind: &str) -> (String, String) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let answer = text(&payload.id);
    let answer = answer.split("_cache_hit").next().unwrap_or_default();
    let call = text(&payload.litellm_call_id);
    // Whoever asks for a batch again is told of the same one.
    let is_asked_again = kind.ends_with("retrieve_batch");
    let id = if answer.is_empty() {
        call
    } else if call.is_empty() || call == answer || is_asked_again {
        answer.to_owned()
    } else {
        format!("{call}-{answer}")
    };
    (id, answer.to_owned())
}

/// Whether nobody can say what was called, and nothing was used: files, lists, an answer asked for again.
fn is_of_no_model(payload: &Payload, usage: &Map<String, Value>) -> bool {
    let is_named = payload
        .model
        .as_str()
        .is_some_and(|model| !model.is_empty());
    let is_used = |count: &Value| count.as_f64().is_some_and(|count| count > 0.0);
    !is_named && !is_used(&payload.response_cost) && !usage.values().any(is_used)
}

/// Their streams tell usage unasked.
const TELLING: [&str; 4] = ["anthropic", "gemini", "vertex_ai", "bedrock"];

/// Whether LiteLLM has counted a stream itself, by a tokenizer and without a mark: where the provider was not
/// asked for its counts, and has not told them unasked, as xAI and Mistral do.
fn is_guessed(payload: &Payload, kind: &str, usage: &Map<String, Value>) -> bool {
    let parameters = &payload.model_parameters;
    let is_asked = parameters.pointer("/stream_options/include_usage") == Some(&Value::Bool(true));
    let provider = payload.custom_llm_provider.as_str().unwrap_or_default();
    let must_be_asked = kind.ends_with("completion") && !TELLING.contains(&provider);
    let is_asked = is_asked || is_detailed(usage);
    payload.stream == true && must_be_asked && parameters.is_object() && !is_asked
}

/// Whether a usage object has details of the prompt, which no tokenizer knows.
fn is_detailed(usage: &Map<String, Value>) -> bool {
    let details = usage.get("prompt_tokens_details");
    let details = details.and_then(Value::as_object);
    let is_counted = |count: &Value| count.as_f64().is_some_and(|count| count > 0.0);
    details.is_some_and(|details| details.values().any(is_counted))
}

fn guess(payload: &Payload) -> Map<String, Value> {
    let counts = [
        ("input_tokens", count(Some(&payload.prompt_tokens))),
        ("output_tokens", count(Some(&payload.completion_tokens))),
    ];
    let known = counts.into_iter().filter(|(_, count)| !count.is_null());
    known
        .map(|(name, count)| (name.to_owned(), count))
        .collect()
}

/// LiteLLM counts searches among the details of the prompt, where nobody reads them: taken out, and counted
/// as units where the usage object has not its provider's own count, too.
fn without_searches(
    mut usage: Map<String, Value>,
    model: &str,
) -> (Map<String, Value>, Option<u64>) {
    let details = usage.get_mut("prompt_tokens_details");
    let details = details.and_then(Value::as_object_mut);
    let searches = details.and_then(|details| details.remove("web_search_requests"));
    let searches = searches.and_then(|count| count.as_u64());
    let is_counted = |name: &&str| usage.get(*name).is_some_and(|count| !count.is_null());
    if COUNTS_OF_TOOLS.iter().any(is_counted) {
        return (usage, None);
    }
    let searches = searches.filter(|count| *count > 0);
    (usage, searches.map(|count| billed_searches(model, count)))
}

/// Of an answer that took so many queries: Gemini bills the query from its third generation on, before that
/// once for an answer (<https://ai.google.dev/gemini-api/docs/google-search>). What has no number in its name
/// is the latest.
fn billed_searches(model: &str, queries: u64) -> u64 {
    let generation = model.split_once("gemini-").map(|(_, rest)| rest);
    let generation = generation.and_then(|rest| {
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u64>().ok()
    });
    match generation {
        Some(0..3) => 1,
        _ => queries,
    }
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
