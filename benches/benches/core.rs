//! What the parts cost: decoding, pricing, counting, row blocks, checks.
//!
//! Each group holds what its figure has to be compared with in the same run: decoding next to a
//! parser that only skips, a check next to a lookup in a hash map.

#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use serde::de::IgnoredAny;
use serde_json::json;
use spendfuse_benches::traffic::Traffic;
use spendfuse_domain::budget::Budget;
use spendfuse_domain::event::{Body, Event, decode};
use spendfuse_domain::finding::DetectorRules;
use spendfuse_domain::row::{CostParts, MeterAddress, Origin, PriceBasis, SpendRow};
use spendfuse_domain::{Attribution, Nanos, UnixMillis};
use spendfuse_engine::book::BudgetBook;
use spendfuse_engine::meter::{Charge, Meter, MeterConfig, Rows};
use spendfuse_guard::{CheckRequest, Guard, GuardConfig, Now};
use spendfuse_pricing::{PriceBook, Pricer, PricingPolicy};
use spendfuse_warehouse::block::SpendBlock;
use spendfuse_warehouse::record::Link;

const START: UnixMillis = UnixMillis(1_795_000_000_000);
const EVENTS: usize = 1_000;

fn texts(count: usize) -> Vec<String> {
    let mut traffic = Traffic::default();
    (0..count)
        .map(|number| traffic.next_event(START.plus(number as i64)))
        .collect()
}

fn events(texts: &[String]) -> Vec<Event<'_>> {
    let decoded = texts
        .iter()
        .map(|text| decode(text.as_bytes(), &[], START).unwrap());
    decoded.collect()
}

fn origin(number: usize) -> Origin {
    Origin {
        rerouted: false,
        partition: 0,
        offset: number as i64,
        arrival: START.plus(number as i64),
    }
}

fn decoding(criterion: &mut Criterion) {
    let texts = texts(EVENTS);
    let bytes: usize = texts.iter().map(String::len).sum();
    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::Bytes(bytes as u64));
    group.bench_function("1000 events", |bencher| {
        bencher.iter(|| {
            for text in &texts {
                black_box(decode(text.as_bytes(), &[], START).unwrap());
            }
        });
    });
    group.bench_function("1000 events, serde_json skips them", |bencher| {
        bencher.iter(|| {
            for text in &texts {
                black_box(serde_json::from_str::<IgnoredAny>(text).unwrap());
            }
        });
    });
    group.finish();
}

fn pricing(criterion: &mut Criterion) {
    let texts = texts(EVENTS);
    let events = events(&texts);
    let mut pricer = Pricer::new(PriceBook::snapshot(), Arc::new(PricingPolicy::default()));
    let mut group = criterion.benchmark_group("price");
    group.throughput(Throughput::Elements(EVENTS as u64));
    group.bench_function("1000 calls of known models", |bencher| {
        bencher.iter(|| {
            for event in &events {
                let Body::Usage(call) = &event.body else {
                    continue;
                };
                let who = &event.attribution;
                let priced =
                    pricer.price(&who.provider, &who.account, call, &who.model, event.time);
                black_box(priced.unwrap());
            }
        });
    });
    group.finish();
}

/// Four calendar budgets of different shapes and one per session.
fn budgets() -> Vec<Budget> {
    let budget = |id: &str, scope: serde_json::Value, window: &str| {
        let record = json!({
            "v": 1, "id": id, "scope": scope, "limit": "5.00", "window": window,
            "timezone": "America/New_York", "counted_from": "2026-01-01T00:00:00Z",
            "steps": [{"at": 80, "do": "warn"}, {"at": 100, "do": "block"}],
        });
        Budget::from_record(id, &serde_json::to_vec(&record).unwrap()).unwrap()
    };
    vec![
        budget("everything", json!({}), "lifetime"),
        budget("workspace", json!({"workspace": "*"}), "day"),
        budget(
            "customer",
            json!({"workspace": "*", "customer": "*"}),
            "day",
        ),
        budget(
            "feature",
            json!({"workspace": "*", "customer": "*", "feature": "*"}),
            "month",
        ),
        budget("session", json!({"workspace": "*"}), "session"),
    ]
}

struct NoRows;

impl Rows for NoRows {
    fn push(&mut self, row: &SpendRow<'_>) {
        black_box(row.address);
    }
}

