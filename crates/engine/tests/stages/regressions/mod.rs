//! Defects that were found once, each with the shortest history that shows it.

mod ledger;
mod memory;
mod session_blocks;
mod sessions;

use std::borrow::Cow;
use std::sync::Arc;

use spendfuse_domain::event::{Attribution, Body, Call, Event, Flags};
use spendfuse_domain::finding::{DetectorRule, DetectorRules};
use spendfuse_domain::row::{CostParts, Origin, SpendRow};
use spendfuse_domain::{Budget, Identity, Nanos, UnixMillis};
use spendfuse_engine::book::{BudgetBook, Series};
use spendfuse_engine::delta::{DeltaEntry, Deltas};
use spendfuse_engine::ledger::{Ledger, LedgerConfig, PUBLISH_RATE};
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

/// Changed and changed back in the middle of a window: `budgets apply` writes another `counted_from`
/// each time.
fn changed_back(budget: &Budget) -> Budget {
    Budget {
        counted_from: start().plus(MINUTE),
        ..budget.clone()
    }
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
