//! Reservations: what is held, who is refused because of it, and when it goes.

#![allow(clippy::unwrap_used)]

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::thread;

use proptest::prelude::*;
use serde_json::{Value, json};
use spendfuse_domain::budget::{ReserveRule, Spend};
use spendfuse_domain::{Attribution, Nanos, UnixMillis, Verdict};
use spendfuse_guard::{
    Basis, BudgetLine, CheckRequest, Expected, Guard, GuardConfig, GuardWriter, Hold, NotReserved,
    Now, Place,
};

const WALL: UnixMillis = UnixMillis(1_795_000_000_000);
const TIMEOUT: i64 = 600_000;
const CENT: i128 = 10_000_000;

fn at(monotonic_millis: i64) -> Now {
    Now {
        wall: WALL,
        monotonic_millis,
    }
}

struct Bench {
    writer: GuardWriter,
    guard: Guard,
    beats: u64,
}

/// Budgets of one partition, in dollars, by id: of each customer or of the whole workspace.
fn bench(budgets: &[(&str, Value, &str)]) -> Bench {
    bench_with(GuardConfig::new(1), budgets)
}

fn bench_with(config: GuardConfig, budgets: &[(&str, Value, &str)]) -> Bench {
    let (mut writer, guard) = Guard::new(config);
    for (id, scope, limit) in budgets {
        let record = json!({
            "v": 1, "id": id, "scope": scope, "limit": limit, "window": "lifetime",
            "timezone": "UTC", "counted_from": "2026-01-01T00:00:00Z",
            "steps": [{"at": 80, "do": "warn"}, {"at": 100, "do": "block"}],
        });
        let record = serde_json::to_vec(&record).unwrap();
        writer.apply_budget(id, Some(&record), 1).unwrap();
    }
    writer.caught_up();
    writer.publish(WALL);
    Bench {
        writer,
        guard,
        beats: 0,
    }
}

fn each_customer() -> Value {
    json!({"workspace": "acme", "customer": "*"})
}

fn whole() -> Value {
    json!({"workspace": "acme"})
}

fn call(customer: &str, cents: i128) -> CheckRequest<'_> {
    CheckRequest {
        attribution: Attribution {
            workspace: "acme".into(),
            customer: customer.into(),
            ..Attribution::default()
        },
        estimate: cost(cents),
        ..CheckRequest::default()
    }
}

fn cost(cents: i128) -> Spend {
    Spend {
        cost: Nanos::new(cents * CENT),
        tokens: 0,
        calls: 1,
    }
}

impl Bench {
    fn reserve(&self, customer: &str, cents: i128, millis: i64) -> Option<Hold> {
        let request = call(customer, cents);
        let expected = Expected::given(request.estimate);
        let reserving = self.guard.reserve(&request, expected, TIMEOUT, at(millis));
        let reserving = reserving.unwrap();
        let verdict = reserving.decision.verdict();
        assert_eq!(reserving.hold.is_some(), verdict < Verdict::Block);
        reserving.hold
    }

    fn verdict(&self, customer: &str, cents: i128) -> Verdict {
        let request = call(customer, cents);
        let verdict = self.guard.check(&request, at(0)).verdict();
        let reasoned = self.guard.check_with_reasons(&request, at(0));
        assert_eq!(reasoned.verdict(), verdict);
        verdict
    }

    fn line(&self, customer: &str, budget: &str) -> BudgetLine {
        let request = call(customer, 0);
        let answer = self.guard.check_with_reasons(&request, at(0)).explain();
        let mut lines = answer.budgets.into_iter();
        lines.find(|line| line.budget == budget).unwrap()
    }

    /// Spent, pending and reserved cents.
    fn cents(&self, customer: &str, budget: &str) -> [i128; 3] {
        let figures = self.line(customer, budget).figures;
        [figures.spent, figures.pending, figures.reserved]
            .map(|amount| amount.unwrap().number() / CENT)
    }

    fn entry(&mut self, budget: &str, scope: &str, spent_cents: i128, limit: &str) {
        self.read_entry(budget, scope, spent_cents, limit);
        self.writer.publish(WALL);
    }

    /// As [`Self::entry`]; readers do not see it yet.
    fn read_entry(&mut self, budget: &str, scope: &str, spent_cents: i128, limit: &str) {
        let nothing = json!({});
        self.read_entry_through(budget, scope, spent_cents, limit, &nothing);
    }

