//! Whoever invents names decides neither how much is remembered nor how often people are told.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use spendfuse_domain::event::{Attribution, Body, Call, Event, Flags, Particulars, Rare};
use spendfuse_domain::finding::DetectorRules;
use spendfuse_domain::row::{CostParts, Origin, SpendRow};
use spendfuse_domain::scope::Pattern;
use spendfuse_domain::{
    Budget, Dimension, Identity, Nanos, ScopeTemplate, UnixMillis, Verdict, WindowKind,
};
use spendfuse_engine::alert::{Alert, AlertKind};
use spendfuse_engine::book::BudgetBook;
use spendfuse_engine::delta::Deltas;
use spendfuse_engine::ledger::{Ledger, LedgerConfig, PUBLISH_RATE, WindowLineKind};
use spendfuse_engine::meter::{Charge, Counted, Meter, MeterConfig, MeterOutputs, Rows};
use spendfuse_testkit::generate;

const NAMES: usize = 100_000;
const BATCH: usize = 1_000;
const SESSIONS: usize = 5_000;
const ACCOUNTS: usize = 20_000;
const CALL: Nanos = Nanos::new(7);

/// Counts rows and adds up their cost.
#[derive(Default)]
struct Sum {
    rows: usize,
    cost: Nanos,
}

impl Rows for Sum {
    fn push(&mut self, row: &SpendRow<'_>) {
        self.rows += 1;
        self.cost += row.cost.total();
    }
}

fn start() -> UnixMillis {
    UnixMillis::parse_rfc3339("2026-11-22T10:00:00Z").unwrap()
}

/// A budget for each value of `dimension`; its limit is never reached.
fn for_each(number: usize, dimension: Dimension, window: WindowKind) -> Budget {
    Budget {
        limit: spendfuse_domain::Amount::Usd(Nanos::from_dollars(1)),
        scope: ScopeTemplate::new(vec![(dimension, Pattern::Each)]),
        window,
        ..generate::budget(number, 0)
    }
}

fn book(budgets: Vec<Budget>) -> Arc<BudgetBook> {
    Arc::new(BudgetBook::compile(1, budgets, DetectorRules::default()))
}

fn meter(book: &Arc<BudgetBook>) -> Meter {
    let config = MeterConfig {
        partition: 3,
        partitions: 4,
        dedupe_horizon_millis: 24 * 3_600_000,
        dedupe_capacity: 1_000_000,
        session_idle_millis: 3_600_000,
        session_capacity: SESSIONS,
    };
    Meter::new(config, Arc::clone(book))
}

/// An unpriced call whose names are all invented; `session` may be one of many.
fn call(number: usize, session: &str) -> Event<'static> {
    let name = |what: &str| Cow::Owned(format!("{what}-{number}"));
    let id = format!("e{number}");
    Event {
        identity: Identity::of("acme", "app", &id, "final"),
        content: 0,
        source: name("source"),
        id: Cow::Owned(id),
        time: start(),
        flags: Flags::DISPUTED,
        attribution: Attribution {
            workspace: Cow::Borrowed("acme"),
            customer: name("customer"),
            session: Cow::Owned(session.to_owned()),
            provider: Cow::Borrowed("nobody"),
            model: name("model"),
            agent: name("agent"),
            ..Attribution::default()
        },
        body: Body::Usage(Call {
            operation: Cow::Borrowed("chat"),
            rare: Rare::from(Particulars {
                unread: Some("holo_tokens".into()),
                ..Particulars::default()
            }),
            ..Call::default()
        }),
    }
}

fn count(meter: &mut Meter, event: &Event<'_>, at: UnixMillis, rows: &mut Sum) {
    let charge = Charge {
        cost: CostParts {
            output: CALL,
            ..CostParts::default()
        },
        flags: Flags::UNPRICED,
        ..Charge::default()
    };
    let origin = Origin {
        arrival: at,
        ..Origin::default()
    };
    let counted = meter.count(event, &charge, origin, rows);
    assert!(matches!(counted, Counted::AtAddress(_)));
}

