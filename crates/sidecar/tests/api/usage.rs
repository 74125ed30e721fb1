//! `/v1/usage`: what is accepted is safe, whatever the broker does.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

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
    // It has not caught up: there may be others.
    assert_eq!(result["budgets"], Value::Null);
    assert_conforms("usage-response", &answer.json);
    bench.writer.caught_up();
    bench.writer.publish(UnixMillis(0));
    let live = bench.post("/v1/usage", call("r-2").to_string()).await;
    assert_eq!(live.json["results"][0]["budgets"], json!(["daily"]));
    assert_conforms("usage-response", &live.json);
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

/// A time by this machine's clock, as an event has it.
fn hours_ago(hours: i64) -> String {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = UnixMillis(since_1970.as_millis() as i64);
    now.plus(-hours * 3_600_000).to_string()
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
        "time": hours_ago(1), "prompt": "my secret", "data": data,
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
    let batch = json!([call("r-1"), {"id": "r-2"}, call("r-1")]);
    let answer = bench.post("/v1/usage", batch.to_string()).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.headers["retry-after"], "1");
    assert_eq!(answer.json["error"]["code"], "unavailable");
    assert_conforms("usage-response", &answer.json);
    let counts = ["accepted", "rejected", "unavailable"];
    assert_eq!(
        counts.map(|name| answer.json[name].as_u64()),
        [0, 1, 2].map(Some)
    );
    let results = answer.json["results"].as_array().unwrap().iter();
    let statuses: Vec<_> = results.map(|result| &result["status"]).collect();
    assert_eq!(statuses, ["unavailable", "rejected", "unavailable"]);
}

#[tokio::test]
async fn a_body_without_events_is_told_what_to_send() {
    let bench = bench(config(), None);
    let answer = bench.post("/v1/usage", "[]").await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_conforms("usage-response", &answer.json);
    let message = answer.json["error"]["message"].as_str().unwrap();
    assert!(message.contains("no event"), "{message}");
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
    let replay = tokio::spawn(after.delivery.clone().replay(after.guard.clone()));
    let all = async {
        while after.sink.ids().len() < 4 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all)
        .await
        .unwrap();
    assert_eq!(after.sink.ids(), ["r-1", "r-2", "r-3", "r-4"]);
    replay.abort();
}

#[tokio::test]
async fn what_was_spooled_when_other_partitions_were_set_goes_where_it_belongs_now() {
    for partitions in [1_000, 3] {
        let directory = TempDir::new().unwrap();
        let wrong = spendfuse_sidecar::SidecarConfig {
            partitions,
            ..config()
        };
        let before = crate::support::bench(wrong, Some(small_spool(&directory, 100_000)));
        before.sink.away.store(true, Ordering::SeqCst);
        let events: Vec<_> = (0..8)
            .map(|number| {
                let mut event = call(&format!("r-{number}"));
                event["session"] = json!(format!("s-{number}"));
                event
            })
            .collect();
        let answer = before.post("/v1/usage", json!(events).to_string()).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED);
        drop(before);
        let after = bench(config(), Some(small_spool(&directory, 100_000)));
        let replay = tokio::spawn(after.delivery.clone().replay(after.guard.clone()));
        let all = async {
            while after.sink.ids().len() < 8 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), all)
            .await
            .unwrap();
        replay.abort();
        let taken = after.sink.taken.lock().unwrap();
        for event in &*taken {
            assert_eq!(event.partition, routing::partition_of(&event.key, 4));
        }
    }
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

fn at(id: &str, hours: i64) -> Value {
    let mut event = call(id);
    event["time"] = json!(hours_ago(hours));
    event
}

#[tokio::test]
async fn what_will_not_be_counted_is_not_shown_with_a_cost() {
    let bench = bench(config(), None);
    let batch = json!([at("old", 25), at("recent", 23)]);
    let answer = bench.post("/v1/usage", batch.to_string()).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.json);
    assert_conforms("usage-response", &answer.json);
    assert_eq!(answer.json["accepted"], 1);
    assert_eq!(answer.json["late"], 1);
    let late = &answer.json["results"][0];
    assert_eq!(
        (&late["status"], &late["counted"], &late["reason"]),
        (&json!("late"), &json!(false), &json!("late"))
    );
    assert_eq!(late.get("cost_usd").or(late.get("budgets")), None);
    let detail = late["detail"].as_str().unwrap();
    assert!(
        detail.contains("dlq replay --reason late --verify"),
        "{detail}"
    );
    assert_eq!(answer.json["results"][1]["status"], "accepted");
    // It goes on its way all the same: to the DLQ, from where it can be counted.
    assert_eq!(bench.sink.ids(), ["old", "recent"]);
    let only = bench.post("/v1/usage", at("old", 25).to_string()).await;
    assert_eq!(only.status, StatusCode::ACCEPTED);

    let shorter = spendfuse_sidecar::SidecarConfig {
        dedupe_horizon_millis: 3_600_000,
        ..config()
    };
    let bench = crate::support::bench(shorter, None);
    let answer = bench.post("/v1/usage", at("two", 2).to_string()).await;
    assert_eq!(answer.json["results"][0]["status"], "late");
}

