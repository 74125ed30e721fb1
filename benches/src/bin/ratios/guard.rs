//! A check in process, next to a lookup in a `HashMap` of as many entries.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;
use spendfuse_benches::figures::Times;
use spendfuse_benches::random::Random;
use spendfuse_benches::workload::budgets;
use spendfuse_domain::budget::Spend;
use spendfuse_domain::{Amount, Attribution, Nanos, UnixMillis};
use spendfuse_guard::{CheckRequest, Expected, Guard, GuardConfig, Now};

use crate::sitting::Sitting;
use crate::table::Line;

const START: UnixMillis = UnixMillis(1_795_344_000_000);
const NOW: Now = Now {
    wall: START,
    monotonic_millis: 0,
};
/// How long a hold lasts, milliseconds.
const MINUTE: i64 = 60_000;
/// Checks between two readings of the clock: reading it costs about as much as a lookup.
const BATCH: usize = 8;

/// A guard that knows `scopes` scopes, and a map with as many entries.
pub struct Filled {
    guard: Guard,
    map: HashMap<String, u64>,
    /// Customers, each with one feature and one session.
    customers: usize,
}

impl Filled {
    /// Fills both through the formats of the topics.
    pub fn new(scopes: usize) -> Result<Self> {
        let (mut writer, guard) = Guard::new(GuardConfig::new(1));
        for budget in budgets()? {
            writer.apply_budget(budget.id.as_str(), Some(&budget.to_record()), 1)?;
        }
        let customers = (scopes / 3).max(1);
        let mut map = HashMap::new();
        let mut apply = |budget: &str, scope: String, window: &str| -> Result<()> {
            let key = format!("{budget}|{scope}");
            let entry = json!({
                "v": 1, "budget": budget, "scope": scope, "where": null, "verdict": "ok",
                "action": "block", "spent_usd": "0.01", "limit_usd": "5.00", "percent": 0.2,
                "window": window, "window_start": START, "resets_at": null,
                "expires_at": null, "counted_from": START, "downgrade_to": null, "version": 1,
                "decided_at": START, "caused_by": null,
            });
            writer.apply(&key, Some(&serde_json::to_vec(&entry)?), START, NOW)?;
            map.insert(key, 10_000_000);
            Ok(())
        };
        apply("everything", "*".to_owned(), "lifetime")?;
        apply("workspace", "acme".to_owned(), "day:2026-11-22")?;
        for number in 0..customers {
            let customer = format!("acme/customer=c-{number}");
            let feature = format!("{customer}/feature=chat");
            apply("customer", customer, "day:2026-11-22")?;
            apply("feature", feature, "month:2026-11")?;
            apply("session", format!("acme/session=s-{number}"), "session")?;
        }
        writer.caught_up();
        writer.publish(START);
        let filled = Self {
            guard,
            map,
            customers,
        };
        let request = filled.request(customers - 1);
        let met = filled.guard.check_with_reasons(&request, NOW).explain();
        let with_entry = met.budgets.iter();
        let cent = Some(Amount::Usd(Nanos::new(10_000_000)));
        let with_entry = with_entry.filter(|line| line.figures.spent == cent);
        ensure!(
            with_entry.count() == 5,
            "a check must meet five scopes: {met:?}"
        );
        Ok(filled)
    }

    /// How many entries it holds.
    pub fn len(&self) -> usize {
        self.guard.entry_count()
    }

