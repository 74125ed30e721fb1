//! When the ledger tells a state: what guards and analysts may rely on.

// Cents are written as dollars_cents.
#![allow(clippy::inconsistent_digit_grouping)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use spendfuse_domain::budget::BasisPoints;
use spendfuse_domain::finding::DetectorRules;
use spendfuse_domain::scope::Pattern;
use spendfuse_domain::{
    Action, Amount, Budget, Dimension, Nanos, ScopeTemplate, Step, UnixMillis, Verdict, WindowKind,
};
use spendfuse_engine::alert::{Alert, AlertKind};
use spendfuse_engine::book::{BudgetBook, Series};
use spendfuse_engine::delta::{DeltaEntry, Deltas};
use spendfuse_engine::ledger::{Ledger, LedgerConfig, LedgerOutputs, WindowLineKind};
use spendfuse_testkit::generate;

const CENT: i128 = 10_000_000;
const SECOND: i64 = 1_000;

/// A ledger with one budget: $100 a day for each customer, blocks at 100 %.
struct Desk {
    ledger: Ledger,
    config: LedgerConfig,
    changelog: BTreeMap<Vec<u8>, Vec<u8>>,
    series: String,
    seq: u64,
    now: UnixMillis,
}

impl Desk {
    fn new(publish_rate: u32) -> Self {
        Self::with(per_customer(), publish_rate)
    }

    fn with(budget: Budget, publish_rate: u32) -> Self {
        let series = Series::of(&budget).id;
        let book = BudgetBook::compile(1, vec![budget], DetectorRules::new(vec![]));
        let config = LedgerConfig {
            partition: 0,
            partitions: 1,
            grace_millis: 0,
            publish_rate,
            account_capacity: 10_000_000,
        };
        let mut ledger = Ledger::new(config.clone(), Arc::new(book));
        ledger.restored();
        Self {
            ledger,
            config,
            changelog: BTreeMap::new(),
            series,
            seq: 0,
            now: UnixMillis::parse_rfc3339("2026-11-22T10:00:00Z").unwrap(),
        }
    }

    /// Another process goes on with what this one wrote.
    fn restart(&mut self) {
        let book = Arc::clone(self.ledger.book());
        self.ledger = Ledger::new(self.config.clone(), book);
        for (key, value) in &self.changelog {
            self.ledger.restore(key, Some(value)).unwrap();
        }
        self.ledger.restored();
    }

    /// Other budgets are in force.
    fn apply(&mut self, budgets: Vec<Budget>) {
        let version = self.ledger.budget_version() + 1;
        let book = BudgetBook::compile(version, budgets, DetectorRules::new(vec![]));
        self.ledger.set_book(Arc::new(book));
    }

    /// One commit, after `millis`, in which customers spend so many cents.
    fn commit(&mut self, millis: i64, spends: &[(usize, i128)]) -> LedgerOutputs {
        self.now = self.now.plus(millis);
        self.seq += 1;
        self.ledger.begin(self.seq);
        self.ledger.advance(self.now);
        let entry = |(customer, cents): &(usize, i128)| DeltaEntry {
            series: 0,
            scope: scope(*customer),
            minute: self.now.minute(),
            cost: Nanos::new(cents * CENT),
            unpriced: Nanos::ZERO,
            tokens: 0,
            calls: 1,
            source: "app".to_owned(),
            id: format!("e{}", self.seq),
            time: self.now,
            is_history: false,
            corrects: None,
        };
        if !spends.is_empty() {
            let deltas = Deltas {
                budget_version: 0,
                through: None,
                meter_partition: 0,
                prev: self.seq - 1,
                seq: self.seq,
                series: vec![self.series.clone()],
                entries: spends.iter().map(entry).collect(),
            };
            self.ledger.apply(&deltas, self.now);
        }
        let outputs = self.ledger.finish();
        for (key, value) in &outputs.told.changelog {
            match value {
                Some(value) => self.changelog.insert(key.clone(), value.clone()),
                None => self.changelog.remove(key),
            };
        }
        outputs
    }
}