    /// An entry of budget `cap` of a dollar that counts the usage topic's events up to these offsets.
    fn entry_through(&mut self, scope: &str, spent_cents: i128, through: &Value) {
        self.read_entry_through("cap", scope, spent_cents, "1.00", through);
        self.writer.publish(WALL);
    }

    fn read_entry_through(
        &mut self,
        budget: &str,
        scope: &str,
        spent_cents: i128,
        limit: &str,
        through: &Value,
    ) {
        // As the ledger judges; the share in basis points.
        let share = spent_cents * 10_000 / (Nanos::parse_usd(limit).unwrap().amount.get() / CENT);
        let verdict = match share {
            10_000.. => "block",
            8_000.. => "warn",
            _ => "ok",
        };
        let figures = [
            spent_cents * CENT,
            Nanos::parse_usd(limit).unwrap().amount.get(),
        ];
        self.read_judged_entry(&format!("{budget}|{scope}"), figures, verdict, through);
    }

    /// What is spent and the limit are nano-dollars.
    fn read_judged_entry(&mut self, key: &str, figures: [i128; 2], verdict: &str, through: &Value) {
        let (budget, scope) = key.split_once('|').unwrap();
        let [spent, limit] = figures.map(|figure| Nanos::new(figure).to_string());
        let entry = json!({
            "v": 1, "budget": budget, "scope": scope, "where": null, "verdict": verdict,
            "action": "block", "spent_usd": spent, "limit_usd": limit, "percent": 1.0,
            "window": "lifetime", "window_start": WALL, "resets_at": null, "expires_at": null,
            "counted_from": WALL, "downgrade_to": null, "version": 1, "decided_at": WALL,
            "caused_by": null, "through": through,
        });
        let entry = serde_json::to_vec(&entry).unwrap();
        self.writer.apply(key, Some(&entry), WALL, at(0)).unwrap();
    }

    /// A heartbeat that is logged and read at `millis`, and complete to then.
    fn beat(&mut self, stage: &str, millis: i64, usage_offset: Option<i64>) {
        self.beats += 1;
        let beat = json!({
            "v": 1, "partition": 0, "complete_to": WALL.plus(millis), "lag_ms": 0,
            "version": self.beats, "usage_offset": usage_offset, "budget_version": 0,
        });
        let beat = serde_json::to_vec(&beat).unwrap();
        let key = format!("heartbeat|{stage}|0");
        let logged_at = WALL.plus(millis);
        self.writer
            .apply(&key, Some(&beat), logged_at, at(millis))
            .unwrap();
        self.writer.publish(WALL);
    }
}

fn log(offset: i64) -> Place {
    Place::Log {
        partition: 0,
        offset,
    }
}

#[test]
fn of_many_calls_at_once_only_those_are_admitted_that_fit() {
    for (limit, fits) in [("0.10", 1), ("0.30", 3), ("0.08", 0)] {
        let bench = bench(&[("cap", each_customer(), limit), ("all", whole(), "9.00")]);
        let begin = Barrier::new(20);
        let admitted: usize = thread::scope(|scope| {
            let ask = || {
                begin.wait();
                usize::from(bench.reserve("c", 9, 0).is_some())
            };
            let asking: Vec<_> = (0..20).map(|_| scope.spawn(ask)).collect();
            asking.into_iter().map(|one| one.join().unwrap()).sum()
        });
        assert_eq!(admitted, fits, "limit {limit}");
        let held = 9 * fits as i128;
        assert_eq!(bench.cents("c", "cap"), [0, 0, held]);
        assert_eq!(bench.cents("c", "all"), [0, 0, held]);
        assert_eq!(bench.guard.hold_counts(), (fits, fits));
    }
}

/// Spend at a ceiling warns, and calls go on: with a hold as without one.
#[test]
fn what_is_beyond_a_limit_by_spend_that_only_warns_refuses_nobody() {
    let mut bench = bench(&[("cap", each_customer(), "1.00")]);
    let dollars = |amount: i128| amount * 100 * CENT;
    for (verdict, budgets) in [("warn", 0), ("block", 1)] {
        let figures = [dollars(4), dollars(1)];
        bench.read_judged_entry("cap|acme/customer=c", figures, verdict, &json!({}));
        bench.writer.publish(WALL);
        let request = call("c", 2);
        let expected = Expected::given(request.estimate);
        let planned = bench.guard.plan(&request, expected, at(0)).unwrap();
        let met = bench.guard.met(&request, &planned, at(0));
        assert_eq!(met.len(), budgets, "{verdict}");
        assert_eq!(bench.reserve("c", 2, 0).is_some(), verdict == "warn");
    }
}

