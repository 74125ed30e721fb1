//! What was spent before a count began: the budgets and the time of all cases, and single histories.
//! [`histories`] has random ones.

mod histories;
mod rows;
mod worker;

use std::collections::BTreeMap;
use std::sync::Arc;

use spendfuse_domain::budget::Budget;
use spendfuse_domain::finding::DetectorRules;
use spendfuse_domain::routing::partition_of;
use spendfuse_domain::verdict::WantedOpening;
use spendfuse_domain::{BudgetId, Nanos, UnixMillis};
use spendfuse_engine::book::BudgetBook;
use spendfuse_engine::delta::{CountedThen, DeltaEntry, Deltas};
use spendfuse_engine::ledger::{AccountKey, Ledger, LedgerConfig, Openings, PUBLISH_RATE};

const METERS: usize = 3;
const LEDGERS: u32 = 2;
const NOW: &str = "2026-11-22T10:00:00Z";
const FREE: &str = r#""where":{"plan":"free"},"#;
const CUSTOMERS: [&str; 4] = ["c-1", "c-2", "c-3", "c-4"];

fn budget(id: &str, filter: &str, limit: &str, counted_from: &str) -> Budget {
    let record = format!(
        r#"{{"v":1,"scope":{{"workspace":"acme","customer":"*"}},{filter}"limit":"{limit}","window":"month","steps":[{{"at":100,"do":"block"}}],"counted_from":"{counted_from}"}}"#
    );
    Budget::from_record(id, record.as_bytes()).unwrap()
}

/// Version 1: another budget, which may have a series of the budget's, or none; 2: the budget; 3: its
/// limit; 4: another count.
fn books(other: Option<&str>) -> Vec<Arc<BudgetBook>> {
    let first = "2026-11-22T09:00:00Z";
    let other = || {
        let filter = other.into_iter();
        filter.map(|filter| budget("other", filter, "1.00", first))
    };
    let caps = [
        None,
        Some(budget("cap", "", "1.00", first)),
        Some(budget("cap", "", "2.00", first)),
        Some(budget("cap", FREE, "2.00", "2026-11-22T09:30:00Z")),
    ];
    let numbered = (1..).zip(caps);
    let compile =
        |(version, cap): (u64, Option<Budget>)| book(version, other().chain(cap).collect());
    numbered.map(compile).collect()
}

fn now() -> UnixMillis {
    UnixMillis::parse_rfc3339(NOW).unwrap()
}

fn ledger_config(partition: u32) -> LedgerConfig {
    LedgerConfig {
        partition,
        partitions: METERS as u32,
        grace_millis: 0,
        publish_rate: PUBLISH_RATE,
        account_capacity: 1_000,
    }
}

/// Without detectors.
fn book(version: u64, budgets: Vec<Budget>) -> Arc<BudgetBook> {
    let rules = DetectorRules::default();
    Arc::new(BudgetBook::compile(version, budgets, rules))
}

fn scope(customer: &str) -> String {
    format!("acme/customer={customer}")
}

/// A delta of one call of the first customer, that some meter counted by `version`.
fn one_call(book: &BudgetBook, seq: u64, version: u64) -> Deltas {
    Deltas {
        prev: seq - 1,
        seq,
        budget_version: version,
        series: book.series.iter().map(|one| one.id.clone()).collect(),
        entries: vec![DeltaEntry {
            series: 0,
            scope: scope(CUSTOMERS[0]),
            minute: now().minute(),
            cost: Nanos::new(5),
            unpriced: Nanos::ZERO,
            tokens: 7,
            calls: 1,
            source: "app".to_owned(),
            id: "one".to_owned(),
            time: now(),
            is_history: false,
            corrects: None,
        }],
        ..Deltas::default()
    }
}

