//! Tools that a provider runs within a call: counted beside its usage, and charged.

use serde_json::json;

use crate::support::{Answer, bench, text};

#[tokio::test]
async fn searches_of_a_response_are_charged_whole_and_streamed() {
    let bench = bench().await;
    let search = json!({"type": "web_search_call", "action": {"type": "search", "query": "x"}});
    let page = json!({"type": "web_search_call", "action": {"type": "open_page"}});
    let mut response = json!({"id": "resp_1", "model": "gpt-4o", "status": "completed",
        "output": [search, page, search],
        "usage": {"input_tokens": 1000, "output_tokens": 100, "total_tokens": 1100}});
    bench.will_answer(Answer::json(200, &response));
    let path = "/openai/v1/responses";
    let answer = bench.post(path, &[], r#"{"model":"gpt-4o"}"#).await;
    // Two searches at a cent each, and the tokens.
    assert_eq!(answer.headers()["x-spendfuse-cost-usd"], "0.0235");

    response["id"] = json!("resp_2");
    let done = json!({"type": "response.output_item.done", "item": search});
    let completed = json!({"type": "response.completed", "response": response});
    let stream = format!("data: {done}\n\ndata: {completed}\n\n");
    bench.will_answer(Answer::whole(
        200,
        "text/event-stream",
        stream.clone().into_bytes(),
    ));
    let body = r#"{"model":"gpt-4o","stream":true}"#;
    assert_eq!(text(bench.post(path, &[], body).await).await, stream);
    for event in bench.events(2).await {
        assert_eq!(event["data"]["units"], json!({"web_search_calls": "2"}));
        assert_eq!(event["data"]["usage"], response["usage"]);
    }
}

#[tokio::test]
async fn queries_that_ground_an_answer_of_gemini_are_counted_once() {
    let bench = bench().await;
    let chunk = |queries: &[&str]| {
        let candidate = json!({"groundingMetadata": {"webSearchQueries": queries}});
        let usage = json!({"promptTokenCount": 3, "candidatesTokenCount": 4});
        let chunk = json!({"responseId": "r-1", "modelVersion": "gemini-3-pro-preview",
            "candidates": [candidate], "usageMetadata": usage});
        format!("data: {chunk}\n\n")
    };
    let stream = [chunk(&["one"]), chunk(&["one", "two"])].concat();
    bench.will_answer(Answer::whole(200, "text/event-stream", stream.into_bytes()));
    let path = "/gemini/v1beta/models/gemini-3-pro-preview:streamGenerateContent?alt=sse";
    text(bench.post(path, &[], "{}").await).await;
    let data = &bench.events(1).await[0]["data"];
    assert_eq!(data["units"], json!({"web_search_calls": "2"}));
}
