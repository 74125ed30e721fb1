//! Responses in the background: streamed, cut, and asked for again.

use bytes::Bytes;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use crate::support::{Answer, Bench, bench, text};

const PATH: &str = "/openai/v1/responses";

fn response(status: &str) -> Value {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    json!({"id": "resp_1", "model": "gpt-4o", "background": true, "status": status, "usage": null,
        "created_at": now.unwrap().as_secs(), "output": []})
}

fn completed() -> Value {
    let mut response = response("completed");
    response["usage"] = json!({"input_tokens": 5, "output_tokens": 6});
    response
}

fn event(kind: &str, response: &Value) -> String {
    let event = json!({"type": kind, "response": response});
    format!("event: {kind}\ndata: {event}\n\n")
}

/// Answers a stream of these events to the next request.
fn will_stream(bench: &Bench, events: &[String]) {
    let stream = events.concat().into_bytes();
    bench.will_answer(Answer::whole(200, "text/event-stream", stream));
}

#[tokio::test]
async fn a_response_that_is_asked_for_as_a_stream_is_passed_on_piece_by_piece_and_counted() {
    let bench = bench().await;
    let (answer, send) = Answer::pieces(200, "text/event-stream");
    bench.will_answer(answer);
    let path = format!("{PATH}/resp_1?stream=true&starting_after=7");
    let mut seen = bench.get(&path).await.into_body();
    let begun = event("response.in_progress", &response("in_progress"));
    send.send(Bytes::from(begun.clone())).unwrap();
    let frame = seen.frame().await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), begun);
    let end = completed();
    send.send(Bytes::from(event("response.completed", &end)))
        .unwrap();
    drop(send);
    while seen.frame().await.is_some() {}
    // As a whole it is the same event, to the byte.
    bench.will_answer(Answer::json(200, &end));
    text(bench.get(&format!("{PATH}/resp_1/")).await).await;
    let events = bench.events(2).await;
    assert_eq!(events[0], events[1]);
    assert_eq!(events[0]["data"]["usage"], end["usage"]);
}

#[tokio::test]
async fn a_cut_stream_of_a_response_in_the_background_is_counted_by_what_it_says_later() {
    let bench = bench().await;
    let begun = event("response.created", &response("in_progress"));
    let delta = "data: {\"type\":\"response.output_text.delta\",\"delta\":\"abc\"}\n\n";
    will_stream(&bench, &[begun, delta.to_owned()]);
    let body = r#"{"model":"gpt-4o","background":true,"stream":true}"#;
    text(bench.post(PATH, &[], body).await).await;
    // Still not made: nothing to count.
    bench.will_answer(Answer::json(200, &response("in_progress")));
    text(bench.get(&format!("{PATH}/resp_1")).await).await;
    will_stream(&bench, &[event("response.completed", &completed())]);
    text(bench.get(&format!("{PATH}/resp_1?stream=true")).await).await;
    let events = bench.events(1).await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["data"]["usage"], completed()["usage"]);
}

#[tokio::test]
async fn a_cut_stream_that_nobody_can_ask_for_is_charged_by_estimate() {
    let bench = bench().await;
    let mut begun = response("in_progress");
    begun["background"] = json!(false);
    let search = json!({"type": "response.output_item.done", "output_index": 0,
        "item": {"type": "web_search_call", "action": {"type": "search"}}});
    will_stream(
        &bench,
        &[
            event("response.created", &begun),
            format!("data: {search}\n\n"),
        ],
    );
    let body = r#"{"model":"gpt-4o","stream":true}"#;
    text(bench.post(PATH, &[], body).await).await;
    let data = bench.events(1).await[0]["data"].clone();
    assert_eq!(data["usage_format"], "estimated");
    // What the provider has run for it is billed all the same.
    assert_eq!(data["units"], json!({"web_search_calls": "1"}));
}