    fn request(&self, customer: usize) -> CheckRequest<'static> {
        CheckRequest {
            attribution: Attribution {
                workspace: "acme".into(),
                customer: format!("c-{customer}").into(),
                feature: "chat".into(),
                session: format!("s-{customer}").into(),
                model: "gpt-4o-mini".into(),
                ..Attribution::default()
            },
            ..CheckRequest::default()
        }
    }

    fn check_times(&self, rounds: usize, batch: usize) -> Times {
        let request =
            |random: &mut Random| self.request(random.below(self.customers as u64) as usize);
        self.times(rounds, batch, request, |request| {
            black_box(self.guard.check(request, NOW).verdict());
        })
    }

    fn map_times(&self, rounds: usize, batch: usize) -> Times {
        let key = |random: &mut Random| {
            format!(
                "customer|acme/customer=c-{}",
                random.below(self.customers as u64)
            )
        };
        self.times(rounds, batch, key, |key| {
            black_box(self.map.get(key));
        })
    }

    /// Checks as a sidecar answers them, without and with a reservation, which is given back in
    /// between.
    fn reserve_times(&self, rounds: usize) -> (Times, Times) {
        let request =
            |random: &mut Random| self.request(random.below(self.customers as u64) as usize);
        let explained = self.times(rounds, BATCH, request, |request| {
            black_box(self.guard.check_with_reasons(request, NOW).verdict());
        });
        let spend = Spend {
            cost: Nanos::new(1_000),
            tokens: 1,
            calls: 1,
        };
        let held = RefCell::new(Vec::with_capacity(BATCH));
        let release = || {
            for number in held.borrow_mut().drain(..) {
                self.guard.release(number);
            }
        };
        let question = |random: &mut Random| {
            release();
            request(random)
        };
        let reserved = self.times(rounds, BATCH, question, |request| {
            let reserving = self
                .guard
                .reserve(request, Expected::given(spend), MINUTE, NOW);
            let hold = reserving.ok().and_then(|reserving| reserving.hold);
            held.borrow_mut().extend(hold.map(|hold| hold.number));
        });
        release();
        (explained, reserved)
    }

    /// The time of one question, as the mean of `batch` questions about random scopes. They are
    /// made just before, so that what is asked is at hand and what is looked up is not.
    fn times<Q>(
        &self,
        rounds: usize,
        batch: usize,
        question: impl Fn(&mut Random) -> Q,
        ask: impl Fn(&Q),
    ) -> Times {
        let mut random = Random::default();
        let mut questions = Vec::with_capacity(batch);
        let mut round = || {
            questions.clear();
            questions.extend((0..batch).map(|_| question(&mut random)));
            let began = Instant::now();
            questions.iter().for_each(&ask);
            let elapsed = began.elapsed();
            elapsed / batch as u32
        };
        for _ in 0..rounds / 10 {
            round();
        }
        (0..rounds).map(|_| round()).collect()
    }
}

/// What it takes to hold what a call may cost.
fn reserving(row: &'static str, filled: &Filled, rounds: usize) -> Line {
    let (explained, reserved) = filled.reserve_times(rounds);
    let (median, other) = (reserved.percentile(50.0), explained.percentile(50.0));
    Line::new(
        row,
        format!("check with reserve, {} active scopes", filled.len()),
        reserved.in_nanos(),
    )
    .against(format!("the same without: {}", explained.in_nanos()))
    .ratio(median.as_nanos() as f64, other.as_nanos() as f64)
    .target("median ≤ 1.5 × one without", median * 2 <= other * 3)
    .note("five budgets; as a sidecar decides, with reasons; what is held is given back outside")
}

/// What reading the clock twice takes.
fn clock_cost() -> Duration {
    let times: Times = (0..10_000).map(|_| Instant::now().elapsed()).collect();
    times.percentile(50.0)
}

/// The lines of the row.
pub fn measure(sitting: &mut Sitting) -> Result<Vec<Line>> {
    const ROW: &str = "guard";
    let rounds = sitting.choose(40_000, 8_000);
    let sizes: &[usize] =
        sitting.choose(&[100, 1_000, 10_000, 100_000, 1_000_000], &[100, 100_000]);
    let clock = clock_cost();
    let mut lines = Vec::new();
    let mut smallest = None;
    for &scopes in sizes {
        let filled = Filled::new(scopes)?;
        let checks = filled.check_times(rounds, BATCH);
        let lookups = filled.map_times(rounds, BATCH);
        let single = filled
            .check_times(rounds, 1)
            .percentile(99.0)
            .saturating_sub(clock);
        let p99 = checks.percentile(99.0);
        let (smallest, small_lookup) = *smallest.get_or_insert((p99, lookups.percentile(99.0)));
        let mut line = Line::new(
            ROW,
            format!("check, {} active scopes", filled.len()),
            checks.in_nanos(),
        )
        .against(format!("HashMap lookup: {}", lookups.in_nanos()))
        .ratio(
            p99.as_nanos() as f64,
            lookups.percentile(99.0).as_nanos() as f64,
        )
        .note(format!(
            "p99 of single checks, clock deducted: {} ns",
            single.as_nanos()
        ));
        if scopes == 100_000 {
            line = line.target("p99 ≤ 250 ns", p99 <= Duration::from_nanos(250));
            lines.push(reserving(ROW, &filled, rounds));
        }
        if scopes == 1_000_000 {
            line = line.target("p99 ≤ 2 × that of 10²", p99 <= smallest * 2);
        }
        line = line.because(format!(
            "what is looked up lies in memory, not in a cache: a single lookup in the HashMap \
             takes {} ns, in the smallest it takes {} ns",
            lookups.percentile(99.0).as_nanos(),
            small_lookup.as_nanos()
        ));
        lines.push(line);
    }
    Ok(lines)
}