fn counting(criterion: &mut Criterion) {
    let texts = texts(EVENTS);
    let events = events(&texts);
    let book = Arc::new(BudgetBook::compile(1, budgets(), DetectorRules::default()));
    let config = MeterConfig {
        partition: 0,
        partitions: 4,
        dedupe_horizon_millis: 24 * 3_600_000,
        dedupe_capacity: 1_000_000,
        session_idle_millis: 3_600_000,
        session_capacity: 10_000_000,
    };
    let charge = Charge {
        cost: CostParts {
            input: Nanos::new(150_000),
            output: Nanos::new(120_000),
            ..CostParts::default()
        },
        ..Charge::default()
    };
    let mut group = criterion.benchmark_group("count");
    group.throughput(Throughput::Elements(EVENTS as u64));
    group.bench_function("a commit of 1000 events", |bencher| {
        bencher.iter_batched(
            || {
                let mut meter = Meter::new(config.clone(), Arc::clone(&book));
                meter.restored();
                meter.begin(1);
                meter
            },
            |mut meter| {
                for (number, event) in events.iter().enumerate() {
                    meter.count(event, &charge, origin(number), &mut NoRows);
                }
                black_box(meter.finish());
                meter
            },
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

fn rows(criterion: &mut Criterion) {
    let texts = texts(EVENTS);
    let events = events(&texts);
    let mut group = criterion.benchmark_group("rows");
    group.throughput(Throughput::Elements(EVENTS as u64));
    group.bench_function("a block of 1000 rows", |bencher| {
        let mut block = SpendBlock::new("spendfuse.usage");
        bencher.iter(|| {
            for (number, event) in events.iter().enumerate() {
                block.push(&SpendRow {
                    event,
                    amends: None,
                    cost: CostParts::default(),
                    priced: PriceBasis::default(),
                    price_version: "snapshot",
                    priced_as: "",
                    price_detail: "openai/gpt-4o (exact name); input 2.50/M, output 10.00/M",
                    budget_version: 1,
                    flags: event.flags,
                    origin: origin(number),
                    address: MeterAddress {
                        partition: 0,
                        seq: 1,
                        index: number as u32,
                    },
                });
            }
            black_box(block.finish_record(Link {
                partition: 0,
                previous: 0,
                seq: 1,
            }))
        });
    });
    group.finish();
}

/// A guard that knows what `customers` customers have spent, and a map with as many entries.
fn guard_of(customers: usize) -> (Guard, HashMap<String, u64>) {
    let now = Now {
        wall: START,
        monotonic_millis: 0,
    };
    let (mut writer, guard) = Guard::new(GuardConfig::new(1));
    for budget in budgets() {
        let record = budget.to_record();
        writer
            .apply_budget(&budget.id.to_string(), Some(&record), 1)
            .unwrap();
    }
    let mut spent = HashMap::new();
    for customer in 0..customers {
        let scope = format!("acme/customer=c-{customer}");
        let key = format!("customer|{scope}");
        let entry = json!({
            "v": 1, "budget": "customer", "scope": scope, "where": null, "verdict": "ok",
            "action": "block", "spent_usd": "0.01", "limit_usd": "5.00", "percent": 0.2,
            "window": "day:2026-11-18", "window_start": START, "resets_at": null,
            "expires_at": null, "counted_from": START, "downgrade_to": null, "version": 1,
            "decided_at": START, "caused_by": null,
        });
        let value = serde_json::to_vec(&entry).unwrap();
        writer.apply(&key, Some(&value), START, now).unwrap();
        spent.insert(key, 10_000_000);
    }
    writer.caught_up();
    writer.publish(START);
    (guard, spent)
}

fn checking(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("check");
    for customers in [1_000_usize, 100_000] {
        let (guard, spent) = guard_of(customers);
        let now = Now {
            wall: START,
            monotonic_millis: 0,
        };
        let requests: Vec<CheckRequest<'_>> = (0..customers)
            .map(|customer| CheckRequest {
                attribution: Attribution {
                    workspace: "acme".into(),
                    customer: format!("c-{customer}").into(),
                    feature: "chat".into(),
                    session: "s-1".into(),
                    model: "gpt-4o-mini".into(),
                    ..Attribution::default()
                },
                ..CheckRequest::default()
            })
            .collect();
        let keys: Vec<String> = (0..customers)
            .map(|customer| format!("customer|acme/customer=c-{customer}"))
            .collect();
        // A stride without pattern: neither structure is helped by what lies next to each other.
        let mut place = 0;
        let mut next = move || {
            place = (place + 7_919) % customers;
            place
        };
        group.bench_function(format!("{customers} scopes"), |bencher| {
            bencher.iter(|| black_box(guard.check(&requests[next()], now)));
        });
        group.bench_function(format!("{customers} entries of a HashMap"), |bencher| {
            bencher.iter(|| black_box(spent.get(&keys[next()])));
        });
    }
    group.finish();
}

criterion_group!(parts, decoding, pricing, counting, rows, checking);
criterion_main!(parts);
