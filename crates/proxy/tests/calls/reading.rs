//! Batches that are read in rarer ways: none of them is a way past the meter.

use std::time::Duration;

use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use spendfuse_domain::UnixMillis;

use crate::support::{Answer, bench, bench_of, text};

fn seconds() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.unwrap().as_secs()
}

/// A line of a batch's output as Mistral has it, where its request had no name.
fn nameless(number: u32) -> Value {
    let body = json!({"id": format!("c-{number}"), "object": "chat.completion", "model": "gpt-4o",
        "choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 6}});
    json!({"response": {"status_code": 200, "body": body}, "error": null})
}

/// A batch of Google's that is done.
fn done(text: &str) -> Value {
    let usage = json!({"promptTokenCount": 5, "candidatesTokenCount": 6});
    let response = json!({"responseId": "r-1", "usageMetadata": usage, "candidates": [{"content":
        {"parts": [{"text": text}]}}]});
    let answers = json!({"inlinedResponses": {"inlinedResponses": [{"response": response}]}});
    let ended = UnixMillis(seconds() as i64 * 1000 - 5000).to_string();
    let metadata = json!({"model": "models/gemini-2.5-pro", "endTime": ended});
    json!({"name": "batches/b-1", "metadata": metadata, "done": true, "response": answers})
}

/// `text` as gzip has it, not made smaller.
fn gzip(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap();
    let mut crc = u32::MAX;
    for byte in text.bytes() {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            let bit = crc & 1;
            crc = (crc >> 1) ^ (0xedb8_8320 * bit);
        }
    }
    let mut all = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 1];
    all.extend(length.to_le_bytes());
    all.extend((!length).to_le_bytes());
    all.extend(text.bytes());
    all.extend((!crc).to_le_bytes());
    all.extend(u32::from(length).to_le_bytes());
    all
}

#[tokio::test]
async fn a_job_of_mistrals_is_counted_where_it_has_its_answers_in_it() {
    let benches = [bench().await, bench().await];
    let made = seconds() - 60;
    let job = json!({"id": "b-1", "object": "batch", "status": "SUCCESS", "metadata": {"model": 7},
        "outputs": [nameless(1), nameless(2)], "created_at": made - 9, "completed_at": made});
    let mut events = Vec::new();
    for (bench, path) in benches.iter().zip(["b-1?inline=true", ""]) {
        let told = match path {
            "" => json!({"object": "list", "data": [job], "total": 1}),
            _ => job.clone(),
        };
        bench.will_answer(Answer::json(200, &told));
        let path = format!("/openai/v1/batch/jobs/{path}");
        assert_eq!(text(bench.get(&path).await).await, told.to_string());
        events.extend(bench.events(2).await);
    }
    assert_eq!(events.len(), 4);
    let [bench, _] = benches;
    events.sort_by_key(|event| event["id"].as_str().unwrap().to_owned());
    assert_eq!((&events[0], &events[2]), (&events[1], &events[3]));
    assert_eq!(events[0]["data"]["usage"]["prompt_tokens"], 5);
    assert_eq!(events[0]["data"]["service_tier"], "batch");
    assert_eq!(
        events[0]["time"],
        UnixMillis(made as i64 * 1000).to_string()
    );
    let body = r#"{"endpoint":"/v1/ocr","input_files":["f"],"model":"m","requests":null}"#;
    let path = "/openai/v1/batch/jobs";
    assert_eq!(bench.post(path, &[], body).await.status(), 200);
    let compressed = [("content-encoding", "gzip")];
    assert_eq!(bench.post(path, &compressed, body).await.status(), 415);
}

#[tokio::test]
async fn the_models_of_a_job_of_mistrals_are_asked_about() {
    let bench = bench().await;
    let named = |number: usize| json!({"body": {"model": format!("m-{number}")}});
    let requests: Vec<Value> = (0..101).map(named).collect();
    let body = json!({"endpoint": "/v1/chat/completions", "requests": requests}).to_string();
    let response = bench.post("/openai/v1/batch/jobs", &[], body).await;
    assert_eq!(response.status(), 400);
    assert!(text(response).await.contains("more than 100 models"));
}

