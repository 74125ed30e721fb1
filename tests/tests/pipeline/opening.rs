//! What was spent before a budget counted.
// Clippy's exception for tests does not cover their helper functions.
#![allow(clippy::unwrap_used)]

use serde_json::Value;
use spendfuse_domain::Verdict;
use spendfuse_tests::load::Sender;
use spendfuse_tests::{GuardView, Lab, PATIENCE, Traffic, eventually};

/// 50,000 tokens at 35 nano-dollars.
const CALL: &str = "0.00175";

fn cap(opening: &str) -> String {
    format!(
        "budgets: [{{id: cap, scope: {{workspace: acme, customer: c-1}}, limit: \"0.01\", window: year, opening: \"{opening}\"}}]"
    )
}

/// Waits until the ledger has published so much as spent.
fn await_spent(lab: &Lab, wanted: &str) {
    eventually(&format!("{wanted} is spent"), PATIENCE, || {
        let entry = lab.table("blocklist").remove("cap|acme/customer=c-1");
        let entry = entry.ok_or("no entry")?;
        match entry["spent_usd"] == wanted {
            true => Ok(()),
            false => Err(entry.to_string()),
        }
    });
}

#[test]
fn an_opening_is_spent_at_once_once_and_for_the_audit() {
    let lab = Lab::new("opening");
    let mut processor = lab.processor("1");
    let _loader = lab.loader();
    let guard = GuardView::new(&lab);
    lab.apply_budgets(&cap("0.009"));
    await_spent(&lab, "0.009");
    guard.await_verdict("c-1", Verdict::Warn, PATIENCE);
    lab.assert_no_drift_anywhere();

    let sender = Sender::new(&lab);
    let mut traffic = Traffic::new(&lab, 7);
    sender.send(&traffic.call("c-1", "s-1", 50_000, 0, 0));
    sender.flush();
    await_spent(&lab, "0.01075");
    guard.await_verdict("c-1", Verdict::Block, PATIENCE);

    // Neither the same file nor a restart adds it again; another figure stands in its place.
    lab.apply_budgets(&cap("0.009"));
    processor.kill();
    processor.restart();
    sender.send(&traffic.call("c-1", "s-1", 50_000, 0, 0));
    sender.flush();
    await_spent(&lab, "0.0125");
    lab.assert_no_drift_anywhere();
    lab.apply_budgets(&cap("0.001"));
    await_spent(&lab, "0.0045");
    guard.await_verdict("c-1", Verdict::Ok, PATIENCE);
    lab.assert_no_drift_anywhere();
    let status = lab.must(&["budgets", "status", "--json"]).stdout;
    let status: Value = serde_json::from_str(&status).unwrap();
    assert!(status.to_string().contains("\"0.0045\""), "{status:#}");
    eventually("the warehouse has the openings", PATIENCE, || {
        let sql = "SELECT spent FROM budget_windows WHERE kind = 'opening' ORDER BY version";
        let rows = lab.warehouse().rows(sql)?;
        let spent: Vec<&str> = rows.iter().map(|row| row[0].as_str()).collect();
        match spent.as_slice() {
            ["0.009", "0.001"] => Ok(()),
            _ => Err(format!("{spent:?} with calls of {CALL}")),
        }
    });
}
