//! The thinnest slice through all parts.

use std::time::Duration;

use spendfuse_domain::Verdict;
use spendfuse_tests::load::Sender;
use spendfuse_tests::{GuardView, Lab, Traffic};

#[test]
fn one_event_becomes_one_row_one_verdict_and_one_alert() {
    let lab = Lab::new("thin_slice");
    lab.apply_budgets(
        "budgets: [{id: cap, scope: {workspace: acme, customer: \"*\"}, limit: \"0.000001\", window: day}]",
    );
    let _processor = lab.processor("1");
    let _loader = lab.loader();
    let guard = GuardView::new(&lab);
    assert_eq!(guard.verdict("c-1"), Verdict::Ok);

    let mut traffic = Traffic::new(&lab, 1);
    let sender = Sender::new(&lab);
    sender.send(&traffic.call("c-1", "s-1", 2000, 101, 300));
    sender.flush();

    let lag = guard.await_verdict("c-1", Verdict::Block, Duration::from_secs(5));
    println!("event acknowledged -> verdict at the guard: {lag:?}");
    assert_eq!(guard.verdict("c-2"), Verdict::Ok);
    lab.settle(traffic.expected(), Duration::from_secs(10));

    // Each worker has started, ticked and counted: nothing but the budget's step is news.
    let alerts: Vec<String> = lab.table("alerts").into_keys().collect();
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    assert!(
        alerts[0].starts_with("cap|acme/customer=c-1|"),
        "{alerts:?}"
    );
}
