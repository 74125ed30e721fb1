//! Windows, counts and findings of the ledger.

use std::sync::Arc;

use spendfuse_domain::budget::BasisPoints;
use spendfuse_domain::finding::{DetectorRules, FindingState};
use spendfuse_domain::scope::Pattern;
use spendfuse_domain::{
    Action, Amount, Budget, Dimension, Nanos, ScopeTemplate, Step, Timezone, UnixMillis, Verdict,
};
use spendfuse_engine::book::{BudgetBook, Series};
use spendfuse_engine::delta::DeltaEntry;
use spendfuse_engine::ledger::AccountKey;

use super::{MINUTE, book, budget, changed_back, deltas, ledger, ledger_unrestored, start};

#[test]
fn what_a_budget_that_cannot_be_read_has_counted_stands_still() {
    let day_and_grace = (24 * 60 + 91) * MINUTE;
    let mut first = ledger(book(1, vec![budget()], vec![]));
    first.apply(&deltas(&budget(), 1, "*", start(), 2_000), start());
    let told = first.finish().told;
    assert_eq!(told.blocklist.len(), 1);

    let unread = BudgetBook::compile(2, vec![], DetectorRules::default());
    let unread = Arc::new(unread.with_unreadable([budget().id]));
    let mut second = ledger(unread);
    for (key, value) in &told.changelog {
        second.restore(key, value.as_deref()).unwrap();
    }
    second.restored();
    second.advance(start().plus(MINUTE));
    let outputs = second.finish();
    assert_eq!(
        (outputs.told.blocklist, outputs.told.findings.len()),
        (vec![], 0)
    );
    // Its window ends by the account's own word; the last line waits for the limit.
    second.advance(start().plus(day_and_grace));
    let outputs = second.finish();
    assert_eq!(outputs.told.blocklist, [("b0|*".to_owned(), None)]);
    assert_eq!((outputs.window_lines.len(), second.len()), (0, 1));
    second.set_book(book(3, vec![budget()], vec![]));
    second.advance(start().plus(day_and_grace + 61 * MINUTE));
    assert_eq!((second.finish().window_lines.len(), second.len()), (1, 0));
}

#[test]
fn the_finding_of_a_removed_budget_closes() {
    let mut ledger = ledger(book(1, vec![budget()], vec![]));
    ledger.apply(&deltas(&budget(), 1, "*", start(), 2_000), start());
    let opened = ledger.finish().told.findings;
    assert_eq!(opened[0].1.state, FindingState::Open);

    ledger.set_book(book(2, vec![], vec![]));
    ledger.advance(start());
    let outputs = ledger.finish();
    assert_eq!(outputs.told.findings[0].0, opened[0].0);
    assert_eq!(outputs.told.findings[0].1.state, FindingState::Closed);
    assert_eq!(outputs.told.blocklist, [("b0|*".to_owned(), None)]);
}

#[test]
fn a_finding_names_its_customer_as_events_do() {
    let per_customer = Budget {
        scope: ScopeTemplate::new(vec![(Dimension::Customer, Pattern::Each)]),
        ..budget()
    };
    let mut ledger = ledger(book(1, vec![per_customer.clone()], vec![]));
    let scope = "*/customer=gr%C3%B6%C3%9Fe%2042";
    ledger.apply(&deltas(&per_customer, 1, scope, start(), 2_000), start());
    let finding = ledger.finish().told.findings.remove(0).1;
    assert_eq!((&*finding.scope, &*finding.customer), (scope, "größe 42"));
}

#[test]
fn a_limit_without_a_step_of_its_own_opens_its_finding_at_once() {
    let warned = Step {
        at: BasisPoints(5_000),
        action: Action::Warn,
    };
    let budget = Budget {
        steps: vec![warned],
        ..budget()
    };
    let mut ledger = ledger(book(1, vec![budget.clone()], vec![]));
    ledger.apply(&deltas(&budget, 1, "*", start(), 999), start());
    assert_eq!(ledger.finish().told.findings, []);
    // Less than 1 % of the limit and within a second: no state is due, the finding is.
    ledger.apply(&deltas(&budget, 2, "*", start(), 1), start());
    let outputs = ledger.finish();
    assert_eq!(outputs.told.blocklist, []);
    assert_eq!(outputs.told.findings[0].1.state, FindingState::Open);
    assert_eq!(outputs.told.findings[0].1.wasted_usd, Nanos::ZERO);
}

#[test]
fn a_new_count_does_not_inherit_the_old_ones_block() {
    let in_days = Budget {
        publish_from: BasisPoints(5_000),
        ..budget()
    };
    // Starts at the same instant as the day, in another zone.
    let elsewhere = Budget {
        timezone: Timezone::named("Africa/Abidjan").unwrap(),
        ..in_days.clone()
    };
    let mut ledger = ledger(book(1, vec![in_days.clone()], vec![]));
    ledger.apply(&deltas(&in_days, 1, "*", start(), 2_000), start());
    ledger.finish();
    ledger.set_book(book(2, vec![elsewhere.clone()], vec![]));
    // Spend of the new count comes before the old accounts are judged anew.
    ledger.apply(&deltas(&elsewhere, 2, "*", start(), 10), start());
    let outputs = ledger.finish();
    assert_eq!(outputs.told.blocklist, [("b0|*".to_owned(), None)]);
    assert_eq!(outputs.told.findings[0].1.state, FindingState::Closed);
}

