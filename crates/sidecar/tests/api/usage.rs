//! `/v1/usage`: what is accepted is safe, whatever the broker does.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::support::{assert_conforms, bench, call, config, small_spool};
use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};
use spendfuse_domain::event::decode;
use spendfuse_domain::{UnixMillis, routing};
use tempfile::TempDir;

#[tokio::test]
async fn a_bare_object_becomes_an_event_at_home_with_its_cost() {
    let mut bench = bench(config(), None);
    bench.budget("5.00", json!([{"at": 100, "do": "block"}]));
    let answer = bench.post("/v1/usage", call("r-1").to_string()).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.json);
    let result = &answer.json["results"][0];
    assert_eq!(
        (&result["status"], &result["id"]),
        (&json!("accepted"), &json!("r-1"))
    );
    // 1,000 × $0.15 + 100 × $0.60 a million.
    assert_eq!(
        (&result["cost_usd"], &result["priced"]),
        (&json!("0.00021"), &json!("book"))
    );
    assert_eq!(result["budgets"], json!(["daily"]));
    assert_conforms("usage-response", &answer.json);
    let taken = bench.sink.taken.lock().unwrap();
    let event = decode(&taken[0].value, &[], UnixMillis(i64::MAX)).unwrap();
    assert_eq!(
        (&*event.attribution.workspace, &*event.source),
        ("acme", "sidecar")
    );
    assert_eq!(
        (&*taken[0].key, taken[0].partition),
        (&b"s-1"[..], event.home(4))
    );
    assert_eq!(taken[0].partition, routing::partition_of(b"s-1", 4));
}

#[tokio::test]
async fn bad_events_are_named_and_the_good_ones_kept() {
    let bench = bench(config(), None);
    let mut negative = call("r-2");
    negative["usage"]["input_tokens"] = json!(-1);
    let batch = json!([call("r-1"), negative, "text", call("r-3")]);
    let answer = bench.post("/v1/usage", batch.to_string()).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(
        (&answer.json["accepted"], &answer.json["rejected"]),
        (&json!(2), &json!(2))
    );
    assert_conforms("usage-response", &answer.json);
    assert_eq!(answer.json["results"][1]["id"], "r-2");
    assert_eq!(answer.json["results"][1]["reason"], "bad_usage");
    assert_eq!(answer.json["results"][2]["reason"], "not_cloudevent");
    assert_eq!(bench.sink.ids(), ["r-1", "r-3"]);
    let lines = format!("{}\n{{broken\n{}\n", call("r-4"), call("r-5"));
    let request = Request::post("/v1/usage").header("content-type", "application/x-ndjson");
    let answer = bench.ask(request.body(Body::from(lines)).unwrap()).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(bench.sink.ids(), ["r-1", "r-3", "r-4", "r-5"]);
}

/// An event with what was said wherever apps put it; 42 is the customer.
fn talkative(id: &str) -> Value {
    let mut event = call(id);
    for member in [
        "messages",
        "choices",
        "system",
        "contents",
        "instructions",
        "request",
        "metadata",
        "text",
        "response",
    ] {
        event[member] = json!([{"role": "user", "content": "my secret"}]);
    }
    event["customer"] = json!(42);
    event["session"] = json!({"prompt": "my secret"});
    event["usage"]["details"] = json!({"seen": 7, "said": "my secret".repeat(8)});
    event
}

