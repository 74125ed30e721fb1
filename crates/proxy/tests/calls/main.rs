//! Calls through a proxy: what the upstream sees, what the caller sees, what is told of them.
#![allow(clippy::unwrap_used)]

mod background;
mod batches;
mod estimates;
mod files;
mod hostile;
mod keys;
mod lanes;
mod languages;
mod questions;
mod reading;
mod routes;
mod support;
mod tools;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use support::{Answer, bench, text};

const CHAT: &str = "/openai/v1/chat/completions";

fn completion() -> Value {
    json!({"id": "chatcmpl-1", "model": "gpt-4o-2024-08-06", "service_tier": "default",
        "choices": [{"message": {"role": "assistant", "content": "Hi"}}],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}})
}

/// A stream of chat completions with and without the piece that has nothing but usage.
fn chunks() -> [&'static str; 3] {
    [
        "data: {\"id\":\"chatcmpl-2\",\"model\":\"gpt-4o\",\"choices\":[{\"delta\":{\"content\":\"Hi\"}}],\"usage\":null}\n\n",
        "data: {\"id\":\"chatcmpl-2\",\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":9}}\n\n",
        "data: [DONE]\n\n",
    ]
}

#[tokio::test]
async fn a_whole_call_is_passed_on_as_it_is_and_counted() {
    let bench = bench().await;
    let answer = completion().to_string();
    bench.will_answer(Answer::whole(
        200,
        "application/json",
        answer.clone().into_bytes(),
    ));
    let body = r#"{"model":"gpt-4o", "messages":[], "seed":12345678901234567890}"#;
    let headers = [
        ("authorization", "Bearer sk-caller"),
        ("x-spendfuse-customer", "c-42"),
        ("x-spendfuse-tag-team", "growth"),
        ("accept-encoding", "gzip, br"),
    ];
    let response = bench.post(CHAT, &headers, body).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["x-spendfuse-decision"], "allow");
    assert_eq!(response.headers()["x-spendfuse-cost-usd"], "0.0035");
    assert!(response.headers().contains_key("x-spendfuse-reservation"));
    assert_eq!(text(response).await, answer);

    let asked = &bench.asked()[0];
    assert_eq!(
        (asked.path.as_str(), asked.body.as_str()),
        ("/v1/chat/completions", body)
    );
    assert_eq!(asked.headers["authorization"], "Bearer sk-caller");
    assert_eq!(asked.headers["accept-encoding"], "identity");
    assert!(!asked.headers.contains_key("x-spendfuse-customer"));

    let event = &bench.events(1).await[0];
    let data = &event["data"];
    assert_eq!(data["workspace"], "acme");
    assert_eq!(data["customer"], "c-42");
    assert_eq!(data["tags"], json!({"team": "growth"}));
    assert_eq!(data["model"], "gpt-4o-2024-08-06");
    assert_eq!(data["request_model"], "gpt-4o");
    assert_eq!(data["usage"], completion()["usage"]);
}

#[tokio::test]
async fn a_caller_does_not_say_what_its_call_is_charged_as() {
    let bench = bench().await;
    let body = r#"{"model":"gpt-4o"}"#;
    for name in ["model", "provider", "account"] {
        let name = format!("x-spendfuse-{name}");
        let headers = [(name.as_str(), "gpt-4o-mini")];
        let response = bench.post(CHAT, &headers, body).await;
        assert_eq!(response.status(), 400);
        let refusal = text(response).await;
        assert!(refusal.contains(&name), "{refusal}");
    }
    assert!(bench.asked().is_empty());
    bench.will_answer(Answer::json(200, &completion()));
    bench.post(CHAT, &[], body).await;
    let events = bench.events(1).await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["data"]["model"], "gpt-4o-2024-08-06");
}

#[tokio::test]
async fn a_piece_goes_on_as_soon_as_it_is_there() {
    let bench = bench().await;
    let (answer, send) = Answer::pieces(200, "text/event-stream");
    bench.will_answer(answer);
    let body = r#"{"model":"gpt-4o","stream":true}"#;
    let mut seen = bench.post(CHAT, &[], body).await.into_body();
    for part in [": ping\n\n", chunks()[0]] {
        let (one, other) = part.split_at(part.len() / 2);
        send.send(Bytes::from(one)).unwrap();
        send.send(Bytes::from(other)).unwrap();
        let frame = seen.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), part);
    }
}