#[test]
fn a_call_holds_what_it_has_asked_others_for_whatever_is_learnt_meanwhile() {
    let bench = bench(&[("cap", each_customer(), "1.00")]);
    let request = call("c", 1);
    let expected = Expected::given(request.estimate);
    let planned = bench.guard.plan(&request, expected, at(0)).unwrap();
    let met = bench.guard.met(&request, &planned, at(0));
    assert_eq!(i128::from(met[0].amount), CENT);
    let pair = bench.guard.pair(&request.attribution, "");
    for _ in 0..10 {
        bench.guard.learn(pair, &cost(70), 0);
    }
    // What they hold was admitted beside one cent, and seventy do not fit.
    let key = met[0].key.clone();
    bench
        .guard
        .set_elsewhere(&key, i64::try_from(90 * CENT).unwrap());
    let granted = [key];
    let reserving = bench
        .guard
        .reserve_granted(&request, &planned, TIMEOUT, &granted, at(0));
    assert_eq!(reserving.unwrap().hold.unwrap().cost, cost(1).cost);
    assert_eq!(
        bench.reserve("c", 1, 0),
        None,
        "the next one holds 70 cents"
    );
}

#[test]
fn what_is_held_of_a_limit_in_dollars_is_not_held_of_one_in_tokens() {
    let mut bench = bench(&[("cap", each_customer(), "1.00")]);
    let hold = bench.reserve("c", 50, 0).unwrap();
    let settled = bench.reserve("c", 10, 0).unwrap();
    bench.guard.settle(settled.number, &cost(20), log(7));
    for (version, limit, value) in [
        (2, "limit_tokens", json!(1000)),
        (3, "limit", json!("1.00")),
    ] {
        let mut record = json!({
            "v": 1, "id": "cap", "scope": each_customer(), "window": "lifetime",
            "timezone": "UTC", "counted_from": "2026-01-01T00:00:00Z",
            "steps": [{"at": 80, "do": "warn"}, {"at": 100, "do": "block"}],
        });
        record[limit] = value;
        let record = serde_json::to_vec(&record).unwrap();
        bench
            .writer
            .apply_budget("cap", Some(&record), version)
            .unwrap();
        bench.writer.publish(WALL);
        if version == 2 {
            assert_eq!(bench.verdict("c", 90), Verdict::Ok);
            assert_eq!(bench.guard.held_of("cap|acme/customer=c"), 0);
        }
    }
    assert_eq!(bench.cents("c", "cap"), [0, 20, 50]);
    assert_eq!(bench.verdict("c", 31), Verdict::Block);
    assert!(bench.guard.release(hold.number));
    assert_eq!(bench.cents("c", "cap"), [0, 20, 0]);
}

#[test]
fn what_is_held_is_seen_by_every_check_and_stands_in_the_answer() {
    let mut bench = bench(&[("cap", each_customer(), "1.00")]);
    bench.entry("cap", "acme/customer=c", 50, "1.00");
    let hold = bench.reserve("c", 45, 0).unwrap();
    assert_eq!((hold.cost, hold.lasts_millis), (cost(45).cost, TIMEOUT));
    assert_eq!(bench.verdict("c", 6), Verdict::Block);
    // Up to the last cent, as an estimate is.
    assert_eq!(bench.verdict("c", 5), Verdict::Ok);
    assert_eq!(bench.verdict("other", 99), Verdict::Ok);
    let request = call("c", 6);
    let answer = bench.guard.check_with_reasons(&request, at(0)).explain();
    assert!(answer.budgets[0].is_held_up);
    // The window never resets, but a call may end in the next second.
    assert_eq!(answer.retry_after_seconds, Some(1));
    let remaining = answer.budgets[0].figures.remaining().unwrap();
    assert_eq!(remaining.number(), 5 * CENT);
    assert!(bench.guard.release(hold.number));
    assert!(!bench.guard.release(hold.number));
    assert_eq!(bench.verdict("c", 50), Verdict::Ok);
}

#[test]
fn a_call_that_one_budget_refuses_holds_nothing_in_the_others() {
    let bench = bench(&[
        ("a", whole(), "1.00"),
        ("b", each_customer(), "0.05"),
        ("c", whole(), "1.00"),
    ]);
    for _ in 0..1000 {
        assert_eq!(bench.reserve("c", 9, 0), None);
    }
    for budget in ["a", "b", "c"] {
        assert_eq!(bench.cents("c", budget), [0; 3]);
    }
    assert_eq!(bench.guard.hold_counts(), (0, 0));
    // Whoever is refused only at the last moment gives back what is held by then.
    let begin = Barrier::new(8);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                begin.wait();
                for _ in 0..500 {
                    if let Some(hold) = bench.reserve("c", 3, 0) {
                        assert!(bench.guard.release(hold.number));
                    }
                }
            });
        }
    });
    for budget in ["a", "b", "c"] {
        assert_eq!(bench.cents("c", budget), [0; 3]);
    }
}

