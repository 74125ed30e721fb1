//! Measures the whole pipeline: how fast, and at what cost, a backlog of usage events becomes rows
//! in the warehouse, on real servers and with the real binary.
//!
//! It starts Kafka and ClickHouse, writes the backlog, then starts a processor and a loader and
//! waits until the last event is in the warehouse. The totals must be exact, or the run fails.

// A benchmark paces itself: its pauses are the point.
#![allow(clippy::disallowed_methods)]

mod backlog;
mod http;
mod pipeline;
mod process;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;

use pipeline::Pipeline;
use process::Usage;

/// Measures how fast a backlog of usage events is drained, and checks that the totals are exact.
#[derive(Parser, Debug)]
#[command(after_help = "Example: drain --events 300000 --set processor.commit_interval=100ms")]
struct Options {
    /// Events in the backlog
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// Without the loader: events are only counted
    #[arg(long)]
    no_loader: bool,
    /// Afterwards, measure for this many seconds what the idle processes use
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    idle: u64,
    /// Overrides a setting of the measured processes
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// What a run found.
struct Findings {
    total: u64,
    /// From the start of the processes until the last event was counted.
    counted_after: Duration,
    /// From the first counted event until the last one.
    counting_for: Duration,
    /// From the start of the processes until the last row was in the warehouse.
    stored_after: Option<Duration>,
    processor: Usage,
    loader: Option<Usage>,
    idle: Vec<(&'static str, f64)>,
}

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    let load_before = process::load_average();
    let mut pipeline = Pipeline::start(options.set.clone())?;
    eprintln!("writing {} events", options.events);
    let backlog = backlog::write(&pipeline, options.events)?;
    eprintln!("draining {} bytes", backlog.bytes);
    let findings = drain(&mut pipeline, &options)?;
    let stored = if options.no_loader {
        "not measured".to_owned()
    } else {
        let (rows, nanos) = pipeline.stored()?;
        ensure!(
            (rows, nanos) == (backlog.events, backlog.nanos),
            "the warehouse holds {rows} rows and {nanos} nano-dollars; sent were {} and {}",
            backlog.events,
            backlog.nanos
        );
        format!("{rows} rows, {nanos} nano-dollars: exactly what was sent")
    };
    print(&findings, &stored, load_before);
    Ok(ExitCode::SUCCESS)
}

fn drain(pipeline: &mut Pipeline, options: &Options) -> Result<Findings> {
    let began = Instant::now();
    pipeline.start_processor()?;
    if !options.no_loader {
        pipeline.start_loader()?;
    }
    let patience = Duration::from_secs(60) + Duration::from_millis(options.events / 2);
    let mut first_at = None;
    let mut counted_after = None;
    let mut stored_after = None;
    let mut counted = 0;
    while counted_after.is_none() || (stored_after.is_none() && !options.no_loader) {
        std::thread::sleep(Duration::from_millis(50));
        ensure!(
            began.elapsed() < patience,
            "{counted} of {} events counted after {patience:?}\n{}",
            options.events,
            pipeline.log_tail()
        );
        if counted_after.is_none() {
            counted = pipeline.counted();
            if counted > 0 {
                first_at.get_or_insert((began.elapsed(), counted));
            }
            if counted >= options.events {
                counted_after = Some(began.elapsed());
            }
        } else if pipeline.stored().context("asking the warehouse")?.0 >= options.events {
            stored_after = Some(began.elapsed());
        }
    }
    let counted_after = counted_after.unwrap_or_default();
    let (first_after, _) = first_at.unwrap_or_default();
    let processor = pipeline.processor_usage()?;
    let loader = pipeline.loader_usage()?;
    Ok(Findings {
        total: options.events,
        counted_after,
        counting_for: counted_after.saturating_sub(first_after),
        stored_after,
        processor,
        loader,
        idle: pipeline.idle_shares(Duration::from_secs(options.idle))?,
    })
}

fn print(findings: &Findings, stored: &str, load_before: String) {
    let per_second = |duration: Duration| {
        let rate = findings.total as f64 / duration.as_secs_f64();
        format!("{rate:.0} events/s ({:.2} s)", duration.as_secs_f64())
    };
    let used = |usage: &Usage| {
        let millions = findings.total as f64 / 1e6;
        format!(
            "{:.2} CPU-seconds per million events, at most {} MiB",
            usage.cpu.as_secs_f64() / millions,
            usage.peak_memory_kib / 1024
        )
    };
    let line = |name: &str, value: &str| println!("{name:<34}{value}");
    line("events", &findings.total.to_string());
    line(
        "counted, start included",
        &per_second(findings.counted_after),
    );
    line(
        "counted, from the first commit",
        &per_second(findings.counting_for),
    );
    if let Some(stored_after) = findings.stored_after {
        line(
            "in the warehouse, start included",
            &per_second(stored_after),
        );
    }
    line("processor", &used(&findings.processor));
    if let Some(loader) = &findings.loader {
        line("loader", &used(loader));
    }
    for (name, share) in &findings.idle {
        let share = format!("{:.1} % of a core", share * 100.0);
        line(&format!("{name}, idle"), &share);
    }
    line("warehouse", stored);
    let load = format!("{load_before} before, {} after", process::load_average());
    line("load average", &load);
}