#[test]
fn counts_that_ran_before_openings_were_computed_go_on_as_they_are() {
    let books = books(None);
    let home = partition_of(scope(CUSTOMERS[0]).as_bytes(), LEDGERS);
    let config = ledger_config(home);
    let mut changelog: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut before = Ledger::new(config.clone(), Arc::clone(&books[1]));
    before.begin(1);
    before.advance(now());
    before.apply(&one_call(&books[1], 1, 2), now());
    let mut written = |ledger: &mut Ledger| {
        let written = ledger.finish().told.changelog;
        let counts = written
            .iter()
            .filter(|(key, _)| key.starts_with(b"count|"))
            .count();
        changelog.extend(
            written
                .into_iter()
                .filter_map(|(key, value)| Some((key, value?))),
        );
        (changelog.clone(), counts)
    };
    let (stored, counts) = written(&mut before);
    assert_eq!(counts, 0, "older programs could not read it");

    let key = AccountKey {
        budget: BudgetId::new("cap").unwrap(),
        scope: scope(CUSTOMERS[0]),
        start: books[1].budgets[0].window(now()).start,
    };
    let restored = |stored: &BTreeMap<Vec<u8>, Vec<u8>>, book: usize| {
        let ledger = Ledger::new(config.clone(), Arc::clone(&books[book]));
        let mut ledger = ledger.with_computed_openings();
        for (key, value) in stored {
            ledger.restore(key, Some(value)).unwrap();
        }
        ledger.restored();
        ledger
    };
    let mut after = restored(&stored, 1);
    after.begin(2);
    after.advance(now());
    // Counted by budgets of before, as ever.
    after.apply(&one_call(&books[1], 2, 1), now());
    assert_eq!(after.wanted_openings().count(), 0);
    assert_eq!(after.account(&key).unwrap().spend().calls, 2);
    let (stored, counts) = written(&mut after);
    assert_eq!(counts, 1);

    // The next count begins with what was spent.
    let mut again = restored(&stored, 3);
    again.begin(3);
    again.advance(now());
    let wanted: Vec<WantedOpening> = again.wanted_openings().collect();
    assert_eq!((wanted.len(), wanted[0].below_version), (1, 4));
}

#[test]
fn what_a_file_states_was_spent_before_is_not_corrected() {
    let record = r#"{"v":1,"scope":{"workspace":"acme","customer":"c-1"},"limit_tokens":1000,"window":"month","steps":[{"at":100,"do":"block"}],"counted_from":"2026-11-22T09:00:00Z","opening":40}"#;
    let stated = Budget::from_record("cap", record.as_bytes()).unwrap();
    let (before, after) = (book(1, Vec::new()), book(2, vec![stated]));
    let config = ledger_config(partition_of(scope(CUSTOMERS[0]).as_bytes(), METERS as u32));
    let mut ledger = Ledger::new(config, before).with_computed_openings();
    ledger.begin(1);
    ledger.advance(now());
    let _ = ledger.finish();
    ledger.begin(2);
    ledger.set_book(Arc::clone(&after));
    ledger.advance(now());
    let key = AccountKey {
        budget: BudgetId::new("cap").unwrap(),
        scope: scope(CUSTOMERS[0]),
        start: after.budgets[0].window(now()).start,
    };
    let mut counted = |seq, budget_version, tokens| {
        let mut correction = one_call(&after, seq, 2);
        let entry = &mut correction.entries[0];
        (entry.tokens, entry.calls) = (tokens, 0);
        entry.corrects = Some(CountedThen {
            budget_version,
            arrival: now(),
        });
        ledger.apply(&correction, now());
        ledger.account(&key).map(|account| account.spend().tokens)
    };
    assert_eq!(counted(1, 1, -500), Some(40), "it is among the 40");
    assert_eq!(counted(2, 2, -7), Some(33));
}

#[test]
fn readers_learn_that_an_opening_is_in_though_other_budgets_change_meanwhile() {
    let first = "2026-11-22T09:00:00Z";
    let cap = || budget("cap", "", "1.00", first);
    let config = ledger_config(partition_of(scope(CUSTOMERS[0]).as_bytes(), METERS as u32));
    let mut ledger = Ledger::new(config, book(1, Vec::new())).with_computed_openings();
    ledger.begin(1);
    ledger.advance(now());
    let _ = ledger.finish();

    let capped = book(2, vec![cap()]);
    ledger.begin(2);
    ledger.set_book(Arc::clone(&capped));
    ledger.advance(now());
    ledger.apply(&one_call(&capped, 1, 2), now());
    assert_eq!(ledger.finish().told.blocklist.len(), 1);

    // Nothing was spent before; the accounts wait to be told of it when another budget comes.
    ledger.begin(3);
    let count = capped.budgets[0].count;
    let below_version = ledger.wanted_openings().map(|wanted| wanted.below_version);
    let below_version = below_version.max().unwrap();
    ledger.take_openings(&Openings {
        budget: "cap".to_owned(),
        terms: count.terms,
        since: count.since,
        below_version,
        entries: Vec::new(),
        is_last: true,
    });
    let _ = ledger.finish();
    ledger.begin(4);
    ledger.set_book(book(3, vec![cap(), budget("other", FREE, "1.00", first)]));
    ledger.advance(now());
    let told = ledger.finish().told.blocklist;
    let [(_, Some(entry))] = &told[..] else {
        panic!("the account is told of once: {told:?}");
    };
    let counted_from = capped.budgets[0].budget.counted_from;
    let window = capped.budgets[0].window(now());
    assert_eq!(entry.counted_from, window.start);
    assert_eq!(entry.count_since, Some(counted_from));
}