#[tokio::test]
async fn prompts_reach_neither_the_topic_nor_the_spool() {
    let bench = bench(config(), None);
    let mut data = talkative("r-2");
    data["workspace"] = json!("acme");
    let enveloped = json!({
        "specversion": "1.0", "type": "spendfuse.usage", "source": "app", "id": "r-2",
        "time": "2026-11-01T00:00:00Z", "prompt": "my secret", "data": data,
    });
    let batch = json!([talkative("r-1"), enveloped]);
    let answer = bench.post("/v1/usage", batch.to_string()).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.json);
    assert_eq!(
        answer.json["results"][0]["flags"],
        json!(["field_dropped", "prompt_removed"])
    );
    for taken in bench.sink.taken.lock().unwrap().iter() {
        let text = String::from_utf8_lossy(&taken.value);
        assert!(!text.contains("my secret"), "{text}");
        let kept: Value = serde_json::from_slice(&taken.value).unwrap();
        assert_eq!(kept["data"]["usage"]["details"]["seen"], 7);
        let event = decode(&taken.value, &[], UnixMillis(i64::MAX)).unwrap();
        assert_eq!(event.attribution.customer, "42");
    }

    let directory = TempDir::new().unwrap();
    let bench = crate::support::bench(config(), Some(small_spool(&directory, 100_000)));
    bench.sink.away.store(true, Ordering::SeqCst);
    let answer = bench.post("/v1/usage", batch.to_string()).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.json);
    for file in std::fs::read_dir(directory.path()).unwrap() {
        let stored = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!String::from_utf8_lossy(&stored).contains("my secret"));
    }
}

#[tokio::test]
async fn without_broker_and_spool_nothing_is_promised() {
    let bench = bench(config(), None);
    bench.sink.away.store(true, Ordering::SeqCst);
    let answer = bench.post("/v1/usage", call("r-1").to_string()).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.headers["retry-after"], "1");
    assert_eq!(answer.json["error"]["code"], "unavailable");
    assert_conforms("usage-response", &answer.json);
}

#[tokio::test]
async fn what_the_spool_took_reaches_the_broker_in_order_after_a_restart() {
    let directory = TempDir::new().unwrap();
    let before = bench(config(), Some(small_spool(&directory, 100_000)));
    before.sink.away.store(true, Ordering::SeqCst);
    for id in ["r-1", "r-2"] {
        let answer = before.post("/v1/usage", call(id).to_string()).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED);
    }
    drop(before);
    let after = bench(config(), Some(small_spool(&directory, 100_000)));
    // The broker is back, but what is older goes first.
    let batch = json!([call("r-3"), call("r-4")]);
    let answer = after.post("/v1/usage", batch.to_string()).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert_eq!(after.sink.ids(), Vec::<String>::new());
    let replay = tokio::spawn(after.delivery.clone().replay());
    let all = async {
        while after.sink.ids().len() < 4 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), all)
        .await
        .unwrap();
    assert_eq!(after.sink.ids(), ["r-1", "r-2", "r-3", "r-4"]);
    replay.abort();
}

#[tokio::test]
async fn a_full_spool_and_no_broker_refuse_and_a_broker_that_is_back_takes_over() {
    let directory = TempDir::new().unwrap();
    let bench = bench(config(), Some(small_spool(&directory, 2_000)));
    bench.sink.away.store(true, Ordering::SeqCst);
    let mut taken = 0;
    let refused = loop {
        let id = format!("r-{taken}");
        let answer = bench.post("/v1/usage", call(&id).to_string()).await;
        if answer.status != StatusCode::ACCEPTED {
            break answer;
        }
        taken += 1;
    };
    assert!(taken > 0);
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    let message = refused.json["error"]["message"].as_str().unwrap();
    assert!(message.contains("spool is full"), "{message}");
    bench.sink.away.store(false, Ordering::SeqCst);
    let answer = bench.post("/v1/usage", call("last").to_string()).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert_eq!(bench.sink.ids(), ["last"]);
}

#[tokio::test]
async fn an_event_without_a_session_is_at_home_by_its_identity() {
    let bench = bench(config(), None);
    let mut event = call("r-1");
    event["session"] = Value::Null;
    bench.post("/v1/usage", event.to_string()).await;
    let taken = bench.sink.taken.lock().unwrap();
    let decoded = decode(&taken[0].value, &[], UnixMillis(i64::MAX)).unwrap();
    assert_eq!(taken[0].partition, decoded.home(4));
    assert_eq!(routing::partition_of(&taken[0].key, 4), decoded.home(4));
}
