//! `spendfuse correct`: entries are taken back and changed by signed entries, verdicts follow, and the
//! audit finds nothing all the while.
// Clippy's exception for tests does not cover their helper functions.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use spendfuse_tests::traffic::now;
use spendfuse_tests::{Lab, PATIENCE, eventually};

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

/// After idle weeks retention has taken everything that was read, the ends of transactions included.
#[test]
fn entries_are_corrected_after_retention_took_what_was_before() {
    let lab = Lab::new("corrections_later");
    lab.apply_budgets(BUDGETS);
    let _processor = lab.processor("1");
    let _loader = lab.loader();
    send(&lab, &[event("r-1"), event("r-2"), event("r-3")]);
    eventually("rows", PATIENCE, || {
        match lab.warehouse().numbers("SELECT count() FROM spend")?[0] {
            3 => Ok(()),
            rows => Err(rows.to_string()),
        }
    });
    let void = |id: &str| correct(&lab, &by_identity("void", id))["outcome"].clone();
    assert_eq!(void("r-1"), "applied");
    for topic in ["corrections", "rows"] {
        for partition in 0..lab.partitions() {
            lab.delete_records(&lab.topic(topic), partition);
        }
    }
    assert_eq!(void("r-2"), "applied");
    assert_eq!(void("r-3"), "applied");
    lab.assert_no_drift();
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
    lab.await_decision(&customer, "block", PATIENCE);
    lab.await_decision(&session, "block", PATIENCE);
    eventually("both are rows", PATIENCE, || match lab.sums_of("c-1")[0] {
        2 => Ok(()),
        calls => Err(format!("{calls}")),
    });

    let void = by_identity("void", "r-1-again");
    let shown = correct(&lab, &[&void[..], &["--dry-run"]].concat());
    assert_eq!(shown["outcome"], "dry_run", "{shown:#}");
    assert_eq!(shown["before"]["cost_usd"], "0.006", "{shown:#}");
    assert_eq!(shown["budgets"].as_array().unwrap().len(), 3, "{shown:#}");
    assert_eq!(lab.sums_of("c-1")[0], 2, "nothing was done");

    let voided = correct(&lab, &void);
    assert_eq!(voided["outcome"], "applied", "{voided:#}");
    assert_eq!(
        voided["id"], shown["id"],
        "its id follows from what it does"
    );
    lab.await_decision(&customer, "allow", PATIENCE);
    lab.await_decision(&session, "allow", PATIENCE);
    assert_eq!(lab.sums_of("c-1"), [1, 2400, 6_000_000]);
    lab.assert_no_drift();
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
    lab.await_decision(&customer, "block", PATIENCE);
    lab.await_decision(&session, "block", PATIENCE);
    assert_eq!(lab.sums_of("c-1"), [2, 4800, 12_000_000]);

    // Another customer, then other counts: 400 tokens of output cost 0.004 USD more.
    let amend = by_identity("amend", "r-1-again");
    let moved = correct(&lab, &[&amend[..], &["--customer", "c-2"]].concat());
    assert_eq!(moved["outcome"], "applied", "{moved:#}");
    lab.await_decision(&customer, "allow", PATIENCE);
    let grown = correct(&lab, &[&amend[..], &["--output-tokens", "400"]].concat());
    assert_eq!(grown["outcome"], "applied", "{grown:#}");
    lab.await_decision(&["--customer", "c-2"], "block", PATIENCE);
    assert_eq!(lab.sums_of("c-1"), [1, 2400, 6_000_000]);
    assert_eq!(lab.sums_of("c-2"), [1, 2800, 10_000_000]);
    let said_cost = correct(&lab, &[&amend[..], &["--cost", "0.0025"]].concat());
    assert_eq!(said_cost["outcome"], "applied", "{said_cost:#}");
    lab.await_decision(&["--customer", "c-2"], "allow", PATIENCE);
    assert_eq!(lab.sums_of("c-2"), [1, 2800, 2_500_000]);
    lab.assert_no_drift();
}

/// Detectors do not judge again, so a finding says that something of it was corrected.
#[test]
fn a_finding_says_how_many_events_of_its_evidence_were_corrected_since() {
    let lab = Lab::new("corrections_found");
    let _processor = lab.processor("1");
    let _loader = lab.loader();
    let step = |number: u32| {
        let mut step: Value = serde_json::from_str(&event(&format!("r-{number}"))).unwrap();
        step["data"]["prompt_fingerprint"] = "9f2c41d0a1b2c3d4".into();
        step.to_string()
    };
    send(&lab, &(0..4).map(step).collect::<Vec<_>>());
    let await_corrected = |wanted: u64| {
        eventually("the finding says it", PATIENCE, || {
            let said = lab.run(&["findings", "list", "--all", "--json"]);
            let all: Value = serde_json::from_str(&said.stdout).unwrap_or_default();
            let all = all.as_array().cloned().unwrap_or_default();
            let found = all.iter().find(|one| one["detector"] == "retry_loop");
            match found.is_some_and(|one| one["corrected"] == wanted) {
                true => Ok(()),
                false => Err(format!("{said:?}")),
            }
        });
    };
    await_corrected(0);
    eventually("all are rows", PATIENCE, || match lab.sums_of("c-1")[0] {
        4 => Ok(()),
        calls => Err(format!("{calls}")),
    });
    assert_eq!(
        correct(&lab, &by_identity("void", "r-2"))["outcome"],
        "applied"
    );
    await_corrected(1);
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