#[tokio::test]
async fn a_file_is_read_however_azure_takes_its_path_and_lines_need_no_names() {
    let bench = bench().await;
    let file = format!("{}\n{}\n", nameless(1), nameless(2));
    let made = seconds() - 60;
    for path in ["Files/f-1/Content", "files//f-1/conten%74/"] {
        let body = file.clone().into_bytes();
        bench.will_answer(Answer::whole(200, "application/octet-stream", body));
        bench.will_answer(Answer::json(200, &json!({"created_at": made})));
        let path = format!("/azure/my-resource/openai/{path}?api-version=1");
        assert_eq!(text(bench.get(&path).await).await, file);
    }
    let mut events = bench.events(4).await;
    events.sort_by_key(|event| event["id"].as_str().unwrap().to_owned());
    assert_eq!((&events[0], &events[2]), (&events[1], &events[3]));
    let asked = bench.asked();
    let wanted = "/at-my-resource/openai/files/f-1?api-version=1";
    assert_eq!(asked[3].path, wanted);
}

#[tokio::test]
async fn a_batch_of_googles_is_the_same_in_a_list_and_by_itself() {
    let benches = [bench().await, bench().await];
    let done = done("Hi");
    let other = json!({"name": "batches/b-2", "metadata": done["metadata"], "response": {"inlinedResponses":
        {"inlinedResponses": [{"error": {"code": 3}}]}}});
    let list = json!({"operations": [other, done]});
    let told = [("batches", &list), ("batches/b-1", &done)];
    let mut events = Vec::new();
    for (bench, (path, told)) in benches.iter().zip(told) {
        bench.will_answer(Answer::json(200, told));
        text(bench.get(&format!("/gemini/v1beta/{path}")).await).await;
        events.extend(bench.events(1).await);
    }
    assert_eq!(events.len(), 2);
    assert_eq!(events[0], events[1]);
    assert_eq!(events[0]["id"], "b-1:1-r-1");
    // In another list, too, it was told before.
    let [bench, _] = benches;
    let added = json!({"response": {"responseId": "r-2", "candidates": [],
        "usageMetadata": {"promptTokenCount": 5}}});
    let more = json!({"name": "batches/b-3", "metadata": done["metadata"], "response":
        {"inlinedResponses": {"inlinedResponses": [added]}}});
    bench.will_answer(Answer::json(200, &json!({"operations": [done, more]})));
    text(bench.get("/gemini/v1beta/batches").await).await;
    let events = bench.events(2).await;
    assert_eq!(events.len(), 2);
    assert_eq!(events[1]["id"], "b-3:1-r-2");
    // Embeddings count their tokens beside them, and are named by their places.
    let response = json!({"embedding": {"values": [0.5]}, "tokenCount": 7});
    let metadata =
        json!({"model": "models/gemini-embedding-001", "endTime": done["metadata"]["endTime"]});
    let of_embeddings = json!({"name": "batches/b-4", "metadata": metadata, "response":
        {"inlinedEmbedContentResponses": {"inlinedResponses": [{"response": response}]}}});
    bench.will_answer(Answer::json(200, &of_embeddings));
    text(bench.get("/gemini/v1beta/batches/b-4").await).await;
    let events = bench.events(3).await;
    let embedded = &events[2]["data"];
    assert_eq!(embedded["usage"], json!({"tokenCount": 7}));
    assert_eq!(embedded["operation"], "embeddings");
    assert_eq!(embedded["model"], "gemini-embedding-001");
    let before = bench.asked().len();
    for (query, status) in [
        ("callback=f", 400),
        ("fields=response", 400),
        ("%24httpMethod=GET", 405),
        ("$httpHeaders=X-Goog-FieldMask:name", 405),
    ] {
        let path = format!("/gemini/v1beta/batches/b-1?{query}");
        assert_eq!(bench.get(&path).await.status(), status, "{query}");
    }
    assert_eq!(bench.asked().len(), before);
}

