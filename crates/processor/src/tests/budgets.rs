//! What is in force while the topic of budgets is read, read again, made anew, or not readable.

use std::sync::Arc;
use std::time::Duration;

use spendfuse_bus::{BusError, FollowerEvent, Health, PartitionLogic};

use super::{
    EACH_CUSTOMER, NOW, Stages, batch, budget, call, deltas_of, end_of_budgets, of,
    restore_changelog,
};
use crate::follow::TableFeed;
use crate::made_anew::Lookout;

#[test]
fn while_the_tables_are_read_again_what_was_in_force_stays() {
    let stages = Stages::without_budgets();
    let tables = &stages.tables;
    let in_force = || {
        let book = tables.budgets.load();
        let limits = book.budgets.iter();
        let limits: Vec<_> = limits.map(|one| one.budget.limit.to_string()).collect();
        (book.version, limits)
    };
    let old = EACH_CUSTOMER.replace("0.01", "5.00");
    let mut feed = stages.feed();
    budget(&mut feed, 0, Some(&old));
    assert_eq!(in_force().0, 0, "the rest of the log may say otherwise");
    budget(&mut feed, 4, Some(EACH_CUSTOMER));
    feed.handle(FollowerEvent::CaughtUp);
    let known = in_force();
    assert_eq!((known.0, known.1.len()), (5, 1));

    feed.handle(FollowerEvent::Reset);
    assert_eq!(in_force(), known);
    budget(&mut feed, 0, Some(&old));
    assert_eq!(in_force(), known);
    budget(&mut feed, 4, Some(EACH_CUSTOMER));
    feed.handle(FollowerEvent::CaughtUp);
    assert_eq!(in_force(), known);
    budget(&mut feed, 5, None);
    assert_eq!(in_force(), (6, vec![]));
    // The tombstone is the last record, and compaction removes it in the end.
    feed.handle(FollowerEvent::Reset);
    end_of_budgets(&mut feed, 6);
    feed.handle(FollowerEvent::CaughtUp);
    assert_eq!(in_force(), (6, vec![]));
    assert!(tables.need_budgets(6));
}

#[test]
fn a_broker_that_is_back_is_no_trouble_any_more_although_nothing_is_written() {
    let stages = Stages::without_budgets();
    let health = Health::default();
    let mut feed = TableFeed::new(Arc::clone(&stages.tables), health.part("tables"));
    budget(&mut feed, 0, Some(EACH_CUSTOMER));
    feed.handle(FollowerEvent::CaughtUp);
    feed.handle(FollowerEvent::Failed(&BusError::Stopped));
    let report = health.report();
    assert!(report.is_ready && report.reasons[0].contains("cannot be followed"));
    feed.handle(FollowerEvent::Recovered);
    assert_eq!(health.report().reasons, [""; 0]);
}

