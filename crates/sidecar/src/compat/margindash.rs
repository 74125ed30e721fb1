//! PyPI and npm `ai-cost-calc` (MarginDash): `guarded_call`, `track`, `cost`.
//!
//! Its client asks for a list of what is blocked and lets every call through when it gets none. It
//! must never be told `budget_state_version` when it sends events: it stores that version before it
//! has the list that belongs to it, and keeps the old one for good.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::events::{Draft, Summary, Taking, count, name};
use super::scopes::Blocked;
use super::{Line, parameters, unavailable, workspace};
use crate::http::{ApiError, Shared, Sidecar, json as answer};
use crate::keys::{Place, Presented};
use crate::prices::Prices;

const SOURCE: &str = "margindash";
/// Responses in one of its events, which it does not limit itself.
const MOST_RESPONSES: usize = 1_000;

pub(super) async fn blocklist(
    State(sidecar): Shared,
    line: Line,
    headers: HeaderMap,
    uri: Uri,
) -> Response {
    let caller = line.caller(&sidecar, Place::Bearer, Presented::bearer(&headers));
    let shared = Arc::clone(&sidecar);
    let blocked = match caller {
        None => Blocked::default(),
        Some(caller) => {
            let listing = async move {
                let workspace = workspace(&shared, &caller);
                let blocked = shared.compat.blocked.now(&shared, workspace);
                blocked.seen_by(&caller)
            };
            sidecar.background.run(listing).await
        }
    };
    let parameters = parameters(&uri);
    let since = parameters.iter().find(|(name, _)| name == "since_version");
    let since = since.and_then(|(_, version)| version.parse().ok());
    answer(StatusCode::OK, &list(&sidecar, &blocked, since))
}

fn list(sidecar: &Sidecar, blocked: &Blocked, since: Option<u64>) -> Value {
    let version = blocked.version();
    json!({
        "version": version,
        "ttl_seconds": sidecar.config.compat.margindash_poll.as_secs_f64(),
        "changed": since != Some(version),
        "blocked": {
            "organization": blocked.workspace,
            "event_types": blocked.features,
            "customer_ids": blocked.customers,
        },
    })
}

/// Both `provider/model` and bare names, because it looks a name up as the app gives it.
pub(super) async fn models(State(sidecar): Shared) -> Response {
    let shared = Arc::clone(&sidecar);
    let models = sidecar.background.run(async move {
        shared
            .checker
            .prices
            .per_million(shared.checker.clock.now().wall)
    });
    let mut named = BTreeMap::new();
    for model in models.await {
        let pricing = json!({
            "input_per_1m_usd": model.input, "output_per_1m_usd": model.output,
        });
        // The first provider's price stands for the bare name, as in the book's order.
        named
            .entry(model.model.clone())
            .or_insert_with(|| pricing.clone());
        named.insert(format!("{}/{}", model.provider, model.model), pricing);
    }
    let listed = |(slug, pricing)| json!({"slug": slug, "pricing": pricing});
    let models: Vec<_> = named.into_iter().map(listed).collect();
    answer(StatusCode::OK, &json!({ "models": models }))
}

#[derive(Deserialize)]
struct Batch {
    events: Vec<Value>,
}

/// It tries again after 429 and 5xx, with the same tokens; anything else that is not 2xx is lost.
pub(super) async fn events(
    State(sidecar): Shared,
    line: Line,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let caller = line.caller(&sidecar, Place::Bearer, Presented::bearer(&headers));
    let Some(caller) = caller else {
        return answer(StatusCode::OK, &Summary::default());
    };
    let shared = Arc::clone(&sidecar);
    let taking = async move {
        let batch = serde_json::from_slice::<Batch>(&body).map_err(|error| {
            let message = format!("the body cannot be read: {error}");
            ApiError::new("bad_request", message).response(StatusCode::BAD_REQUEST)
        })?;
        let mut taking = Taking::new(&shared, &caller);
        for event in &batch.events {
            let drafts = match event.as_object() {
                Some(event) => drafts_of(&shared.checker.prices, event),
                None => vec![Err("no event: it is no object".to_owned())],
            };
            for draft in drafts {
                taking
                    .add(draft)
                    .await
                    .map_err(|error| unavailable(&error))?;
            }
        }
        taking.send().await.map_err(|error| unavailable(&error))?;
        Ok(taking.summary)
    };
    let taken = sidecar.background.run(taking).await;
    taken.map_or_else(
        |refusal: Response| refusal,
        |summary| answer(StatusCode::OK, &summary),
    )
}

