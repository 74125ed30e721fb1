//! `make year`: years by seed, one after the other, and what was found in them.

#[cfg(feature = "broken")]
mod variants;

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;

/// Simulated years of an installation, with exact checks every day.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many years, each with a seed of its own.
    #[arg(long, default_value_t = 20)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Days of each year.
    #[arg(long, default_value_t = 365)]
    days: u32,
    /// Print how large every state was, each so many days, as comma-separated values.
    #[arg(long)]
    curve: Option<u32>,
    /// Break guarantees on purpose, one at a time: each must be noticed.
    #[cfg(feature = "broken")]
    #[arg(long)]
    variants: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    #[cfg(feature = "broken")]
    if arguments.variants {
        return variants::run(arguments.seed, arguments.days);
    }
    let mut failed = 0;
    for seed in arguments.seed..arguments.seed + arguments.seeds {
        let began = Instant::now();
        match spendfuse_year::live(seed, arguments.days) {
            Ok(year) => {
                println!(
                    "seed {seed}: {} days, {} calls counted, {} corrections, {} openings told, {} identities brought back, {} deaths, {} looks at the books, {} verdicts compared, {:.1} s",
                    year.days,
                    year.calls,
                    year.corrections,
                    year.openings,
                    year.recovered,
                    year.deaths,
                    year.looks,
                    year.verdicts,
                    began.elapsed().as_secs_f64()
                );
                if let Some(every) = arguments.curve {
                    println!("{}", year.growth.table(every));
                }
            }
            Err(trouble) => {
                failed += 1;
                println!(
                    "{trouble}\n  again: make year ARGS=\"--seed {seed} --seeds 1 --days {}\"",
                    trouble.day + 1
                );
            }
        }
    }
    println!(
        "{} of {} years went well",
        arguments.seeds - failed,
        arguments.seeds
    );
    ExitCode::from(u8::from(failed > 0))
}
