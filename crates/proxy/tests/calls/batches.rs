//! Batches: handed in, and counted where their results are read.

use bytes::Bytes;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use spendfuse_domain::UnixMillis;

use crate::support::{Answer, Bench, bench, text};

const RESULTS: &str = "/anthropic/v1/messages/batches/b-1/results";
const FILE: &str = "/openai/v1/files/f-1/content";
const READER: [(&str, &str); 3] = [
    ("x-spendfuse-customer", "c-42"),
    ("x-spendfuse-feature", "nightly"),
    ("range", "bytes=10-"),
];

fn usage() -> Value {
    json!({"input_tokens": 1000, "output_tokens": 100, "service_tier": "batch"})
}

fn succeeded(number: u32, content: &str) -> String {
    let message = json!({"id": format!("msg_{number}"), "model": "claude-sonnet-4-5", "content": [
        {"type": "text", "text": content}], "usage": usage()});
    let result = json!({"type": "succeeded", "message": message});
    json!({"custom_id": format!("a-{number}"), "result": result}).to_string()
}

fn without_answer(kind: &str) -> String {
    json!({"custom_id": kind, "result": {"type": kind}}).to_string()
}

/// A line of OpenAI's.
fn answered(number: u32, status: u16, body: &Value) -> String {
    let response =
        json!({"status_code": status, "request_id": format!("req-{number}"), "body": body});
    json!({"custom_id": format!("a-{number}"), "response": response, "error": null}).to_string()
}

fn seconds() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.unwrap().as_secs()
}

/// The upstream says next when results were there.
fn will_say_when(bench: &Bench, seconds: u64) {
    bench.will_answer(Answer::json(200, &json!({"created_at": seconds})));
}

/// Events are delivered side by side.
async fn events(bench: &Bench, count: usize) -> Vec<Value> {
    let mut events = bench.events(count).await;
    events.sort_by_key(|event| event["id"].as_str().unwrap().to_owned());
    events
}

#[tokio::test]
async fn results_pass_as_they_come_and_each_answer_is_counted() {
    let bench = bench().await;
    let (answer, send) = Answer::pieces(200, "application/binary");
    bench.will_answer(answer);
    let made = seconds() - 60;
    will_say_when(&bench, made);
    let mut seen = bench.ask("GET", RESULTS, &READER).await.into_body();
    let lines = [
        succeeded(1, "a\nb"),
        without_answer("errored"),
        succeeded(2, "Hello"),
        without_answer("expired"),
    ];
    let all = lines.join("\n");
    let mut passed = Vec::new();
    let mut sent = 0;
    for piece in all.as_bytes().chunks(100) {
        send.send(Bytes::copy_from_slice(piece)).unwrap();
        sent += piece.len();
        // Nothing waits for the end of its line.
        while passed.len() < sent {
            let frame = seen.frame().await.unwrap().unwrap();
            passed.extend_from_slice(&frame.into_data().unwrap());
        }
    }
    drop(send);
    while let Some(frame) = seen.frame().await {
        passed.extend_from_slice(&frame.unwrap().into_data().unwrap());
    }
    assert_eq!(passed, all.as_bytes());
    let events = events(&bench, 2).await;
    assert_eq!(events.len(), 2);
    for (event, number) in events.iter().zip([1, 2]) {
        let data = &event["data"];
        assert!(
            event["id"]
                .as_str()
                .unwrap()
                .ends_with(&format!("-msg_{number}"))
        );
        assert_eq!(data["usage"], usage());
        let time = UnixMillis(made as i64 * 1000).to_string();
        assert_eq!(event["time"], time);
        assert_eq!(data["usage_format"], "anthropic.messages");
        assert_eq!(data["service_tier"], "batch");
        assert_eq!(data["model"], "claude-sonnet-4-5");
        assert_eq!(
            (&data["customer"], &data["feature"]),
            (&json!("c-42"), &json!("nightly"))
        );
    }
    let asked = bench.asked();
    assert_eq!(asked[1].path, "/v1/messages/batches/b-1");
    // A part of the results would have halves of lines.
    assert!(!asked[0].headers.contains_key("range"));
}