#[test]
fn a_settled_call_is_pending_until_an_entry_shows_it() {
    let mut bench = bench(&[("cap", each_customer(), "1.00")]);
    bench.entry("cap", "acme/customer=c", 40, "1.00");
    let hold = bench.reserve("c", 10, 0).unwrap();
    // It costs more than was thought.
    assert!(bench.guard.settle(hold.number, &cost(30), log(7)).is_some());
    assert!(bench.guard.settle(hold.number, &cost(30), log(7)).is_none());
    assert_eq!(bench.cents("c", "cap"), [40, 30, 0]);
    // An entry of before, the meter before the event, the ledger before the meter's word.
    bench.entry("cap", "acme/customer=c", 41, "1.00");
    bench.beat("meter", 1_000, Some(7));
    bench.beat("ledger", 2_000, None);
    bench.entry("cap", "acme/customer=c", 42, "1.00");
    bench.beat("meter", 3_000, Some(8));
    bench.entry("cap", "acme/customer=c", 43, "1.00");
    assert_eq!(bench.cents("c", "cap"), [43, 30, 0]);
    // Shown together with the ledger's word, and written before it.
    bench.read_entry("cap", "acme/customer=c", 43, "1.00");
    bench.beat("ledger", 3_001, None);
    // This one may be of before; the next is not.
    assert_eq!(bench.cents("c", "cap"), [43, 30, 0]);
    bench.entry("cap", "acme/customer=other", 1, "1.00");
    assert_eq!(bench.cents("c", "cap"), [43, 30, 0]);
    bench.entry("cap", "acme/customer=c", 73, "1.00");
    assert_eq!(bench.cents("c", "cap"), [73, 0, 0]);
    assert_eq!(bench.guard.hold_counts(), (0, 0));
}

#[test]
fn an_entry_that_says_which_events_it_counts_takes_out_those_and_no_others() {
    let mut bench = bench(&[("cap", each_customer(), "1.00"), ("all", whole(), "9.00")]);
    let scope = "acme/customer=c";
    bench.entry_through(scope, 40, &json!({"0": 6}));
    let holds: Vec<Hold> = (0..4).filter_map(|_| bench.reserve("c", 5, 0)).collect();
    assert!(
        bench
            .guard
            .settle(holds[0].number, &cost(5), log(7))
            .is_some()
    );
    assert!(
        bench
            .guard
            .settle(holds[1].number, &cost(5), log(9))
            .is_some()
    );
    bench
        .guard
        .settle(holds[2].number, &cost(5), Place::Spool { content: 5 });
    assert_eq!(bench.cents("c", "cap"), [40, 15, 5]);
    // Without it, a figure that has moved says nothing of what is in it.
    bench.entry("cap", scope, 45, "1.00");
    assert_eq!(bench.cents("c", "cap"), [45, 15, 5]);
    bench.entry_through(scope, 45, &json!({"0": 8, "1": 90}));
    assert_eq!(bench.cents("c", "cap"), [45, 10, 5]);
    // The other budget has its own entries.
    assert_eq!(bench.cents("c", "all"), [0, 15, 5]);
    // What is read before its event is known to be safe is not pending at all.
    bench.entry_through(scope, 60, &json!({"0": 12}));
    assert!(
        bench
            .guard
            .settle(holds[3].number, &cost(5), log(11))
            .is_some()
    );
    bench.guard.replayed(5, 0, 12);
    assert_eq!(bench.cents("c", "cap"), [60, 0, 0]);
    assert_eq!(bench.cents("c", "all"), [0, 20, 0]);
    bench.beat("meter", 1_000, Some(13));
    bench.beat("ledger", 1_001, None);
    bench.entry("all", "acme", 60, "9.00");
    assert_eq!(bench.cents("c", "all"), [60, 0, 0]);
    assert_eq!(bench.guard.hold_counts(), (0, 0));
}

