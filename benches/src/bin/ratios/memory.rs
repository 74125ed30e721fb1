//! What a scope, a session, an identity take in memory: pieces of state are filled in a process of
//! their own, with the product's allocator, and its resident set is read before and after.

use std::collections::HashMap;
use std::hint::black_box;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use spendfuse_benches::process::usage;
use spendfuse_benches::workload::budgets;
use spendfuse_domain::event::decode;
use spendfuse_domain::finding::DetectorRules;
use spendfuse_domain::row::{CostParts, Origin};
use spendfuse_domain::{Identity, Nanos, UnixMillis};
use spendfuse_engine::book::BudgetBook;
use spendfuse_engine::delta::{DeltaEntry, Deltas};
use spendfuse_engine::ledger::{Ledger, LedgerConfig, PUBLISH_RATE};
use spendfuse_engine::meter::dedupe::Dedupe;
use spendfuse_engine::meter::{Charge, Meter, MeterConfig};

use crate::guard::Filled;
use crate::parts::NoRows;
use crate::sitting::Sitting;
use crate::table::Line;

const START: UnixMillis = UnixMillis(1_795_344_000_000);
const DAY_MILLIS: i64 = 24 * 3_600_000;
/// Changes of one commit.
const COMMIT: usize = 4_000;
/// Steps of each session.
const STEPS: usize = 3;

/// A piece of state.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Piece {
    /// The meter's memory of identities
    Ids,
    /// The meter's sessions, three steps each, with a budget and all detectors
    Sessions,
    /// The ledger's accounts
    Scopes,
    /// The guard's entries
    Entries,
    /// Nanoseconds to restore a session from its changelog record
    RestoreSessions,
    /// Nanoseconds to restore an account of the ledger
    RestoreScopes,
}

/// What is filled.
#[derive(Args, Debug)]
pub struct Options {
    piece: Piece,
    count: usize,
}

/// Fills in this process and prints bytes for each.
pub fn fill(options: &Options) -> Result<ExitCode> {
    let process = std::process::id();
    if let Some(nanos) = restore(options)? {
        println!("{nanos}");
        return Ok(ExitCode::SUCCESS);
    }
    let before = usage(process)?.memory_kib;
    let count = options.count;
    // Kept until the memory was read.
    let state: Box<dyn std::any::Any> = match options.piece {
        Piece::Ids => Box::new(ids(count)),
        Piece::Sessions => Box::new(sessions(count, &mut |_| ())?),
        Piece::Scopes => Box::new(scopes(count, &mut |_| ())?),
        Piece::Entries => Box::new(Filled::new(count)?),
        Piece::RestoreSessions | Piece::RestoreScopes => unreachable!("answered above"),
    };
    let after = usage(process)?.memory_kib;
    black_box(&state);
    println!("{}", after.saturating_sub(before) * 1024 / count as u64);
    Ok(ExitCode::SUCCESS)
}

/// What [`fill`] prints for `count` pieces in a process of its own: bytes for each, or nanoseconds.
pub fn filled(piece: Piece, count: u64) -> Result<u64> {
    let name = piece.to_possible_value().context("a piece has a name")?;
    let output = Command::new(std::env::current_exe()?)
        .args(["fill", name.get_name(), &count.to_string()])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "filling {piece:?} failed: {said}");
    Ok(String::from_utf8_lossy(&output.stdout).trim().parse()?)
}

/// Records of a changelog.
type Log = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// The time that restoring takes, for each piece; `None` for pieces that are only filled.
fn restore(options: &Options) -> Result<Option<u128>> {
    let mut log = Log::new();
    let mut keep = |records: Log| log.extend(records);
    let process = std::process::id();
    let (began, restored): (Duration, Box<dyn std::any::Any>) = match options.piece {
        Piece::RestoreSessions => {
            sessions(options.count, &mut keep)?;
            let mut meter = Meter::new(meter_config(), book()?);
            let log = compacted(log);
            let began = usage(process)?.cpu;
            for (key, value) in &log {
                meter.restore(key, value.as_deref())?;
            }
            meter.restored();
            ensure!(meter.sizes().0 == options.count, "sessions are missing");
            (began, Box::new(meter))
        }
        Piece::RestoreScopes => {
            scopes(options.count, &mut keep)?;
            let mut ledger = Ledger::new(ledger_config(), book()?);
            let log = compacted(log);
            let began = usage(process)?.cpu;
            for (key, value) in &log {
                ledger.restore(key, value.as_deref())?;
            }
            ledger.restored();
            ensure!(ledger.len() == options.count, "accounts are missing");
            (began, Box::new(ledger))
        }
        _ => return Ok(None),
    };
    let taken = usage(process)?.cpu.saturating_sub(began);
    black_box(&restored);
    Ok(Some(taken.as_nanos() / options.count as u128))
}

/// The last record of each key, as a compacted log has them.
fn compacted(log: Log) -> Log {
    let last: HashMap<Vec<u8>, Option<Vec<u8>>> = log.into_iter().collect();
    last.into_iter().collect()
}

fn ids(count: usize) -> Dedupe {
    let mut dedupe = Dedupe::new(DAY_MILLIS, count + 1);
    for number in 0..count {
        let identity = Identity::of("acme", "checkout-api", &number.to_string(), "final");
        dedupe.judge(identity, number as u32, START);
    }
    dedupe
}