#[tokio::test]
async fn results_that_are_read_twice_are_the_same_events() {
    let bench = bench().await;
    let chat = json!({"id": "chatcmpl-1", "object": "chat.completion", "model": "gpt-4o",
        "service_tier": "default", "choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 6}});
    let response = json!({"id": "resp_1", "object": "response", "model": "gpt-4o", "output": [],
        "status": "completed", "usage": {"input_tokens": 7, "output_tokens": 8}});
    let lines = [
        answered(1, 200, &chat),
        answered(2, 400, &json!({"error": {"message": "no"}})),
        answered(3, 200, &response),
    ];
    let file = format!("{}\n", lines.join("\n"));
    let made = seconds() - 3600;
    for _ in 0..2 {
        let body = file.clone().into_bytes();
        bench.will_answer(Answer::whole(200, "application/octet-stream", body));
        will_say_when(&bench, made);
        assert_eq!(text(bench.get(FILE).await).await, file);
    }
    let events = events(&bench, 4).await;
    assert_eq!((&events[0], &events[2]), (&events[1], &events[3]));
    for (event, of) in [(&events[0], &chat), (&events[2], &response)] {
        assert_eq!(event["data"]["usage"], of["usage"]);
        assert_eq!(event["data"]["service_tier"], "batch");
    }
    assert_eq!(bench.asked()[1].path, "/v1/files/f-1");
}

#[tokio::test]
async fn a_line_that_is_too_long_to_be_kept_is_counted_by_its_usage() {
    let bench = bench().await;
    let long = succeeded(1, &"\"usage\":{".repeat(600_000));
    assert!(long.len() > 5_000_000);
    let results = format!("{long}\n{}\n", succeeded(2, "Hi"));
    let body = results.clone().into_bytes();
    bench.will_answer(Answer::whole(200, "application/binary", body));
    assert!(text(bench.get(RESULTS).await).await == results);
    let events = events(&bench, 2).await;
    assert_eq!(events[0]["data"]["usage"], usage());
    assert_eq!(events[1]["data"]["usage"], usage());
}

#[tokio::test]
async fn a_batch_of_embeddings_is_counted_by_the_names_of_its_requests() {
    let bench = bench().await;
    let usage = json!({"prompt_tokens": 5, "total_tokens": 5});
    let body = json!({"object": "list", "model": "text-embedding-3-small", "usage": usage,
        "data": [{"embedding": vec![0.25; 3000], "index": 0}]});
    let file = [answered(1, 200, &body), answered(2, 200, &body)].join("\n");
    bench.will_answer(Answer::whole(
        200,
        "application/octet-stream",
        file.clone().into_bytes(),
    ));
    assert_eq!(text(bench.get(FILE).await).await, file);
    let events = events(&bench, 2).await;
    for (event, number) in events.iter().zip([1, 2]) {
        assert!(
            event["id"]
                .as_str()
                .unwrap()
                .ends_with(&format!("-req-{number}"))
        );
        assert_eq!(event["data"]["operation"], "embeddings");
        assert_eq!(event["data"]["usage"], usage);
    }
}

#[tokio::test]
async fn files_that_are_no_batches_cost_nothing() {
    let bench = bench().await;
    for file in [
        "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}\n{\"usage\":{\"prompt_tokens\":1}}\n".to_owned(),
        // What a batch is made of.
        format!("{}\n", json!({"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": {}})),
        // A batch's lines after one that is none.
        format!("a,b\n{}\n", answered(1, 200, &json!({"id": "x", "usage": {"prompt_tokens": 1}}))),
        "\u{89}PNG".to_owned(),
        String::new(),
    ] {
        bench.will_answer(Answer::whole(200, "application/octet-stream", file.clone().into_bytes()));
        assert_eq!(text(bench.get(FILE).await).await, file);
    }
    bench.will_answer(Answer::whole(
        200,
        "application/binary",
        succeeded(1, "").into_bytes(),
    ));
    text(bench.get(RESULTS).await).await;
    assert_eq!(bench.events(1).await.len(), 1);
    // Nobody has asked when the files were there.
    assert_eq!(bench.asked().len(), 5 + 2);
}

#[tokio::test]
async fn what_breaks_off_is_counted_as_far_as_it_came_and_looks_as_without_a_proxy() {
    let bench = bench().await;
    let (mut answer, send) = Answer::pieces(200, "application/binary");
    answer.headers.push(("content-length", "100000".to_owned()));
    bench.will_answer(answer);
    let torn = succeeded(2, "Hello");
    let begun = format!("{}\n{}", succeeded(1, "Hi"), &torn[..torn.len() - 9]);
    send.send(Bytes::from(begun.clone())).unwrap();
    let mut seen = bench.get(RESULTS).await.into_body();
    let frame = seen.frame().await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), begun);
    drop(send);
    assert!(seen.frame().await.unwrap().is_err());
    assert_eq!(bench.events(1).await.len(), 1);
    // Read again it is whole.
    let whole = [succeeded(1, "Hi"), torn].join("\n");
    bench.will_answer(Answer::whole(200, "application/binary", whole.into_bytes()));
    text(bench.get(RESULTS).await).await;
    assert_eq!(bench.events(3).await.len(), 3);
}

