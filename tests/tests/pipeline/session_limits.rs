//! What a session may spend by its app's word, on the real parts.

use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};
use spendfuse_tests::http::post;
use spendfuse_tests::{Lab, PATIENCE, eventually};

use crate::refusing::{ask_at, start_sidecar};

/// A dollar, unless an app says otherwise.
const BUDGET: &str = "budgets:
  - {id: run, scope: {workspace: acme}, limit: \"1.00\", limit_from: event, window: session, action: block}
";

#[test]
fn a_session_is_refused_at_the_limit_that_its_app_gave_it() {
    let lab = Lab::empty("session-limits");
    lab.create_topics();
    lab.apply_budgets(BUDGET);
    let _processor = lab.processor("1");
    let (_sidecar, address) = start_sidecar(&lab, "edge-7", &[]);
    eventually("the budget is in force", PATIENCE, || {
        let decided = check(
            address,
            json!({"session": "s-0", "estimated_cost_usd": "2.00"}),
        );
        match decided["decision"] == "block" && decided["state"] == "live" {
            true => Ok(()),
            false => Err(decided.to_string()),
        }
    });

    // Told with the check, the first call is limited by it.
    let first = |limit: &str| {
        let question = json!({
            "session": "s-1", "estimated_cost_usd": "0.06", "session_limit_usd": limit,
        });
        check(address, question)["decision"].clone()
    };
    assert_eq!(
        (first("0.05"), first("0.10")),
        (json!("block"), json!("allow"))
    );

    // Told with an event, by all that follow: six cents of ten.
    let event = json!({
        "id": "e-1", "workspace": "acme", "session": "s-1", "provider": "openai",
        "model": "gpt-4o", "usage": {"input_tokens": 24_000, "output_tokens": 0},
        "session_limit_usd": "0.10",
    });
    let told = posted(address, "/v1/usage", &event);
    assert_eq!(told["accepted"], 1, "{told}");
    eventually("the session has its limit", PATIENCE, || {
        let line = &check(address, json!({"session": "s-1"}))["budgets"][0];
        match line["spent_usd"] == "0.06" && line["limit_usd"] == "0.10" {
            true => Ok(()),
            false => Err(line.to_string()),
        }
    });
    let of = |session: &str, estimate: &str| {
        let question = json!({"session": session, "estimated_cost_usd": estimate});
        check(address, question)["decision"].clone()
    };
    assert_eq!(of("s-1", "0.04"), json!("allow"));
    assert_eq!(of("s-1", "0.05"), json!("block"));
    assert_eq!(of("s-2", "0.05"), json!("allow"));
    let state = ask_at(address, "/v1/state?workspace=acme&session=s-1").body;
    assert!(state.contains(r#""limit_usd":"0.10""#), "{state}");
}

fn check(address: SocketAddr, mut question: Value) -> Value {
    question["workspace"] = json!("acme");
    posted(address, "/v1/check", &question)
}

fn posted(address: SocketAddr, path: &str, body: &Value) -> Value {
    let stream = TcpStream::connect(address).expect("the sidecar listens");
    let answer = post(stream, path, &body.to_string()).expect("the sidecar answers");
    serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}
