//! The thinnest slice through all parts.

use serde_json::Value;
use spendfuse_domain::Verdict;
use spendfuse_tests::load::Sender;
use spendfuse_tests::{GuardView, Lab, PATIENCE, Traffic, eventually};

use crate::refusing::{ask_at, start_sidecar};

#[test]
fn one_event_becomes_one_row_one_verdict_and_one_alert() {
    let lab = Lab::new("thin_slice");
    lab.apply_budgets(
        "budgets:
  - {id: cap, scope: {workspace: acme, customer: \"*\"}, limit: \"0.000001\", window: day}
  - {id: cost-centre, scope: {workspace: acme, project: \"*\"}, limit: \"0.000001\", window: day}",
    );
    let _processor = lab.processor("1");
    let _loader = lab.loader();
    let guard = GuardView::new(&lab);
    assert_eq!(guard.verdict("c-1"), Verdict::Ok);

    let mut traffic = Traffic::new(&lab, 1);
    let sender = Sender::new(&lab);
    let mut call = traffic.call("c-1", "s-1", 2000, 101, 300);
    call.value = of_project(&call.value, "apollo");
    sender.send(&call);
    sender.flush();

    let lag = guard.await_verdict("c-1", Verdict::Block, PATIENCE);
    println!("event acknowledged -> verdict at the guard: {lag:?}");
    assert_eq!(guard.verdict("c-2"), Verdict::Ok);
    lab.settle(traffic.expected(), PATIENCE);

    // Each worker has started, ticked and counted: nothing but the budgets' steps is news.
    let alerts: Vec<String> = lab.table("alerts").into_keys().collect();
    let alert_of = |scope: &str| alerts.iter().any(|alert| alert.starts_with(scope));
    assert!(
        alerts.len() == 2
            && alert_of("cap|acme/customer=c-1|")
            && alert_of("cost-centre|acme/project=apollo|"),
        "{alerts:?}"
    );

    // Whoever asks for the project is refused, whatever is not known of the call.
    let (_sidecar, address) = start_sidecar(&lab, "1", &[]);
    eventually("the sidecar refuses", PATIENCE, || {
        let answer = ask_at(address, "/v1/authz?workspace=acme&project=apollo");
        let words = "project apollo has reached its daily budget";
        match answer.status == 429 && answer.body.contains(words) {
            true => Ok(()),
            false => Err(format!("{answer:?}")),
        }
    });
    let other = ask_at(address, "/v1/authz?workspace=acme&project=gemini");
    assert_eq!(other.status, 200, "{other:?}");
    let asked = ["check", "--workspace", "acme", "--project", "apollo"];
    let said = lab.run(&[&asked[..], &["--json"]].concat());
    let answer: Value = serde_json::from_str(&said.stdout).expect("it is JSON");
    assert_eq!(answer["decision"], "block", "{answer:#}");

    let said = lab.must(&["audit", "--json"]);
    let answer: Value = serde_json::from_str(&said.stdout).expect("it is JSON");
    assert_eq!(answer["drift_events"], 0, "{answer:#}");
    assert_eq!(answer["not_compared"], serde_json::json!([]), "{answer:#}");
}

/// The event, charged to a cost centre.
fn of_project(event: &[u8], project: &str) -> Vec<u8> {
    let mut event: Value = serde_json::from_slice(event).expect("it is JSON");
    event["data"]["project"] = project.into();
    event.to_string().into_bytes()
}