fn per_customer() -> Budget {
    Budget {
        limit: Amount::Usd(Nanos::new(100 * 100 * CENT)),
        scope: ScopeTemplate::new(vec![(Dimension::Customer, Pattern::Each)]),
        ..generate::budget(0, 0)
    }
}

fn blocks() -> Step {
    Step {
        at: BasisPoints(10_000),
        action: Action::Block,
    }
}

fn scope(customer: usize) -> String {
    format!("*/customer=c-{customer:05}")
}

/// Scopes with the figures told, in the order of telling.
fn told(outputs: &LedgerOutputs) -> Vec<(&str, Nanos)> {
    let entries = outputs.told.blocklist.iter();
    let entries = entries.filter_map(|(_, entry)| entry.as_ref());
    entries
        .map(|entry| {
            (
                entry.scope.as_str(),
                entry.figures.spent.unwrap().usd().unwrap(),
            )
        })
        .collect()
}

#[test]
fn a_figure_next_to_its_limit_is_told_within_a_tenth_of_a_second() {
    let mut desk = Desk::new(2_000);
    let customer = scope(0);
    assert_eq!(
        told(&desk.commit(0, &[(0, 99_00)])),
        [(&*customer, Nanos::new(99_00 * CENT))]
    );
    // Less than 1 % of the limit, nearly all of what remains.
    assert_eq!(told(&desk.commit(50, &[(0, 95)])), []);
    assert_eq!(desk.ledger.next_due(), Some(desk.now.plus(50)));
    assert_eq!(
        told(&desk.commit(50, &[])),
        [(&*customer, Nanos::new(99_95 * CENT))]
    );
    assert_eq!(told(&desk.commit(100, &[])), []);
}

#[test]
fn a_small_step_is_told_within_five_seconds_above_half_and_within_a_minute_below() {
    for (cents, within) in [(80_00, 5 * SECOND), (40_00, 60 * SECOND)] {
        let mut desk = Desk::new(2_000);
        desk.commit(0, &[(0, cents)]);
        assert_eq!(told(&desk.commit(100, &[(0, 1)])), []);
        assert_eq!(told(&desk.commit(within - 101, &[])), []);
        let figure = told(&desk.commit(1, &[]))[0].1;
        assert_eq!(figure, Nanos::new((cents + 1) * CENT), "{within}");
    }
}

#[test]
fn changed_verdicts_never_wait_and_figures_nearest_to_a_limit_come_first() {
    const CUSTOMERS: usize = 100;
    let mut desk = Desk::new(10);
    // The higher its number, the nearer a customer is to its limit.
    let begin: Vec<_> = (0..CUSTOMERS)
        .map(|one| (one, 10_00 + one as i128 * 50))
        .collect();
    // First spends do not wait.
    assert_eq!(told(&desk.commit(0, &begin)).len(), CUSTOMERS);
    let step: Vec<_> = (0..CUSTOMERS).map(|one| (one, 2_00)).collect();
    let mut all_told = Vec::new();
    // A second saves up ten turns.
    let outputs = desk.commit(SECOND, &step);
    let nearest: Vec<_> = (90..CUSTOMERS).rev().map(scope).collect();
    let first: Vec<_> = told(&outputs)
        .into_iter()
        .map(|(scope, _)| scope.to_owned())
        .collect();
    assert_eq!(first, nearest);
    all_told.extend(first);
    // A block is told though no turn is left.
    let blocked = desk.commit(0, &[(3, 100_00)]);
    assert_eq!(blocked.told.verdict_changes[0].verdict, Verdict::Block);
    for _ in 0..100 {
        let outputs = desk.commit(100, &[]);
        assert!(told(&outputs).len() <= 1, "{:?}", told(&outputs));
        all_told.extend(told(&outputs).iter().map(|(scope, _)| (*scope).to_owned()));
    }
    // Everybody had a turn, and exactly one.
    let distinct: BTreeSet<_> = all_told.iter().cloned().collect();
    assert_eq!((all_told.len(), distinct.len()), (99, 99));
    assert_eq!(desk.ledger.next_due().map(|due| due > desk.now), Some(true));
}