#[tokio::test]
async fn an_answer_that_is_not_made_and_not_in_the_background_is_charged_by_estimate() {
    let bench = bench().await;
    let mut begun = response("in_progress");
    begun["background"] = json!(false);
    bench.will_answer(Answer::json(200, &begun));
    text(bench.post(PATH, &[], r#"{"model":"gpt-4o"}"#).await).await;
    let data = bench.events(1).await[0]["data"].clone();
    assert_eq!(data["usage_format"], "estimated");
}

#[tokio::test]
async fn what_is_held_for_a_response_stays_held_until_it_is_told() {
    let mut bench = bench().await;
    bench.budget("0.05", &json!([{"at": 100, "do": "block"}]));
    let customer = [("x-spendfuse-customer", "c-42")];
    // Each holds four cents.
    let body = r#"{"model":"gpt-4o","background":true,"max_output_tokens":4000}"#;
    bench.will_answer(Answer::json(200, &response("queued")));
    assert_eq!(bench.post(PATH, &customer, body).await.status(), 200);
    assert_eq!(bench.post(PATH, &customer, body).await.status(), 429);
    // What has failed costs nothing.
    bench.will_answer(Answer::json(200, &response("failed")));
    text(bench.get(&format!("{PATH}/resp_1")).await).await;
    bench.will_answer(Answer::json(200, &response("queued")));
    assert_eq!(bench.post(PATH, &customer, body).await.status(), 200);
    bench.will_answer(Answer::json(200, &response("in_progress")));
    text(bench.get(&format!("{PATH}/resp_1")).await).await;
    assert_eq!(bench.post(PATH, &customer, body).await.status(), 429);
    bench.will_answer(Answer::json(200, &completed()));
    text(bench.get(&format!("{PATH}/resp_1")).await).await;
    bench.events(1).await;
    for _ in 0..100 {
        bench.will_answer(Answer::json(200, &response("queued")));
        if bench.post(PATH, &customer, body).await.status() == 200 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("it is held although it is told");
}

#[tokio::test]
async fn what_a_response_has_cost_stays_in_the_way_until_it_is_counted() {
    let mut bench = bench().await;
    bench.budget("0.05", &json!([{"at": 100, "do": "block"}]));
    let customer = [("x-spendfuse-customer", "c-42")];
    // Holds four cents, and costs them.
    let body = r#"{"model":"gpt-4o","background":true,"max_output_tokens":4000}"#;
    bench.will_answer(Answer::json(200, &response("queued")));
    assert_eq!(bench.post(PATH, &customer, body).await.status(), 200);
    let mut end = completed();
    end["usage"]["output_tokens"] = json!(4000);
    bench.will_answer(Answer::json(200, &end));
    text(bench.get(&format!("{PATH}/resp_1")).await).await;
    let told = bench.events(1).await;
    assert!(told[0]["data"]["reservation_id"].is_string());
    // The event is safe by then, and no budget shows it yet.
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert_eq!(bench.post(PATH, &customer, body).await.status(), 429);
}

#[tokio::test]
async fn a_response_has_one_name_streamed_and_asked_for() {
    let bench = bench().await;
    let end = event("response.completed", &completed());
    will_stream(&bench, &[end]);
    let body = r#"{"model":"gpt-4o","background":true,"stream":true}"#;
    text(bench.post(PATH, &[], body).await).await;
    bench.events(1).await;
    bench.will_answer(Answer::json(200, &completed()));
    text(bench.get(&format!("{PATH}/resp_1")).await).await;
    let told = bench.events(2).await;
    // The upstream is a server of one's own.
    assert_eq!(told[0]["id"], "background-resp_1");
    assert_eq!(told[1]["id"], told[0]["id"]);
}

#[tokio::test]
async fn a_response_is_not_counted_by_counts_that_nobody_can_read() {
    let bench = bench().await;
    let path = format!("{PATH}/resp_1");
    let mut unreadable = completed();
    unreadable["usage"]["input_tokens"] = json!(-1);
    bench.will_answer(Answer::json(200, &unreadable));
    text(bench.get(&path).await).await;
    bench.will_answer(Answer::json(200, &completed()));
    text(bench.get(&path).await).await;
    let told = bench.events(1).await;
    assert_eq!(told[0]["data"]["usage"], completed()["usage"]);
}

#[tokio::test]
async fn responses_that_their_callers_have_named_are_not_one_event() {
    let bench = bench().await;
    for count in 1..=2 {
        let mut end = completed();
        end["id"] = json!(format!("resp_{count}"));
        will_stream(&bench, &[event("response.completed", &end)]);
        let body =
            json!({"model": "gpt-4o", "background": true, "stream": true, "request_id": end["id"]});
        text(bench.post(PATH, &[], body.to_string()).await).await;
        bench.events(count).await;
    }
    let told = bench.events(2).await;
    assert_ne!(told[0]["id"], told[1]["id"]);
}