#[tokio::test]
async fn a_stream_whose_caller_has_gone_is_read_to_its_end() {
    let bench = bench().await;
    let (answer, send) = Answer::pieces(200, "text/event-stream");
    bench.will_answer(answer);
    let body = r#"{"model":"gpt-4o","stream":true}"#;
    let mut seen = bench.post(CHAT, &[], body).await.into_body();
    send.send(Bytes::from(chunks()[0])).unwrap();
    seen.frame().await.unwrap().unwrap();
    drop(seen);
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    send.send(Bytes::from(chunks()[1])).unwrap();
    drop(send);
    let event = &bench.events(1).await[0];
    assert_eq!(
        event["data"]["usage"],
        json!({"prompt_tokens": 7, "completion_tokens": 9})
    );
}

#[tokio::test]
async fn what_a_cut_stream_has_cost_is_estimated_by_what_was_seen() {
    let bench = bench().await;
    let begun = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"model\":\"claude-sonnet-4-5\",\"usage\":{\"input_tokens\":10,\"cache_read_input_tokens\":5,\"output_tokens\":1}}}\n\n\
        data: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"0123456789\"}}\n\n";
    bench.will_answer(Answer::whole(
        200,
        "text/event-stream",
        begun.as_bytes().to_vec(),
    ));
    let body = r#"{"model":"claude-sonnet-4-5","stream":true}"#;
    assert_eq!(
        text(bench.post("/anthropic/v1/messages", &[], body).await).await,
        begun
    );
    let data = &bench.events(1).await[0]["data"];
    assert_eq!(data["usage_format"], "estimated");
    let wanted = json!({"input_tokens": 15, "cache_read_tokens": 5, "cache_write_tokens": 0,
        "cache_write_1h_tokens": 0, "output_tokens": 3});
    assert_eq!(data["usage"], wanted);
}

#[tokio::test]
async fn every_client_gets_a_refusal_that_its_sdk_understands() {
    let mut bench = bench().await;
    bench.budget("0.00", &json!([{"at": 100, "do": "block"}]));
    let customer = [("x-spendfuse-customer", "c-42")];
    for (path, place, code) in [
        (CHAT, "/error/code", "budget_exceeded"),
        ("/anthropic/v1/messages", "/error/type", "rate_limit_error"),
        (
            "/gemini/v1beta/models/gemini-2.5-pro:generateContent",
            "/error/status",
            "RESOURCE_EXHAUSTED",
        ),
    ] {
        let response = bench
            .post(path, &customer, r#"{"model":"m","max_tokens":5}"#)
            .await;
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["x-should-retry"], "false");
        assert_eq!(response.headers()["x-spendfuse-budget"], "daily");
        let body: Value = serde_json::from_str(&text(response).await).unwrap();
        assert_eq!(body.pointer(place).unwrap(), code, "{body}");
    }
    assert!(bench.asked().is_empty());
}