#[test]
fn terms_that_come_again_begin_anew_though_the_ledger_did_not_see_them_go() {
    let mut before = ledger(book(1, vec![budget()], vec![]));
    before.apply(&deltas(&budget(), 1, "*", start(), 2_000), start());
    let written = before.finish().told.changelog;

    let again = changed_back(&budget());
    let mut after = ledger_unrestored(book(3, vec![again.clone()], vec![]));
    for (key, value) in &written {
        after.restore(key, value.as_deref()).unwrap();
    }
    after.restored();
    after.begin(2);
    after.apply(&deltas(&again, 2, "*", start(), 10), start());
    let outputs = after.finish().told;
    assert_eq!(outputs.blocklist[0], ("b0|*".to_owned(), None));
    let day = UnixMillis::parse_rfc3339("2026-11-22T00:00:00Z").unwrap();
    let key = AccountKey {
        budget: again.id,
        scope: "*".to_owned(),
        start: day,
    };
    let account = after.account(&key).unwrap();
    assert_eq!((account.cost, account.calls), (Nanos::new(10), 1));
}

#[test]
fn the_end_of_a_window_comes_in_slices() {
    let per_customer = Budget {
        scope: ScopeTemplate::new(vec![(Dimension::Customer, Pattern::Each)]),
        ..budget()
    };
    let mut ledger = ledger(book(1, vec![per_customer.clone()], vec![]));
    let mut all = deltas(&per_customer, 1, "", start(), 10);
    let one = all.entries.remove(0);
    all.entries = (0..12_000)
        .map(|number| DeltaEntry {
            scope: format!("*/customer=c-{number}"),
            ..one.clone()
        })
        .collect();
    ledger.apply(&all, start());
    ledger.finish();
    let midnight = UnixMillis::parse_rfc3339("2026-11-23T00:00:00Z").unwrap();
    let mut tombstones = vec![];
    while tombstones.iter().sum::<usize>() < 12_000 {
        ledger.advance(midnight);
        tombstones.push(ledger.finish().told.blocklist.len());
        assert!(tombstones.last() > Some(&0), "{tombstones:?}");
    }
    assert!(tombstones.len() > 2, "{tombstones:?}");
}

#[test]
fn a_restarted_ledger_writes_nothing_of_windows_that_have_ended() {
    let book = book(1, vec![budget()], vec![]);
    let mut before = ledger(Arc::clone(&book));
    before.apply(&deltas(&budget(), 1, "*", start(), 2_000), start());
    let mut written = before.finish().told.changelog;
    let midnight = UnixMillis::parse_rfc3339("2026-11-23T00:00:00Z").unwrap();
    before.advance(midnight);
    written.extend(before.finish().told.changelog);
    let mut ledger = ledger_unrestored(book);
    for (key, value) in &written {
        ledger.restore(key, value.as_deref()).unwrap();
    }
    ledger.restored();
    ledger.begin(3);
    ledger.advance(midnight.plus(MINUTE));
    let again = ledger.finish();
    let keys = again
        .told
        .changelog
        .iter()
        .map(|(key, _)| String::from_utf8_lossy(key));
    let accounts: Vec<_> = keys.filter(|key| key.starts_with("account")).collect();
    assert!(accounts.is_empty(), "{accounts:?}");
    assert!(again.told.blocklist.is_empty() && again.told.findings.is_empty());
    // It still closes.
    ledger.advance(midnight.plus(90 * MINUTE));
    assert_eq!(ledger.finish().window_lines.len(), 1);
}

#[test]
fn a_window_that_ends_does_not_close_the_finding_of_the_next_one() {
    let mut ledger = ledger(book(1, vec![budget()], vec![]));
    ledger.apply(&deltas(&budget(), 1, "*", start(), 2_000), start());
    ledger.finish();
    // The first that is heard after midnight uses up the next day, and only then the day before ends.
    let midnight = UnixMillis::parse_rfc3339("2026-11-23T00:00:00Z").unwrap();
    ledger.apply(&deltas(&budget(), 2, "*", midnight, 2_000), midnight);
    assert_eq!(ledger.finish().told.findings.len(), 1);
    ledger.advance(midnight);
    let told = ledger.finish().told;
    let findings = told.findings.iter();
    let findings = findings.map(|(key, finding)| (&**key, finding.state, finding.opened_at));
    let key = "*|budget_exceeded|b0|";
    assert_eq!(
        findings.collect::<Vec<_>>(),
        [
            (key, FindingState::Closed, start()),
            (key, FindingState::Open, midnight)
        ]
    );
    assert_eq!(told.blocklist, []);
}

#[test]
fn series_of_odd_tag_names_are_different_series() {
    let by_tags = |names: &[&str]| {
        let parts = names.iter().map(|name| {
            let tag = Dimension::Tag((*name).to_owned());
            (tag, Pattern::Each)
        });
        let scope = ScopeTemplate::new(parts.collect());
        Series::of(&Budget { scope, ..budget() }).id
    };
    assert_ne!(by_tags(&["a", "b"]), by_tags(&["a,tags.b"]));
    assert_ne!(by_tags(&["a", "b"]), by_tags(&["a/tags.b"]));
}

#[test]
fn limits_in_calls_and_limit_zero_block_at_their_exact_amount() {
    for (limit, calls_until_block) in [(0, 1), (1, 1), (3, 3)] {
        let budget = Budget {
            limit: Amount::Calls(limit),
            ..budget()
        };
        let mut ledger = ledger(book(1, vec![budget.clone()], vec![]));
        let mut verdict = Verdict::Ok;
        for call in 1..=calls_until_block {
            assert_ne!(verdict, Verdict::Block, "limit {limit} before call {call}");
            ledger.apply(&deltas(&budget, call, "*", start(), 0), start());
            if let Some((_, Some(entry))) = ledger.finish().told.blocklist.pop() {
                verdict = entry.verdict;
            }
        }
        assert_eq!(verdict, Verdict::Block, "limit {limit}");
    }
}
