//! A call that is told of again after its session has ended: what it is more is spend of the session
//! that is live then, and what it is less makes no session's budget larger than its limit.

use std::borrow::Cow;
use std::sync::Arc;

use spendfuse_domain::budget::{Budget, BudgetId};
use spendfuse_domain::event::{Attribution, Body, Call, Event, Flags};
use spendfuse_domain::finding::DetectorRules;
use spendfuse_domain::row::{CostParts, Origin, SpendRow};
use spendfuse_domain::{Identity, Nanos, UnixMillis};
use spendfuse_engine::book::BudgetBook;
use spendfuse_engine::codec;
use spendfuse_engine::meter::{Charge, Counted, Meter, MeterConfig, MeterOutputs, Rows};

const MINUTE: i64 = 60_000;
/// 22 November 2026, noon.
const NOON: UnixMillis = UnixMillis(1_795_348_800_000);

struct Nowhere;

impl Rows for Nowhere {
    fn push(&mut self, _row: &SpendRow<'_>) {}
}

fn budget(id: &str) -> Budget {
    let record =
        br#"{"v":1,"scope":{"workspace":"acme","session":"*"},"limit":"2.00","window":"session",
        "steps":[{"at":100,"do":"block"}],"counted_from":"2026-11-01T00:00:00Z"}"#;
    Budget::from_record(id, record).expect("a good record")
}

fn book(version: u64, budgets: &[&str]) -> Arc<BudgetBook> {
    let budgets = budgets.iter().map(|id| budget(id)).collect();
    Arc::new(BudgetBook::compile(
        version,
        budgets,
        DetectorRules::default(),
    ))
}

/// What an event says of a call.
#[derive(Clone, Copy)]
enum Told {
    Estimate,
    Measured,
}

struct Running {
    meter: Meter,
    seq: u64,
    now: UnixMillis,
    content: u32,
    /// Of every commit.
    outputs: Vec<MeterOutputs>,
}

impl Running {
    fn new(budgets: &[&str]) -> Self {
        let mut running = Self {
            meter: meter(budgets),
            seq: 0,
            now: NOON,
            content: 0,
            outputs: Vec::new(),
        };
        running.meter.restored();
        running
    }

    fn event(&mut self, id: &str, session: &'static str, body: Body<'static>) -> Event<'static> {
        self.content += 1;
        Event {
            identity: Identity::of("acme", "app", id, "final"),
            content: self.content,
            source: Cow::Borrowed("app"),
            id: Cow::Owned(id.to_owned()),
            time: self.now,
            flags: Flags::default(),
            attribution: Attribution {
                workspace: Cow::Borrowed("acme"),
                session: Cow::Borrowed(session),
                ..Attribution::default()
            },
            body,
        }
    }

    fn commit(&mut self, event: &Event<'_>, cents: i128) -> Counted {
        self.seq += 1;
        self.meter.begin(self.seq);
        let origin = Origin {
            arrival: self.now,
            ..Origin::default()
        };
        let charge = Charge {
            cost: CostParts {
                output: Nanos::new(cents * 10_000_000),
                ..CostParts::default()
            },
            ..Charge::default()
        };
        let counted = self.meter.count(event, &charge, origin, &mut Nowhere);
        self.outputs.push(self.meter.finish());
        counted
    }

    /// A call of as many tokens as cents, in session `s-1`.
    fn call(&mut self, id: &str, told: Told, cents: u32) -> Counted {
        self.call_in("s-1", id, told, cents)
    }

    fn call_in(&mut self, session: &'static str, id: &str, told: Told, cents: u32) -> Counted {
        let mut call = Call::default();
        call.tokens.output = cents.into();
        let mut event = self.event(id, session, Body::Usage(call));
        if matches!(told, Told::Estimate) {
            event.flags.insert(Flags::USAGE_ESTIMATED);
        }
        self.commit(&event, cents.into())
    }

    fn end_session(&mut self) {
        let id = format!("end-{}", self.content);
        let event = self.event(&id, "s-1", Body::SessionEnd);
        assert_eq!(self.commit(&event, 0), Counted::SessionEnded);
    }

    /// What the budget has counted in session `s-1`, cents and tokens.
    fn spent(&self, budget: &str) -> Option<(i128, i64)> {
        let id = BudgetId::new(budget).expect("a good id");
        let account = self.meter.session_account(&id, "acme/session=s-1")?;
        Some((account.cost.get() / 10_000_000, account.tokens))
    }

    /// A successor takes over, by what was written.
    fn restart(&mut self, budgets: &[&str]) {
        self.meter = meter(budgets);
        for outputs in &self.outputs {
            for (key, value) in &outputs.told.changelog {
                let restored = self.meter.restore(key, value.as_deref());
                restored.expect("own changelog");
            }
            if !outputs.ids.ids.is_empty() {
                let restored = self.meter.restore_ids(&codec::encode(&outputs.ids));
                restored.expect("own identities");
            }
        }
        self.meter.restored();
    }
}