#[tokio::test]
async fn who_shares_an_identity_is_told() {
    let bench = bench(config(), None);
    let first = bench.post("/v1/usage", call("r-1").to_string()).await;
    assert_eq!(first.json["results"][0]["status"], "accepted");
    let again = bench.post("/v1/usage", call("r-1").to_string()).await;
    assert_conforms("usage-response", &again.json);
    assert_eq!(again.json["results"][0]["status"], "duplicate");
    assert_eq!(again.json["duplicates"], 1);
    // The same call with more, and then what it was told of with first.
    let mut more = call("r-1");
    more["usage"]["output_tokens"] = json!(4_000);
    let grown = bench.post("/v1/usage", more.to_string()).await;
    assert_conforms("usage-response", &grown.json);
    assert_eq!(grown.json["results"][0]["status"], "grown");
    assert_eq!(grown.json["grown"], 1);
    let echo = bench.post("/v1/usage", call("r-1").to_string()).await;
    assert_conforms("usage-response", &echo.json);
    assert_eq!(echo.json["results"][0]["status"], "echo");
    assert_eq!(echo.json["results"][0]["counted"], false);
    let mut other = more;
    other["usage"]["input_tokens"] = json!(7);
    other["usage"]["output_tokens"] = json!(9_000);
    let conflict = bench.post("/v1/usage", other.to_string()).await;
    assert_eq!(conflict.status, StatusCode::ACCEPTED);
    assert_conforms("usage-response", &conflict.json);
    let result = &conflict.json["results"][0];
    assert_eq!(result["status"], "conflict");
    assert_eq!(
        (&result["counted"], result.get("cost_usd")),
        (&json!(false), None)
    );
    assert!(
        result["detail"]
            .as_str()
            .unwrap()
            .contains("x-spendfuse-source")
    );

    // With a source of its own it is another event.
    let request = || {
        Request::post("/v1/usage")
            .header("content-type", "application/json")
            .header("x-spendfuse-source", "billing")
    };
    let answer = bench
        .ask(request().body(Body::from(other.to_string())).unwrap())
        .await;
    let result = &answer.json["results"][0];
    assert_eq!(
        (&result["status"], &result["source"]),
        (&json!("accepted"), &json!("billing"))
    );
    // The event's own source stands before the header's.
    other["source"] = json!("own");
    let answer = bench
        .ask(request().body(Body::from(other.to_string())).unwrap())
        .await;
    assert_eq!(answer.json["results"][0]["source"], "own");

    // Within one request, too; and what was not made safe was not taken.
    let batch = json!([call("r-2"), call("r-2")]);
    bench.sink.away.store(true, Ordering::SeqCst);
    let refused = bench.post("/v1/usage", batch.to_string()).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    bench.sink.away.store(false, Ordering::SeqCst);
    let answer = bench.post("/v1/usage", batch.to_string()).await;
    assert_eq!(answer.json["results"][0]["status"], "accepted");
    assert_eq!(answer.json["results"][1]["status"], "duplicate");
}

#[tokio::test]
async fn unknown_members_are_told_and_a_strict_sidecar_refuses_them() {
    let mut event = call("r-1");
    event["custommer"] = json!("c-1");
    event["usage"]["anything"] = json!(5);
    let bench = bench(config(), None);
    let answer = bench.post("/v1/usage", event.to_string()).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert_conforms("usage-response", &answer.json);
    let warnings = answer.json["results"][0]["warnings"].as_array().unwrap();
    assert_eq!(
        warnings[0]["message"],
        "`data.custommer` is unknown and was removed; did you mean `customer`?"
    );
    assert_eq!(warnings.len(), 1);
    for number in 0..20 {
        event[format!("\u{1b}[2J{number}")] = json!("x");
    }
    let answer = bench.post("/v1/usage", event.to_string()).await;
    let warnings = answer.json["results"][0]["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 9);
    assert_eq!(warnings[8]["message"], "13 more members are unknown");
    assert!(!answer.json.to_string().contains("\\u001b"));

    let strict = spendfuse_sidecar::SidecarConfig {
        strict: true,
        ..config()
    };
    let bench = crate::support::bench(strict, None);
    let batch = json!([event, call("r-2")]);
    let answer = bench.post("/v1/usage", batch.to_string()).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_conforms("usage-response", &answer.json);
    assert_eq!(answer.json["results"][0]["reason"], "unknown_field");
    assert_eq!(bench.sink.ids(), ["r-2"]);
}