#[tokio::test]
async fn results_whose_reader_has_gone_are_read_to_their_end() {
    let bench = bench().await;
    let (answer, send) = Answer::pieces(200, "application/binary");
    bench.will_answer(answer);
    let mut seen = bench.get(RESULTS).await.into_body();
    send.send(Bytes::from(succeeded(1, "Hi") + "\n")).unwrap();
    seen.frame().await.unwrap().unwrap();
    drop(seen);
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    send.send(Bytes::from(succeeded(2, "Hello"))).unwrap();
    drop(send);
    assert_eq!(bench.events(2).await.len(), 2);
}

#[tokio::test]
async fn a_batch_is_handed_in_by_whom_a_budget_allows_it_and_holds_nothing() {
    let mut bench = bench().await;
    bench.budget("5.00", &json!([{"at": 100, "do": "block"}]));
    bench.spent("c-42", "6.00", "block");
    let request =
        json!({"custom_id": "a", "params": {"model": "claude-sonnet-4-5", "max_tokens": 5}});
    let of_anthropic = json!({"requests": [request]}).to_string();
    let of_openai =
        r#"{"input_file_id":"f-1","endpoint":"/v1/embeddings","completion_window":"24h"}"#;
    for (path, body, place, code) in [
        (
            "/anthropic/v1/messages/batches",
            of_anthropic.as_str(),
            "/error/type",
            "rate_limit_error",
        ),
        (
            "/openai/v1/batches",
            of_openai,
            "/error/code",
            "budget_exceeded",
        ),
        (
            "/gemini/v1beta/models/gemini-2.5-pro:batchGenerateContent",
            "{}",
            "/error/status",
            "RESOURCE_EXHAUSTED",
        ),
    ] {
        let before = bench.asked().len();
        let over = bench
            .post(path, &[("x-spendfuse-customer", "c-42")], body)
            .await;
        assert_eq!(over.status(), 429, "{path}");
        assert_eq!(over.headers()["x-should-retry"], "false");
        let refusal: Value = serde_json::from_str(&text(over).await).unwrap();
        assert_eq!(refusal.pointer(place).unwrap(), code, "{refusal}");
        assert_eq!(bench.asked().len(), before);
        let within = bench
            .post(path, &[("x-spendfuse-customer", "c-7")], body)
            .await;
        assert_eq!(within.status(), 200);
        assert!(!within.headers().contains_key("x-spendfuse-reservation"));
        assert_eq!(bench.asked().last().unwrap().body, body);
    }
    let wrong = [("x-spendfuse-custmer", "c-7")];
    let wrong = bench.post("/openai/v1/batches", &wrong, of_openai).await;
    assert_eq!(wrong.status(), 400);
    // Read in two ways, its models could be others.
    let twice = format!(r#"{{"requests":[],{}"#, &of_anthropic[1..]);
    let path = "/anthropic/v1/messages/batches";
    assert_eq!(bench.post(path, &[], twice).await.status(), 400);
}

#[tokio::test]
async fn a_batch_of_anthropics_says_that_its_results_are_here() {
    let bench = bench().await;
    let models = bench.get("/anthropic/v1/models").await;
    assert_eq!(text(models).await, "{}");
    let there = format!(
        "http://{}",
        bench.asked()[0].headers["host"].to_str().unwrap()
    );
    let body = format!(
        r#"{{"id":"b-1", "results_url":"{there}/v1/messages/batches/b-1/results","request_counts":{{}}}}"#
    );
    bench.will_answer(Answer::whole(
        200,
        "application/json",
        body.clone().into_bytes(),
    ));
    let told = text(bench.get("/anthropic/v1/messages/batches/b-1").await).await;
    let url: Value = serde_json::from_str(&told).unwrap();
    let url = url["results_url"].as_str().unwrap().to_owned();
    assert_eq!(
        told,
        body.replace(&format!("{there}/v1"), &url[..url.len() - 29])
    );
    assert!(url.ends_with(RESULTS) && !url.starts_with(&there), "{url}");
}

#[tokio::test]
async fn a_batch_of_googles_is_counted_once_it_is_done() {
    let bench = bench().await;
    let path = "/gemini/v1beta/batches/b-1";
    let running = json!({"name": "batches/b-1", "metadata": {"state": "BATCH_STATE_RUNNING"}});
    bench.will_answer(Answer::json(200, &running));
    assert_eq!(text(bench.get(path).await).await, running.to_string());
    let usage = json!({"promptTokenCount": 5, "candidatesTokenCount": 6});
    let answers = json!({"inlinedResponses": {"inlinedResponses": [
        {"response": {"responseId": "r-1", "candidates": [], "usageMetadata": usage}},
        {"error": {"code": 3}},
    ]}});
    let ended = UnixMillis(seconds() as i64 * 1000 - 5000).to_string();
    let metadata = json!({"model": "models/gemini-2.5-pro", "endTime": ended, "output": answers});
    let done =
        json!({"name": "batches/b-1", "metadata": metadata, "done": true, "response": answers});
    for _ in 0..2 {
        bench.will_answer(Answer::json(200, &done));
        assert_eq!(text(bench.get(path).await).await, done.to_string());
    }
    // Asked for again it is not told again: fifty that wait for it would fill the log.
    let more = done.to_string().replace("b-1", "b-2").replace("r-1", "r-2");
    bench.will_answer(Answer::whole(
        200,
        "application/json",
        more.clone().into_bytes(),
    ));
    assert_eq!(
        text(bench.get("/gemini/v1beta/batches/b-2").await).await,
        more
    );
    let events = events(&bench, 2).await;
    assert_eq!(events.len(), 2);
    for (event, end) in events.iter().zip(["-r-1", "-r-2"]) {
        assert!(event["id"].as_str().unwrap().ends_with(end), "{event}");
        assert_eq!(event["time"], ended);
    }
    let data = &events[0]["data"];
    assert_eq!(
        (&data["usage"], &data["model"]),
        (&usage, &json!("gemini-2.5-pro"))
    );
    assert_eq!(
        (&data["usage_format"], &data["service_tier"]),
        (&json!("gemini"), &json!("batch"))
    );
    let hiding = format!("{path}?fields=response.inlinedResponses.inlinedResponses.metadata");
    assert_eq!(bench.get(&hiding).await.status(), 400);
}
