//! The budgets topic is deleted and made again under its name.

use spendfuse_domain::Verdict;
use spendfuse_tests::load::Sender;
use spendfuse_tests::{Address, GuardView, Lab, PATIENCE, Traffic, eventually};

fn ready(admin: Address) -> (u16, String) {
    admin.get("/readyz").unwrap_or_default()
}

fn await_word(admin: Address, word: &str) {
    eventually(word, PATIENCE, || {
        let (status, body) = ready(admin);
        let said = body.contains(word).then_some(());
        said.ok_or_else(|| format!("{status} {body}"))
    });
}

#[test]
fn a_budgets_topic_made_anew_lifts_nothing_and_is_used_once_it_holds_budgets() {
    let lab = Lab::new("made_anew");
    let cap = |limit: &str| {
        lab.apply_budgets(&format!(
            "budgets: [{{id: cap, scope: {{workspace: acme, customer: \"*\"}}, limit: \"{limit}\", window: day}}]"
        ));
    };
    cap("0.002");
    cap("0.001");
    let admin = Address::free();
    let settings = [("admin.listen", &*admin.setting())];
    let processor = lab.role("processor", "1", &settings);
    let guard = GuardView::new(&lab);
    let sender = Sender::new(&lab);
    let mut traffic = Traffic::new(&lab, 7);
    sender.send(&traffic.call("c-1", "s-1", 50_000, 0, 0));
    sender.flush();
    guard.await_verdict("c-1", Verdict::Block, PATIENCE);

    // While it runs, what was in force stays.
    lab.make_anew("budgets");
    await_word(admin, "made anew");
    assert_eq!(guard.verdict("c-1"), Verdict::Block);
    assert!(lab.table("blocklist").contains_key("cap|acme/customer=c-1"));

    // Who starts now has no budgets, and waits instead of taking all for removed.
    drop(processor);
    let processor = lab.role("processor", "1", &settings);
    await_word(admin, "made anew and is empty");
    assert_eq!(ready(admin).0, 503);
    assert!(lab.table("blocklist").contains_key("cap|acme/customer=c-1"));

    cap("0.003");
    eventually("the processor is ready", PATIENCE, || match ready(admin) {
        (200, _) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    guard.await_verdict("c-1", Verdict::Ok, PATIENCE);
    // It goes on with what was counted.
    sender.send(&traffic.call("c-1", "s-1", 50_000, 0, 0));
    sender.flush();
    guard.await_verdict("c-1", Verdict::Block, PATIENCE);
    let entry = lab.table("blocklist").remove("cap|acme/customer=c-1");
    assert_eq!(
        entry.map(|entry| entry["spent_usd"].clone()),
        Some("0.0035".into())
    );
    assert!(processor.is_running());
}