/// Sends `NAMES` calls in commits of a thousand, 20 ms apart; `each` sees every commit's outputs.
fn flood(
    meter: &mut Meter,
    session: impl Fn(usize) -> String,
    mut each: impl FnMut(&Meter, MeterOutputs),
) -> Sum {
    let mut rows = Sum::default();
    for batch in 0..NAMES / BATCH {
        meter.begin(batch as u64 + 1);
        let at = start().plus(batch as i64 * 20);
        for number in batch * BATCH..(batch + 1) * BATCH {
            count(meter, &call(number, &session(number)), at, &mut rows);
        }
        let outputs = meter.finish();
        each(meter, outputs);
    }
    rows
}

fn of(alerts: &[Alert], kind: AlertKind) -> Vec<&Alert> {
    alerts.iter().filter(|alert| alert.kind == kind).collect()
}

#[test]
fn invented_models_and_sources_ring_ten_times_and_are_counted() {
    let mut meter = meter(&book(vec![]));
    let mut alerts = Vec::new();
    let mut log = BTreeMap::new();
    let rows = flood(
        &mut meter,
        |_| String::new(),
        |_, outputs| {
            alerts.extend(outputs.told.alerts);
            log.extend(outputs.told.changelog);
        },
    );
    assert_eq!(
        (rows.rows, rows.cost),
        (NAMES, Nanos::new(7 * NAMES as i128))
    );
    for kind in [
        AlertKind::UnpricedModel,
        AlertKind::DisputedSource,
        AlertKind::PartlyRead,
    ] {
        let told = of(&alerts, kind);
        let counts: Vec<u64> = told.iter().filter_map(|alert| alert.count).collect();
        assert_eq!(told.len() - counts.len(), 10);
        assert!(counts.len() <= 4, "{counts:?}");
    }
    let remembered = log.keys().filter(|key| key.starts_with(b"told|"));
    assert_eq!(remembered.count(), 30, "what was told one by one");

    // The process dies, and the hour's end tells the rest, though nothing comes any more.
    let mut meter = self::meter(&book(vec![]));
    for (key, value) in &log {
        meter.restore(key, value.as_deref()).unwrap();
    }
    meter.restored();
    meter.begin(500);
    for number in NAMES..NAMES + 5 {
        count(&mut meter, &call(number, ""), start(), &mut Sum::default());
    }
    assert_eq!(meter.finish().told.alerts, []);
    let next_hour = start().plus(3_600_000);
    meter.begin(1_000);
    meter.advance(next_hour);
    assert!(meter.has_output());
    let alerts = meter.finish().told.alerts;
    let last = of(&alerts, AlertKind::UnpricedModel)[0].count;
    assert_eq!(last, Some(NAMES as u64 + 5 - 10));
    assert!(!meter.has_output());
}

#[test]
fn invented_sessions_end_early_where_there_is_no_room_and_nothing_is_lost_of_what_they_cost() {
    let in_session = for_each(0, Dimension::Customer, WindowKind::Session);
    let mut meter = meter(&book(vec![in_session]));
    let (mut ended, mut alerts) = (0, Vec::new());
    let mut live: i64 = 0;
    let rows = flood(
        &mut meter,
        |number| format!("s{number}"),
        |meter, outputs| {
            assert!(meter.sizes().0 <= SESSIONS);
            ended += outputs.sessions_ended_early;
            alerts.extend(outputs.told.alerts);
            for (key, value) in outputs.told.changelog {
                if key.starts_with(b"session|") {
                    live += if value.is_some() { 1 } else { -1 };
                }
            }
        },
    );
    assert_eq!(
        (rows.rows, rows.cost),
        (NAMES, Nanos::new(7 * NAMES as i128))
    );
    assert!(ended as usize >= NAMES - SESSIONS);
    assert!(
        live <= SESSIONS as i64,
        "the changelog holds what is live: {live}"
    );
    assert_eq!(of(&alerts, AlertKind::Capacity).len(), 1);
    assert!(alerts.len() < 60, "{}", alerts.len());
}

