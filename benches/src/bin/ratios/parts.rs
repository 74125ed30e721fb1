//! What the steps of counting cost by themselves, on one thread and without Kafka: the measured part
//! of why the pipeline costs more than reading does.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use spendfuse_benches::workload::{Workload, budgets};
use spendfuse_domain::UnixMillis;
use spendfuse_domain::event::{Body, Event, decode};
use spendfuse_domain::finding::DetectorRules;
use spendfuse_domain::row::{MeterAddress, Origin, SpendRow};
use spendfuse_engine::book::BudgetBook;
use spendfuse_engine::meter::{Charge, Meter, MeterConfig, Rows};
use spendfuse_pricing::{PriceBook, Pricer, PricingPolicy};
use spendfuse_warehouse::block::SpendBlock;
use spendfuse_warehouse::record::Link;

/// When the events of a run arrive.
pub const START: UnixMillis = UnixMillis(1_795_344_000_000);
/// The same as events carry it.
pub const TIME: &str = "2026-11-22T10:40:00Z";
/// Events in a commit, about as many as on a backlog.
const COMMIT: usize = 10_000;

/// Time of each step for the events of a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Parts {
    events: usize,
    /// From JSON, by all rules of the contract.
    decoding: Duration,
    pricing: Duration,
    /// Dedupe, four scopes, the session, five detectors.
    counting: Duration,
    /// What a commit settles and encodes.
    commits: Duration,
    /// Blocks for the warehouse.
    rows: Duration,
}

impl Parts {
    /// Takes `commits` commits' worth of the pipeline's traffic through each step; the first commit,
    /// in which tables are new, does not count.
    pub fn measure(commits: u64) -> Result<Self> {
        let mut workload = Workload::new("parts");
        let mut pricer = Pricer::new(PriceBook::snapshot(), Arc::new(PricingPolicy::default()));
        let book = BudgetBook::compile(1, budgets()?, DetectorRules::default());
        let mut meter = Meter::new(meter_config(), Arc::new(book));
        meter.restored();
        let mut parts = Self::default();
        for commit in 0..=commits {
            let texts: Vec<String> = (0..COMMIT)
                .map(|_| workload.next_event(TIME).value.to_owned())
                .collect();
            let mut times = Times::default();
            let events = times.step(|| decoded(&texts))?;
            let charges = times.step(|| charges(&mut pricer, &events))?;
            times.step(|| {
                meter.begin(commit + 1);
                for ((event, charge), number) in events.iter().zip(&charges).zip(0..) {
                    meter.count(event, charge, origin(number), &mut NoRows);
                }
                Ok(())
            })?;
            times.step(|| Ok(black_box(meter.finish())))?;
            times.step(|| Ok(black_box(block(&events, &charges, commit + 1))))?;
            if commit > 0 {
                parts.add(&times);
            }
        }
        Ok(parts)
    }

    fn add(&mut self, times: &Times) {
        let steps = [
            &mut self.decoding,
            &mut self.pricing,
            &mut self.counting,
            &mut self.commits,
            &mut self.rows,
        ];
        for (sum, time) in steps.into_iter().zip(&times.0) {
            *sum += *time;
        }
        self.events += COMMIT;
    }

    /// All steps of an event together, microseconds.
    pub fn together(&self) -> f64 {
        let steps = [
            self.decoding,
            self.pricing,
            self.counting,
            self.commits,
            self.rows,
        ];
        steps.iter().sum::<Duration>().as_secs_f64() * 1e6 / self.events as f64
    }

    /// The steps in microseconds an event, which are CPU-seconds per million.
    pub fn in_words(&self) -> String {
        let each = |time: Duration| time.as_secs_f64() * 1e6 / self.events as f64;
        format!(
            "decoding by all rules {:.2}, pricing {:.2}, counting with sessions and detectors \
             {:.2}, rows {:.2}, state and messages of commits {:.2}",
            each(self.decoding),
            each(self.pricing),
            each(self.counting),
            each(self.rows),
            each(self.commits)
        )
    }
}

/// How long the steps of one commit took, in their order.
#[derive(Default)]
struct Times(Vec<Duration>);

impl Times {
    fn step<T>(&mut self, step: impl FnOnce() -> Result<T>) -> Result<T> {
        let began = Instant::now();
        let done = step();
        self.0.push(began.elapsed());
        done
    }
}

/// Takes rows and keeps none.
pub struct NoRows;

impl Rows for NoRows {
    fn push(&mut self, row: &SpendRow<'_>) {
        black_box(row.address);
    }
}

/// One of four partitions, with room for everything.
pub fn meter_config() -> MeterConfig {
    MeterConfig {
        partition: 0,
        partitions: 4,
        dedupe_horizon_millis: 24 * 3_600_000,
        dedupe_capacity: 20_000_000,
        session_idle_millis: 3_600_000,
        session_capacity: 10_000_000,
    }
}

/// Of the event at this place of its partition.
pub fn origin(number: i64) -> Origin {
    Origin {
        rerouted: false,
        partition: 0,
        offset: number,
        arrival: START.plus(number),
    }
}

/// The events of these texts.
pub fn decoded(texts: &[String]) -> Result<Vec<Event<'_>>> {
    let decoded = texts.iter().map(|text| decode(text.as_bytes(), &[], START));
    let decoded: Result<_, _> = decoded.collect();
    decoded.map_err(|rejection| anyhow!("an event is refused: {rejection:?}"))
}

/// What each of the calls costs.
pub fn charges(pricer: &mut Pricer, events: &[Event<'_>]) -> Result<Vec<Charge<'static>>> {
    let mut charges = Vec::with_capacity(events.len());
    for event in events {
        let Body::Usage(call) = &event.body else {
            continue;
        };
        let who = &event.attribution;
        let priced = pricer.price(&who.provider, &who.account, call, &who.model, event.time)?;
        charges.push(Charge {
            cost: priced.parts,
            at_ceiling: priced.at_ceiling,
            priced: priced.basis,
            flags: priced.flags,
            price_version: "snapshot",
            ..Charge::default()
        });
    }
    Ok(charges)
}

fn block(events: &[Event<'_>], charges: &[Charge<'_>], seq: u64) -> Option<Vec<u8>> {
    let mut block = SpendBlock::new("usage");
    for ((event, charge), index) in events.iter().zip(charges).zip(0..) {
        block.push(&SpendRow {
            event,
            amends: None,
            cost: charge.cost,
            priced: charge.priced,
            price_version: charge.price_version,
            priced_as: charge.priced_as,
            price_detail: charge.price_detail,
            budget_version: 1,
            flags: event.flags,
            origin: origin(i64::from(index)),
            address: MeterAddress {
                partition: 0,
                seq,
                index,
            },
        });
    }
    block.finish_record(Link {
        partition: 0,
        previous: seq - 1,
        seq,
    })
}
