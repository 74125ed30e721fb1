//! The comparison itself must be able to fail.

use spendfuse_tests::ledger::{FIRST_LIMIT, watching_budgets};
use spendfuse_tests::load::Sender;
use spendfuse_tests::{Lab, PATIENCE, Traffic, differences};

#[test]
fn one_event_too_many_or_too_few_is_noticed() {
    let lab = Lab::new("broken");
    lab.apply_budgets(&watching_budgets(FIRST_LIMIT));
    let _processor = lab.processor("1");
    let _loader = lab.loader();
    let sender = Sender::new(&lab);
    let mut traffic = Traffic::new(&lab, 8);
    for _ in 0..500 {
        sender.send(&traffic.good());
    }
    sender.flush();
    lab.settle(traffic.expected(), PATIENCE);
    lab.settle_ledger(traffic.expected(), PATIENCE);
    let warehouse = lab.warehouse();

    // An event that the reference knows and the system never got.
    let mut lost = traffic.expected().clone();
    lost.add("c-1", 1);
    let found = differences(&warehouse, &lost).expect("the warehouse answers");
    assert!(found.len() >= 5, "{found:?}");
    assert_eq!(lab.ledger_differences(&lost).len(), 3);

    // One nano-dollar in one row.
    let mut cheaper = traffic.expected().clone();
    cheaper.nanos -= 1;
    let found = differences(&warehouse, &cheaper).expect("the warehouse answers");
    assert!(
        found.iter().any(|line| line.starts_with("spend:")),
        "{found:?}"
    );

    // A row that is there twice.
    warehouse
        .execute("INSERT INTO spend SELECT * FROM spend ORDER BY event_id LIMIT 1")
        .expect("the row is copied");
    let found = differences(&warehouse, traffic.expected()).expect("the warehouse answers");
    assert!(
        found.iter().any(|line| line.starts_with("spend:")),
        "{found:?}"
    );
    assert!(
        found.iter().any(|line| line.starts_with("spend_audit")),
        "{found:?}"
    );
}