#[test]
fn a_budget_whose_record_cannot_be_read_is_not_gone() {
    let stages = Stages::new();
    let topics = &stages.topics;
    let counted = batch(&mut stages.meter(0), 0, 1, &[call("r-1", "c-1", 0, 0)]);
    let partition = of(&counted, &topics.deltas)[0].partition;
    let mut ledger = stages.ledger(partition);
    let told = batch(&mut ledger, partition, 1, &deltas_of(&counted, topics));
    let [verdict] = of(&told, &topics.blocklist)[..] else {
        panic!("one customer is blocked: {told:?}");
    };
    let value = String::from_utf8_lossy(verdict.value.as_deref().unwrap()).into_owned();
    assert!(value.contains(r#""verdict":"block""#), "{value}");

    // Who has read the budget before goes on with what it said.
    let newer = EACH_CUSTOMER.replace(r#""v":1"#, r#""v":2"#);
    let mut feed = stages.feed();
    budget(&mut feed, 0, Some(EACH_CUSTOMER));
    feed.handle(FollowerEvent::CaughtUp);
    budget(&mut feed, 1, Some(&newer));
    assert_eq!(stages.tables.budgets.load().budgets.len(), 1);
    feed.handle(FollowerEvent::Reset);
    budget(&mut feed, 1, Some(&newer));
    feed.handle(FollowerEvent::CaughtUp);
    assert_eq!(stages.tables.budgets.load().budgets.len(), 1);

    // Who has not leaves alone what is counted and blocked.
    let restarted = Stages::without_budgets();
    let mut feed = restarted.feed();
    budget(&mut feed, 1, Some(&newer));
    feed.handle(FollowerEvent::CaughtUp);
    let mut successor = restarted.ledger(partition);
    restore_changelog(&mut successor, &told);
    successor.restored(1).unwrap();
    assert!(successor.ready().unwrap());
    successor.tick(NOW + 60_000, &[]);
    let later = batch(&mut successor, partition, 2, &[]);
    let entries = of(&later, &topics.blocklist);
    let taken_back = entries.iter().filter(|record| record.value.is_none());
    assert_eq!(taken_back.count(), 0, "{later:?}");
    let accounts = of(&later, "changelog");
    assert!(
        accounts.iter().all(|record| record.value.is_some()),
        "{later:?}"
    );
}

#[test]
fn a_budgets_topic_that_was_made_anew_is_found_out_and_used_once_there_are_budgets() {
    let stages = Stages::without_budgets();
    let tables = &stages.tables;
    let health = Health::default();
    let lookout = Lookout::new("test.budgets", health.part("budgets topic"), || Ok(3));
    tables.set_lookout(lookout.patient_for(Duration::ZERO));
    let mut feed = stages.feed();
    feed.handle(FollowerEvent::CaughtUp);
    assert!(
        !tables.need_budgets(57),
        "accounts would end without budgets"
    );
    let said = health.report().reasons.join("\n");
    assert!(
        said.contains("made anew") && said.contains("budgets apply"),
        "{said}"
    );
    budget(&mut feed, 1, Some(EACH_CUSTOMER));
    assert!(tables.need_budgets(57));
    assert!(health.report().is_ready);
    assert!(tables.know_budgets(57), "nobody asks again");

    // The same while a process runs: what was in force stays until there are others.
    let running = Stages::without_budgets();
    let mut feed = running.feed();
    budget(&mut feed, 56, Some(EACH_CUSTOMER));
    feed.handle(FollowerEvent::CaughtUp);
    feed.handle(FollowerEvent::Reset);
    feed.handle(FollowerEvent::CaughtUp);
    assert_eq!(running.tables.budgets.load().version, 57);
    budget(&mut feed, 0, Some(EACH_CUSTOMER));
    assert_eq!(running.tables.budgets.load().version, 1);
    assert!(running.tables.need_budgets(57));
}

#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "the wait is what is tested: it has a clock of its own"
)]
fn each_version_of_the_budgets_is_waited_for_by_itself() {
    let stages = Stages::without_budgets();
    let tables = &stages.tables;
    let health = Health::default();
    let lookout = Lookout::new("test.budgets", health.part("budgets topic"), || Ok(7));
    let patience = Duration::from_millis(200);
    tables.set_lookout(lookout.patient_for(patience));
    health.part("budgets topic").ready();
    let mut feed = stages.feed();
    budget(&mut feed, 4, Some(EACH_CUSTOMER));
    feed.handle(FollowerEvent::CaughtUp);
    // A worker hears of a version before the follower does.
    assert!(!tables.need_budgets(6));
    budget(&mut feed, 5, Some(EACH_CUSTOMER));
    assert!(tables.need_budgets(6));
    std::thread::sleep(patience);
    assert!(!tables.need_budgets(7));
    assert!(health.report().is_ready, "{:?}", health.report());
    // This one takes long.
    std::thread::sleep(patience);
    assert!(!tables.need_budgets(7));
    assert!(!health.report().is_ready);
    budget(&mut feed, 6, Some(EACH_CUSTOMER));
    assert_eq!(health.report().reasons, [""; 0]);
    assert!(tables.need_budgets(7));
}

#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "the wait is what is tested: it has a clock of its own"
)]
fn workers_that_wait_for_versions_of_their_own_all_learn_that_the_topic_is_gone() {
    let stages = Stages::without_budgets();
    let tables = &stages.tables;
    let health = Health::default();
    let lookout = Lookout::new("test.budgets", health.part("budgets topic"), || Ok(1));
    let patience = Duration::from_millis(50);
    tables.set_lookout(lookout.patient_for(patience));
    let mut feed = stages.feed();
    budget(&mut feed, 0, Some(EACH_CUSTOMER));
    feed.handle(FollowerEvent::CaughtUp);
    assert!(!tables.need_budgets(56) && !tables.need_budgets(57));
    std::thread::sleep(patience);
    assert!(tables.need_budgets(56) && tables.need_budgets(57));
    assert!(!tables.know_budgets(3), "that is one of the new topic");
    assert!(health.report().is_ready);
}
