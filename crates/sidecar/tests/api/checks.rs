//! `/v1/check`, `/v1/state`, `/v1/blocklist` and the admin paths.

use crate::support::{assert_conforms, bench, call, config, steps};
use axum::http::StatusCode;
use serde_json::json;
use spendfuse_domain::UnixMillis;
use spendfuse_domain::event::decode;

#[tokio::test]
async fn a_check_is_answered_in_the_words_of_the_contract() {
    let mut bench = bench(config(), None);
    bench.budget("5.00", steps());
    bench.spent("c-42", "4.00", "warn");
    let question = json!({"customer": "c-42", "session": null, "colour": 7}).to_string();
    let answer = bench.post("/v1/check", question).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_conforms("check-response", &answer.json);
    assert_eq!(answer.json["decision"], "warn");
    assert_eq!(answer.json["budgets"][0]["percent"], 80.0);
    for (question, wrong) in [
        (json!({"customer": ["c-42"]}), "customer is an array"),
        (json!({"tags": "growth"}), "tags is a string"),
        (
            json!({"tags": {"team": true}}),
            "tags.team is true or false",
        ),
        (json!({"estimated_cost_usd": 0.5}), "decimal string"),
        (
            json!({"estimate": {"model": "m", "input_tokens": "5"}}),
            "whole number",
        ),
        (
            json!({"estimate": {"model": "m", "input_tokens": -5}}),
            "whole number",
        ),
        (
            json!({"reserve": true}),
            "give estimated_cost_usd or estimate",
        ),
        (json!([]), "not a JSON object"),
        (json!("c-42"), "not a JSON object"),
        (json!(null), "not a JSON object"),
        (json!({"estimated_cost_usd": "-1"}), "negative"),
        (json!({"estimated_cost_usd": "1e3"}), "estimated_cost_usd"),
        (json!({"estimate": {"input_tokens": 5}}), "model"),
        (
            json!({"estimate": {"model": "m"}, "estimated_cost_usd": "1"}),
            "not both",
        ),
    ] {
        let answer = bench.post("/v1/check", question.to_string()).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{wrong}");
        let message = answer.json["error"]["message"].to_string();
        assert!(message.contains(wrong), "{message}");
    }
}

#[tokio::test]
async fn an_announced_call_is_priced_and_counts() {
    let mut bench = bench(config(), None);
    bench.budget("5.00", steps());
    bench.spent("c-42", "4.999", "warn");
    let question = |model: &str, tokens: u64| {
        let estimate = json!({"model": model, "input_tokens": tokens, "max_output_tokens": 100});
        json!({"customer": "c-42", "provider": "openai", "estimate": estimate}).to_string()
    };
    let cheap = bench.post("/v1/check", question("gpt-4o-mini", 100)).await;
    assert_eq!(cheap.json["decision"], "warn");
    let dear = bench
        .post("/v1/check", question("gpt-4o-mini", 1_000_000))
        .await;
    assert_eq!(dear.json["decision"], "block");
    let unknown = bench
        .post("/v1/check", question("no-such-model-at-all", 1))
        .await;
    assert_eq!(unknown.json["warnings"][0]["type"], "unknown_model");
}

#[tokio::test]
async fn the_state_of_a_customer_says_what_remains() {
    let mut bench = bench(config(), None);
    bench.budget("5.00", steps());
    bench.spent("c-42", "4.25", "warn");
    let state = bench.get("/v1/state?customer=c-42").await.json;
    assert_eq!(state["budgets"][0]["remaining_usd"], "0.75");
    assert_eq!(state["findings"], json!([]));
    assert_conforms("state-response", &state);
    let nothing = bench.get("/v1/state").await;
    assert_eq!(nothing.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn the_state_tells_the_findings_of_whom_it_is_asked_about_however_they_are_written() {
    let mut bench = bench(config(), None);
    bench.budget("5.00", steps());
    bench.used_up("daily", "acme/customer=a%40b.com", "a@b.com");
    bench.used_up("everywhere", "*/customer=a%40b.com", "a@b.com");
    bench.used_up("daily", "other/customer=a%40b.com", "a@b.com");
    bench.used_up("daily", "acme/customer=c-42", "c-42");
    let state = bench.get("/v1/state?customer=a%40b.com").await.json;
    assert_conforms("state-response", &state);
    let findings = state["findings"].as_array().unwrap();
    let scopes: Vec<_> = findings.iter().map(|finding| &finding["scope"]).collect();
    assert_eq!(scopes, ["*/customer=a%40b.com", "acme/customer=a%40b.com"]);
    assert_eq!(findings[0]["customer"], "a@b.com");
}

#[tokio::test]
async fn the_state_of_a_user_tells_that_the_users_budget_is_used_up() {
    let mut bench = bench(config(), None);
    let steps = json!([{"at": 100, "do": "block"}]);
    bench.budget_of("per-user", json!({"user": "*"}), "5.00", steps);
    bench.used_up("per-user", "*/user=a%40b.com", "");
    bench.used_up("per-user", "*/user=other", "");
    let state = bench.get("/v1/state?user=a%40b.com").await.json;
    let findings = state["findings"].as_array().unwrap();
    assert_eq!(findings.len(), 1, "{state}");
    assert_eq!(findings[0]["scope"], state["budgets"][0]["scope"]);
}

#[tokio::test]
async fn the_blocklist_is_paged_and_an_old_cursor_is_gone() {
    let mut bench = bench(config(), None);
    bench.spent("c-42", "5.00", "block");
    let mut page = bench.get("/v1/blocklist").await.json;
    assert_conforms("blocklist-page", &page);
    assert_eq!(page["entries"][0]["value"]["verdict"], "block");
    bench.spent("c-43", "5.00", "block");
    let cursor = page["cursor"].as_str().unwrap().to_owned();
    page = bench
        .get(&format!("/v1/blocklist?cursor={cursor}"))
        .await
        .json;
    assert_eq!(page["entries"][0]["key"], "daily|acme/customer=c-43");
    assert_eq!(page["entries"].as_array().unwrap().len(), 1);
    let gone = bench.get("/v1/blocklist?cursor=0000000000000001-7").await;
    assert_eq!(gone.status, StatusCode::GONE);
}

#[tokio::test]
async fn ready_means_caught_up() {
    let mut bench = bench(config(), None);
    let cold = bench.get("/readyz").await;
    assert_eq!(cold.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(cold.json["state"], "cold");
    assert_conforms("sidecar-readiness", &cold.json);
    bench.writer.caught_up();
    bench.writer.publish(UnixMillis(0));
    assert_eq!(bench.get("/readyz").await.status, StatusCode::OK);
    assert_eq!(bench.get("/metrics").await.status, StatusCode::OK);
    let too_large = "x".repeat(70 * 1024);
    let refused = bench.post("/v1/check", too_large).await;
    assert_eq!(refused.status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn an_over_long_name_means_the_same_scope_in_checks_and_in_events() {
    let mut bench = bench(config(), None);
    bench.budget("5.00", steps());
    let customer = "c".repeat(300);
    let mut event = call("r-1");
    event["customer"] = json!(customer);
    bench.post("/v1/usage", event.to_string()).await;
    let sent = bench.sink.taken.lock().unwrap()[0].value.clone();
    let decoded = decode(&sent, &[], UnixMillis(i64::MAX)).unwrap();
    bench.spent(&decoded.attribution.customer, "5.00", "block");
    let question = json!({"customer": customer, "tags": {"team": null}}).to_string();
    let answer = bench.post("/v1/check", question).await;
    assert_eq!(answer.json["decision"], "block");
}
