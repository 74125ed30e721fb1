//! What counting one event costs: `cargo run --release -p spendfuse-engine --example meter_cost`.
//!
//! Four calendar budget shapes, one session budget, all detectors; 20,000 customers and 50,000
//! sessions; batches of 2,000 events, the end of each commit included. Prints nanoseconds an event.

use std::borrow::Cow;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use spendfuse_domain::event::{Attribution, Body, Call, Event, Flags};
use spendfuse_domain::finding::DetectorRules;
use spendfuse_domain::row::{CostParts, Origin, SpendRow};
use spendfuse_domain::scope::Pattern;
use spendfuse_domain::{
    Amount, Budget, Dimension, Identity, Nanos, ScopeTemplate, TokenClasses, UnixMillis, WindowKind,
};
use spendfuse_engine::book::BudgetBook;
use spendfuse_engine::meter::{Charge, Meter, MeterConfig, Rows};
use spendfuse_testkit::generate;

const EVENTS: usize = 400_000;
const BATCH: usize = 2_000;

struct Counting(usize);
impl Rows for Counting {
    fn push(&mut self, row: &SpendRow<'_>) {
        self.0 += black_box(row.address.index) as usize & 1;
    }
}

fn budgets() -> Vec<Budget> {
    let each = |dimensions: &[Dimension]| {
        let parts = dimensions.iter().map(|one| (one.clone(), Pattern::Each));
        ScopeTemplate::new(parts.collect())
    };
    let shapes = [
        (each(&[Dimension::Workspace]), WindowKind::Month),
        (
            each(&[Dimension::Workspace, Dimension::Customer]),
            WindowKind::Day,
        ),
        (
            each(&[Dimension::Workspace, Dimension::Feature]),
            WindowKind::Hour,
        ),
        (
            each(&[Dimension::Workspace, Dimension::User]),
            WindowKind::Day,
        ),
        (each(&[Dimension::Workspace]), WindowKind::Session),
    ];
    let numbered = shapes.into_iter().enumerate();
    numbered
        .map(|(number, (scope, window))| Budget {
            scope,
            window,
            limit: Amount::Usd(Nanos::from_dollars(5)),
            limit_from_event: false,
            ..generate::budget(number, 0)
        })
        .collect()
}

fn events() -> Vec<Event<'static>> {
    let name = |prefix: &str, number: usize| Cow::Owned(format!("{prefix}-{number}"));
    let begin = UnixMillis(1_795_000_000_000);
    let make = |number: usize| {
        // Consecutive numbers of a multiplicative generator: no order that a cache could guess.
        let random = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20;
        let session = random % 50_000;
        Event {
            identity: Identity::of("acme", "app", &number.to_string(), "final"),
            content: number as u32,
            source: Cow::Borrowed("checkout-api"),
            id: name("chatcmpl", number),
            time: begin.plus(number as i64 / 10),
            flags: Flags::default(),
            attribution: Attribution {
                workspace: Cow::Borrowed("acme"),
                customer: name("customer", session % 20_000),
                feature: name("feature", session % 7),
                user: name("user", session % 40_000),
                agent: Cow::Borrowed("planner"),
                session: name("session", session),
                model: Cow::Borrowed("gpt-4o-mini"),
                provider: Cow::Borrowed("openai"),
                ..Attribution::default()
            },
            body: Body::Usage(Call {
                tokens: TokenClasses {
                    input: 1_000 + random as u64 % 500,
                    output: 200,
                    ..TokenClasses::default()
                },
                tool_calls: 1,
                prompt_fingerprint: Some(random as u64),
                tool_fingerprint: Some(random as u64 % 9),
                ..Call::default()
            }),
        }
    };
    (0..EVENTS).map(make).collect()
}

fn main() {
    let book = BudgetBook::compile(1, budgets(), DetectorRules::default());
    let config = MeterConfig {
        partition: 0,
        partitions: 8,
        dedupe_horizon_millis: 24 * 3_600_000,
        dedupe_capacity: 20_000_000,
        session_idle_millis: 30 * 60_000,
        session_capacity: 10_000_000,
    };
    let mut meter = Meter::new(config, Arc::new(book));
    meter.restored();
    let events = events();
    let charge = Charge {
        cost: CostParts {
            input: Nanos::new(150_000),
            output: Nanos::new(120_000),
            ..CostParts::default()
        },
        price_version: "bench",
        ..Charge::default()
    };
    let mut rows = Counting(0);
    let (mut counting, mut finishing, mut bytes) = (0, 0, 0);
    for (batch, events) in events.chunks(BATCH).enumerate() {
        let begun = Instant::now();
        meter.begin(batch as u64 + 1);
        for event in events {
            let origin = Origin {
                arrival: event.time,
                ..Origin::default()
            };
            black_box(meter.count(event, &charge, origin, &mut rows));
        }
        counting += begun.elapsed().as_nanos();
        let begun = Instant::now();
        meter.advance(meter.now());
        let outputs = meter.finish();
        finishing += begun.elapsed().as_nanos();
        let changelog = outputs.told.changelog.iter();
        bytes += changelog
            .map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len))
            .sum::<usize>();
    }
    let each = |nanos: u128| nanos / EVENTS as u128;
    println!(
        "count {} ns/event, end of commit {} ns/event, changelog {} bytes/event, {:?} sessions and identities",
        each(counting),
        each(finishing),
        bytes / EVENTS,
        meter.sizes()
    );
}
