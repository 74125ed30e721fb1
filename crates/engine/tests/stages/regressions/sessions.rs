//! Sessions and their budgets.

use std::borrow::Cow;
use std::sync::Arc;

use spendfuse_domain::event::{Body, Call, Particulars};
use spendfuse_domain::finding::{DetectorRule, DetectorRules, Parameters, RetryLoop};
use spendfuse_domain::{
    Amount, Budget, BudgetId, Detector, Dimension, Filter, Nanos, Verdict, WindowKind,
};
use spendfuse_engine::book::BudgetBook;
use spendfuse_engine::meter::{Counted, Meter, MeterConfig};

use super::{IDLE, MINUTE, book, budget, call, changed_back, config, count, meter, start};

#[test]
fn the_account_of_a_session_outlives_a_budget_that_cannot_be_read() {
    let of_session = Budget {
        window: WindowKind::Session,
        ..budget()
    };
    let mut meter = meter(book(1, vec![of_session.clone()], vec![]));
    let event = call("e1", "s-1", start());
    assert!(matches!(
        count(&mut meter, &event, start(), 2_000),
        Counted::AtAddress(_)
    ));
    assert_eq!(meter.finish().told.blocklist.len(), 1);
    let unread = BudgetBook::compile(2, vec![], DetectorRules::default());
    meter.set_book(Arc::new(unread.with_unreadable([of_session.id])));
    meter.advance(start().plus(MINUTE));
    assert_eq!(meter.finish().told.blocklist, vec![]);
}

#[test]
fn terms_that_come_again_begin_anew_for_a_session_too() {
    let of_session = Budget {
        window: WindowKind::Session,
        ..budget()
    };
    let mut meter = meter(book(1, vec![of_session.clone()], vec![]));
    count(&mut meter, &call("e1", "s-1", start()), start(), 2_000);
    meter.finish();
    meter.set_book(book(3, vec![changed_back(&of_session)], vec![]));
    meter.advance(start().plus(MINUTE));
    assert_eq!(meter.finish().told.blocklist.len(), 1);
    count(&mut meter, &call("e2", "s-1", start()), start(), 10);
    let scope = &*meter.finish().told.blocklist[0].0.clone();
    let (_, scope) = scope.split_once('|').unwrap();
    let account = meter.session_account(&of_session.id, scope).unwrap();
    assert_eq!((account.cost, account.calls), (Nanos::new(10), 1));
}

#[test]
fn calls_that_no_budget_counts_keep_their_session_alive() {
    let of_agent = Budget {
        window: WindowKind::Session,
        scope: budget().scope.counted_in(WindowKind::Session),
        filter: Filter::new(vec![(Dimension::Feature, vec!["agent".to_owned()])]),
        ..budget()
    };
    let id = of_agent.id.clone();
    let mut meter = meter(book(1, vec![of_agent], vec![]));
    for (minute, feature) in [(0, "agent"), (15, "chat"), (30, "agent")] {
        let time = start().plus(minute * MINUTE);
        let name = format!("e{minute}");
        let mut event = call(&name, "s-1", time);
        event.attribution.feature = Cow::Borrowed(feature);
        if let Body::Usage(call) = &mut event.body {
            call.operation = Cow::Borrowed("embeddings");
        }
        count(&mut meter, &event, time, 100);
        meter.finish();
    }
    let account = meter.session_account(&id, "acme/session=s-1").unwrap();
    assert_eq!(account.cost, Nanos::new(200));
}

#[test]
fn an_idle_session_ends_on_time_though_others_live_on() {
    let rule = DetectorRule {
        parameters: Parameters::RetryLoop(RetryLoop {
            repeats: 2,
            ..RetryLoop::default()
        }),
        order: 0,
        ..DetectorRule::default_for(Detector::RetryLoop)
    };
    let mut meter = meter(book(1, vec![], vec![rule]));
    // s-1 lives on, so that its place in the order of expiry is renewed behind s-2's.
    let calls = [(0, "s-1"), (5, "s-1"), (19, "s-2"), (19, "s-2")];
    for (number, (minute, session)) in calls.into_iter().enumerate() {
        let time = start().plus(minute * MINUTE);
        count(
            &mut meter,
            &call(&format!("e{number}"), session, time),
            time,
            1,
        );
    }
    assert_eq!(meter.finish().told.findings.len(), 2);
    meter.advance(start().plus(21 * MINUTE));
    assert!(meter.finish().told.findings.is_empty());
    meter.advance(start().plus(26 * MINUTE));
    let closed = meter.finish().told.findings;
    assert_eq!(closed.len(), 1);
    assert_eq!(closed[0].1.scope, "acme/session=s-1");
}

