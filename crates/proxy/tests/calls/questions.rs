//! The question for a stream's usage: asked where a caller has not, and what refusals of it mean.

use serde_json::json;

use crate::support::{Answer, Bench, bench, text};
use crate::{CHAT, chunks};

const STREAM: &str = r#"{"model":"gpt-4o","stream":true}"#;

/// Which of the requests to the upstream had the question in them.
fn asked(bench: &Bench) -> Vec<bool> {
    let asked = bench.asked();
    let asked = asked.iter();
    asked
        .map(|asked| asked.body.contains("stream_options"))
        .collect()
}

#[tokio::test]
async fn usage_is_asked_for_and_what_the_caller_did_not_ask_for_is_taken_out() {
    let bench = bench().await;
    for (asks, body) in [
        (false, STREAM),
        (
            true,
            r#"{"model":"gpt-4o","stream":true,"stream_options":{"include_usage":true}}"#,
        ),
    ] {
        let all = chunks();
        bench.will_answer(Answer::whole(
            200,
            "text/event-stream",
            all.concat().into_bytes(),
        ));
        let seen = text(bench.post(CHAT, &[], body).await).await;
        let wanted = match asks {
            true => all.concat(),
            false => [all[0], all[2]].concat(),
        };
        assert_eq!(seen, wanted);
    }
    assert!(
        bench
            .asked()
            .iter()
            .all(|asked| asked.body.contains(r#""include_usage":true"#))
    );
    // Both have the id of one response: the second is told, and not counted again.
    let events = bench.events(2).await;
    assert_eq!(
        events[0]["data"]["usage"],
        json!({"prompt_tokens": 7, "completion_tokens": 9})
    );
}

#[tokio::test]
async fn an_upstream_that_does_not_know_the_question_is_not_asked_again() {
    let openais = json!({"error": {"message": "Unknown parameter: 'stream_options'."}});
    // As pydantic has it, by which Mistral checks its calls.
    let pydantics =
        json!({"detail": [{"type": "extra_forbidden", "loc": ["body", "stream_options"]}]});
    for (status, error) in [(400, openais), (422, pydantics)] {
        let bench = bench().await;
        bench.will_answer(Answer::json(status, &error));
        for _ in 0..2 {
            let all = [chunks()[0], chunks()[2]].concat();
            bench.will_answer(Answer::whole(
                200,
                "text/event-stream",
                all.clone().into_bytes(),
            ));
            assert_eq!(text(bench.post(CHAT, &[], STREAM).await).await, all);
        }
        assert_eq!(asked(&bench), [true, false, false]);
        let events = bench.events(2).await;
        assert_eq!(events[0]["data"]["usage_format"], "estimated");
    }
}

#[tokio::test]
async fn an_upstream_that_refuses_a_call_without_the_question_too_is_asked_again() {
    let bench = bench().await;
    let error = json!({"error": {"message": "neither messages nor stream_options are right"}});
    for _ in 0..2 {
        bench.will_answer(Answer::json(400, &error));
    }
    let response = bench.post(CHAT, &[], STREAM).await;
    assert_eq!(response.status(), 400);
    assert_eq!(text(response).await, error.to_string());
    bench.will_answer(Answer::whole(
        200,
        "text/event-stream",
        chunks().concat().into_bytes(),
    ));
    text(bench.post(CHAT, &[], STREAM).await).await;
    assert_eq!(asked(&bench), [true, false, true]);
    let usage = json!({"prompt_tokens": 7, "completion_tokens": 9});
    assert_eq!(bench.events(1).await[0]["data"]["usage"], usage);
}

#[tokio::test]
async fn a_long_error_to_a_stream_is_passed_on_as_it_is() {
    let bench = bench().await;
    let error = json!({"error": {"message": "x".repeat(100 * 1024)}}).to_string();
    let mut answer = Answer::whole(400, "application/json", error.clone().into_bytes());
    let length = error.len().to_string();
    answer.headers.push(("content-length", length.clone()));
    bench.will_answer(answer);
    let response = bench.post(CHAT, &[], STREAM).await;
    assert_eq!(response.status(), 400);
    assert_eq!(response.headers()["content-length"], length.as_str());
    assert_eq!(text(response).await, error);
    assert_eq!(asked(&bench), [true]);
}
