//! Providers speak each other's languages, paths are written in many ways, and some requests are none
//! that a proxy can carry.

use serde_json::{Value, json};

use crate::completion;
use crate::support::{Answer, bench, text};

const CUSTOMER: [(&str, &str); 1] = [("x-spendfuse-customer", "c-42")];

#[tokio::test]
async fn a_call_is_metered_in_every_language_and_however_its_path_is_written() {
    let bench = bench().await;
    let body = r#"{"model":"gpt-4o"}"#;
    for (count, path) in [
        "/openai/v1/chat%2Fcompletion%73",
        "/openai/v1//chat/completions/",
        "/openai/v1/chat/completions/x/%2e%2e",
        "/gemini/v1beta/openai/chat/completions",
        "/anthropic/v1/chat/completions",
        "/bedrock/us-east-1/openai/v1/chat/completions",
    ]
    .into_iter()
    .enumerate()
    {
        bench.will_answer(Answer::json(200, &completion()));
        let response = bench.post(path, &[], body).await;
        assert_eq!(response.status(), 200, "{path}");
        let told = &bench.events(count + 1).await[count];
        assert_eq!(told["data"]["usage"], completion()["usage"], "{path}");
        // The path goes on as it came.
        let rest = path.split_once("/v1").unwrap().1;
        assert!(bench.asked()[count].path.ends_with(rest), "{path}");
    }
}

#[tokio::test]
async fn no_path_leads_out_of_its_upstream() {
    let bench = bench().await;
    for path in [
        "/openai/../v1/chat/completions",
        "/openai/v1/%2e%2e/%2e%2e/models",
        "/bedrock/us-east-1/../at-us-west-2/model/m/converse",
    ] {
        let response = bench.post(path, &[], r#"{"model":"m"}"#).await;
        assert_eq!(response.status(), 400, "{path}");
    }
    assert!(bench.asked().is_empty());
}

#[tokio::test]
async fn anthropics_models_are_metered_where_others_sell_them() {
    let bench = bench().await;
    let usage = json!({"input_tokens": 10, "output_tokens": 4});
    let message = json!({"id": "msg_1", "type": "message", "model": "claude-sonnet-4-5",
        "content": [], "usage": usage});
    let vertex = "/gemini/v1/projects/p/locations/l/publishers/anthropic/models";
    for (count, (path, body)) in [
        (
            "/openai/api/v1/messages".to_owned(),
            r#"{"model":"claude"}"#,
        ),
        (
            format!("{vertex}/claude-sonnet-4-5@1:rawPredict"),
            r#"{"anthropic_version":"vertex-2023-10-16"}"#,
        ),
    ]
    .into_iter()
    .enumerate()
    {
        bench.will_answer(Answer::json(200, &message));
        let response = bench.post(&path, &[], body).await;
        assert_eq!(response.status(), 200, "{path}");
        let data = bench.events(count + 1).await[count]["data"].clone();
        assert_eq!(data["usage_format"], "anthropic.messages");
        assert_eq!(data["usage"], usage);
    }
}

#[tokio::test]
async fn a_refusal_is_in_the_language_of_the_call() {
    let mut bench = bench().await;
    bench.budget("0.00", &json!([{"at": 100, "do": "block"}]));
    for (path, place, code) in [
        (
            "/anthropic/v1/chat/completions",
            "/error/code",
            "budget_exceeded",
        ),
        (
            "/gemini/v1beta/openai/chat/completions",
            "/error/code",
            "budget_exceeded",
        ),
        ("/openai/v1/messages", "/error/type", "rate_limit_error"),
    ] {
        let response = bench.post(path, &CUSTOMER, r#"{"model":"m"}"#).await;
        assert_eq!(response.status(), 429, "{path}");
        let body: Value = serde_json::from_str(&text(response).await).unwrap();
        assert_eq!(body.pointer(place).unwrap(), code, "{body}");
    }
    assert!(bench.asked().is_empty());
}

#[tokio::test]
async fn a_websocket_is_refused_by_name() {
    let bench = bench().await;
    let headers = [("upgrade", "websocket")];
    let response = bench.post("/openai/v1/realtime", &headers, "").await;
    assert_eq!(response.status(), 501);
    let refusal = text(response).await;
    assert!(refusal.contains("WebSocket"), "{refusal}");
    assert!(bench.asked().is_empty());
}

#[tokio::test]
async fn sdks_may_ask_again_where_nothing_was_sent() {
    let bench = bench().await;
    let path = "/away/v1/chat/completions";
    let response = bench.post(path, &[], r#"{"model":"gpt-4o"}"#).await;
    assert_eq!(response.status(), 502);
    assert!(!response.headers().contains_key("x-should-retry"));
    assert_eq!(response.headers()["retry-after"], "1");
}

#[tokio::test]
async fn bodies_of_unknown_length_take_what_they_have() {
    let bench = bench().await;
    let mut answer = Answer::json(200, &completion());
    answer.after = std::time::Duration::from_secs(2);
    bench.will_answer(answer);
    let path = "/openai/v1/chat/completions";
    let pieces = [r#"{"model":"#, r#""gpt-4o","#, r#""n":1}"#];
    let first = bench.post_in_pieces(path, &pieces);
    let second = async {
        while bench.asked().is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        bench.post_in_pieces(path, &pieces).await.status()
    };
    let (first, second) = tokio::join!(first, second);
    assert_eq!((first.status().as_u16(), second.as_u16()), (200, 200));
    assert_eq!(bench.asked()[0].body, pieces.concat());
}
