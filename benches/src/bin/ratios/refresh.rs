//! Figures that move all at once: what the ledger tells of a million scopes that all spend, and what
//! a guard pays for it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use spendfuse_benches::process::usage;
use spendfuse_benches::random::Random;
use spendfuse_benches::workload::budgets;
use spendfuse_domain::finding::DetectorRules;
use spendfuse_domain::{Nanos, UnixMillis};
use spendfuse_engine::book::BudgetBook;
use spendfuse_engine::delta::{DeltaEntry, Deltas};
use spendfuse_engine::ledger::{Ledger, LedgerConfig, LedgerOutputs, PUBLISH_RATE};
use spendfuse_guard::{Guard, GuardConfig, GuardWriter, Now};

use crate::sitting::Sitting;
use crate::table::Line;

const ROW: &str = "refresh";
const START: UnixMillis = UnixMillis(1_795_344_000_000);
/// Scopes that spend in one commit.
const COMMIT: usize = 4_000;
/// Under load a sidecar shows its readers a new state this often.
const SHOW_EVERY: Duration = Duration::from_millis(2);
/// Simulated seconds in which all scopes spend.
const SECONDS: i64 = 10;

/// A ledger whose scopes all spend, and a guard that follows it.
struct Storm {
    ledger: Ledger,
    series: String,
    writer: GuardWriter,
    _guard: Guard,
    seq: u64,
    ledger_cpu: Duration,
    guard_cpu: Duration,
    told: u64,
}

impl Storm {
    fn new() -> Result<Self> {
        let book = BudgetBook::compile(1, budgets()?, DetectorRules::new(Vec::new()));
        let ids = book.series.iter().map(|one| &one.id);
        let of_customers = |id: &&String| id.contains("customer") && !id.contains("feature");
        let series = ids.clone().find(of_customers).context("no such series")?;
        let series = series.clone();
        let config = LedgerConfig {
            partition: 0,
            partitions: 1,
            grace_millis: 0,
            publish_rate: PUBLISH_RATE,
            account_capacity: usize::MAX,
        };
        let mut ledger = Ledger::new(config, Arc::new(book));
        ledger.restored();
        let (writer, guard) = Guard::new(GuardConfig::new(1));
        Ok(Self {
            ledger,
            series,
            writer,
            _guard: guard,
            seq: 0,
            ledger_cpu: Duration::ZERO,
            guard_cpu: Duration::ZERO,
            told: 0,
        })
    }

    /// One commit in which `customers` spend two of their hundred dollars each: more than a hundredth
    /// of what remains, so that every figure is due.
    fn commit(
        &mut self,
        now: UnixMillis,
        customers: impl Iterator<Item = u64>,
    ) -> Result<LedgerOutputs> {
        self.seq += 1;
        let entry = |number: u64| DeltaEntry {
            series: 0,
            scope: format!("acme/customer=c-{number}"),
            minute: now.minute(),
            cost: Nanos::new(2_000_000_000),
            unpriced: Nanos::ZERO,
            tokens: 2_000,
            calls: 1,
            source: "checkout-api".to_owned(),
            id: format!("chatcmpl-{number:09}"),
            time: now,
            is_history: false,
            corrects: None,
        };
        let deltas = Deltas {
            through: None,
            meter_partition: 0,
            prev: self.seq - 1,
            seq: self.seq,
            series: vec![self.series.clone()],
            entries: customers.map(entry).collect(),
            budget_version: 1,
        };
        let before = usage(std::process::id())?.cpu;
        self.ledger.begin(self.seq);
        self.ledger.advance(now);
        self.ledger.apply(&deltas, now);
        let outputs = self.ledger.finish();
        self.ledger_cpu += usage(std::process::id())?.cpu - before;
        Ok(outputs)
    }

    /// Hands on what was told as a topic would, and shows it to readers as often as a sidecar does.
    fn follow(&mut self, outputs: &LedgerOutputs, shows: u32) -> Result<()> {
        let records: Vec<(&str, Vec<u8>)> = outputs
            .told
            .blocklist
            .iter()
            .filter_map(|(key, entry)| Some((key.as_str(), serde_json::to_vec(entry).ok()?)))
            .collect();
        let before = usage(std::process::id())?.cpu;
        let now = Now {
            wall: START,
            monotonic_millis: 0,
        };
        let part = records.len().div_ceil(shows.max(1) as usize).max(1);
        for part in records.chunks(part) {
            for (key, value) in part {
                self.writer.apply(key, Some(value), START, now)?;
            }
            self.writer.publish(START);
        }
        self.guard_cpu += usage(std::process::id())?.cpu - before;
        self.told += records.len() as u64;
        Ok(())
    }
}

/// The lines of the row.
pub fn measure(sitting: &mut Sitting) -> Result<Vec<Line>> {
    let scopes: u64 = sitting.choose(1_000_000, 50_000);
    let mut storm = Storm::new()?;
    for first in (0..scopes).step_by(COMMIT) {
        let outputs = storm.commit(START, first..scopes.min(first + COMMIT as u64))?;
        storm.follow(&outputs, 1)?;
    }
    (storm.ledger_cpu, storm.guard_cpu, storm.told) = Default::default();
    let mut random = Random::default();
    let commits = scopes.div_ceil(COMMIT as u64) as i64;
    for commit in 0..SECONDS * commits {
        let now = START.plus(1_000 + commit * 1_000 / commits);
        let customers: Vec<u64> = (0..COMMIT).map(|_| random.below(scopes)).collect();
        let outputs = storm.commit(now, customers.into_iter())?;
        let shows = 1_000 / commits as u32 / SHOW_EVERY.as_millis() as u32;
        storm.follow(&outputs, shows)?;
    }
    let seconds = SECONDS as f64;
    let told = storm.told as f64 / seconds;
    let guard = storm.guard_cpu.as_secs_f64() / seconds * 100.0;
    let ledger = storm.ledger_cpu.as_secs_f64() / (seconds * scopes as f64) * 1e6;
    let what = format!("{scopes} scopes that all spend every second");
    Ok(vec![
        Line::new(
            ROW,
            format!("{what}: figures told"),
            format!("{told:.0} a second and partition"),
        )
        .against(format!("processor.publish_rate {PUBLISH_RATE}"))
        .ratio(told, f64::from(PUBLISH_RATE)),
        Line::new(
            ROW,
            format!("{what}: a guard that follows one partition"),
            format!("{guard:.1} % of a core"),
        )
        .note(format!(
            "{:.1} us a record, read, applied and shown; times the number of partitions",
            storm.guard_cpu.as_secs_f64() * 1e6 / storm.told.max(1) as f64
        )),
        Line::new(
            ROW,
            format!("{what}: the ledger"),
            format!("{ledger:.2} us a scope and commit"),
        ),
    ])
}
