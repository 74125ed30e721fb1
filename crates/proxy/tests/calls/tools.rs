//! Tools that a provider runs within a call are counted beside its usage, and charged; those that the app
//! is asked to run, and fingerprints of prompts, are told for detectors.

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

#[tokio::test]
async fn calls_tell_detectors_of_tools_and_of_equal_prompts() {
    let bench = bench().await;
    let piece = |index: u64| {
        let call = json!({"index": index, "function": {"name": "f", "arguments": "{"}});
        let choice = json!({"index": 0, "delta": {"tool_calls": [call]}});
        let chunk = json!({"id": "chatcmpl-1", "choices": [choice]});
        format!("data: {chunk}\n\n")
    };
    let usage = json!({"prompt_tokens": 9, "completion_tokens": 9});
    let end = json!({"id": "chatcmpl-1", "choices": [], "usage": usage});
    let stream = [piece(0), piece(0), piece(1), format!("data: {end}\n\n")].concat();
    bench.will_answer(Answer::whole(200, "text/event-stream", stream.into_bytes()));
    let message = json!({"content": "Sunny."});
    let whole = json!({"id": "chatcmpl-2", "choices": [{"index": 0, "message": message}],
        "usage": usage});
    bench.will_answer(Answer::json(200, &whole));
    let system = json!({"role": "system", "content": "You are a helpful assistant."});
    let question = json!({"role": "user", "content":
        [{"type": "text", "text": "What is the weather in Paris?"}]});
    let mut body = json!({"model": "gpt-4o", "messages": [system, question], "stream": true});
    let path = "/openai/v1/chat/completions";
    text(bench.post(path, &[], body.to_string()).await).await;
    bench.events(1).await;
    body["stream"] = json!(false);
    text(bench.post(path, &[], body.to_string()).await).await;
    let events = bench.events(2).await;
    assert_eq!(events[0]["data"]["tool_calls"], 2);
    assert_eq!(events[1]["data"].get("tool_calls"), None);
    for event in &events {
        assert_eq!(event["data"]["prompt_fingerprint"], "c6ae7367fc5b744c");
        assert!(!event.to_string().contains("Paris"));
    }
}
