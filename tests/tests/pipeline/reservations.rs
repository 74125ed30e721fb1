//! A reservation on the real parts: what a call holds becomes what it cost, and is never nowhere.

use std::net::{SocketAddr, TcpStream};
use std::thread;

use serde_json::{Value, json};
use spendfuse_domain::Nanos;
use spendfuse_domain::routing::partition_of;
use spendfuse_tests::http::{Answer, post};
use spendfuse_tests::load::Sender;
use spendfuse_tests::traffic::now;
use spendfuse_tests::{Lab, PATIENCE, Record, Role, eventually};

use crate::refusing::{address_of, ask_at, start_sidecar};

const BUDGET: &str = "budgets:
  - {id: cap, scope: {workspace: acme, customer: \"*\"}, limit: \"0.10\", window: lifetime, action: block}
";
/// 24,000 tokens at $2.50 a million.
const COST: i128 = 60_000_000;

/// A processor, and two sidecars that know the budget and hear each other.
struct Pair {
    first: (Role, SocketAddr),
    second: (Role, SocketAddr),
    processor: Role,
    // Dropped after its roles.
    lab: Lab,
}

impl Pair {
    fn start(name: &str) -> Self {
        let lab = Lab::empty(name);
        lab.create_topics();
        lab.apply_budgets(BUDGET);
        let pair = Self {
            processor: lab.processor("1"),
            first: start_sidecar(&lab, "edge-7", &[]),
            second: start_sidecar(&lab, "edge-8", &[]),
            lab,
        };
        await_ready(pair.first.1);
        await_ready(pair.second.1);
        pair
    }
}

fn await_ready(address: SocketAddr) {
    eventually("the budget is in force", PATIENCE, || {
        let state = state(address, "c-1");
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

/// The event of a call that had this reservation.
fn event(id: &str, customer: &str, reservation: &str) -> Value {
    json!({
        "id": id, "workspace": "acme", "customer": customer, "provider": "openai",
        "model": "gpt-4o", "usage": {"input_tokens": 24_000, "output_tokens": 0},
        "session": format!("session-of-{customer}"), "reservation_id": reservation,
    })
}

fn reserve(address: SocketAddr, customer: &str) -> String {
    let question = json!({
        "workspace": "acme", "customer": customer, "estimated_cost_usd": "0.09", "reserve": true,
    });
    // A sidecar that was killed has its share of the limit until it is dropped.
    eventually("a reservation is given", PATIENCE, || {
        let answer = posted(address, "/v1/check", &question);
        let id = answer["reservation_id"].as_str().map(str::to_owned);
        id.ok_or_else(|| answer.to_string())
    })
}

/// Until then the cost is at no moment in neither place.
fn await_taken_over(address: SocketAddr, customer: &str) {
    eventually("the figure takes the cost over", PATIENCE, || {
        let state = state(address, customer);
        let line = &state["budgets"][0];
        let nanos = |name: &str| {
            let text = line[name].as_str().expect("it is an amount");
            let parsed = Nanos::parse_usd(text).expect("it is an amount");
            parsed.amount.get()
        };
        let (spent, pending) = (nanos("spent_usd"), nanos("pending_usd"));
        let reserved = nanos("reserved_usd");
        assert!(spent + pending + reserved >= COST, "{line}");
        match (spent, pending, reserved) {
            (COST, 0, 0) => Ok(()),
            _ => Err(line.to_string()),
        }
    });
}

#[test]
fn of_calls_through_two_sidecars_only_one_has_the_last_cents_and_it_becomes_spent() {
    let pair = Pair::start("reservations");
    let (at_first, at_second) = (pair.first.1, pair.second.1);

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
        let state = state(other, "c-1");
        match state["budgets"][0]["reserved_usd"] == "0.09" {
            true => Ok(()),
            false => Err(state.to_string()),
        }
    });

    let told = posted(address, "/v1/usage", &event("r-1", "c-1", ids[0]));
    assert_eq!(told["accepted"], 1, "{told}");
    await_taken_over(address, "c-1");
}

#[test]
fn an_event_by_another_way_settles_where_its_reservation_was_given() {
    let mut pair = Pair::start("settled-elsewhere");
    let (first, second) = (pair.first.1, pair.second.1);

    // Through another sidecar.
    let id = reserve(first, "c-1");
    let told = posted(second, "/v1/usage", &event("e-1", "c-1", &id));
    assert_eq!(told["accepted"], 1, "{told}");
    await_taken_over(first, "c-1");

    // Straight from an app, into the partition of another session.
    let id = reserve(first, "c-2");
    let sender = Sender::new(&pair.lab);
    let home = partition_of(b"session-of-c-2", pair.lab.partitions());
    let data = event("e-2", "c-2", &id);
    let astray = json!({
        "specversion": "1.0", "type": "spendfuse.usage", "source": "an-app", "id": "e-2",
        "time": now(), "data": data,
    });
    sender.send(&Record {
        partition: Some((home + 1) % pair.lab.partitions()),
        key: None,
        value: astray.to_string().into_bytes(),
    });
    sender.flush();
    await_taken_over(first, "c-2");

    // One of an earlier start has the same number, and is none of this one's.
    let former = reserve(first, "c-3");
    pair.first.0.kill();
    pair.first.0.restart();
    let first = address_of(&pair.first.0);
    await_ready(first);
    let numbers: Vec<String> = (0..4)
        .map(|customer| reserve(first, &format!("c-4{customer}")))
        .collect();
    let number = |id: &str| id.rsplit('-').next().map(str::to_owned);
    assert!(numbers.iter().any(|id| number(id) == number(&former)));
    let told = posted(second, "/v1/usage", &event("e-3", "c-3", &former));
    assert_eq!(told["accepted"], 1, "{told}");
    eventually("its call is counted", PATIENCE, || {
        let state = state(first, "c-3");
        match state["budgets"][0]["spent_usd"] == "0.06" {
            true => Ok(()),
            false => Err(state.to_string()),
        }
    });
    for customer in 0..4 {
        let state = state(first, &format!("c-4{customer}"));
        assert_eq!(state["budgets"][0]["reserved_usd"], "0.09", "{state}");
    }
    pair.processor.stop();
}

fn state(address: SocketAddr, customer: &str) -> Value {
    let path = format!("/v1/state?workspace=acme&customer={customer}");
    parsed(&ask_at(address, &path))
}

fn posted(address: SocketAddr, path: &str, body: &Value) -> Value {
    let stream = TcpStream::connect(address).expect("the sidecar listens");
    parsed(&post(stream, path, &body.to_string()).expect("the sidecar answers"))
}

fn parsed(answer: &Answer) -> Value {
    serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}
