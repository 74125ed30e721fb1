//! `make bench`: the table of ratios. Every figure stands next to what it is compared with, and
//! both are measured in one sitting, on real servers, with the real binary.
//!
//! Rows are independent: one that cannot be measured says why, and the others go on. Totals of
//! everything that counts money must be exact, or the row fails.

// A benchmark paces itself: its pauses are the point.
#![allow(clippy::disallowed_methods)]

mod alerts;
mod bare;
mod callers;
mod churn;
mod client;
mod corrections;
mod features;
mod guard;
mod lag;
mod litellm;
mod loader;
mod memory;
mod openings;
mod overspend;
mod parts;
mod peers;
mod pipeline;
mod proxy;
mod python;
mod recovery;
mod redis;
mod refresh;
mod runs;
mod scaling;
mod sidecar;
mod sitting;
mod sizing;
mod stub;
mod table;
mod through;
mod waits;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use spendfuse_benches::process::load_average;

use sitting::Sitting;
use table::Line;

/// As in the product: memory figures depend on it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures spendfuse next to what it is compared with, and prints a table of ratios.
#[derive(Parser, Debug)]
#[command(after_help = "Example: ratios --only pipeline,peers --quick")]
struct Options {
    /// Only these rows, by commas: pipeline, peers, lag, alerts, guard, refresh, sidecar, proxy, overspend, loader, memory, scaling, recovery, corrections, openings, churn, sizing
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Fewer events and shorter times: to try it out, not to quote
    #[arg(long)]
    quick: bool,
    /// The lines as JSON
    #[arg(long)]
    json: bool,
    /// Events in the backlog of the rows pipeline, peers and loader
    #[arg(long)]
    events: Option<u64>,
    /// Sessions, ids and customers in state for the row recovery, scopes for the row openings, each by
    /// commas
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 100_000, 1_000_000])]
    sizes: Vec<u64>,
    /// Overrides a setting of the measured processes
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    #[command(subcommand)]
    part: Option<Part>,
}

/// What runs in a process of its own, so that its processor time and memory can be told apart.
#[derive(Subcommand, Debug)]
enum Part {
    /// Consumes and parses a topic, nothing else
    #[command(hide = true)]
    Bare(bare::Options),
    /// Fills a piece of state and prints what it takes
    #[command(hide = true)]
    Fill(memory::Options),
}

/// A measurement: its name, and how it is made.
type Row = (&'static str, fn(&mut Sitting) -> Result<Vec<Line>>);

const ROWS: [Row; 17] = [
    ("pipeline", pipeline::measure),
    ("peers", peers::measure),
    ("loader", loader::measure),
    ("lag", lag::measure),
    ("alerts", alerts::measure),
    ("guard", guard::measure),
    ("refresh", refresh::measure),
    ("sidecar", sidecar::measure),
    ("proxy", proxy::measure),
    ("overspend", overspend::measure),
    ("memory", memory::measure),
    ("scaling", scaling::measure),
    ("recovery", recovery::measure),
    ("corrections", corrections::measure),
    ("openings", openings::measure),
    ("churn", churn::measure),
    ("sizing", sizing::measure),
];

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    match &options.part {
        Some(Part::Bare(part)) => return bare::run(part),
        Some(Part::Fill(part)) => return memory::fill(part),
        None => {}
    }
    for wanted in &options.only {
        if !ROWS.iter().any(|(name, _)| name == wanted) {
            let names: Vec<&str> = ROWS.iter().map(|(name, _)| *name).collect();
            bail!(
                "no row is called `{wanted}`; there are {}",
                names.join(", ")
            );
        }
    }
    let is_wanted =
        |name: &str| options.only.is_empty() || options.only.iter().any(|wanted| wanted == name);
    let load_before = load_average();
    let began = Instant::now();
    let mut sitting = Sitting::start(options.quick, options.events, options.set.clone())?;
    sitting.sizes.clone_from(&options.sizes);
    let mut lines = Vec::new();
    for (name, measure) in ROWS.iter().filter(|(name, _)| is_wanted(name)) {
        let row_began = Instant::now();
        eprintln!("{name} …");
        let measured = match measure(&mut sitting) {
            Ok(measured) => measured,
            Err(why) => vec![Line::failed(name, *name, &why)],
        };
        // The table comes at the end; what is known by then should not be lost with an interrupt.
        for line in &measured {
            eprintln!("  {}: {} | {}", line.what, line.ours, line.against);
        }
        lines.extend(measured);
        eprintln!("{name}: {:.0} s", row_began.elapsed().as_secs_f64());
    }
    drop(sitting);
    if options.json {
        println!("{}", serde_json::to_string_pretty(&lines)?);
    } else {
        println!("{}", table::as_text(&lines));
    }
    eprintln!(
        "measured in {:.0} s; load average {load_before} before, {} after",
        began.elapsed().as_secs_f64(),
        load_average()
    );
    // A target that is not met is a result; a row without figures is a failure.
    let unmeasured = lines.iter().any(|line| line.ours == "-");
    Ok(ExitCode::from(u8::from(unmeasured)))
}