#[tokio::test]
async fn a_batch_that_cannot_be_read_whole_does_not_pass() {
    let bench = bench().await;
    let path = "/gemini/v1beta/batches/b-1";
    bench.will_answer(Answer::json(200, &done(&"x".repeat(1024 * 1024))));
    let long = bench.get(path).await;
    assert_eq!(long.status(), 502);
    assert!(text(long).await.contains("proxy.max_body_bytes"));
    let told = done("Hi").to_string();
    for (coding, body, status) in [
        ("gzip", gzip(&told), 200),
        ("br", told.clone().into_bytes(), 502),
    ] {
        let mut answer = Answer::whole(200, "application/json", body.clone());
        answer.headers.push(("content-encoding", coding.to_owned()));
        bench.will_answer(answer);
        let seen = bench.get(path).await;
        assert_eq!(seen.status(), status, "{coding}");
        if status == 200 {
            assert_eq!(seen.headers()["content-encoding"], coding);
            assert_eq!(seen.into_body().collect().await.unwrap().to_bytes(), body);
        }
    }
    assert_eq!(bench.events(1).await.len(), 1);
}

#[tokio::test]
async fn a_batch_that_leads_here_is_not_described_by_what_it_was() {
    let bench = bench().await;
    let url = "https://api.provider.example/v1/messages/batches/b-1/results";
    let told = json!({"id": "b-1", "results_url": url}).to_string();
    let mut answer = Answer::whole(200, "application/json", gzip(&told));
    for (name, value) in [
        ("content-encoding", "gzip"),
        ("etag", "\"1\""),
        ("request-id", "r"),
    ] {
        answer.headers.push((name, value.to_owned()));
    }
    bench.will_answer(answer);
    let headers = [
        ("x-forwarded-proto", "https, http"),
        ("x-forwarded-host", "llm.example"),
    ];
    let path = "/anthropic/v1/messages/batches/b-1";
    let seen = bench.ask("GET", path, &headers).await;
    for name in ["content-encoding", "etag"] {
        assert!(!seen.headers().contains_key(name), "{name}");
    }
    assert_eq!(seen.headers()["request-id"], "r");
    let here = "https://llm.example/anthropic/v1/messages/batches/b-1/results";
    assert_eq!(text(seen).await, told.replace(url, here));
}

#[tokio::test]
async fn a_last_line_is_counted_where_nothing_is_read_without_a_client() {
    let bench = bench_of(Vec::new(), &[], |config| config.drain_for = Duration::ZERO).await;
    let line = nameless(1).to_string();
    let body = line.clone().into_bytes();
    bench.will_answer(Answer::whole(200, "application/octet-stream", body));
    // Asked again it knows.
    bench.will_answer(Answer::json(503, &json!({})));
    let made = seconds() - 60;
    let mut slow = Answer::json(200, &json!({"created_at": made}));
    slow.after = Duration::from_millis(200);
    bench.will_answer(slow);
    let seen = bench.get("/openai/v1/files/f-1/content").await;
    assert_eq!(text(seen).await, line);
    let time = UnixMillis(made as i64 * 1000).to_string();
    assert_eq!(bench.events(1).await[0]["time"], time);
}

#[tokio::test]
async fn a_video_is_counted_whose_content_is_all_that_is_asked_for() {
    let bench = bench().await;
    let video = json!({"id": "video_1", "object": "video", "model": "sora-2", "status": "completed",
        "created_at": seconds(), "seconds": "8", "size": "720x1280"});
    for path in ["content?variant=thumbnail", "Content"] {
        bench.will_answer(Answer::json(200, &video));
        bench.will_answer(Answer::whole(200, "video/mp4", b"film".to_vec()));
        let path = format!("/openai/v1/videos/video_1/{path}");
        let seen = bench.ask("GET", &path, &[("range", "bytes=0-")]).await;
        assert_eq!(text(seen).await, "film");
    }
    let events = bench.events(2).await;
    assert_eq!(events[0], events[1]);
    let units = json!({"video_seconds": "8", "size": "720x1280"});
    assert_eq!(events[0]["data"]["units"], units);
    let asked = bench.asked();
    assert_eq!(asked[0].path, "/v1/videos/video_1");
    assert!(!asked[0].headers.contains_key("range"));
    assert_eq!(
        asked[1].path,
        "/v1/videos/video_1/content?variant=thumbnail"
    );
    assert_eq!(asked[1].headers["range"], "bytes=0-");
}
