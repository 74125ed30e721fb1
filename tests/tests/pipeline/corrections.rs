//! `spendfuse correct`: entries are taken back and changed by signed entries, verdicts follow, and the
//! audit finds nothing all the while.
// Clippy's exception for tests does not cover their helper functions.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use serde_json::{Value, json};
use spendfuse_tests::traffic::now;
use spendfuse_tests::{Lab, eventually};

const WAIT: Duration = Duration::from_secs(40);
const BUDGETS: &str = r#"
budgets:
  - {id: cap, scope: {workspace: acme, customer: "*"}, limit: "0.01", window: day}
  - {id: everything, scope: {}, limit: "50", window: lifetime}
  - {id: per-session, scope: {workspace: acme, session: "*"}, limit: "0.01", window: session}
"#;

/// A call of gpt-4o that costs 0.006 USD.
fn event(id: &str) -> String {
    json!({
        "specversion": "1.0", "type": "spendfuse.usage", "source": "app", "id": id,
        "time": now().to_string(),
        "data": {"workspace": "acme", "customer": "c-1", "feature": "agent", "session": "s-1",
                 "provider": "openai", "model": "gpt-4o", "usage": {"input_tokens": 2400}},
    })
    .to_string()
}

fn send(lab: &Lab, lines: &[String]) -> Value {
    let file = lab.file("events.ndjson");
    std::fs::write(&file, lines.join("\n")).unwrap();
    let said = lab.must(&["ingest", "--json", file.to_str().unwrap()]);
    serde_json::from_str(&said.stdout).unwrap()
}

/// Corrects, and says what the command said.
fn correct(lab: &Lab, arguments: &[&str]) -> Value {
    let common = ["--reason", "sent twice", "--by", "tester", "--json"];
    let all = [&["correct"], arguments, &common].concat();
    let said = lab.must(&all);
    serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"))
}

fn by_identity<'a>(action: &'a str, id: &'a str) -> Vec<&'a str> {
    vec![action, "--workspace", "acme", "--source", "app", "--id", id]
}

/// The decision for a call of the customer is this one, before long.
fn await_decision(lab: &Lab, who: &[&str], wanted: &str) {
    eventually(&format!("{who:?}: {wanted}"), WAIT, || {
        let arguments = [&["check", "--workspace", "acme", "--json"], who].concat();
        let said = lab.run(&arguments);
        let answer: Value =
            serde_json::from_str(&said.stdout).map_err(|error| error.to_string())?;
        match answer["decision"] == wanted {
            true => Ok(()),
            false => Err(answer.to_string()),
        }
    });
}

fn assert_no_drift(lab: &Lab) {
    let said = lab.run(&["audit", "--json"]);
    let answer: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(said.code, Some(0), "{answer:#}");
    assert_eq!(answer["drift_events"], 0, "{answer:#}");
    assert_eq!(answer["drift_nanodollars"], "0", "{answer:#}");
}

/// Calls, tokens and nano-dollars of a customer, over all rows.
fn sums(lab: &Lab, customer: &str) -> Vec<i64> {
    let sql = format!(
        "SELECT sum(calls), sum(input_tokens + output_tokens), toInt64(sum(cost) * 1000000000) \
         FROM spend WHERE customer = '{customer}'"
    );
    let table = lab.warehouse().rows(&sql).unwrap();
    table[0].iter().map(|cell| cell.parse().unwrap()).collect()
}