#[test]
fn what_waits_for_its_turn_is_told_after_a_restart() {
    let mut desk = Desk::new(1);
    let mut changelog = desk.commit(0, &[(0, 80_00), (1, 81_00)]).told.changelog;
    // One turn a second: customer 1 is nearer.
    let outputs = desk.commit(SECOND, &[(0, 2_00), (1, 2_00)]);
    assert_eq!(told(&outputs), [(&*scope(1), Nanos::new(83_00 * CENT))]);
    changelog.extend(outputs.told.changelog);

    let mut after = Desk::new(1);
    for (key, value) in &changelog {
        after.ledger.restore(key, value.as_deref()).unwrap();
    }
    after.ledger.restored();
    after.seq = desk.seq;
    after.now = desk.now;
    assert_eq!(
        told(&after.commit(SECOND, &[])),
        [(&*scope(0), Nanos::new(82_00 * CENT))],
        "{:?}",
        after.now
    );
}

#[test]
fn analysts_get_a_line_a_minute_and_one_for_each_change_of_verdict() {
    let mut desk = Desk::new(2_000);
    let mut lines = Vec::new();
    let mut commit = |desk: &mut Desk, millis, spends: &[(usize, i128)]| {
        let outputs = desk.commit(millis, spends);
        let spent = outputs.window_lines.iter();
        let spent = spent.filter(|line| line.kind == WindowLineKind::Spent);
        lines.extend(spent.map(|line| (line.at.0 - desk.now.0, line.spend.cost.to_string())));
        lines.len()
    };
    assert_eq!(commit(&mut desk, 0, &[(0, 10_00)]), 1);
    // Figures are told meanwhile, lines wait.
    for _ in 0..59 {
        commit(&mut desk, SECOND, &[(0, 1_00)]);
    }
    assert_eq!(commit(&mut desk, 0, &[]), 1);
    // The last figure is written although nothing is spent any more.
    assert_eq!(commit(&mut desk, SECOND, &[]), 2);
    assert_eq!(commit(&mut desk, 600 * SECOND, &[]), 2);
    // 80 % warns, 100 % blocks.
    assert_eq!(commit(&mut desk, SECOND, &[(0, 11_00)]), 3);
    assert_eq!(commit(&mut desk, 0, &[(0, 20_00)]), 4);
    assert_eq!(lines[1].1, "69.00");
}

#[test]
fn an_alert_says_how_fast_it_goes_and_when_it_is_used_up() {
    let warns_at_80 = Step {
        at: BasisPoints(8_000),
        action: Action::Warn,
    };
    let budget = Budget {
        steps: vec![warns_at_80, blocks()],
        window: WindowKind::Month,
        ..per_customer()
    };
    let mut desk = Desk::with(budget, 2_000);
    // $1 a minute from 10:01 on; at 10:50 nobody remembers an hour ago.
    for _ in 0..49 {
        let told = desk.commit(60 * SECOND, &[(0, 1_00)]).told;
        assert!(told.alerts.is_empty());
    }
    // What a process knew is in the changelog.
    desk.restart();
    let warning = desk
        .commit(60 * SECOND, &[(0, 31_00)])
        .told
        .alerts
        .remove(0);
    let usd = |cents: i128| Some(Amount::Usd(Nanos::new(cents * CENT)));
    assert_eq!(warning.details.rates.hour, usd(80_00));
    assert_eq!(warning.details.rates.five_minutes, usd((31_00 + 4_00) * 12));
    // $20 are left, at $420 an hour.
    let left = 20 * 3_600_000 / 420;
    assert_eq!(warning.details.exhausts_at, Some(desk.now.plus(left)));
    let read: Alert = serde_json::from_slice(&warning.to_record()).unwrap();
    assert_eq!(read, warning);

    // A quarter of an hour later: fewer minutes, and the limit is reached.
    let blocked = desk
        .commit(900 * SECOND, &[(0, 20_00)])
        .told
        .alerts
        .remove(0);
    assert_eq!(blocked.details.rates.five_minutes, usd(20_00 * 12));
    // 11:05: what was spent from 10:10 on.
    assert_eq!(blocked.details.rates.hour, usd(100_00 - 9_00));
    assert_eq!(blocked.details.exhausts_at, None);
}