#[test]
fn what_was_handed_over_is_pending_until_the_commit_that_counts_it_is_shown() {
    let mut bench = bench(&[("cap", each_customer(), "1.00")]);
    let scope = "acme/customer=c";
    bench.entry_through(scope, 40, &json!({"0": 6}));
    let holds: Vec<Hold> = (0..2).filter_map(|_| bench.reserve("c", 10, 0)).collect();
    // One commit counts both.
    let place = Place::Commit {
        partition: 0,
        seq: 2,
    };
    for hold in &holds {
        assert!(bench.guard.settle(hold.number, &cost(10), place).is_some());
    }
    assert_eq!(bench.cents("c", "cap"), [40, 20, 0]);
    assert_eq!(bench.guard.hold_counts(), (0, 1));
    // An offset says nothing of what came by another partition, nor does a commit of before.
    bench.entry_through(scope, 41, &json!({"0": 900}));
    bench.beat("meter", 1_000, Some(900));
    bench.beat("ledger", 1_001, None);
    bench.entry_through(scope, 42, &json!({"0": 901}));
    assert_eq!(bench.cents("c", "cap"), [42, 20, 0]);
    // The ledgers' word, and the entry behind it.
    bench.beat("meter", 2_000, Some(900));
    bench.beat("ledger", 2_001, None);
    assert_eq!(bench.cents("c", "cap"), [42, 20, 0]);
    bench.entry_through(scope, 62, &json!({"0": 901}));
    assert_eq!(bench.cents("c", "cap"), [62, 0, 0]);
    assert_eq!(bench.guard.hold_counts(), (0, 0));
}

#[test]
fn what_no_entry_shows_goes_once_all_is_read_that_would_have_shown_it() {
    for (spent, refresh) in [(60, 6_000), (10, 61_000)] {
        let mut bench = bench(&[("cap", each_customer(), "1.00")]);
        bench.entry("cap", "acme/customer=c", spent, "1.00");
        let hold = bench.reserve("c", 10, 0).unwrap();
        assert!(bench.guard.settle(hold.number, &cost(1), log(7)).is_some());
        bench.beat("meter", 1_000, Some(8));
        bench.beat("ledger", 1_001, None);
        // Time alone says nothing: nothing is heard of the ledger.
        bench.guard.expire_holds(1_000_000);
        // A ledger has passed the heartbeat before its own.
        for (after, pending) in [(1_000, 1), (1_005, 1), (1_010, 0)] {
            bench.beat("meter", refresh + after, Some(8));
            bench.beat("ledger", refresh + after + 1, None);
            let cents = bench.cents("c", "cap");
            assert_eq!(cents, [spent, pending, 0], "{refresh} {after}");
        }
        assert_eq!(bench.guard.hold_counts(), (0, 0));
    }
}

#[test]
fn a_spooled_call_is_pending_until_its_place_in_the_log_is_counted() {
    let mut bench = bench(&[("cap", each_customer(), "1.00")]);
    let hold = bench.reserve("c", 10, 0).unwrap();
    let place = Place::Spool { content: 5 };
    assert!(bench.guard.settle(hold.number, &cost(10), place).is_some());
    bench.beat("meter", 1_000, Some(100));
    bench.beat("ledger", 1_001, None);
    bench.entry("cap", "acme/customer=c", 1, "1.00");
    assert_eq!(bench.cents("c", "cap"), [1, 10, 0]);
    bench.guard.replayed(6, 0, 99);
    bench.guard.replayed(5, 0, 200);
    bench.beat("meter", 2_000, Some(201));
    bench.beat("ledger", 2_001, None);
    bench.entry("cap", "acme/customer=c", 11, "1.00");
    assert_eq!(bench.cents("c", "cap"), [11, 0, 0]);
}

#[test]
fn what_left_the_spool_before_its_call_was_settled_is_pending_at_its_place_in_the_log() {
    let mut bench = bench(&[("cap", each_customer(), "1.00")]);
    let hold = bench.reserve("c", 10, 0).unwrap();
    bench.guard.replayed(5, 0, 200);
    let place = Place::Spool { content: 5 };
    assert!(bench.guard.settle(hold.number, &cost(10), place).is_some());
    assert_eq!(bench.cents("c", "cap"), [0, 10, 0]);
    bench.beat("meter", 2_000, Some(201));
    bench.beat("ledger", 2_001, None);
    bench.entry("cap", "acme/customer=c", 10, "1.00");
    assert_eq!(bench.cents("c", "cap"), [10, 0, 0]);
    assert_eq!(bench.guard.hold_counts(), (0, 0));
}