#[tokio::test]
async fn a_cheaper_model_is_asked_where_a_budget_says_so() {
    let mut bench = bench().await;
    let steps = json!([{"at": 50, "do": "downgrade", "to": "gpt-4o-mini"}]);
    bench.budget("5.00", &steps);
    bench.spent("c-42", "3.00", "downgrade");
    bench.will_answer(Answer::json(200, &completion()));
    let customer = [("x-spendfuse-customer", "c-42")];
    let response = bench
        .post(CHAT, &customer, r#"{"model":"gpt-4o","n":1}"#)
        .await;
    assert_eq!(response.headers()["x-spendfuse-downgraded-from"], "gpt-4o");
    assert_eq!(bench.asked()[0].body, r#"{"model":"gpt-4o-mini","n":1}"#);
    text(response).await;
    assert_eq!(
        bench.events(1).await[0]["data"]["flags"],
        json!(["downgraded"])
    );
    let mut other = completion();
    other["id"] = json!("chatcmpl-2");
    bench.will_answer(Answer::json(200, &other));
    let response = bench.post(CHAT, &[], r#"{"model":"gpt-4o"}"#).await;
    text(response).await;
    assert_eq!(bench.events(2).await[1]["data"].get("flags"), None);
}

#[tokio::test]
async fn no_model_that_writes_is_asked_to_embed() {
    let mut bench = bench().await;
    let steps = json!([{"at": 50, "do": "downgrade", "to": "gpt-4o-mini"}]);
    bench.budget("5.00", &steps);
    bench.spent("c-42", "3.00", "downgrade");
    let usage = json!({"prompt_tokens": 5, "total_tokens": 5});
    let embedded = json!({"model": "text-embedding-3-small", "data": [], "usage": usage});
    bench.will_answer(Answer::json(200, &embedded));
    let customer = [("x-spendfuse-customer", "c-42")];
    let body = r#"{"model":"text-embedding-3-small","input":"x"}"#;
    let response = bench.post("/openai/v1/embeddings", &customer, body).await;
    text(response).await;
    assert_eq!(bench.asked()[0].body, body);
    assert_eq!(bench.events(1).await[0]["data"].get("flags"), None);
}

#[tokio::test]
async fn what_a_provider_does_not_charge_is_not_counted_and_holds_nothing() {
    let mut bench = bench().await;
    bench.budget("0.05", &json!([{"at": 100, "do": "block"}]));
    let customer = [("x-spendfuse-customer", "c-42")];
    // Each holds four cents: the second would be refused if the first held on.
    let body = r#"{"model":"gpt-4o","max_tokens":4000}"#;
    let error = json!({"error": {"message": "overloaded"}});
    for _ in 0..3 {
        bench.will_answer(Answer::json(503, &error));
        let response = bench.post(CHAT, &customer, body).await;
        assert_eq!(response.status(), 503);
        assert_eq!(text(response).await, error.to_string());
    }
    assert_eq!(bench.asked().len(), 3);
}

#[tokio::test]
async fn messages_and_generated_content_are_counted_by_their_own_formats() {
    let bench = bench().await;
    let stream = [
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"model\":\"claude-sonnet-4-5\",\"usage\":{\"input_tokens\":10,\"output_tokens\":1}}}\n\n",
        "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{},\"usage\":{\"output_tokens\":380}}\n\n",
    ];
    bench.will_answer(Answer::whole(
        200,
        "text/event-stream",
        stream.concat().into_bytes(),
    ));
    let body = r#"{"model":"claude-sonnet-4-5","max_tokens":400,"stream":true}"#;
    let seen = text(bench.post("/anthropic/v1/messages", &[], body).await).await;
    assert_eq!(seen, stream.concat());
    let chunk = json!({"responseId": "r-1", "modelVersion": "gemini-2.5-pro",
        "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 4}});
    let array = format!("[{chunk}\n,\r\n{chunk}]");
    bench.will_answer(Answer::whole(
        200,
        "application/json",
        array.clone().into_bytes(),
    ));
    let path = "/gemini/v1beta/models/gemini-2.5-pro:streamGenerateContent?key=secret";
    assert_eq!(text(bench.post(path, &[], "{}").await).await, array);
    assert!(bench.asked()[1].path.ends_with("?key=secret"));
    let events = bench.events(2).await;
    assert_eq!(
        events[0]["data"]["usage"],
        json!({"input_tokens": 10, "output_tokens": 380})
    );
    assert_eq!(events[0]["data"]["usage_format"], "anthropic.messages");
    assert_eq!(events[1]["data"]["usage"], chunk["usageMetadata"]);
    assert_eq!(events[1]["data"]["model"], "gemini-2.5-pro");
}

#[tokio::test]
async fn what_cannot_be_metered_is_not_forwarded() {
    let bench = bench().await;
    for (path, body, wanted) in [
        (CHAT, "", 400),
        (CHAT, "{}", 400),
        (CHAT, r#"{"model":"cheap","model":"dear"}"#, 400),
        ("/nobody/v1/chat/completions", "{}", 404),
        ("/", "{}", 404),
    ] {
        let response = bench.post(path, &[], body).await;
        assert_eq!(response.status(), wanted, "{path} {body}");
        assert!(text(response).await.contains("error"));
    }
    let long = format!(r#"{{"model":"m","x":"{}"}}"#, "x".repeat(1024 * 1024));
    assert_eq!(bench.post(CHAT, &[], long).await.status(), 413);
    let wrong = [("x-spendfuse-custmer", "c-42")];
    assert_eq!(
        bench.post(CHAT, &wrong, r#"{"model":"m"}"#).await.status(),
        400
    );
    assert!(bench.asked().is_empty());
    // What costs nothing goes through as it is.
    let response = bench
        .post("/anthropic/v1/messages/count_tokens", &[], "{}")
        .await;
    assert_eq!(text(response).await, "{}");
}

#[tokio::test]
async fn a_call_whose_caller_does_not_wait_for_the_answer_is_counted() {
    let bench = bench().await;
    let (answer, send) = Answer::pieces(200, "application/json");
    bench.will_answer(answer);
    let call = bench.post(CHAT, &[], r#"{"model":"gpt-4o"}"#);
    let patience = std::time::Duration::from_millis(300);
    assert!(tokio::time::timeout(patience, call).await.is_err());
    send.send(Bytes::from(completion().to_string())).unwrap();
    drop(send);
    let event = &bench.events(1).await[0];
    assert_eq!(event["data"]["usage"], completion()["usage"]);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_charged_by_estimate() {
    let bench = bench().await;
    let (mut answer, send) = Answer::pieces(200, "application/json");
    answer.headers.push(("content-length", "100000".to_owned()));
    bench.will_answer(answer);
    send.send(Bytes::from(completion().to_string())).unwrap();
    tokio::spawn(async move {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        drop(send);
    });
    let response = bench.post(CHAT, &[], r#"{"model":"gpt-4o"}"#).await;
    assert_eq!(response.status(), 502);
    let body: Value = serde_json::from_str(&text(response).await).unwrap();
    assert_eq!(body["error"]["code"], "upstream_broke_off");
    assert_eq!(
        bench.events(1).await[0]["data"]["usage_format"],
        "estimated"
    );
}

#[tokio::test]
async fn a_response_made_in_the_background_is_counted_when_it_is_asked_for() {
    let bench = bench().await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let mut response = json!({
        "id": "resp_1", "model": "gpt-4o", "background": true, "status": "queued", "usage": null,
        "created_at": now.unwrap().as_secs(),
    });
    bench.will_answer(Answer::json(200, &response));
    let body = r#"{"model":"gpt-4o","background":true}"#;
    bench.post("/openai/v1/responses", &[], body).await;
    response["status"] = json!("completed");
    response["usage"] = json!({"input_tokens": 5, "output_tokens": 6});
    for _ in 0..2 {
        bench.will_answer(Answer::json(200, &response));
        let told = bench.get("/openai/v1/responses/resp_1").await;
        assert_eq!(text(told).await, response.to_string());
    }
    // Asked for twice it is one event, to the byte.
    let events = bench.events(2).await;
    assert_eq!(events[0], events[1]);
    assert_eq!(events[0]["data"]["usage"], response["usage"]);
}

#[tokio::test]
async fn what_bodies_hold_together_is_bounded() {
    let bench = bench().await;
    let mut answer = Answer::json(200, &completion());
    answer.after = std::time::Duration::from_secs(3);
    bench.will_answer(answer);
    // The whole memory of this proxy, until its answer comes.
    let long = || format!(r#"{{"model":"m","x":"{}"}}"#, "x".repeat(1024 * 1024 - 100));
    let first = bench.post(CHAT, &[], long());
    let others = async {
        while bench.asked().is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let second = bench.post(CHAT, &[], long()).await;
        assert!(!second.headers().contains_key("x-should-retry"));
        let second = second.status();
        let short = bench.post(CHAT, &[], r#"{"model":"short"}"#).await.status();
        (second.as_u16(), short.as_u16())
    };
    let (_, (second, short)) = tokio::join!(first, others);
    assert_eq!((second, short), (503, 200));
}

#[tokio::test]
async fn an_upstream_that_is_not_there_is_told_and_costs_nothing() {
    let bench = bench().await;
    let response = bench
        .post("/away/v1/chat/completions", &[], r#"{"model":"gpt-4o"}"#)
        .await;
    assert_eq!(response.status(), 502);
    let body: Value = serde_json::from_str(&text(response).await).unwrap();
    assert_eq!(body["error"]["code"], "upstream_unreachable");
    bench.will_answer(Answer::json(200, &completion()));
    bench.post(CHAT, &[], r#"{"model":"gpt-4o"}"#).await;
    assert_eq!(bench.events(1).await.len(), 1);
}