#[test]
fn a_refused_session_is_not_freed_by_inventing_others() {
    let two_calls = Budget {
        limit: spendfuse_domain::Amount::Usd(CALL + CALL),
        scope: ScopeTemplate::new(vec![]),
        ..for_each(0, Dimension::Customer, WindowKind::Session)
    };
    let mut meter = meter(&book(vec![two_calls]));
    let mut told = Vec::new();
    let name = |number: usize| format!("s{}", if number < 2 { 0 } else { number });
    flood(&mut meter, name, |meter, outputs| {
        let of_it = |key: &str| key.ends_with("/session=s0");
        told.extend(
            outputs
                .told
                .blocklist
                .into_iter()
                .filter(|(key, _)| of_it(key)),
        );
        assert!(meter.sizes().0 <= SESSIONS);
    });
    let verdicts: Vec<_> = told.iter().map(|(_, entry)| entry.as_ref()).collect();
    assert_eq!(verdicts.len(), 1, "{verdicts:?}");
    assert_eq!(verdicts[0].unwrap().verdict, Verdict::Block);
}

#[test]
fn one_session_with_invented_agents_models_and_customers_stays_small() {
    let in_session = for_each(0, Dimension::Customer, WindowKind::Session);
    let book = book(vec![in_session]);
    let mut meter = meter(&book);
    let mut largest = 0;
    let (mut withdrawn, mut given_up) = (0, 0);
    let mut alerts = Vec::new();
    let mut log = Vec::new();
    let rows = flood(
        &mut meter,
        |_| "s".to_owned(),
        |_, outputs| {
            withdrawn += outputs
                .told
                .blocklist
                .iter()
                .filter(|(_, entry)| entry.is_none())
                .count();
            let sizes = outputs
                .told
                .changelog
                .iter()
                .filter_map(|(_, value)| value.as_ref());
            largest = largest.max(sizes.map(Vec::len).max().unwrap_or(0));
            log.extend(outputs.told.changelog);
            given_up += outputs.session_accounts_given_up;
            alerts.extend(outputs.told.alerts);
        },
    );
    assert_eq!(rows.rows, NAMES);
    assert!(largest < 128 * 1024, "{largest}");
    assert_eq!(given_up as usize, NAMES - 256);
    assert!(withdrawn > 0, "readers forget accounts that are gone");
    let capacity = of(&alerts, AlertKind::Capacity);
    // One of its accounts, one of its agents and models.
    assert_eq!(capacity.len(), 2);
    assert!(
        capacity
            .iter()
            .all(|alert| alert.subject == "acme/session=s")
    );

    let mut restored = self::meter(&book);
    for (key, value) in &log {
        restored.restore(key, value.as_deref()).unwrap();
    }
    restored.restored();
    assert_eq!(restored.sizes().0, meter.sizes().0);
}

#[test]
fn invented_customers_fill_the_ledger_to_its_bound_and_the_rest_stands_in_its_lines() {
    let daily = for_each(0, Dimension::Customer, WindowKind::Day);
    let book = book(vec![daily]);
    let mut meter = meter(&book);
    let config = LedgerConfig {
        partition: 0,
        partitions: 4,
        grace_millis: 24 * 3_600_000,
        publish_rate: PUBLISH_RATE,
        account_capacity: ACCOUNTS,
    };
    // All scopes in one partition: its chain is that of the meter's commits.
    let mut ledger = Ledger::new(config, Arc::clone(&book));
    ledger.restored();
    let (mut seq, mut without, mut written_off) = (0, 0, Nanos::ZERO);
    let mut alerts = Vec::new();
    flood(
        &mut meter,
        |_| String::new(),
        |_, outputs| {
            for (_, mut deltas) in outputs.deltas {
                let next = seq + 1;
                (deltas.prev, deltas.seq) = (seq, next);
                seq = next;
                apply(&mut ledger, &deltas);
                let outputs = ledger.finish();
                without += outputs.without_account;
                let lines = outputs.window_lines.iter();
                for line in lines.filter(|line| line.kind == WindowLineKind::Late) {
                    written_off += line.spend.cost;
                }
                alerts.extend(outputs.told.alerts);
                assert!(ledger.len() <= ACCOUNTS);
            }
        },
    );
    assert_eq!(ledger.len(), ACCOUNTS);
    assert_eq!(without as usize, NAMES - ACCOUNTS);
    assert_eq!(written_off, Nanos::new(7 * (NAMES - ACCOUNTS) as i128));
    assert_eq!(of(&alerts, AlertKind::Capacity).len(), 1);
}

fn apply(ledger: &mut Ledger, deltas: &Deltas) {
    ledger.begin(deltas.seq);
    ledger.apply(deltas, start());
}