#[test]
fn what_the_spool_owes_at_a_start_is_pending_until_it_is_counted() {
    let config = GuardConfig {
        hold_capacity: 4,
        ..GuardConfig::new(1)
    };
    let budgets = [("cap", each_customer(), "1.00"), ("all", whole(), "5.00")];
    let mut bench = bench_with(config, &budgets);
    let who = call("c", 0).attribution;
    for content in [5, 5, 6] {
        assert!(bench.guard.owe(&who, &cost(40), content, at(0)));
    }
    assert_eq!(bench.cents("c", "cap"), [0, 80, 0]);
    assert_eq!(bench.cents("d", "all"), [0, 80, 0]);
    assert_eq!(bench.verdict("c", 21), Verdict::Block);
    // Half of the room is left to reservations.
    assert!(!bench.guard.owe(&who, &cost(40), 7, at(0)));
    let hold = bench.reserve("d", 1, 0).unwrap();
    assert!(bench.guard.release(hold.number));
    for (content, offset) in [(5, 10), (6, 11)] {
        bench.guard.replayed(content, 0, offset);
    }
    bench.beat("meter", 2_000, Some(12));
    bench.beat("ledger", 2_001, None);
    bench.entry("cap", "acme/customer=c", 80, "1.00");
    bench.entry("all", "acme", 80, "5.00");
    assert_eq!(bench.cents("c", "cap"), [80, 0, 0]);
    assert_eq!(bench.cents("d", "all"), [80, 0, 0]);
    assert_eq!(bench.guard.hold_counts(), (0, 0));
}

#[test]
fn a_cost_is_at_no_moment_in_neither_place() {
    const ROUNDS: i64 = 300;
    let mut bench = bench(&[("cap", each_customer(), "100.00")]);
    let guard = bench.guard.clone();
    let (settled, is_over) = (AtomicI64::new(0), AtomicBool::new(false));
    let both_run = Barrier::new(2);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let request = call("c", 0);
            both_run.wait();
            while !is_over.load(Ordering::Acquire) {
                let least = i128::from(settled.load(Ordering::Acquire)) * CENT;
                let answer = guard.check_with_reasons(&request, at(0)).explain();
                let figures = answer.budgets[0].figures;
                let parts = [figures.spent, figures.pending, figures.reserved];
                let sum: i128 = parts.map(|amount| amount.unwrap().number()).iter().sum();
                assert!(sum >= least, "{parts:?} after {least}");
            }
        });
        both_run.wait();
        for round in 1..=ROUNDS {
            let hold = bench.reserve("c", 1, 0).unwrap();
            assert!(
                bench
                    .guard
                    .settle(hold.number, &cost(1), log(round))
                    .is_some()
            );
            settled.store(round, Ordering::Release);
            bench.beat("meter", round * 10, Some(round + 1));
            bench.beat("ledger", round * 10 + 1, None);
            bench.entry("cap", "acme/customer=c", round.into(), "100.00");
        }
        is_over.store(true, Ordering::Release);
        reader.join().unwrap();
    });
    assert_eq!(bench.cents("c", "cap"), [ROUNDS.into(), 0, 0]);
}

#[test]
fn a_log_that_is_read_again_shows_nothing_new() {
    let mut bench = bench(&[("cap", each_customer(), "1.00")]);
    let hold = bench.reserve("c", 10, 0).unwrap();
    assert!(bench.guard.settle(hold.number, &cost(10), log(7)).is_some());
    bench.beat("meter", 1_000, Some(8));
    bench.beat("ledger", 1_001, None);
    bench.writer.begin_again(WALL);
    bench.entry("cap", "acme/customer=c", 1, "1.00");
    bench.writer.caught_up();
    bench.writer.publish(WALL);
    assert_eq!(bench.cents("c", "cap"), [1, 10, 0]);
    bench.entry("cap", "acme/customer=c", 11, "1.00");
    assert_eq!(bench.cents("c", "cap"), [11, 0, 0]);
}

#[test]
fn a_hold_ends_after_its_time_unless_it_is_extended() {
    let bench = bench(&[("cap", each_customer(), "0.10")]);
    let hold = bench.reserve("c", 9, 0).unwrap();
    let extended = bench.guard.extend(hold.number, None, 100_000).unwrap();
    assert_eq!(extended.lasts_millis, TIMEOUT);
    // Shorter than it would last anyway.
    let extended = bench.guard.extend(hold.number, Some(1), 200_000).unwrap();
    assert_eq!(extended.lasts_millis, TIMEOUT - 100_000);
    bench.guard.expire_holds(TIMEOUT + 99_999);
    assert_eq!(bench.cents("c", "cap"), [0, 0, 9]);
    assert_eq!(bench.reserve("c", 9, TIMEOUT + 99_999), None);
    // Nobody has to wait for the next look at the clock.
    assert!(bench.reserve("c", 9, TIMEOUT + 100_000).is_some());
    assert_eq!(bench.guard.extend(hold.number, None, 0), None);
    assert_eq!(bench.guard.hold_counts(), (1, 1));
}

