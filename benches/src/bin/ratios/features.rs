//! What each way to correct and complete an entry costs a partition by itself, on one thread and without
//! Kafka, next to an event that is told once and never corrected.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use spendfuse_benches::workload::{Workload, budgets};
use spendfuse_domain::Identity;
use spendfuse_domain::event::Event;
use spendfuse_domain::finding::DetectorRules;
use spendfuse_domain::row::MeterAddress;
use spendfuse_engine::account::Opening;
use spendfuse_engine::book::BudgetBook;
use spendfuse_engine::delta::{CountedThen, Deltas};
use spendfuse_engine::ledger::{Ledger, LedgerConfig, OpeningEntry, Openings, PUBLISH_RATE};
use spendfuse_engine::meter::{
    Charge, Corrected, Correction, Counted, Meter, MeterConfig, Standing,
};
use spendfuse_pricing::{PriceBook, Pricer, PricingPolicy};

use crate::parts::{NoRows, Parts, START, TIME, charges, decoded, meter_config, origin};
use crate::table::Line;

/// Events of a commit: all that are told again are still remembered.
const EVENTS: usize = 5_000;
/// Every case is measured so often, in turn with the others; the shortest time counts.
const ROUNDS: usize = 15;
/// Commits through all steps of counting.
const COMMITS: u64 = 5;
/// The share of all steps of an event that the memory of what may grow may take.
const UNUSED: f64 = 0.03;

/// One commit of a case, measured; what it needs is counted before.
type Case = (&'static str, fn(&Input<'_>) -> Result<Duration>);

const PLAIN: usize = 0;
const ALONE: usize = 1;
const DELTA: usize = 2;
const CASES: [Case; 10] = [
    ("a plain event", |input| {
        Ok(count(&mut input.meter(), 2, &input.calls).0)
    }),
    ("the same where nothing may grow", |input| {
        let mut meter = input.meter();
        meter.count_first_events_alone();
        Ok(count(&mut meter, 2, &input.calls).0)
    }),
    ("a new scope in the ledger", |input| input.delta()),
    ("more of a call", |input| {
        input.again(&input.calls, &input.more, is_more)
    }),
    ("what was measured instead of an estimate", |input| {
        input.again(&input.estimates, &input.calls, is_more)
    }),
    ("what another instrument tells of a call", |input| {
        input.again(&input.nameless, &input.calls, is_echo)
    }),
    ("a void", |input| {
        input.correct(&input.calls, |_, _| None, false)
    }),
    ("whose a call is", |input| {
        input.correct(
            &input.nameless,
            |place, charge| Some(standing(&input.calls.events[place], charge)),
            false,
        )
    }),
    ("another price", |input| {
        input.correct(
            &input.calls,
            |place, mut charge| {
                charge.cost.input = charge.cost.total();
                Some(standing(&input.calls.events[place], charge))
            },
            true,
        )
    }),
    ("what was spent in a scope before", |input| input.opening()),
];

fn is_more(counted: &Counted) -> bool {
    matches!(counted, Counted::Grown(_))
}

fn is_echo(counted: &Counted) -> bool {
    *counted == Counted::Echo
}

/// The lines of row `row`.
pub fn lines(row: &'static str) -> Result<Vec<Line>> {
    let texts = Texts::make();
    let input = Input::of(&texts)?;
    let mut shortest = [Duration::MAX; CASES.len()];
    for _ in 0..ROUNDS {
        for ((name, case), least) in CASES.iter().zip(&mut shortest) {
            let took = case(&input).with_context(|| format!("measuring {name}"))?;
            *least = took.min(*least);
        }
    }
    let micros = shortest.map(|took| took.as_secs_f64() * 1e6 / EVENTS as f64);
    let all = Parts::measure(COMMITS)?.together();
    let more = micros[PLAIN] - micros[ALONE];
    let in_micros = |place: usize| format!("{:.2} µs", micros[place]);
    let named = |place: usize| format!("{}: {}", CASES[place].0, in_micros(place));
    let mut lines = vec![
        Line::new(row, "engine: a plain event", in_micros(PLAIN))
            .against(named(ALONE))
            .ratio(micros[PLAIN], micros[ALONE])
            .target("≤ 3 % of all steps", more <= UNUSED * all)
            .because(format!(
                "remembering what may grow takes {more:.2} of {all:.2} µs: each call is written \
                 down with its identity"
            ))
            .note(format!(
                "one thread, the shortest of {ROUNDS} commits of {EVENTS}, their ends included; \
                 remembering what may grow is {:.1} % of all steps of an event ({all:.2} µs)",
                more * 100.0 / all
            )),
    ];
    for (place, (name, _)) in CASES.iter().enumerate().skip(DELTA) {
        let beside = match *name {
            "what was spent in a scope before" => DELTA,
            _ => PLAIN,
        };
        let line = Line::new(row, format!("engine: {name}"), in_micros(place));
        lines.push(
            line.against(named(beside))
                .ratio(micros[place], micros[beside]),
        );
    }
    Ok(lines)
}

