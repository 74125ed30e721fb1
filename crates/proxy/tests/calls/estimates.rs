//! What is held for a call, and what it is charged where its answer does not say.

use serde_json::json;

use crate::support::{Answer, bench, text};
use crate::{CHAT, chunks, completion};

const CUSTOMER: [(&str, &str); 1] = [("x-spendfuse-customer", "c-42")];

#[tokio::test]
async fn every_answer_that_is_asked_for_is_held() {
    let mut bench = bench().await;
    bench.budget("0.05", &json!([{"at": 100, "do": "block"}]));
    for (body, wanted) in [
        (r#"{"model":"gpt-4o","max_tokens":1000,"n":10}"#, 429),
        (r#"{"model":"gpt-4o","max_tokens":1000,"n":1}"#, 200),
    ] {
        bench.will_answer(Answer::json(200, &completion()));
        let response = bench.post(CHAT, &CUSTOMER, body).await;
        assert_eq!(response.status(), wanted, "{body}");
    }
}

#[tokio::test]
async fn a_recording_is_not_held_as_if_it_were_text() {
    let mut bench = bench().await;
    bench.budget("0.20", &json!([{"at": 100, "do": "block"}]));
    let form = format!(
        "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\ngpt-4o-transcribe\r\n\
         --b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.mp3\"\r\n\r\n{}\r\n--b--\r\n",
        "x".repeat(1_000_000)
    );
    bench.will_answer(Answer::json(200, &json!({"text": "Hi"})));
    let kind = ("content-type", "multipart/form-data; boundary=b");
    let path = "/openai/v1/audio/transcriptions";
    let response = bench.post(path, &[kind, CUSTOMER[0]], form).await;
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn an_answer_that_is_not_read_is_charged_as_it_was_held() {
    let bench = bench().await;
    let mut long = completion();
    long["choices"][0]["message"]["content"] = json!("x".repeat(1024 * 1024));
    // What it has used it does not say.
    long["usage"] = json!(null);
    for (count, (body, wanted)) in [
        (r#"{"model":"gpt-4o","max_tokens":50}"#, 50),
        (r#"{"model":"gpt-4o"}"#, 4096),
    ]
    .into_iter()
    .enumerate()
    {
        bench.will_answer(Answer::json(200, &long));
        let response = bench.post(CHAT, &[], body).await;
        assert_eq!(text(response).await, long.to_string());
        let data = bench.events(count + 1).await[count]["data"].clone();
        assert_eq!(data["usage_format"], "estimated");
        assert_eq!(data["usage"]["output_tokens"], wanted);
    }
}

#[tokio::test]
async fn counts_that_nobody_can_read_are_replaced_by_an_estimate() {
    let bench = bench().await;
    let mut answer = completion();
    answer["usage"] = json!({"prompt_tokens": -1, "completion_tokens": 100});
    bench.will_answer(Answer::json(200, &answer));
    let response = bench.post(CHAT, &[], r#"{"model":"gpt-4o"}"#).await;
    assert!(response.headers().contains_key("x-spendfuse-cost-usd"));
    let data = bench.events(1).await[0]["data"].clone();
    assert_eq!(data["usage_format"], "estimated");
}

#[tokio::test]
async fn a_caller_does_not_choose_the_name_of_its_call() {
    let bench = bench().await;
    let path = "/openai/v1/embeddings";
    let answer = json!({"data": [], "usage": {"prompt_tokens": 7, "total_tokens": 7}});
    let mut ids = Vec::new();
    for named in ["of-the-caller", "of-the-provider"] {
        let mut answer = Answer::json(200, &answer);
        answer.headers.push(("x-request-id", named.to_owned()));
        bench.will_answer(answer);
        let headers = [("x-request-id", "of-the-caller")];
        let body = r#"{"model":"text-embedding-3-small"}"#;
        bench.post(path, &headers, body).await;
        let events = bench.events(ids.len() + 1).await;
        ids.push(events[ids.len()]["id"].as_str().unwrap().to_owned());
    }
    assert!(!ids[0].contains("of-the-caller"), "{}", ids[0]);
    assert!(ids[1].ends_with("of-the-provider"), "{}", ids[1]);
}

#[tokio::test]
async fn a_stream_that_no_true_has_asked_for_is_read_as_one() {
    let bench = bench().await;
    let all = chunks().concat();
    let kind = "text/event-stream";
    bench.will_answer(Answer::whole(200, kind, all.clone().into_bytes()));
    // pydantic takes 1 for true.
    let body = r#"{"model":"gpt-4o","stream":1}"#;
    assert_eq!(text(bench.post(CHAT, &[], body).await).await, all);
    let usage = json!({"prompt_tokens": 7, "completion_tokens": 9});
    assert_eq!(bench.events(1).await[0]["data"]["usage"], usage);
}
