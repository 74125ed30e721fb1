//! Defects that were found once, each with the shortest history that shows it.

#![allow(clippy::unwrap_used)]

use std::borrow::Cow;
use std::sync::Arc;

use spendfuse_domain::budget::BasisPoints;
use spendfuse_domain::event::{Attribution, Body, Call, Event, Flags, Particulars};
use spendfuse_domain::finding::{
    DetectorAction, DetectorRule, DetectorRules, FindingState, Parameters, RetryLoop,
};
use spendfuse_domain::row::{CostParts, Origin, SpendRow};
use spendfuse_domain::scope::Pattern;
use spendfuse_domain::{
    Action, Amount, Budget, BudgetId, Detector, Dimension, Filter, Identity, Nanos, ScopeTemplate,
    Severity, Step, Timezone, UnixMillis, Verdict, WindowKind,
};
use spendfuse_engine::book::{BudgetBook, Series};
use spendfuse_engine::delta::{DeltaEntry, Deltas};
use spendfuse_engine::ledger::{AccountKey, Ledger, LedgerConfig, PUBLISH_RATE};
use spendfuse_engine::meter::{Charge, Counted, Meter, MeterConfig, Rows};
use spendfuse_testkit::generate;

const MINUTE: i64 = 60_000;
const IDLE: i64 = 20 * MINUTE;

