//! Reservations over HTTP: asked for, settled by usage events, extended, released.

use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};
use spendfuse_guard::Clock;
use spendfuse_pricing::PricingPolicy;
use spendfuse_sidecar::{Prices, SidecarConfig};
use tempfile::TempDir;

use crate::support::{Answer, Bench, assert_conforms, bench, call, config, small_spool, steps};

fn limited(limit: &str) -> Bench {
    let mut bench = bench(config(), None);
    bench.budget(limit, steps());
    bench
}

fn question(cost: &str) -> Value {
    json!({"customer": "c-42", "estimated_cost_usd": cost, "reserve": true})
}

impl Bench {
    async fn reserve(&self, cost: &str) -> Value {
        let answer = self.post("/v1/check", question(cost).to_string()).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.json);
        assert_conforms("check-response", &answer.json);
        answer.json
    }

    async fn reserve_id(&self, cost: &str) -> String {
        let answer = self.reserve(cost).await;
        answer["reservation_id"].as_str().unwrap().to_owned()
    }

    /// Pending, reserved and remaining dollars of customer c-42.
    async fn held(&self) -> [String; 3] {
        let state = self.get("/v1/state?customer=c-42").await.json;
        assert_conforms("state-response", &state);
        let line = &state["budgets"][0];
        ["pending_usd", "reserved_usd", "remaining_usd"]
            .map(|name| line[name].as_str().unwrap().to_owned())
    }

    async fn delete(&self, id: &str) -> StatusCode {
        let path = format!("/v1/reservations/{id}");
        let request = Request::delete(path).body(Body::empty()).unwrap();
        self.ask(request).await.status
    }

    async fn extend(&self, id: &str, body: &str) -> Answer {
        let path = format!("/v1/reservations/{id}/extend");
        self.post(&path, body.to_owned()).await
    }
}

/// A call that costs $0.021 and ends a reservation.
fn settling(id: &str, reservation: &str) -> String {
    let mut event = call(id);
    event["usage"] = json!({"input_tokens": 100_000, "output_tokens": 10_000});
    event["reservation_id"] = json!(reservation);
    event.to_string()
}

