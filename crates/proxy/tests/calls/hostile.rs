//! Callers, providers and networks that do what none of them should.

use bytes::Bytes;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use spendfuse_proxy::OnUnmetered;

use crate::support::{Answer, bench, bench_of, text};
use crate::{CHAT, chunks, completion};

const KIND: &str = "text/event-stream";

#[tokio::test]
async fn no_request_is_sent_on_that_is_another_than_it_seems() {
    let bench = bench().await;
    for (method, header) in [
        ("TRACE", None),
        ("post", None),
        ("FOO", None),
        ("GET", Some("x-http-method-override")),
    ] {
        let headers: Vec<_> = header.map(|name| (name, "POST")).into_iter().collect();
        let response = bench.ask(method, CHAT, &headers).await;
        assert_eq!(response.status(), 405, "{method}");
    }
    assert!(bench.asked().is_empty());
}

#[tokio::test]
async fn what_cannot_be_metered_is_refused_where_it_is_said_so() {
    let bench = bench_of(Vec::new(), &[], |config| {
        config.on_unmetered = OnUnmetered::Refuse;
    })
    .await;
    for (path, wanted) in [
        ("/gemini/v1/projects/p/locations/l/batchPredictionJobs", 403),
        ("/gemini/v1beta/models/m:predict", 403),
        ("/openai/v1/threads/t/runs", 403),
        ("/openai/v1/files", 200),
        ("/openai/v1/batches", 200),
        ("/anthropic/v1/messages/batches", 200),
        ("/anthropic/v1/messages/count_tokens", 200),
    ] {
        let response = bench.post(path, &[], r#"{"model":"m"}"#).await;
        assert_eq!(response.status(), wanted, "{path}");
    }
    assert_eq!(bench.get("/openai/v1/batches/b").await.status(), 200);
    assert_eq!(bench.asked().len(), 5);
}

#[tokio::test]
async fn an_answer_that_is_too_long_to_be_kept_is_counted_by_its_usage() {
    let bench = bench().await;
    let mut long = completion();
    long["choices"][0]["message"]["content"] = json!("\"usage\":{".repeat(200_000));
    bench.will_answer(Answer::json(200, &long));
    let answer = bench.post(CHAT, &[], r#"{"model":"gpt-4o"}"#).await;
    assert_eq!(text(answer).await, long.to_string());
    let data = bench.events(1).await[0]["data"].clone();
    assert_eq!(data["usage"], completion()["usage"]);
    assert_eq!(data["model"], completion()["model"]);

    let usage = json!({"input_tokens": 5, "output_tokens": 6});
    let mut background = response("completed", usage);
    background["output"] = json!([{"text": "x".repeat(2_000_000)}]);
    bench.will_answer(Answer::json(200, &background));
    text(bench.get("/openai/v1/responses/resp_1").await).await;
    let data = bench.events(2).await[1]["data"].clone();
    assert_eq!(data["usage"], background["usage"]);
}

fn response(status: &str, usage: Value) -> Value {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    json!({"id": "resp_1", "model": "gpt-4o", "background": true, "status": status,
        "created_at": now.unwrap().as_secs(), "usage": usage})
}

#[tokio::test]
async fn a_response_in_the_background_counts_against_whom_it_was_made_for() {
    let bench = bench().await;
    bench.will_answer(Answer::json(200, &response("queued", Value::Null)));
    let customer = [("x-spendfuse-customer", "c-42")];
    let body = r#"{"model":"gpt-4o","background":true}"#;
    text(bench.post("/openai/v1/responses", &customer, body).await).await;
    let usage = json!({"input_tokens": 5, "output_tokens": 6});
    bench.will_answer(Answer::json(200, &response("completed", usage)));
    text(bench.get("/openai/v1/responses/resp_1").await).await;
    assert_eq!(bench.events(1).await[0]["data"]["customer"], "c-42");
}

#[tokio::test]
async fn an_interaction_in_the_background_is_counted_when_it_is_asked_for() {
    let bench = bench().await;
    let path = "/gemini/v1beta/interactions";
    let usage = json!({"total_input_tokens": 7, "total_output_tokens": 9});
    let done =
        json!({"id": "i-1", "agent": "gemini-2.5-pro", "status": "completed", "usage": usage});
    let body = r#"{"agent":"gemini-2.5-pro","background":true,"input":"x"}"#;
    bench.will_answer(Answer::json(
        200,
        &json!({"id": "i-1", "status": "in_progress"}),
    ));
    text(bench.post(path, &[], body).await).await;
    for _ in 0..2 {
        bench.will_answer(Answer::json(200, &done));
        text(bench.get(&format!("{path}/i-1")).await).await;
    }
    let events = bench.events(2).await;
    assert_eq!(events[0], events[1]);
    assert_eq!(events[0]["data"]["usage"], usage);
    assert_eq!(events[0]["data"]["usage_format"], "gemini.interactions");
}

/// Whatever comes before a connection breaks, the caller sees as much of it as without a proxy.
#[tokio::test]
async fn a_stream_that_is_cut_at_any_byte_is_passed_on_up_to_there_and_charged() {
    let bench = bench().await;
    let stream = chunks().concat();
    let body = r#"{"model":"gpt-4o","stream":true,"stream_options":{"include_usage":true}}"#;
    for (count, end) in (0..stream.len()).enumerate() {
        let (mut answer, send) = Answer::pieces(200, KIND);
        answer.headers.push(("content-length", "100000".to_owned()));
        bench.will_answer(answer);
        send.send(Bytes::from(stream[..end].to_owned())).unwrap();
        let mut seen = bench.post(CHAT, &[], body).await.into_body();
        tokio::spawn(async move {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            drop(send);
        });
        let mut all = Vec::new();
        while let Some(Ok(frame)) = seen.frame().await {
            all.extend_from_slice(&frame.into_data().unwrap());
        }
        assert_eq!(String::from_utf8(all).unwrap(), stream[..end], "{end}");
        let told = &bench.events(count + 1).await[count]["data"];
        let has_usage = end >= chunks()[..2].concat().trim_end().len();
        assert_eq!(
            told["usage_format"] == "openai.chat",
            has_usage,
            "{end} {told}"
        );
    }
}

#[tokio::test]
async fn a_stream_in_any_two_pieces_is_the_same_without_the_usage_that_nobody_asked_for() {
    let bench = bench().await;
    let stream = chunks().concat().replace("\n\n", "\r\n\r\n");
    let wanted = [chunks()[0], chunks()[2]]
        .concat()
        .replace("\n\n", "\r\n\r\n");
    let body = r#"{"model":"gpt-4o","stream":true}"#;
    for end in 1..stream.len() {
        let (answer, send) = Answer::pieces(200, "Text/Event-Stream; charset=utf-8");
        bench.will_answer(answer);
        let (one, other) = stream.split_at(end);
        send.send(Bytes::from(one.to_owned())).unwrap();
        let response = bench.post(CHAT, &[], body).await;
        tokio::spawn({
            let other = Bytes::from(other.to_owned());
            async move {
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
                send.send(other).unwrap();
            }
        });
        // A line feed whose return came with the piece before may stand alone.
        let seen = text(response).await;
        assert_eq!(seen.replace("\r\n\r\n\n", "\r\n\r\n"), wanted, "{end}");
    }
    let events = bench.events(stream.len() - 1).await;
    let usage = json!({"prompt_tokens": 7, "completion_tokens": 9});
    assert!(events.iter().all(|event| event["data"]["usage"] == usage));
}

#[tokio::test]
async fn what_of_a_long_answer_is_on_its_way_takes_no_memory_any_more() {
    let bench = bench().await;
    let (answer, send) = Answer::pieces(200, "application/json");
    bench.will_answer(answer);
    let begin = format!(r#"{{"x":"{}"#, "x".repeat(1024 * 1024));
    let length = begin.len();
    send.send(Bytes::from(begin)).unwrap();
    let mut answer = bench
        .post(CHAT, &[], r#"{"model":"gpt-4o"}"#)
        .await
        .into_body();
    let mut seen = 0;
    while seen < length {
        let frame = answer.frame().await.unwrap().unwrap();
        seen += frame.into_data().unwrap().len();
    }
    // The rest is still to come.
    let body = format!(r#"{{"model":"m","x":"{}"}}"#, "x".repeat(512 * 1024));
    for _ in 0..100 {
        if bench.post(CHAT, &[], body.clone()).await.status() == 200 {
            drop(send);
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("a caller that is slow keeps the memory of all");
}