#[test]
fn every_change_of_a_session_s_verdict_is_told_once_its_way_back_too() {
    let in_session = |limit| Budget {
        limit: Amount::Usd(Nanos::new(limit)),
        window: WindowKind::Session,
        scope: budget().scope.counted_in(WindowKind::Session),
        ..budget()
    };
    let mut meter = meter(book(1, vec![in_session(1_000)], vec![]));
    count(&mut meter, &call("a", "s-1", start()), start(), 850);
    let verdicts = |meter: &mut Meter| -> Vec<Verdict> {
        let changes = meter.finish().told.verdict_changes;
        changes.iter().map(|entry| entry.verdict).collect()
    };
    assert_eq!(verdicts(&mut meter), [Verdict::Warn]);
    meter.begin(2);
    count(&mut meter, &call("b", "s-1", start()), start(), 10);
    assert_eq!(verdicts(&mut meter), []);
    meter.begin(3);
    meter.set_book(book(2, vec![in_session(100_000)], vec![]));
    meter.advance(start().plus(1));
    assert_eq!(verdicts(&mut meter), [Verdict::Ok]);
}

#[test]
fn a_session_has_the_limit_that_its_app_told_last_and_others_have_the_budget_s() {
    let of_session = Budget {
        limit: Amount::Usd(Nanos::new(1_000)),
        limit_from_event: true,
        window: WindowKind::Session,
        scope: budget().scope.counted_in(WindowKind::Session),
        ..budget()
    };
    let plain = Budget {
        id: BudgetId::new("plain").unwrap(),
        limit_from_event: false,
        ..of_session.clone()
    };
    let budgets = vec![of_session, plain];
    let mut meter = meter(book(1, budgets.clone(), vec![]));
    let telling = |id, session, told: Option<i128>| {
        let mut event = call(id, session, start());
        let rare = Particulars {
            session_limit: told.map(Nanos::new),
            ..Particulars::default()
        };
        event.body = Body::Usage(Call {
            rare: rare.into(),
            ..Call::default()
        });
        event
    };
    type Changelog = Vec<(Vec<u8>, Option<Vec<u8>>)>;
    let entries = |meter: &mut Meter, seq: u64| -> (Vec<_>, Changelog) {
        let told = meter.finish().told;
        meter.begin(seq + 1);
        let entries = told.blocklist.into_iter().filter_map(|(_, entry)| entry);
        let mut entries: Vec<_> = entries
            .map(|entry| {
                let limit = entry.figures.limit.unwrap().number();
                (entry.budget, entry.scope, limit, entry.verdict)
            })
            .collect();
        entries.sort();
        (entries, told.changelog)
    };
    let own = |session: &str, limit, verdict| {
        (
            budgets[0].id.to_string(),
            format!("acme/session={session}"),
            limit,
            verdict,
        )
    };
    let common = |session: &str, verdict| {
        (
            "plain".to_owned(),
            format!("acme/session={session}"),
            1_000,
            verdict,
        )
    };
    // Told too little, then more; nobody tells anything of the other session.
    count(&mut meter, &telling("a", "s-1", Some(400)), start(), 500);
    count(&mut meter, &telling("b", "s-2", None), start(), 500);
    let (first, _) = entries(&mut meter, 1);
    assert_eq!(
        first,
        [
            own("s-1", 400, Verdict::Block),
            own("s-2", 1_000, Verdict::Ok),
            common("s-1", Verdict::Ok),
            common("s-2", Verdict::Ok),
        ]
    );
    count(&mut meter, &telling("c", "s-1", Some(600)), start(), 0);
    let (raised, changelog) = entries(&mut meter, 2);
    assert_eq!(raised, [own("s-1", 600, Verdict::Warn)]);
    // A successor knows it, and an event without a limit changes nothing.
    let mut successor = Meter::new(config(), book(1, budgets.clone(), vec![]));
    for (key, value) in changelog {
        successor.restore(&key, value.as_deref()).unwrap();
    }
    successor.restored();
    successor.begin(3);
    count(&mut successor, &telling("d", "s-1", None), start(), 100);
    let (after, _) = entries(&mut successor, 3);
    assert_eq!(after[0], own("s-1", 600, Verdict::Block));
}

#[test]
fn many_sessions_that_idle_at_once_end_without_waiting_for_the_next_heartbeat() {
    let config = MeterConfig {
        dedupe_capacity: 20_000,
        session_capacity: 20_000,
        ..config()
    };
    let mut meter = Meter::new(config, book(1, vec![], vec![]));
    meter.restored();
    meter.begin(1);
    for number in 0..6_000 {
        let name = format!("s-{number}");
        count(&mut meter, &call(&name, &name, start()), start(), 1);
    }
    meter.finish();
    let idle = start().plus(IDLE + 1);
    // Time that comes with events asks for no tick of its own: sessions end all the time.
    count(&mut meter, &call("later", "", idle), idle, 1);
    assert_eq!(meter.next_due(), None);
    meter.advance(idle);
    assert_eq!((meter.sizes().0, meter.next_due()), (1_000, Some(idle)));
    meter.advance(idle);
    assert_eq!((meter.sizes().0, meter.next_due()), (0, None));
}
