//! Questions with something wrong in them: told in warnings, or refused.

use crate::support::{Bench, assert_conforms, bench, call, config, steps};
use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};
use spendfuse_domain::UnixMillis;
use spendfuse_domain::event::decode;
use spendfuse_sidecar::SidecarConfig;

/// Type and message of each warning.
fn warnings(answer: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let warnings = answer["warnings"].as_array().unwrap().iter();
    warnings
        .map(|warning| (text(&warning["type"]), text(&warning["message"])))
        .collect()
}

#[tokio::test]
async fn what_a_check_misspells_is_told_with_what_was_meant() {
    let bench = bench(config(), None);
    let strict = bench_that_is_strict();
    for (question, said) in [
        (
            json!({"custommer": "c-42", "plan": "pro"}),
            "`custommer` is unknown and was ignored; did you mean `customer`?",
        ),
        (
            json!({"organization_id": "acme", "customer": "c"}),
            "did you mean `workspace`?",
        ),
        (
            json!({"customer": "c", "estimated_cost": "0.5"}),
            "did you mean `estimated_cost_usd`?",
        ),
        (
            json!({"customer": "c", "estimate": {"model": "m", "max_tokens": 5}}),
            "`estimate.max_tokens`",
        ),
        (
            json!({"customer": "c", "\u{1b}[2J": 1}),
            "`\\u{1b}[2J` is unknown",
        ),
        (json!({}), "nothing is named"),
        (json!({"customer": null}), "nothing is named"),
    ] {
        let answer = bench.post("/v1/check", question.to_string()).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_conforms("check-response", &answer.json);
        let told = warnings(&answer.json);
        assert!(
            told.iter().any(|(_, message)| message.contains(said)),
            "{told:?}"
        );
        let refused = strict.post("/v1/check", question.to_string()).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        let message = refused.json["error"]["message"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(
            message.contains(said) && message.contains("sidecar.strict"),
            "{message}"
        );
    }
    let whole = json!({"customer": "c", "tags": {"anything": "goes"}});
    let answer = strict.post("/v1/check", whole.to_string()).await;
    assert_eq!(
        (answer.status, warnings(&answer.json)),
        (StatusCode::OK, vec![])
    );
    let state = bench.get("/v1/state?customer=c-42&sesion=s-1").await;
    assert_conforms("state-response", &state.json);
    assert!(
        warnings(&state.json)[0]
            .1
            .contains("did you mean `session`?")
    );
}

fn bench_that_is_strict() -> Bench {
    let strict = SidecarConfig {
        strict: true,
        ..config()
    };
    bench(strict, None)
}

#[tokio::test]
async fn a_check_that_is_asked_in_query_or_headers_is_told() {
    let strict = bench_that_is_strict();
    let bench = bench(config(), None);
    let ask = |path: &str, header: &str| {
        let request = Request::post(path).header(header, "c-42");
        request.body(Body::from("{\"feature\":\"f\"}")).unwrap()
    };
    for (path, header, named) in [
        ("/v1/check?customer=c-42&x", "accept", "`customer`"),
        (
            "/v1/check",
            "x-spendfuse-customer",
            "`x-spendfuse-customer`",
        ),
    ] {
        let told = warnings(&bench.ask(ask(path, header)).await.json);
        assert!(told[0].1.starts_with(named), "{told:?}");
        assert_eq!(told[0].0, "unknown_field");
        let refused = strict.ask(ask(path, header)).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    }
    for header in ["x-spendfuse-token", "x-spendfuse-source", "x-request-id"] {
        let answer = strict.ask(ask("/v1/check", header)).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.json);
    }
}

#[tokio::test]
async fn a_missing_workspace_is_told() {
    let without = SidecarConfig {
        default_workspace: String::new(),
        ..config()
    };
    let bench = bench(without, None);
    let question = json!({"customer": "c-42"}).to_string();
    let answer = bench.post("/v1/check", question).await.json;
    assert_conforms("check-response", &answer);
    assert_eq!(warnings(&answer)[0].0, "no_workspace");
    let answer = bench.post("/v1/check", "{}").await.json;
    assert_eq!(warnings(&answer)[0].0, "no_workspace");
    let permitted = bench.get("/v1/authz").await;
    let told = permitted.headers["x-spendfuse-warnings"].to_str().unwrap();
    assert!(told.contains("no_workspace"), "{told}");
}

#[tokio::test]
async fn many_unknown_fields_are_counted_rather_than_listed() {
    let bench = bench(config(), None);
    let mut question = json!({"customer": "c"});
    for number in 0..500 {
        question[format!("field-{number}")] = json!(1);
    }
    let answer = bench.post("/v1/check", question.to_string()).await.json;
    let told = warnings(&answer);
    assert_eq!(told.len(), 9);
    assert_eq!(told[8].1, "492 more fields are unknown");
}

#[tokio::test]
async fn a_number_names_the_same_customer_in_checks_and_in_events() {
    for number in ["42", "-7", "1.50", "12345678901234567890123"] {
        let mut bench = bench(config(), None);
        bench.budget("5.00", steps());
        let event = call("r-1").to_string().replace("\"c-42\"", number);
        let taken = bench.post("/v1/usage", event).await;
        assert_eq!(taken.status, StatusCode::ACCEPTED, "{}", taken.json);
        let sent = bench.sink.taken.lock().unwrap()[0].value.clone();
        let decoded = decode(&sent, &[], UnixMillis(i64::MAX)).unwrap();
        assert_eq!(decoded.attribution.customer, number);
        bench.spent(&decoded.attribution.customer, "5.00", "block");
        let question = format!("{{\"customer\": {number}}}");
        let answer = bench.post("/v1/check", question).await;
        assert_eq!(answer.json["decision"], "block", "{number}");
    }
}