#[test]
fn a_raised_limit_ends_the_alerts_of_steps_that_are_not_reached_any_more() {
    let warns_at_80 = Step {
        at: BasisPoints(8_000),
        action: Action::Warn,
    };
    let with_limit = |dollars: i128| Budget {
        steps: vec![warns_at_80.clone(), blocks()],
        window: WindowKind::Month,
        limit: Amount::Usd(Nanos::new(dollars * 100 * CENT)),
        ..per_customer()
    };
    let mut desk = Desk::with(with_limit(100), 2_000);
    let steps = |desk: &mut Desk, spends: &[(usize, i128)]| -> Vec<Alert> {
        let told = desk.commit(SECOND, spends).told.alerts.into_iter();
        let of_steps = told.filter(|alert| alert.kind == AlertKind::BudgetStep);
        of_steps.collect()
    };
    let blocked = steps(&mut desk, &[(0, 100_00)]).remove(0);
    // A process that begins anew knows what was raised.
    desk.restart();

    desk.apply(vec![with_limit(120)]);
    let told = steps(&mut desk, &[]);
    let [lifted] = &told[..] else {
        panic!("one is told: {told:?}");
    };
    assert_eq!(lifted.key, blocked.key);
    assert_eq!(lifted.details.lifted_at, Some(desk.now));
    // $100 of $120 are still above 80 %.
    assert_eq!(lifted.details.step, Some(BasisPoints(8_000)));
    assert!(lifted.message.contains("is below 100 % of"), "{lifted:?}");
    assert!(steps(&mut desk, &[(0, 1)]).is_empty());

    let again = steps(&mut desk, &[(0, 20_00)]).remove(0);
    assert_eq!((&again.key, again.details.lifted_at), (&blocked.key, None));

    // Whoever takes the step out has not spent less.
    let without_block = Budget {
        steps: vec![warns_at_80.clone()],
        ..with_limit(120)
    };
    desk.apply(vec![without_block]);
    let lifted = steps(&mut desk, &[]).remove(0);
    assert!(lifted.message.contains("no step at 100 %"), "{lifted:?}");
    desk.apply(vec![with_limit(120)]);
    assert_eq!(steps(&mut desk, &[]).remove(0).key, blocked.key);

    desk.apply(vec![]);
    let gone = steps(&mut desk, &[]).remove(0);
    assert_eq!(gone.key, blocked.key);
    assert_eq!(gone.details.step, Some(BasisPoints(0)));
    assert!(gone.message.contains("the budget was removed"), "{gone:?}");
}

/// Where the budgets topic was lost, `budgets apply` knows since when a budget counts from the
/// blocklist, which names the start of the running window where the count began before it.
#[test]
fn a_count_goes_on_in_a_window_that_began_after_it_and_after_the_one_before() {
    let began_at = |time: &str| Budget {
        counted_from: UnixMillis::parse_rfc3339(time).unwrap(),
        ..per_customer()
    };
    let told_after = |again: &str| {
        let mut desk = Desk::with(began_at("2026-11-01T07:00:00Z"), 1_000);
        desk.commit(SECOND, &[(1, 40_00)]);
        desk.apply(vec![began_at(again)]);
        desk.commit(SECOND, &[]);
        let outputs = desk.commit(SECOND, &[(1, 60_00)]);
        told(&outputs)
            .into_iter()
            .map(|(_, spent)| spent)
            .collect::<Vec<_>>()
    };
    let whole_day = [Nanos::from_dollars(100)];
    assert_eq!(told_after("2026-11-22T00:00:00Z"), whole_day);
    // A count that begins in the middle of the day begins at nothing.
    assert_eq!(
        told_after("2026-11-22T10:00:01Z"),
        [Nanos::from_dollars(60)]
    );
}