fn book() -> Result<Arc<BudgetBook>> {
    let book = BudgetBook::compile(1, budgets()?, DetectorRules::default());
    Ok(Arc::new(book))
}

fn meter_config() -> MeterConfig {
    MeterConfig {
        partition: 0,
        partitions: 4,
        dedupe_horizon_millis: DAY_MILLIS,
        // Identities are measured by themselves.
        dedupe_capacity: 16,
        session_idle_millis: DAY_MILLIS,
        session_capacity: 10_000_000,
    }
}

fn sessions(count: usize, keep: &mut dyn FnMut(Log)) -> Result<Meter> {
    let mut meter = Meter::new(meter_config(), book()?);
    meter.restored();
    let charge = Charge {
        cost: CostParts {
            input: Nanos::new(150_000),
            ..CostParts::default()
        },
        ..Charge::default()
    };
    let events = count * STEPS;
    for number in 0..events {
        if number % COMMIT == 0 {
            meter.begin((number / COMMIT) as u64 + 1);
        }
        let (session, step) = (number % count, number / count);
        let text = format!(
            "{{\"specversion\":\"1.0\",\"type\":\"spendfuse.usage\",\"source\":\"checkout-api\",\
             \"id\":\"chatcmpl-{number:09}\",\"time\":\"{START}\",\"data\":{{\
             \"workspace\":\"acme\",\"customer\":\"c-{}\",\"feature\":\"chat\",\
             \"agent\":\"planner\",\"session\":\"s-{session:09}\",\"provider\":\"openai\",\
             \"model\":\"gpt-4o-mini\",\"usage\":{{\"input_tokens\":{},\"output_tokens\":200}},\
             \"tool_calls\":1,\"prompt_fingerprint\":\"{number:016x}\"}}}}",
            session % 300,
            2_000 + step * 50,
        );
        let event = decode(text.as_bytes(), &[], START)
            .map_err(|rejection| anyhow::anyhow!("an event is refused: {rejection:?}"))?;
        let origin = Origin {
            arrival: START,
            ..Origin::default()
        };
        meter.count(&event, &charge, origin, &mut NoRows);
        if number % COMMIT == COMMIT - 1 || number == events - 1 {
            keep(meter.finish().told.changelog);
        }
    }
    let (sessions, _) = meter.sizes();
    ensure!(sessions == count, "{sessions} sessions instead of {count}");
    Ok(meter)
}

fn ledger_config() -> LedgerConfig {
    LedgerConfig {
        partition: 0,
        partitions: 1,
        grace_millis: 2 * DAY_MILLIS,
        publish_rate: PUBLISH_RATE,
        account_capacity: 10_000_000,
    }
}

fn scopes(count: usize, keep: &mut dyn FnMut(Log)) -> Result<Ledger> {
    let book = book()?;
    let series = book.series.iter();
    let customers = series
        .map(|one| &one.id)
        .find(|id| id.contains("customer") && !id.contains("feature"));
    let customers = customers.context("no series by customer")?.clone();
    let mut ledger = Ledger::new(ledger_config(), book);
    ledger.restored();
    ledger.advance(START);
    let (mut seq, mut told) = (0, 0);
    for first in (0..count).step_by(COMMIT) {
        seq += 1;
        let entry = |number: usize| DeltaEntry {
            series: 0,
            scope: format!("acme/customer=c-{number}"),
            minute: START.minute(),
            cost: Nanos::new(1_000_000),
            unpriced: Nanos::ZERO,
            tokens: 2_000,
            calls: 1,
            source: "checkout-api".to_owned(),
            id: format!("chatcmpl-{number:09}"),
            time: START,
            is_history: false,
            corrects: None,
        };
        ledger.begin(seq);
        let deltas = Deltas {
            through: None,
            meter_partition: 0,
            prev: told,
            seq,
            series: vec![customers.clone()],
            entries: (first..count.min(first + COMMIT)).map(entry).collect(),
            budget_version: 1,
        };
        ledger.apply(&deltas, START);
        keep(ledger.finish().told.changelog);
        told = seq;
    }
    ensure!(
        ledger.len() == count,
        "{} accounts instead of {count}",
        ledger.len()
    );
    Ok(ledger)
}

/// The lines of the row.
pub fn measure(sitting: &mut Sitting) -> Result<Vec<Line>> {
    const ROW: &str = "memory";
    let sizes: &[usize] = sitting.choose(&[10_000, 100_000, 1_000_000], &[10_000, 100_000]);
    let pieces = [
        (
            Piece::Ids,
            "an identity, in the meter",
            "processor.dedupe_capacity, dedupe_horizon",
        ),
        (
            Piece::Sessions,
            "a session, in the meter",
            "processor.session_idle",
        ),
        (
            Piece::Scopes,
            "an active scope, in the ledger",
            "windows and grace of the budgets",
        ),
        (
            Piece::Entries,
            "an active scope, in a guard",
            "the blocklist's live keys",
        ),
    ];
    let mut lines = Vec::new();
    for (piece, what, bound) in pieces {
        let mut figures = Vec::new();
        for count in sizes {
            figures.push(filled(piece, *count as u64)?.to_string());
        }
        let sizes: Vec<String> = sizes.iter().map(|count| format!("{count}")).collect();
        let figures = format!("{} bytes", figures.join(" / "));
        let line = Line::new(ROW, format!("{what}, of {}", sizes.join(" / ")), figures);
        lines.push(line.note(format!("bounded by {bound}")));
    }
    Ok(lines)
}