/// One event of ours for each response, and one for the revenue.
fn drafts_of(prices: &Prices, event: &Map<String, Value>) -> Vec<Result<Draft, String>> {
    let token = match name(event.get("unique_request_token")) {
        Value::String(token) if !token.is_empty() => token,
        // An app's own, such as the number of its request.
        Value::Number(token) => token.to_string(),
        _ => return vec![Err("an event without unique_request_token".to_owned())],
    };
    let time = event.get("occurred_at").and_then(Value::as_str);
    let time = time.filter(|time| !time.is_empty());
    let whose = |draft: Draft| {
        draft
            .at(time)
            .with("customer", name(event.get("customer_id")))
    };
    let empty = Vec::new();
    let responses = event.get("vendor_responses").and_then(Value::as_array);
    let responses = responses.unwrap_or(&empty);
    let mut drafts: Vec<_> = responses
        .iter()
        .take(MOST_RESPONSES)
        .enumerate()
        .map(|(at, response)| {
            let (provider, model) = split(
                prices,
                response
                    .get("model")
                    .and_then(Value::as_str)
                    .unwrap_or_default(),
            );
            let usage = json!({
                "input_tokens": count(response.get("input_tokens")),
                "output_tokens": count(response.get("output_tokens")),
            });
            Ok(whose(Draft::call(SOURCE, format!("{token}:{at}")))
                .with("feature", name(event.get("event_type")))
                .with("provider", provider)
                .with("model", model)
                .with("usage", usage)
                .with("usage_format", "spendfuse"))
        })
        .collect();
    if responses.len() > MOST_RESPONSES {
        drafts.push(Err(format!(
            "more than {MOST_RESPONSES} responses in one event"
        )));
    }
    match event.get("revenue_amount_in_cents").map(cents) {
        None | Some(Ok(0)) => {}
        Some(Ok(amount)) => {
            let sign = if amount < 0 { "-" } else { "" };
            let cents = amount.unsigned_abs();
            let dollars = format!("{sign}{}.{:02}", cents / 100, cents % 100);
            let revenue = Draft::revenue(SOURCE, format!("{token}:rev"));
            drafts.push(Ok(whose(revenue).with("revenue_usd", dollars)));
        }
        Some(Err(reason)) => drafts.push(Err(reason)),
    }
    drafts
}

/// Whole cents; none where it is null.
fn cents(said: &Value) -> Result<i64, String> {
    // What floats hold exactly.
    const MOST: f64 = 9e15;
    let whole = |cents: &f64| cents.fract() == 0.0 && cents.abs() <= MOST;
    let of_float = || said.as_f64().filter(whole).map(|cents| cents as i64);
    let wrong = || "revenue_amount_in_cents is no whole number of cents".to_owned();
    match said {
        Value::Null => Ok(0),
        said => said.as_i64().or_else(of_float).ok_or_else(wrong),
    }
}

/// `openai/gpt-4o` is a provider and its model; a name with a slash may also be one name.
fn split<'m>(prices: &Prices, model: &'m str) -> (&'m str, &'m str) {
    match model.split_once('/') {
        Some((provider, rest)) if prices.has(provider, rest) => (provider, rest),
        _ => ("", model),
    }
}
