//! Files and batches as ordinary clients read them: as without a proxy.

use serde_json::json;

use crate::support::{Answer, bench, text};

const RANGE: [(&str, &str); 2] = [("range", "bytes=2-4"), ("if-range", "\"v1\"")];

fn part(content_type: &str, body: &str) -> Answer {
    let mut part = Answer::whole(206, content_type, body.as_bytes().to_vec());
    let range = ("content-range", "bytes 2-4/100".to_owned());
    part.headers.push(range);
    part
}

#[tokio::test]
async fn a_part_of_a_video_stays_a_part() {
    let bench = bench().await;
    // Begins as a line would.
    bench.will_answer(part("Video/mp4", "{}\n"));
    let path = "/gemini/v1beta/files/f-1:download?alt=media";
    let answer = bench.ask("GET", path, &RANGE).await;
    assert_eq!(answer.status(), 206);
    assert_eq!(answer.headers()["content-range"], "bytes 2-4/100");
    assert_eq!(text(answer).await, "{}\n");
    let asked = bench.asked();
    assert_eq!(asked.len(), 1);
    for (name, value) in RANGE {
        assert_eq!(asked[0].headers[name], value);
    }
}

#[tokio::test]
async fn a_part_of_what_may_be_results_is_answered_with_all_of_them() {
    let bench = bench().await;
    let body = json!({"id": "chatcmpl-1", "object": "chat.completion", "model": "gpt-4o",
        "usage": {"prompt_tokens": 5, "completion_tokens": 6}});
    let response = json!({"status_code": 200, "request_id": "req-1", "body": body});
    let line = json!({"custom_id": "a", "response": response, "error": null}).to_string();
    let kind = "application/octet-stream";
    bench.will_answer(part(kind, &line[2..5]));
    bench.will_answer(Answer::whole(200, kind, line.clone().into_bytes()));
    let answer = bench
        .ask("GET", "/openai/v1/files/f-1/content", &RANGE)
        .await;
    assert_eq!(answer.status(), 200);
    assert_eq!(text(answer).await, line);
    assert_eq!(bench.events(1).await[0]["data"]["usage"], body["usage"]);
    let asked = bench.asked();
    for (name, _) in RANGE {
        let has = asked.iter().map(|one| one.headers.contains_key(name));
        let has: Vec<bool> = has.collect();
        // The last one asks when they were there.
        assert_eq!(has, [true, false, false], "{name}");
    }
}

#[tokio::test]
async fn whoever_waits_for_a_batch_gets_what_cannot_be_read_here_as_it_came() {
    let bench = bench().await;
    for path in [
        "/anthropic/v1/messages/batches/b-1",
        "/anthropic/v1/messages/batches?limit=20",
    ] {
        let mut answer = Answer::whole(200, "application/json", b"compressed".to_vec());
        answer.headers.push(("content-encoding", "br".to_owned()));
        bench.will_answer(answer);
        let answer = bench.ask("GET", path, &[("accept-encoding", "br")]).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-encoding"], "br");
        assert_eq!(text(answer).await, "compressed");
    }
    // Nobody has asked for that.
    assert_eq!(bench.asked()[0].headers["accept-encoding"], "identity");
}