#[test]
fn a_doubled_event_is_voided_and_its_block_is_lifted() {
    let lab = Lab::new("corrections");
    lab.apply_budgets(BUDGETS);
    let _processor = lab.processor("1");
    let _loader = lab.loader();
    let (first, second) = (event("r-1"), event("r-1-again"));
    send(&lab, &[first, second.clone()]);
    let (customer, session) = (["--customer", "c-1"], ["--session", "s-1"]);
    await_decision(&lab, &customer, "block");
    await_decision(&lab, &session, "block");
    eventually("both are rows", WAIT, || match sums(&lab, "c-1")[0] {
        2 => Ok(()),
        calls => Err(format!("{calls}")),
    });

    let void = by_identity("void", "r-1-again");
    let shown = correct(&lab, &[&void[..], &["--dry-run"]].concat());
    assert_eq!(shown["outcome"], "dry_run", "{shown:#}");
    assert_eq!(shown["before"]["cost_usd"], "0.006", "{shown:#}");
    assert_eq!(shown["budgets"].as_array().unwrap().len(), 3, "{shown:#}");
    assert_eq!(sums(&lab, "c-1")[0], 2, "nothing was done");

    let voided = correct(&lab, &void);
    assert_eq!(voided["outcome"], "applied", "{voided:#}");
    assert_eq!(
        voided["id"], shown["id"],
        "its id follows from what it does"
    );
    await_decision(&lab, &customer, "allow");
    await_decision(&lab, &session, "allow");
    assert_eq!(sums(&lab, "c-1"), [1, 2400, 6_000_000]);
    assert_no_drift(&lab);
    let again = correct(&lab, &void);
    assert_eq!(again["outcome"], "nothing_to_do", "{again:#}");
    let sent = send(&lab, &[second]);
    assert_eq!(sent["outcome"]["duplicates"], 1, "{sent:#}");

    // A correction of the correction brings the entry back.
    let said = lab.must(&["correct", "list", "--json"]);
    let listed: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(listed[0]["id"], voided["id"], "{listed:#}");
    assert_eq!(listed[0]["why"], "tester: sent twice", "{listed:#}");
    let address = listed[0]["address"].as_str().unwrap();
    let back = correct(&lab, &["void", "--address", address]);
    assert_eq!(back["outcome"], "applied", "{back:#}");
    await_decision(&lab, &customer, "block");
    await_decision(&lab, &session, "block");
    assert_eq!(sums(&lab, "c-1"), [2, 4800, 12_000_000]);

    // Another customer, then other counts: 400 tokens of output cost 0.004 USD more.
    let amend = by_identity("amend", "r-1-again");
    let moved = correct(&lab, &[&amend[..], &["--customer", "c-2"]].concat());
    assert_eq!(moved["outcome"], "applied", "{moved:#}");
    await_decision(&lab, &customer, "allow");
    let grown = correct(&lab, &[&amend[..], &["--output-tokens", "400"]].concat());
    assert_eq!(grown["outcome"], "applied", "{grown:#}");
    await_decision(&lab, &["--customer", "c-2"], "block");
    assert_eq!(sums(&lab, "c-1"), [1, 2400, 6_000_000]);
    assert_eq!(sums(&lab, "c-2"), [1, 2800, 10_000_000]);
    let said_cost = correct(&lab, &[&amend[..], &["--cost", "0.0025"]].concat());
    assert_eq!(said_cost["outcome"], "applied", "{said_cost:#}");
    await_decision(&lab, &["--customer", "c-2"], "allow");
    assert_eq!(sums(&lab, "c-2"), [1, 2800, 2_500_000]);
    assert_no_drift(&lab);
}

#[test]
fn what_cannot_be_corrected_is_said() {
    let lab = Lab::new("corrections_refused");
    let _processor = lab.processor("1");
    let _loader = lab.loader();
    let refused = |arguments: &[&str], wanted: &str, code: i32| {
        let all = [
            &["correct"],
            arguments,
            &["--reason", "a test", "--by", "tester"],
        ]
        .concat();
        let said = lab.run(&all);
        assert_eq!(said.code, Some(code), "{said:?}");
        assert!(said.stderr.contains(wanted), "{wanted}: {said:?}");
    };
    refused(
        &by_identity("void", "unknown"),
        "has no entry of event unknown",
        1,
    );
    refused(
        &["void", "--address", "0/0/1/0"],
        "has no row at 0/0/1/0",
        1,
    );
    refused(
        &["void", "--address", "7/0/1/0"],
        "is an entry of epoch 7",
        1,
    );
    refused(&["void", "--address", "0/0/1"], "is no address", 2);
    refused(
        &by_identity("amend", "r-1"),
        "nothing is said that should stand",
        2,
    );
    refused(&["void"], "required", 2);
}
