//! Clients that hold before they call, on the real parts, while sidecars are killed: no limit is passed
//! by more than what no hold could show, and no hold leaks. The seed is printed first.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use spendfuse_tests::Lab;
use spendfuse_tests::holds::{Options, run};
use spendfuse_tests::traffic::now;

/// Reserves and calls through two sidecars, kills them, and compares what is spent with the limits.
#[derive(Parser, Debug)]
#[command(after_help = "Example: holds --seed 7 --seconds 30 --clients 100")]
struct Arguments {
    /// Decides who asks for what and who is killed; any if not given
    #[arg(long)]
    seed: Option<u64>,
    /// How long clients call
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How many there are
    #[arg(long, default_value_t = 200)]
    clients: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let any = || now().0.unsigned_abs() % 1_000_000;
    let seed = arguments.seed.unwrap_or_else(any);
    eprintln!("seed {seed}");
    let outcome = run(
        &Lab::empty("holds"),
        Options {
            seed,
            length: Duration::from_secs(arguments.seconds),
            clients: arguments.clients,
        },
    );
    print!("{outcome}");
    match outcome.is_right() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(1),
    }
}