fn meter(budgets: &[&str]) -> Meter {
    let config = MeterConfig {
        partition: 0,
        partitions: 1,
        dedupe_horizon_millis: 24 * 60 * MINUTE,
        dedupe_capacity: 1_000,
        session_idle_millis: 20 * MINUTE,
        session_capacity: 10,
    };
    Meter::new(config, book(1, budgets))
}

fn grows(counted: Counted) -> bool {
    matches!(counted, Counted::Grown(_))
}

#[test]
fn a_measured_count_takes_the_place_of_an_estimate_in_its_live_session() {
    let mut running = Running::new(&["cap"]);
    running.call("c-1", Told::Estimate, 150);
    running.call("c-2", Told::Measured, 10);
    running.restart(&["cap"]);
    assert!(grows(running.call("c-1", Told::Measured, 20)));
    assert_eq!(running.spent("cap"), Some((30, 30)));
}

#[test]
fn a_smaller_count_after_its_sessions_end_gives_the_next_one_nothing() {
    for is_told in [true, false] {
        let mut running = Running::new(&["cap"]);
        running.call("c-1", Told::Estimate, 150);
        match is_told {
            true => running.end_session(),
            false => running.now = NOON.plus(21 * MINUTE),
        }
        assert!(grows(running.call("c-1", Told::Measured, 20)));
        assert_eq!(running.spent("cap"), None, "no session begins");
        running.call("c-2", Told::Measured, 30);
        assert_eq!(running.spent("cap"), Some((30, 30)), "told: {is_told}");
    }
}

#[test]
fn a_session_of_the_same_name_that_is_live_meanwhile_loses_nothing() {
    let mut running = Running::new(&["cap"]);
    running.call("c-1", Told::Estimate, 150);
    running.end_session();
    running.call("c-2", Told::Measured, 30);
    running.restart(&["cap"]);
    assert!(grows(running.call("c-1", Told::Measured, 20)));
    assert_eq!(running.spent("cap"), Some((30, 30)));
}

#[test]
fn a_larger_count_after_its_sessions_end_is_spend_of_the_next_one() {
    let mut running = Running::new(&["cap"]);
    running.call("c-1", Told::Estimate, 50);
    running.end_session();
    assert!(grows(running.call("c-1", Told::Estimate, 80)));
    assert_eq!(running.spent("cap"), Some((30, 30)));
    // It has not counted the call's first event.
    assert!(grows(running.call("c-1", Told::Measured, 10)));
    assert_eq!(running.spent("cap"), Some((30, 30)));
}

#[test]
fn a_budget_that_is_younger_than_the_call_does_not_take_it_back() {
    let mut running = Running::new(&["cap"]);
    running.call("c-1", Told::Estimate, 150);
    running.meter.set_book(book(2, &["cap", "new"]));
    running.call("c-2", Told::Measured, 10);
    assert!(grows(running.call("c-1", Told::Measured, 20)));
    assert_eq!(running.spent("cap"), Some((30, 30)));
    assert_eq!(running.spent("new"), Some((10, 10)));
}

#[test]
fn a_call_that_began_without_a_session_makes_none_less_than_nothing() {
    let mut running = Running::new(&["cap"]);
    running.call("c-2", Told::Measured, 10);
    running.call_in("", "c-1", Told::Estimate, 150);
    assert!(grows(running.call("c-1", Told::Measured, 20)));
    // What is less is taken back where the estimate was counted: the other call's spend stays.
    assert_eq!(running.spent("cap"), Some((10, 10)));
}