#[test]
fn the_number_of_holds_and_what_one_may_hold_are_bounded() {
    let config = GuardConfig {
        hold_capacity: 2,
        ..GuardConfig::new(1)
    };
    let bench = bench_with(config, &[("cap", each_customer(), "1.00")]);
    let first = bench.reserve("c", 1, 0).unwrap();
    assert!(bench.reserve("d", 1, 0).is_some());
    // Settled ones count until they are in a figure.
    assert!(bench.guard.settle(first.number, &cost(1), log(1)).is_some());
    let request = call("e", 1);
    let expected = Expected::given(request.estimate);
    let refused = bench.guard.reserve(&request, expected, TIMEOUT, at(0));
    assert_eq!(refused.err(), Some(NotReserved::Full { held: 2 }));
    assert_eq!(bench.cents("e", "cap"), [0; 3]);
    let request = call("e", 100_000_001);
    let expected = Expected::given(request.estimate);
    let refused = bench.guard.reserve(&request, expected, TIMEOUT, at(0));
    assert_eq!(refused.err(), Some(NotReserved::TooMuch));
}

#[test]
fn ten_calls_say_what_the_next_one_holds_whatever_its_estimate_says() {
    let bench = bench(&[("cap", each_customer(), "1.00")]);
    let pair = bench.guard.pair(&call("c", 0).attribution, "");
    for _ in 0..9 {
        bench.guard.learn(pair, &cost(3), 0);
    }
    let held = |customer| bench.reserve(customer, 40, 0).map(|hold| hold.cost);
    assert_eq!(held("a"), Some(cost(40).cost));
    bench.guard.learn(pair, &cost(3), 0);
    assert_eq!(held("b"), Some(cost(3).cost));
    assert_eq!(bench.cents("b", "cap"), [0, 0, 3]);
    // Another feature's calls are other calls.
    let mut elsewhere = call("c", 40);
    elsewhere.attribution.feature = "agent".into();
    let expected = Expected::given(elsewhere.estimate);
    let reserving = bench.guard.reserve(&elsewhere, expected, TIMEOUT, at(0));
    assert_eq!(reserving.unwrap().asked.basis, Basis::Given);
}

#[test]
fn each_budget_holds_by_its_own_rule_and_a_refusal_says_by_which() {
    let config = GuardConfig {
        reserve_rule: ReserveRule::Given,
        ..GuardConfig::new(1)
    };
    let mut bench = bench_with(config, &[("each", each_customer(), "1.00")]);
    let record = json!({
        "v": 1, "id": "all", "scope": whole(), "limit": "1.00", "window": "lifetime",
        "reserve_rule": "0.30", "steps": [{"at": 100, "do": "block"}],
        "counted_from": "2026-01-01T00:00:00Z",
    });
    let record = serde_json::to_vec(&record).unwrap();
    bench.writer.apply_budget("all", Some(&record), 1).unwrap();
    bench.writer.publish(WALL);
    for customer in ["a", "b", "c"] {
        assert_eq!(bench.reserve(customer, 9, 0).unwrap().cost, cost(30).cost);
    }
    assert_eq!(bench.cents("a", "each"), [0, 0, 9]);
    assert_eq!(bench.cents("a", "all"), [0, 0, 90]);
    let request = call("d", 9);
    let expected = Expected::given(request.estimate);
    let refused = bench
        .guard
        .reserve(&request, expected, TIMEOUT, at(0))
        .unwrap();
    assert!(refused.hold.is_none());
    assert_eq!(
        (refused.asked.spend.cost, refused.asked.basis),
        (cost(30).cost, Basis::Fixed)
    );
    assert_eq!(bench.cents("d", "each"), [0; 3]);
}

#[test]
fn nothing_is_held_of_a_call_of_which_nothing_is_known() {
    let bench = bench(&[("cap", each_customer(), "1.00")]);
    let request = call("c", 0);
    let refused = bench
        .guard
        .reserve(&request, Expected::default(), TIMEOUT, at(0));
    assert_eq!(refused.err(), Some(NotReserved::NoEstimate));
}

