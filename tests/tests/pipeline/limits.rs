//! Limits that are raised, lowered and removed while everything runs.

use std::time::Duration;

use spendfuse_domain::Verdict;
use spendfuse_tests::load::Sender;
use spendfuse_tests::{GuardView, Lab, PATIENCE, Traffic, eventually};

/// From the end of `budgets apply` to the changed verdict at a guard.
const AT_ONCE: Duration = Duration::from_secs(1);

#[test]
fn changed_limits_are_in_force_within_a_second() {
    let lab = Lab::new("limits");
    let cap = |limit: &str| {
        lab.apply_budgets(&format!(
            "budgets: [{{id: cap, scope: {{workspace: acme, customer: \"*\"}}, limit: \"{limit}\", window: day}}]"
        ));
    };
    cap("0.001");
    let _processor = lab.processor("1");
    let guard = GuardView::new(&lab);
    let sender = Sender::new(&lab);
    let mut traffic = Traffic::new(&lab, 7);
    // 0.00175 dollars: 50,000 tokens at 35 nano-dollars.
    sender.send(&traffic.call("c-1", "s-1", 50_000, 0, 0));
    sender.flush();
    let lag = guard.await_verdict("c-1", Verdict::Block, PATIENCE);
    println!("spend above the limit -> block: {lag:?}");

    for (change, limit, wanted) in [
        ("raised", "0.01", Verdict::Ok),
        ("lowered", "0.0015", Verdict::Block),
        ("raised again", "0.002", Verdict::Warn),
        ("lowered to nothing", "0", Verdict::Block),
        ("raised at last", "1.00", Verdict::Ok),
    ] {
        cap(limit);
        let lag = guard.await_verdict("c-1", wanted, AT_ONCE);
        println!("limit {change} to {limit} -> {wanted:?}: {lag:?}");
        // The guard knows limits itself; the ledger's own verdict must follow as fast.
        eventually("the ledger publishes the verdict", AT_ONCE, || {
            let entry = lab.table("blocklist").remove("cap|acme/customer=c-1");
            let entry = entry.ok_or("no entry")?;
            if entry["verdict"] == wanted.name() {
                return Ok(());
            }
            Err(entry.to_string())
        });
    }

    cap("0");
    guard.await_verdict("c-never-seen", Verdict::Block, AT_ONCE);
    guard.await_verdict("c-1", Verdict::Block, AT_ONCE);
    lab.apply_budgets("budgets: []");
    let lag = guard.await_verdict("c-1", Verdict::Ok, AT_ONCE);
    println!("budget removed -> Ok: {lag:?}");
    assert_eq!(guard.verdict("c-never-seen"), Verdict::Ok);
    eventually("the entry is withdrawn", PATIENCE, || {
        let table = lab.table("blocklist");
        let left: Vec<_> = table.keys().filter(|key| key.starts_with("cap|")).collect();
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    });
}