#[tokio::test]
async fn of_twenty_concurrent_checks_only_one_is_admitted_where_one_fits() {
    let bench = std::sync::Arc::new(limited("0.10"));
    let asking: Vec<_> = (0..20)
        .map(|_| {
            let bench = std::sync::Arc::clone(&bench);
            tokio::spawn(async move { bench.reserve("0.09").await })
        })
        .collect();
    let mut admitted = 0;
    for answer in asking {
        let answer = answer.await.unwrap();
        match answer["decision"].as_str() {
            Some("allow") => {
                admitted += 1;
                assert_eq!(answer["reserved_usd"], "0.09");
                assert!(answer["reserved_until"].is_string());
                let id = answer["reservation_id"].as_str().unwrap();
                assert!(id.starts_with("sidecar."), "{id}");
            }
            Some("block") => {
                assert_eq!(answer["reservation_id"], Value::Null);
                assert_eq!(answer["retry_after_seconds"], 1);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(admitted, 1);
    assert_eq!(bench.held().await, ["0.00", "0.09", "0.01"]);
    // Who reserves nothing is told the same.
    let plain = json!({"customer": "c-42", "estimated_cost_usd": "0.02"});
    let answer = bench.post("/v1/check", plain.to_string()).await;
    assert_eq!(answer.json["decision"], "block");
}

#[tokio::test]
async fn a_usage_event_turns_what_its_call_held_into_what_it_cost() {
    let bench = limited("0.10");
    let id = bench.reserve_id("0.09").await;
    let answer = bench.post("/v1/usage", settling("r-1", &id)).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.json);
    assert_conforms("usage-response", &answer.json);
    assert_eq!(bench.held().await, ["0.021", "0.00", "0.079"]);
    // The name went out with the event, and says nothing to whoever comes later.
    let taken = bench.sink.taken.lock().unwrap()[0].value.clone();
    let taken: Value = serde_json::from_slice(&taken).unwrap();
    assert_eq!(taken["data"]["reservation_id"], *id);
    let again = bench.post("/v1/usage", settling("r-1", &id)).await;
    assert_eq!(again.json["results"][0]["status"], "duplicate");
    let retried = bench.post("/v1/usage", settling("r-2", &id)).await;
    assert_eq!(retried.json["results"][0]["status"], "accepted");
    for unknown in ["elsewhere.0123456789abcdef-1", "1", ""] {
        let answer = bench.post("/v1/usage", settling(unknown, unknown)).await;
        let expected = match unknown {
            "" => StatusCode::BAD_REQUEST,
            _ => StatusCode::ACCEPTED,
        };
        assert_eq!(answer.status, expected, "{}", answer.json);
    }
    assert_eq!(bench.held().await, ["0.021", "0.00", "0.079"]);
    assert_eq!(bench.delete(&id).await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_event_that_is_not_safe_settles_nothing() {
    let bench = limited("0.10");
    let id = bench.reserve_id("0.09").await;
    bench.sink.away.store(true, Ordering::SeqCst);
    let answer = bench.post("/v1/usage", settling("r-1", &id)).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(bench.held().await, ["0.00", "0.09", "0.01"]);
    bench.sink.away.store(false, Ordering::SeqCst);
    let mut wrong: Value = serde_json::from_str(&settling("r-1", &id)).unwrap();
    wrong["usage"]["input_tokens"] = json!(-1);
    let answer = bench.post("/v1/usage", wrong.to_string()).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(bench.held().await, ["0.00", "0.09", "0.01"]);
    bench.post("/v1/usage", settling("r-1", &id)).await;
    assert_eq!(bench.held().await, ["0.021", "0.00", "0.079"]);
}

#[tokio::test]
async fn a_spooled_event_settles_too() {
    let folder = TempDir::new().unwrap();
    let mut bench = bench(config(), Some(small_spool(&folder, 100_000)));
    bench.budget("0.10", steps());
    let id = bench.reserve_id("0.09").await;
    bench.sink.away.store(true, Ordering::SeqCst);
    let answer = bench.post("/v1/usage", settling("r-1", &id)).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert_eq!(bench.held().await, ["0.021", "0.00", "0.079"]);
    assert_eq!(bench.guard.hold_counts(), (0, 1));
}

#[tokio::test]
async fn after_a_kill_nothing_is_let_through_that_the_spool_owes() {
    let folder = TempDir::new().unwrap();
    let mut before = bench(config(), Some(small_spool(&folder, 100_000)));
    before.budget("0.05", steps());
    before.sink.away.store(true, Ordering::SeqCst);
    let id = before.reserve_id("0.021").await;
    // One call with a reservation, and one without.
    let mut unreserved: Value = serde_json::from_str(&settling("r-2", "")).unwrap();
    unreserved.as_object_mut().unwrap().remove("reservation_id");
    for event in [settling("r-1", &id), unreserved.to_string()] {
        let answer = before.post("/v1/usage", event).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.json);
    }
    // Both are pending from the moment on that they are safe.
    assert_eq!(before.held().await, ["0.042", "0.00", "0.008"]);
    drop(before);
    let mut after = bench(config(), Some(small_spool(&folder, 100_000)));
    after.budget("0.05", steps());
    assert_eq!(after.held().await, ["0.00", "0.00", "0.05"]);
    let prices = Prices::new(PricingPolicy::default());
    after
        .delivery
        .owe(&after.guard, &prices, Clock::new().now())
        .await;
    assert_eq!(after.held().await, ["0.042", "0.00", "0.008"]);
    assert_eq!(after.reserve("0.009").await["decision"], "block");
    assert_ne!(after.reserve("0.007").await["decision"], "block");
    assert_eq!(after.guard.hold_counts(), (1, 3));
}

#[tokio::test]
async fn a_call_that_is_not_made_gives_back_and_one_that_takes_longer_keeps() {
    let bench = limited("0.10");
    let id = bench.reserve_id("0.09").await;
    let extended = bench.extend(&id, "").await;
    assert_eq!(extended.status, StatusCode::OK);
    assert_conforms("reservation", &extended.json);
    assert_eq!(extended.json["reservation_id"], *id);
    let longer = bench.extend(&id, r#"{"call_timeout_s": 3600}"#).await;
    let until = |answer: &Answer| answer.json["reserved_until"].as_str().unwrap().to_owned();
    assert!(until(&longer) > until(&extended));
    for wrong in [
        "7",
        r#"{"call_timeout_s": 0}"#,
        r#"{"call_timeout_s": "7"}"#,
    ] {
        let answer = bench.extend(&id, wrong).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{wrong}");
    }
    // Unknown members are ignored, as everywhere.
    let newer = r#"{"call_timeout_s": 7200, "of": "a newer SDK"}"#;
    assert!(until(&bench.extend(&id, newer).await) > until(&longer));
    assert_eq!(bench.delete(&id).await, StatusCode::NO_CONTENT);
    assert_eq!(bench.held().await, ["0.00", "0.00", "0.10"]);
    let mut unknown = vec![id, "nobody".to_owned(), "%00".to_owned()];
    unknown.push("x".repeat(2000));
    for id in unknown {
        assert_eq!(bench.delete(&id).await, StatusCode::NOT_FOUND);
        assert_eq!(bench.extend(&id, "").await.status, StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn a_call_of_the_same_process_keeps_what_it_holds() {
    let bench = limited("0.10");
    let brief = json!({"customer": "c-42", "estimated_cost_usd": "0.09", "reserve": true,
        "call_timeout_s": 1});
    let answer = bench.post("/v1/check", brief.to_string()).await;
    let id = answer.json["reservation_id"].as_str().unwrap();
    for _ in 0..4 {
        tokio::time::sleep(std::time::Duration::from_millis(400)).await;
        bench.sidecar.extend(id);
    }
    // A second has passed long ago.
    let other = bench.reserve("0.09").await;
    assert_eq!(other["decision"], "block");
    bench.sidecar.extend("nobody");
}

#[tokio::test]
async fn a_strict_sidecar_extends_nothing_by_a_misspelt_body() {
    let strict = SidecarConfig {
        strict: true,
        ..config()
    };
    let mut bench = bench(strict, None);
    bench.budget("0.10", steps());
    let id = bench.reserve_id("0.09").await;
    let misspelt = bench.extend(&id, r#"{"timeout": 7}"#).await;
    assert_eq!(misspelt.status, StatusCode::BAD_REQUEST);
    let extended = bench.extend(&id, r#"{"call_timeout_s": 7}"#).await;
    assert_eq!(extended.status, StatusCode::OK);
}

#[tokio::test]
async fn a_counted_call_ends_its_reservation_whichever_instrument_knows_of_it() {
    let mut unknowing: Value = serde_json::from_str(&settling("r-1", "")).unwrap();
    unknowing.as_object_mut().unwrap().remove("reservation_id");
    let mut part = unknowing.clone();
    part["id"] = json!("r-2");
    part["usage"]["output_tokens"] = json!(1);
    for (first, id) in [(&unknowing, "r-1"), (&part, "r-2")] {
        let bench = limited("0.10");
        let reservation = bench.reserve_id("0.09").await;
        bench.post("/v1/usage", first.to_string()).await;
        assert_eq!(bench.held().await, ["0.00", "0.09", "0.01"], "{id}");
        let knowing = settling(id, &reservation);
        let again = bench.post("/v1/usage", knowing).await;
        assert_eq!(again.status, StatusCode::ACCEPTED, "{}", again.json);
        // No figure shows what it has cost yet.
        let held = ["0.021", "0.00", "0.079"];
        assert_eq!(bench.held().await, held, "{id}: {}", again.json);
    }
}

#[tokio::test]
async fn a_gateway_reserves_by_query_or_header() {
    let bench = limited("0.10");
    let path = "/v1/authz?reserve=1&customer=c-42&estimated_cost_usd=0.09&call_timeout_s=30";
    let permitted = bench.get(path).await;
    assert_eq!(permitted.status, StatusCode::OK);
    let id = permitted.headers["x-spendfuse-reservation"]
        .to_str()
        .unwrap();
    let refused = bench.get(path).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers["retry-after"], "1");
    assert!(!refused.headers.contains_key("x-spendfuse-reservation"));
    assert_conforms("authz-error", &refused.json);
    let error = &refused.json["error"];
    assert_eq!(
        (&error["reserved"], &error["pending"]),
        (&json!("$0.09"), &json!("$0.00"))
    );
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("$0.00 is spent, $0.09 reserved"),
        "{message}"
    );
    assert_eq!(bench.delete(id).await, StatusCode::NO_CONTENT);
    let request = Request::get("/v1/authz?customer=c-42")
        .header("x-spendfuse-reserve", "true")
        .header("x-spendfuse-call-timeout-s", "30")
        .header("x-spendfuse-estimated-cost-usd", "0.09");
    let permitted = bench.ask(request.body(Body::empty()).unwrap()).await;
    assert!(permitted.headers.contains_key("x-spendfuse-reservation"));
    assert_eq!(bench.held().await, ["0.00", "0.09", "0.01"]);
}

/// A call of the agent that costs $0.021, by another name of the model that was asked for.
fn learnt(id: &str) -> String {
    let mut event = call(id);
    event["usage"] = json!({"input_tokens": 100_000, "output_tokens": 10_000});
    event["feature"] = json!("agent");
    event["request_model"] = json!("gpt-4o-mini");
    event["model"] = json!("gpt-4o-mini-2024-07-18");
    event.to_string()
}

#[tokio::test]
async fn what_ten_calls_cost_is_held_whatever_the_estimate_says() {
    let bench = limited("0.05");
    let question = |estimate: Value| {
        let mut question = json!({
            "customer": "c-7", "feature": "agent", "model": "gpt-4o-mini", "reserve": true,
        });
        question["estimate"] = estimate;
        question.to_string()
    };
    let held = async |estimate: Value| {
        let answer = bench.post("/v1/check", question(estimate)).await.json;
        assert_conforms("check-response", &answer);
        if let Some(id) = answer["reservation_id"].as_str() {
            bench.delete(id).await;
        }
        (
            answer["reserved_usd"].clone(),
            answer["reserve_rule"].clone(),
        )
    };
    // An estimate without the length of an answer: 4,096 tokens, and as many of input.
    let usual = (json!("0.003072"), json!("bound"));
    let (complete, without_answer) = (
        json!({"input_tokens": 1000, "max_output_tokens": 1_000}),
        json!({"input_tokens": 4096}),
    );
    for round in 0..10 {
        assert_eq!(
            held(complete.clone()).await,
            (json!("0.00075"), json!("given"))
        );
        assert_eq!(held(without_answer.clone()).await, usual);
        assert_eq!(held(Value::Null).await, usual);
        let answer = bench.post("/v1/usage", learnt(&format!("r-{round}"))).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED);
        // What is sent again was counted before.
        bench.post("/v1/usage", learnt(&format!("r-{round}"))).await;
    }
    let learned = (json!("0.021"), json!("learned"));
    for estimate in [complete, without_answer, Value::Null] {
        assert_eq!(held(estimate).await, learned);
    }
    // Two of them have room, and the third is told why it has none.
    for reserved in [true, true, false] {
        let answer = bench.post("/v1/check", question(Value::Null)).await.json;
        assert_eq!(answer["reservation_id"].is_string(), reserved);
        assert_eq!(answer["reserved_usd"], "0.021");
        assert_eq!(answer["reserve_rule"], "learned");
    }
    let gateway = "/v1/authz?reserve=1&customer=c-7&feature=agent&model=gpt-4o-mini";
    let refused = bench.get(gateway).await;
    assert_conforms("authz-error", &refused.json);
    let error = &refused.json["error"];
    assert_eq!(
        (&error["asked"], &error["reserve_rule"]),
        (&json!("$0.021"), &json!("learned"))
    );
}

#[tokio::test]
async fn the_rule_can_be_the_longest_answer_or_a_fixed_amount() {
    for (rule, held) in [("max", "0.0099804"), ("0.07", "0.07"), ("given", "0.09")] {
        let config = SidecarConfig {
            reserve_rule: rule.parse().unwrap(),
            ..config()
        };
        let mut bench = bench(config, None);
        bench.budget("5.00", steps());
        let mut question = question("0.09");
        question["model"] = json!("gpt-4o-mini");
        if rule == "max" {
            let question = question.as_object_mut().unwrap();
            question.remove("estimated_cost_usd");
            question.insert(
                "estimate".into(),
                json!({"input_tokens": 1000, "max_output_tokens": 5}),
            );
        }
        let answer = bench.post("/v1/check", question.to_string()).await.json;
        assert_eq!(answer["reserved_usd"], held, "{rule}: {answer}");
    }
}

#[tokio::test]
async fn what_cannot_be_reserved_is_said() {
    let config = SidecarConfig {
        max_reservations: 1,
        ..config()
    };
    let mut bench = bench(config, None);
    bench.budget("5000000.00", steps());
    for (fields, says) in [
        (json!({"reserve": true}), "name its model"),
        (
            json!({"reserve": "yes", "estimated_cost_usd": "1"}),
            "true or false",
        ),
        (
            json!({"reserve": true, "estimated_cost_usd": "1000000.01"}),
            "million",
        ),
        (
            json!({"reserve": true, "estimated_cost_usd": "1", "call_timeout_s": 86401}),
            "86400",
        ),
        (
            json!({"reserve": true, "estimated_cost_usd": "1", "call_timeout_s": -1}),
            "86400",
        ),
    ] {
        let answer = bench.post("/v1/check", fields.to_string()).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{fields}");
        assert!(answer.json.to_string().contains(says), "{}", answer.json);
    }
    let state = bench
        .get("/v1/state?customer=c-42&reserve=1&estimated_cost_usd=1")
        .await;
    assert_eq!(state.status, StatusCode::BAD_REQUEST);
    let off = json!({"customer": "c-42", "reserve": false});
    let answer = bench.post("/v1/check", off.to_string()).await;
    assert_eq!(answer.json["reservation_id"], Value::Null);
    bench.reserve("1").await;
    let full = bench.post("/v1/check", question("1").to_string()).await;
    assert_eq!(full.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(full.json["error"]["code"], "too_many_reservations");
    assert!(full.json.to_string().contains("sidecar.max_reservations"));
    let gateway = "/v1/authz?reserve=1&customer=c-42&estimated_cost_usd=1";
    let full = bench.get(gateway).await;
    assert_eq!(full.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_conforms("authz-error", &full.json);
    let full = bench.get(&format!("{gateway}&deny_status=403")).await;
    assert_eq!(full.status, StatusCode::FORBIDDEN);
}
