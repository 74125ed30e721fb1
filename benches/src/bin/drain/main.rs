//! Measures the whole pipeline alone, for work on its speed: how fast, and at what cost, a backlog of
//! usage events becomes rows in the warehouse, on real servers and with the real binary.
//!
//! It writes the backlog, then starts a processor and a loader and waits until the last event is in
//! the warehouse. The totals must be exact, or the run fails.

// A benchmark paces itself: its pauses are the point.
#![allow(clippy::disallowed_methods)]

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Parser;
use spendfuse_benches::lab::{Lab, Role, Servers};
use spendfuse_benches::load::write_backlog;
use spendfuse_benches::process::{Usage, load_average};
use spendfuse_benches::workload::{BUDGETS, Workload};

const LOOK_EVERY: Duration = Duration::from_millis(50);

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

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    let load_before = load_average();
    let servers = Servers::start()?;
    let lab = Lab::create(&servers, "drain", 4, BUDGETS, &options.set)?;
    eprintln!("writing {} events", options.events);
    let backlog = write_backlog(&lab, &mut Workload::new("d"), options.events)?;
    eprintln!("draining {} bytes", backlog.bytes);
    let began = Instant::now();
    let processor = lab.start("processor", "1", &[])?;
    let loader = if options.no_loader {
        None
    } else {
        Some(lab.start("loader", "1", &[])?)
    };
    let wait = |done: &mut dyn FnMut() -> Result<u64>| -> Result<(Duration, Duration)> {
        let patience = Duration::from_secs(60) + Duration::from_millis(options.events / 2);
        let mut first = None;
        loop {
            thread::sleep(LOOK_EVERY);
            let count = done()?;
            if count > 0 {
                first.get_or_insert_with(|| began.elapsed());
            }
            if count >= options.events {
                let after = began.elapsed();
                return Ok((after, after.saturating_sub(first.unwrap_or_default())));
            }
            let waited = began.elapsed();
            ensure!(
                waited < patience,
                "{count} of {} after {waited:?}\n{}",
                options.events,
                processor.log_tail()
            );
        }
    };
    let (counted_after, counting_for) = wait(&mut || Ok(processor.counted()))?;
    let rate = |duration: Duration| {
        let rate = options.events as f64 / duration.as_secs_f64();
        format!("{rate:.0} events/s ({:.2} s)", duration.as_secs_f64())
    };
    line("events", &options.events.to_string());
    line("counted, start included", &rate(counted_after));
    line("counted, from the first commit", &rate(counting_for));
    if loader.is_some() {
        let (stored_after, _) = wait(&mut || Ok(lab.stored()?.0))?;
        line("in the warehouse, start included", &rate(stored_after));
    }
    line("processor", &used(&processor.usage()?, options.events));
    if let Some(loader) = &loader {
        line("loader", &used(&loader.usage()?, options.events));
        let (rows, nanos) = lab.stored()?;
        ensure!(
            (rows, nanos) == (backlog.events, backlog.nanos),
            "the warehouse holds {rows} rows and {nanos} nano-dollars; sent were {} and {}",
            backlog.events,
            backlog.nanos
        );
        line(
            "warehouse",
            &format!("{rows} rows, {nanos} nano-dollars: exact"),
        );
    }
    if options.idle > 0 {
        idle("processor", &processor, options.idle)?;
        if let Some(loader) = &loader {
            idle("loader", loader, options.idle)?;
        }
    }
    let load = format!("{load_before} before, {} after", load_average());
    line("load average", &load);
    Ok(ExitCode::SUCCESS)
}

fn idle(name: &str, role: &Role, seconds: u64) -> Result<()> {
    // The last rows and states are on their way still.
    thread::sleep(Duration::from_secs(3));
    let before = role.usage()?.cpu;
    thread::sleep(Duration::from_secs(seconds));
    let share = (role.usage()?.cpu - before).as_secs_f64() / seconds as f64;
    line(
        &format!("{name}, idle"),
        &format!("{:.1} % of a core", share * 100.0),
    );
    Ok(())
}

fn used(usage: &Usage, events: u64) -> String {
    format!(
        "{:.2} CPU-seconds per million events, at most {} MiB",
        usage.cpu.as_secs_f64() * 1e6 / events as f64,
        usage.peak_memory_kib / 1024
    )
}

fn line(name: &str, value: &str) {
    println!("{name:<34}{value}");
}