struct NoRows;
impl Rows for NoRows {
    fn push(&mut self, _: &SpendRow<'_>) {}
}

fn start() -> UnixMillis {
    UnixMillis::parse_rfc3339("2026-11-22T10:00:00Z").unwrap()
}

/// $0.000001 a day for everything; warns at 80 %, blocks at 100 %.
fn budget() -> Budget {
    generate::budget(0, 0)
}

fn book(version: u64, budgets: Vec<Budget>, rules: Vec<DetectorRule>) -> Arc<BudgetBook> {
    let rules = DetectorRules::new(rules);
    Arc::new(BudgetBook::compile(version, budgets, rules))
}

fn config() -> MeterConfig {
    MeterConfig {
        partition: 0,
        partitions: 1,
        dedupe_horizon_millis: 60 * MINUTE,
        dedupe_capacity: 1000,
        session_idle_millis: IDLE,
        session_capacity: 1_000,
    }
}

fn meter(book: Arc<BudgetBook>) -> Meter {
    let mut meter = Meter::new(config(), book);
    meter.restored();
    meter.begin(1);
    meter
}

fn ledger(book: Arc<BudgetBook>) -> Ledger {
    let mut ledger = ledger_unrestored(book);
    ledger.restored();
    ledger.begin(1);
    ledger
}

fn ledger_unrestored(book: Arc<BudgetBook>) -> Ledger {
    let config = LedgerConfig {
        partition: 0,
        partitions: 1,
        grace_millis: 90 * MINUTE,
        publish_rate: PUBLISH_RATE,
        account_capacity: 100_000,
    };
    Ledger::new(config, book)
}

/// A call of `nanos` in a session of `acme`.
fn call<'a>(id: &'a str, session: &'a str, time: UnixMillis) -> Event<'a> {
    Event {
        identity: Identity::of("acme", "app", id, "final"),
        content: 0,
        source: Cow::Borrowed("app"),
        id: Cow::Borrowed(id),
        time,
        flags: Flags::default(),
        attribution: Attribution {
            workspace: Cow::Borrowed("acme"),
            session: Cow::Borrowed(session),
            ..Attribution::default()
        },
        body: Body::Usage(Call {
            prompt_fingerprint: Some(1),
            ..Call::default()
        }),
    }
}

fn count(meter: &mut Meter, event: &Event<'_>, arrival: UnixMillis, nanos: i128) -> Counted {
    let charge = Charge {
        cost: CostParts {
            output: Nanos::new(nanos),
            ..CostParts::default()
        },
        ..Charge::default()
    };
    let origin = Origin {
        arrival,
        ..Origin::default()
    };
    meter.count(event, &charge, origin, &mut NoRows)
}

/// Spend of `scope` in the series of `budget`, as commit `seq` of meter partition 0.
fn deltas(budget: &Budget, seq: u64, scope: &str, time: UnixMillis, nanos: i128) -> Deltas {
    Deltas {
        budget_version: 0,
        through: None,
        meter_partition: 0,
        prev: seq - 1,
        seq,
        series: vec![Series::of(budget).id],
        entries: vec![DeltaEntry {
            series: 0,
            scope: scope.to_owned(),
            minute: time.minute(),
            cost: Nanos::new(nanos),
            unpriced: Nanos::ZERO,
            tokens: 0,
            calls: 1,
            source: "app".to_owned(),
            id: format!("e{seq}"),
            time,
            is_history: false,
            corrects: None,
        }],
    }
}

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

/// Changed and changed back in the middle of a window: `budgets apply` writes another `counted_from`
/// each time.
fn changed_back(budget: &Budget) -> Budget {
    Budget {
        counted_from: start().plus(MINUTE),
        ..budget.clone()
    }
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
fn a_memory_is_not_short_before_its_partition_has_any_time() {
    let mut meter = meter(book(1, vec![], vec![]));
    meter.remembers_since(start());
    meter.advance(UnixMillis::default());
    assert_eq!(meter.finish().told.alerts, []);
    meter.begin(2);
    meter.advance(start());
    assert_eq!(meter.finish().told.alerts.len(), 1);
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
fn a_session_block_gets_its_tombstone_though_its_episode_closed_before() {
    let rule = DetectorRule {
        parameters: Parameters::RetryLoop(RetryLoop {
            repeats: 2,
            ..RetryLoop::default()
        }),
        order: 0,
        action: DetectorAction::BlockSession,
        at: Severity::Warning,
        ..DetectorRule::default_for(Detector::RetryLoop)
    };
    let mut meter = meter(book(1, vec![], vec![rule]));
    for (number, prompt) in [1, 1, 2].into_iter().enumerate() {
        let name = format!("e{number}");
        let mut event = call(&name, "s-1", start());
        if let Body::Usage(call) = &mut event.body {
            call.prompt_fingerprint = Some(prompt);
        }
        count(&mut meter, &event, start(), 1);
    }
    let key = "finding|retry_loop|acme/session=s-1";
    assert_eq!(meter.finish().told.blocklist[0].0, key);
    meter.advance(start().plus(IDLE + 1));
    assert_eq!(meter.finish().told.blocklist, [(key.to_owned(), None)]);
}

/// A rule that blocks whoever sends the same prompt twice in a row; of `agent` alone, where given.
fn blocking(id: &str, agent: Option<&str>, cooldown_millis: i64) -> DetectorRule {
    let filter = agent.map(|agent| Filter(vec![(Dimension::Agent, vec![agent.to_owned()])]));
    DetectorRule {
        id: id.to_owned(),
        order: 0,
        filter: filter.unwrap_or_default(),
        parameters: Parameters::RetryLoop(RetryLoop {
            repeats: 2,
            ..RetryLoop::default()
        }),
        action: DetectorAction::BlockSession,
        at: Severity::Warning,
        cooldown_millis,
    }
}

/// The same prompt twice by `agent` in session `s-1`; until when that blocks, where it is told.
fn runs_in_a_circle(meter: &mut Meter, agent: &str, at: UnixMillis) -> Option<UnixMillis> {
    for number in 0..2 {
        let name = format!("{agent}-{number}-{at}");
        let mut event = call(&name, "s-1", at);
        event.attribution.agent = Cow::Borrowed(agent);
        count(meter, &event, at, 1);
    }
    meter.advance(at);
    let told = meter.finish().told.blocklist;
    told.into_iter().find_map(|(_, entry)| entry?.expires_at)
}

#[test]
fn a_shorter_cool_down_does_not_end_a_longer_one() {
    let rules = vec![
        blocking("long", Some("slow"), 60 * MINUTE),
        blocking("short", Some("fast"), 5 * MINUTE),
    ];
    let mut meter = meter(book(1, vec![], rules));
    let until = start().plus(60 * MINUTE);
    assert_eq!(runs_in_a_circle(&mut meter, "slow", start()), Some(until));
    let later = start().plus(MINUTE);
    assert_eq!(
        runs_in_a_circle(&mut meter, "fast", later),
        None,
        "it is blocked for longer"
    );
    // Near the end of the longer one the shorter outlasts it.
    let mut last = None;
    for minute in (10..60).step_by(10).chain([58]) {
        let at = start().plus(minute * MINUTE);
        last = runs_in_a_circle(&mut meter, "fast", at).or(last);
    }
    assert_eq!(last, Some(start().plus(63 * MINUTE)));
}

#[test]
fn a_block_that_comes_again_names_the_call_that_caused_it() {
    let rules = vec![blocking("r", None, MINUTE)];
    let mut meter = meter(book(1, vec![], rules));
    // More calls than a finding keeps as evidence, each after the cool-down that the one before caused.
    for number in 0..30 {
        let at = start().plus(number * MINUTE);
        let id = format!("e{number}");
        count(&mut meter, &call(&id, "s-1", at), at, 1);
        let told = meter.finish().told.blocklist;
        let caused_by = told.into_iter().find_map(|(_, entry)| entry?.caused_by);
        let caused_by = caused_by.map(|event| event.id);
        assert_eq!(caused_by, (number > 0).then_some(id));
    }
}

#[test]
fn a_runaway_frees_itself_neither_by_ending_nor_by_a_pause() {
    const KEY: &str = "finding|retry_loop|acme/session=s-1";
    let session_budget = Budget {
        window: WindowKind::Session,
        scope: budget().scope.counted_in(WindowKind::Session),
        ..budget()
    };
    let lifted = |meter: &mut Meter| -> Vec<String> {
        let told = meter.finish().told.blocklist.into_iter();
        let told = told.filter(|(_, entry)| entry.is_none());
        told.map(|(key, _)| key).collect()
    };
    for ends in [true, false] {
        let rules = vec![blocking("r", None, 60 * MINUTE)];
        let book = book(1, vec![session_budget.clone()], rules);
        let mut meter = meter(Arc::clone(&book));
        runs_in_a_circle(&mut meter, "a", start());
        let mut end = call("end", "s-1", start());
        end.body = Body::SessionEnd;
        let at = start().plus(if ends { MINUTE } else { IDLE + 1 });
        match ends {
            true => assert_eq!(count(&mut meter, &end, at, 0), Counted::SessionEnded),
            false => meter.advance(at),
        }
        let written = meter.finish();
        let lifted_keys = written
            .told
            .blocklist
            .iter()
            .filter(|(_, entry)| entry.is_none());
        let lifted_keys: Vec<&str> = lifted_keys.map(|(key, _)| key.as_str()).collect();
        assert!(!lifted_keys.contains(&KEY), "ends {ends}: {lifted_keys:?}");
        assert_eq!(
            meter.session_account(&session_budget.id, "acme/session=s-1"),
            None
        );

        // A successor knows it as well, and lifts it when it is over.
        let mut successor = Meter::new(config(), book);
        for (key, value) in &written.told.changelog {
            successor.restore(key, value.as_deref()).unwrap();
        }
        successor.restored();
        successor.begin(3);
        successor.advance(start().plus(59 * MINUTE));
        assert_eq!(lifted(&mut successor), Vec::<String>::new());
        successor.advance(start().plus(60 * MINUTE + 1));
        assert_eq!(lifted(&mut successor), [KEY]);
        assert_eq!(successor.sizes().0, 0);
    }
}

#[test]
fn a_session_that_goes_on_while_it_is_blocked_ends_when_it_idles_and_not_with_the_block() {
    let rules = vec![blocking("r", None, 60 * MINUTE)];
    let mut meter = meter(book(1, vec![], rules));
    runs_in_a_circle(&mut meter, "a", start());
    let mut end = call("end", "s-1", start());
    end.body = Body::SessionEnd;
    count(&mut meter, &end, start().plus(MINUTE), 0);
    let again = start().plus(2 * MINUTE);
    runs_in_a_circle(&mut meter, "a", again);
    meter.advance(again.plus(IDLE + 1));
    let findings = meter.finish().told.findings;
    let states: Vec<_> = findings.iter().map(|(_, finding)| finding.state).collect();
    assert_eq!(states, [FindingState::Closed]);
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
fn an_event_handed_over_too_late_is_not_counted_a_second_time() {
    let mut meter = meter(book(1, vec![], vec![]));
    let event = call("twice", "s-1", start());
    assert!(matches!(
        count(&mut meter, &event, start(), 1),
        Counted::AtAddress(_)
    ));
    // Hours of other traffic: the memory forgets what is beyond its horizon.
    for number in 0..600 {
        let time = start().plus(number * MINUTE);
        count(
            &mut meter,
            &call(&format!("e{number}"), "s-2", time),
            time,
            1,
        );
    }
    // Its copy arrived elsewhere at that time and was handed over only now.
    assert_eq!(count(&mut meter, &event, start(), 1), Counted::Late);
}

#[test]
fn a_clock_that_ran_back_for_a_while_makes_nothing_count_twice() {
    let mut meter = meter(book(1, vec![], vec![]));
    count(&mut meter, &call("before", "s-1", start()), start(), 1);
    // Half an hour back; the event's time is clamped to the stamp.
    let back = start().plus(-30 * MINUTE);
    let first = count(&mut meter, &call("twice", "s-1", back), back, 1);
    assert!(matches!(first, Counted::AtAddress(_)));
    // The clock is right again. What is sent again is not late, so it must be known.
    let again = call("twice", "s-1", start());
    let later = start().plus(50 * MINUTE);
    assert_eq!(count(&mut meter, &again, later, 1), Counted::Duplicate);
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