/// The same calls as several tell of them.
struct Texts {
    others: Vec<String>,
    calls: Vec<String>,
    more: Vec<String>,
    estimates: Vec<String>,
    nameless: Vec<String>,
    /// Each of a customer of its own.
    fresh: Vec<String>,
}

impl Texts {
    fn make() -> Self {
        let some = |label: &str| -> Vec<String> {
            let mut workload = Workload::new(label);
            let made = (0..EVENTS).map(|_| workload.next_event(TIME).value.to_owned());
            made.collect()
        };
        let calls = some("features");
        let all = |change: fn(&str) -> String| -> Vec<String> {
            calls.iter().map(|text| change(text)).collect()
        };
        let mut workload = Workload::new("fresh");
        Self {
            others: some("others"),
            more: all(more),
            estimates: all(|text| {
                more(text).replace("\"usage\":{", "\"usage_format\":\"estimated\",\"usage\":{")
            }),
            nameless: all(|text| text.replace("\"agent\":\"planner\",", "")),
            fresh: (0..EVENTS as u64)
                .map(|number| workload.next_fresh(TIME, number).value.to_owned())
                .collect(),
            calls,
        }
    }
}

/// With a thousand more output tokens.
fn more(text: &str) -> String {
    text.replace("\"output_tokens\":", "\"output_tokens\":1")
}

/// Events and what they cost.
struct Told<'t> {
    events: Vec<Event<'t>>,
    charges: Vec<Charge<'static>>,
}

impl<'t> Told<'t> {
    fn of(texts: &'t [String]) -> Result<Self> {
        let mut pricer = Pricer::new(PriceBook::snapshot(), Arc::new(PricingPolicy::default()));
        let events = decoded(texts)?;
        let charges = charges(&mut pricer, &events)?;
        ensure!(charges.len() == EVENTS, "an event is no usage");
        Ok(Self { events, charges })
    }
}

struct Input<'t> {
    book: Arc<BudgetBook>,
    /// Of the customers' budget alone.
    of_customers: Arc<BudgetBook>,
    others: Told<'t>,
    calls: Told<'t>,
    more: Told<'t>,
    estimates: Told<'t>,
    nameless: Told<'t>,
    /// What a meter tells the ledger of new customers.
    deltas: Deltas,
}

impl<'t> Input<'t> {
    fn of(texts: &'t Texts) -> Result<Self> {
        let compile = |budgets| Arc::new(BudgetBook::compile(1, budgets, DetectorRules::default()));
        let mut some = budgets()?;
        some.retain(|budget| budget.id.as_str() == "customer");
        let of_customers = compile(some);
        let one_of_one = MeterConfig {
            partitions: 1,
            ..meter_config()
        };
        let mut meter = Meter::new(one_of_one, Arc::clone(&of_customers));
        meter.restored();
        meter.begin(1);
        let fresh = Told::of(&texts.fresh)?;
        for (number, (event, charge)) in (0..).zip(fresh.events.iter().zip(&fresh.charges)) {
            meter.count(event, charge, origin(number), &mut NoRows);
        }
        let told = meter.finish().deltas.into_iter().next();
        let (_, deltas) = told.context("the meter tells the ledger nothing")?;
        Ok(Self {
            book: compile(budgets()?),
            of_customers,
            others: Told::of(&texts.others)?,
            calls: Told::of(&texts.calls)?,
            more: Told::of(&texts.more)?,
            estimates: Told::of(&texts.estimates)?,
            nameless: Told::of(&texts.nameless)?,
            deltas,
        })
    }

    /// A partition whose tables are not new any more.
    fn meter(&self) -> Meter {
        let mut meter = Meter::new(meter_config(), Arc::clone(&self.book));
        meter.restored();
        count(&mut meter, 1, &self.others);
        meter
    }

    /// Counts `first`, and measures how the same calls are told of once more.
    fn again(
        &self,
        first: &Told<'_>,
        again: &Told<'_>,
        is_wanted: fn(&Counted) -> bool,
    ) -> Result<Duration> {
        let mut meter = self.meter();
        count(&mut meter, 2, first);
        let (took, counted) = count(&mut meter, 3, again);
        let other = counted.iter().find(|counted| !is_wanted(counted));
        ensure!(other.is_none(), "one of them is {other:?}");
        Ok(took)
    }

