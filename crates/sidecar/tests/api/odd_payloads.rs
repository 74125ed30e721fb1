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

#[tokio::test]
async fn litellms_logger_names_and_counts_a_call_as_its_callback_does() {
    let bench = bench(config(), None);
    let call = |call: &str, answer: &str, more: Value| {
        let mut payload = json!({
            "id": answer, "litellm_call_id": call, "call_type": "acompletion", "status": "success",
            "custom_llm_provider": "openai", "model": "gpt-4o",
            "prompt_tokens": 10, "completion_tokens": 5,
        });
        if let Value::Object(more) = more {
            payload.as_object_mut().unwrap().extend(more);
        }
        payload
    };
    let searched = json!({
        "prompt_tokens": 10, "completion_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 4, "web_search_requests": 3},
    });
    let gemini = |model: &str| json!({"model": model, "metadata": {"usage_object": searched}});
    let payloads = json!([
        // A server of one's own counts its answers from one, again after a restart.
        call("call-1", "chatcmpl-1", json!({})),
        call("call-2", "chatcmpl-1", json!({})),
        call("call-3", "call-3", json!({"model_parameters": {}})),
        call("call-4", "batch-1", json!({"call_type": "aretrieve_batch"})),
        call("call-5", "batch-1", json!({"call_type": "aretrieve_batch"})),
        // Nobody asked the provider for the counts of this one.
        call(
            "call-6",
            "s",
            json!({"stream": true, "model_parameters": {"stream": true}})
        ),
        // Nor of this one, which tells them all the same.
        call(
            "call-10",
            "x",
            json!({"custom_llm_provider": "xai", "model": "grok-4", "stream": true,
            "model_parameters": {"stream": true}, "metadata": {"usage_object": searched}})
        ),
        call("call-7", "g", gemini("gemini-3-pro")),
        call("call-8", "g", gemini("gemini-2.5-flash")),
        call(
            "call-9",
            "resp-1",
            json!({"call_type": "aget_responses", "model": "",
            "prompt_tokens": 0, "completion_tokens": 0, "response_cost": 0.0})
        ),
    ]);
    let answer = bench.post("/v1/ingest/litellm", payloads.to_string()).await;
    assert_eq!(answer.json["skipped"], 1, "{}", answer.json);
    let events = sent(&bench);
    let mut ids: Vec<_> = events.iter().map(|event| &event["id"]).collect();
    ids.dedup();
    let wanted = [
        "call-1-chatcmpl-1",
        "call-2-chatcmpl-1",
        "call-3",
        "batch-1",
        "call-6-s",
        "call-10-x",
        "call-7-g",
        "call-8-g",
    ];
    assert_eq!(ids, wanted);
    let of = |id: &str| events.iter().find(|event| event["id"] == id).unwrap()["data"].clone();
    assert_eq!(of("call-3")["usage_format"], "openai.chat");
    assert_eq!(of("call-6-s")["usage_format"], "estimated");
    assert_eq!(
        of("call-6-s")["usage"],
        json!({"input_tokens": 10, "output_tokens": 5})
    );
    let told = of("call-10-x");
    assert_eq!(told["usage_format"], "openai.chat");
    assert_eq!(told["usage"]["prompt_tokens_details"]["cached_tokens"], 4);
    assert_eq!(told["units"]["web_search_calls"], "3");
    assert_eq!(of("call-7-g")["units"]["web_search_calls"], "3");
    assert_eq!(of("call-8-g")["units"]["web_search_calls"], "1");
    let details = json!({"cached_tokens": 4});
    assert_eq!(of("call-7-g")["usage"]["prompt_tokens_details"], details);
}