/// What happens to the calls of two customers, of whom each has a budget and both have one together.
#[derive(Clone, Debug)]
enum Step {
    Reserve {
        customer: usize,
        cents: i128,
    },
    Release(prop::sample::Index),
    Settle {
        hold: prop::sample::Index,
        cents: i128,
    },
    /// The pipeline counts everything that is in the log.
    Count,
    Later(i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..2_usize, 0..40_i128).prop_map(|(customer, cents)| Step::Reserve { customer, cents }),
        1 => any::<prop::sample::Index>().prop_map(Step::Release),
        2 => (any::<prop::sample::Index>(), 0..60_i128)
            .prop_map(|(hold, cents)| Step::Settle { hold, cents }),
        1 => Just(Step::Count),
        1 => (0..TIMEOUT).prop_map(Step::Later),
    ]
}

const CUSTOMERS: [&str; 2] = ["c", "d"];

/// The same with plain sums.
#[derive(Default)]
struct Model {
    /// Number, customer, cents and end of each open hold.
    open: Vec<(u64, usize, i128, i64)>,
    pending: [i128; 2],
    spent: [i128; 2],
}

impl Model {
    fn reserved(&self, customer: usize) -> i128 {
        let own = self.open.iter().filter(|hold| hold.1 == customer);
        own.map(|hold| hold.2).sum()
    }

    fn all(&self, customer: usize) -> i128 {
        self.spent[customer] + self.pending[customer] + self.reserved(customer)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn held_amounts_are_those_of_plain_sums_and_nothing_leaks(
        steps in prop::collection::vec(step(), 1..60)
    ) {
        let mut bench = bench(&[("own", each_customer(), "0.60"), ("all", whole(), "1.00")]);
        let mut model = Model::default();
        let (mut offset, mut time, mut now) = (0, 1_000, 0);
        let mut counts = 0;
        let mut count = |bench: &mut Bench, model: &mut Model, offset: i64| {
            time += 10;
            counts += 1;
            // Either way is enough.
            let says_through = counts % 2 == 0;
            let through = match says_through {
                true => json!({"0": offset - 1}),
                false => json!({}),
            };
            if !says_through {
                bench.beat("meter", time, Some(offset));
                bench.beat("ledger", time + 1, None);
            }
            for (customer, name) in CUSTOMERS.into_iter().enumerate() {
                model.spent[customer] += std::mem::take(&mut model.pending[customer]);
                let (scope, spent) = (format!("acme/customer={name}"), model.spent[customer]);
                bench.read_entry_through("own", &scope, spent, "0.60", &through);
            }
            let spent = model.spent.iter().sum();
            bench.read_entry_through("all", "acme", spent, "1.00", &through);
            bench.writer.publish(WALL);
        };
        for step in steps {
            match step {
                Step::Reserve { customer, cents } => {
                    let (own, all) = (model.all(customer), model.all(0) + model.all(1));
                    let fits = own + cents <= 60 && all + cents <= 100;
                    let is_open = model.spent[customer] < 60 && model.spent.iter().sum::<i128>() < 100;
                    let hold = bench.reserve(CUSTOMERS[customer], cents, now);
                    prop_assert_eq!(hold.is_some(), fits && is_open);
                    if let Some(hold) = hold {
                        model.open.push((hold.number, customer, cents, now + TIMEOUT));
                    }
                }
                Step::Release(hold) if !model.open.is_empty() => {
                    let (number, ..) = model.open.remove(hold.index(model.open.len()));
                    prop_assert!(bench.guard.release(number));
                }
                Step::Settle { hold, cents } if !model.open.is_empty() => {
                    let (number, customer, ..) = model.open.remove(hold.index(model.open.len()));
                    prop_assert!(bench.guard.settle(number, &cost(cents), log(offset)).is_some());
                    offset += 1;
                    model.pending[customer] += cents;
                }
                Step::Release(_) | Step::Settle { .. } => {}
                Step::Count => count(&mut bench, &mut model, offset),
                Step::Later(millis) => {
                    now += millis;
                    bench.guard.expire_holds(now);
                    model.open.retain(|hold| hold.3 > now);
                }
            }
            for (customer, name) in CUSTOMERS.into_iter().enumerate() {
                let sums = [model.spent[customer], model.pending[customer], model.reserved(customer)];
                prop_assert_eq!(bench.cents(name, "own"), sums);
            }
        }
        bench.guard.expire_holds(now + TIMEOUT);
        model.open.clear();
        count(&mut bench, &mut model, offset);
        for name in CUSTOMERS {
            prop_assert_eq!(bench.cents(name, "all")[1..].to_vec(), vec![0, 0]);
        }
        prop_assert_eq!(bench.guard.hold_counts(), (0, 0));
    }
}
