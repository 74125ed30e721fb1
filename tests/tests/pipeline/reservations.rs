//! A reservation on the real parts: what a call holds becomes what it cost, and is never nowhere.

use std::net::{SocketAddr, TcpStream};
use std::thread;

use serde_json::{Value, json};
use spendfuse_domain::Nanos;
use spendfuse_tests::http::{Answer, post};
use spendfuse_tests::{Lab, eventually};

use crate::refusing::{PATIENCE, ask_at, start_sidecar};

const BUDGET: &str = "budgets:
  - {id: cap, scope: {workspace: acme, customer: \"*\"}, limit: \"0.10\", window: lifetime, action: block}
";
/// 24,000 tokens at $2.50 a million.
const COST: i128 = 60_000_000;

#[test]
fn of_calls_through_two_sidecars_only_one_has_the_last_cents_and_it_becomes_spent() {
    let lab = Lab::empty("reservations");
    lab.create_topics();
    lab.apply_budgets(BUDGET);
    let _processor = lab.processor("1");
    let (_first, at_first) = start_sidecar(&lab, "edge-7", &[]);
    let (_second, at_second) = start_sidecar(&lab, "edge-8", &[]);
    for address in [at_first, at_second] {
        eventually("the budget is in force", PATIENCE, || {
            let state = state(address);
            match state["budgets"]
                .as_array()
                .is_some_and(|lines| !lines.is_empty())
                && state["state"] == "live"
            {
                true => Ok(()),
                false => Err(state.to_string()),
            }
        });
        eventually("what others hold is heard", PATIENCE, || {
            let ready = ask_at(address, "/readyz").body;
            match ready.contains("what other sidecars hold") {
                true => Err(ready),
                false => Ok(()),
            }
        });
    }

    let question = json!({
        "workspace": "acme", "customer": "c-1", "estimated_cost_usd": "0.09", "reserve": true,
    });
    let ask = |address| posted(address, "/v1/check", &question);
    let answers: Vec<Value> = thread::scope(|scope| {
        let addresses = [at_first, at_second].into_iter().cycle().take(20);
        let asking: Vec<_> = addresses
            .map(|address| scope.spawn(move || ask(address)))
            .collect();
        asking
            .into_iter()
            .map(|one| one.join().expect("it answers"))
            .collect()
    });
    let ids: Vec<&str> = answers
        .iter()
        .filter_map(|answer| answer["reservation_id"].as_str())
        .collect();
    assert_eq!(ids.len(), 1, "{answers:?}");
    let (address, other) = match ids[0].starts_with("edge-7.") {
        true => (at_first, at_second),
        false => (at_second, at_first),
    };
    eventually("the other sidecar shows what is held", PATIENCE, || {
        let state = state(other);
        match state["budgets"][0]["reserved_usd"] == "0.09" {
            true => Ok(()),
            false => Err(state.to_string()),
        }
    });

    let event = json!({
        "id": "r-1", "workspace": "acme", "customer": "c-1", "provider": "openai",
        "model": "gpt-4o", "usage": {"input_tokens": 24_000, "output_tokens": 0},
        "reservation_id": ids[0],
    });
    let told = posted(address, "/v1/usage", &event);
    assert_eq!(told["accepted"], 1, "{told}");
    eventually("the figure takes the cost over", PATIENCE, || {
        let state = state(address);
        let line = &state["budgets"][0];
        let nanos = |name: &str| {
            let text = line[name].as_str().expect("it is an amount");
            Nanos::parse_usd(text)
                .expect("it is an amount")
                .amount
                .get()
        };
        let (spent, pending) = (nanos("spent_usd"), nanos("pending_usd"));
        assert!(spent + pending >= COST, "{line}");
        assert_eq!(nanos("reserved_usd"), 0, "{line}");
        match (spent, pending) {
            (COST, 0) => Ok(()),
            _ => Err(line.to_string()),
        }
    });
}

fn state(address: SocketAddr) -> Value {
    parsed(&ask_at(address, "/v1/state?workspace=acme&customer=c-1"))
}

fn posted(address: SocketAddr, path: &str, body: &Value) -> Value {
    let stream = TcpStream::connect(address).expect("the sidecar listens");
    parsed(&post(stream, path, &body.to_string()).expect("the sidecar answers"))
}

fn parsed(answer: &Answer) -> Value {
    serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}
