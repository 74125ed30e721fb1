//! What other products' clients may send beside the usual: the calls in it are counted all the same.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::support::{Bench, bench, config, steps};

const MARGINDASH: &str = "/compat/margindash/api/v1";

fn sent(bench: &Bench) -> Vec<Value> {
    let taken = bench.sink.taken.lock().unwrap();
    let events = taken.iter();
    events
        .map(|event| serde_json::from_slice(&event.value).unwrap())
        .collect()
}

#[tokio::test]
async fn of_margindashs_batches_everything_is_counted_that_can_be() {
    let bench = bench(config(), None);
    let responses = json!([{"model": "gpt-4o", "input_tokens": 10, "output_tokens": 5}]);
    let batch = json!({"events": [
        null,
        {"customer_id": 7, "unique_request_token": 41, "vendor_responses": responses,
         "revenue_amount_in_cents": 499.0, "occurred_at": ""},
        {"customer_id": "c", "unique_request_token": "t", "vendor_responses": responses,
         "revenue_amount_in_cents": "5 dollars", "occurred_at": "2026-11-28T00:31:18"},
    ]});
    let answer = bench
        .post(&format!("{MARGINDASH}/events"), batch.to_string())
        .await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.json);
    assert_eq!(bench.sink.ids(), ["41:0", "41:rev", "t:0"]);
    assert_eq!(sent(&bench)[1]["data"]["revenue_usd"], "4.99");
    assert_eq!(answer.json["rejected"], 2, "{}", answer.json);
    let reasons = answer.json["reasons"].to_string();
    assert!(reasons.contains("no whole number of cents"), "{reasons}");
}

#[tokio::test]
async fn margindash_is_told_of_limits_of_nothing_before_anything_is_spent() {
    let mut bench = bench(config(), None);
    for (id, scope) in [
        ("nobody", json!({"workspace": "acme", "customer": "c-9"})),
        ("no-agents", json!({"feature": "agent"})),
        ("others", json!({"workspace": "rival", "customer": "c-8"})),
        ("each-plan", json!({"workspace": "acme", "plan": "*"})),
    ] {
        bench.budget_of(id, scope, "0", steps());
    }
    let list = bench.get(&format!("{MARGINDASH}/budgets/blocklist")).await;
    let blocked = json!({
        "organization": false, "event_types": ["agent"], "customer_ids": ["c-9"],
    });
    assert_eq!(list.json["blocked"], blocked);
}

#[tokio::test]
async fn a_payload_of_litellm_without_metadata_is_counted() {
    let bench = bench(config(), None);
    let payload = json!({
        "id": "chatcmpl-1", "model": "gpt-4o", "prompt_tokens": 10, "completion_tokens": 5,
        "metadata": null,
    });
    let answer = bench.post("/v1/ingest/litellm", payload.to_string()).await;
    assert_eq!(answer.json["accepted"], 1, "{}", answer.json);
    assert_eq!(sent(&bench)[0]["data"]["usage"]["prompt_tokens"], 10);
}