    /// Counts `told`, and measures how each of its calls is corrected to what stands `after`.
    fn correct<'c>(
        &self,
        told: &'c Told<'_>,
        after: impl Fn(usize, Charge<'static>) -> Option<Standing<'c>>,
        is_rerate: bool,
    ) -> Result<Duration> {
        let mut meter = self.meter();
        let (_, all_counted) = count(&mut meter, 2, told);
        let mut corrections = Vec::with_capacity(EVENTS);
        for (place, counted) in all_counted.into_iter().enumerate() {
            let Counted::AtAddress(entry) = counted else {
                bail!("a call is {counted:?}");
            };
            let (event, charge) = (&told.events[place], told.charges[place]);
            let before = standing(event, charge);
            corrections.push(correction(entry, before, after(place, charge), is_rerate));
        }
        let began = Instant::now();
        meter.begin(3);
        let mut applied = 0;
        for (number, correction) in (0..).zip(&corrections) {
            let corrected = meter.correct(correction, origin(number), &mut NoRows);
            applied += usize::from(matches!(corrected, Corrected::Applied { .. }));
        }
        black_box(meter.finish());
        let took = began.elapsed();
        ensure!(applied == EVENTS, "{applied} of {EVENTS} are applied");
        Ok(took)
    }

    fn ledger(&self) -> Ledger {
        let config = LedgerConfig {
            partition: 0,
            partitions: 1,
            grace_millis: 48 * 3_600_000,
            publish_rate: PUBLISH_RATE,
            account_capacity: 1_000_000,
        };
        let mut ledger = Ledger::new(config, Arc::clone(&self.of_customers));
        ledger = ledger.with_computed_openings();
        ledger.begin(1);
        ledger.advance(START);
        ledger.finish();
        ledger
    }

    /// The ledger learns of scopes as meters tell them.
    fn delta(&self) -> Result<Duration> {
        judged(self.ledger(), |ledger| ledger.apply(&self.deltas, START))
    }

    /// The ledger learns of the same scopes as the warehouse has them.
    fn opening(&self) -> Result<Duration> {
        let ledger = self.ledger();
        let wanted = ledger.wanted_openings().next();
        let wanted = wanted.context("no opening is wanted")?;
        let compiled = &self.of_customers.budgets[0];
        let start = compiled.window(START).start;
        let entries = self.deltas.entries.iter().map(|entry| OpeningEntry {
            scope: entry.scope.clone(),
            start,
            opening: Opening {
                cost: entry.cost,
                unpriced: entry.unpriced,
                tokens: entry.tokens,
                calls: entry.calls,
                is_computed: false,
            },
        });
        let openings = Openings {
            budget: wanted.budget,
            terms: compiled.count.terms,
            since: compiled.count.since,
            below_version: wanted.below_version,
            entries: entries.collect(),
            is_last: true,
        };
        judged(ledger, |ledger| ledger.take_openings(&openings))
    }
}

/// How long a commit takes that begins all accounts.
fn judged(mut ledger: Ledger, learn: impl FnOnce(&mut Ledger)) -> Result<Duration> {
    let began = Instant::now();
    ledger.begin(2);
    learn(&mut ledger);
    ledger.advance(START);
    black_box(ledger.finish());
    let took = began.elapsed();
    let accounts = ledger.len();
    ensure!(accounts == EVENTS, "{accounts} of {EVENTS} accounts");
    Ok(took)
}

/// Counts events in a commit; how long it took, and what became of each.
fn count(meter: &mut Meter, seq: u64, told: &Told<'_>) -> (Duration, Vec<Counted>) {
    let mut counted = Vec::with_capacity(EVENTS);
    let began = Instant::now();
    meter.begin(seq);
    for (number, (event, charge)) in (0..).zip(told.events.iter().zip(&told.charges)) {
        counted.push(meter.count(event, charge, origin(number), &mut NoRows));
    }
    black_box(meter.finish());
    (began.elapsed(), counted)
}

fn standing<'e>(event: &Event<'e>, charge: Charge<'static>) -> Standing<'e> {
    Standing {
        event: event.clone(),
        charge,
    }
}

fn correction<'c>(
    entry: MeterAddress,
    before: Standing<'c>,
    after: Option<Standing<'c>>,
    is_rerate: bool,
) -> Correction<'c> {
    let number = format!("{}/{}", entry.seq, entry.index);
    Correction {
        id: "correction",
        identity: Identity::of("acme", "features", &number, "correction"),
        content: 1,
        entry,
        entry_id: "call",
        counted: CountedThen {
            budget_version: 1,
            arrival: START,
        },
        judged_at: START.plus(EVENTS as i64),
        before: Some(before),
        after,
        reason: "measured",
        is_rerate,
    }
}
