//! Clients that hold before they call, on the real parts, while sidecars are killed: no limit is passed
//! by more than what no hold could show, and no hold leaks. The seed is printed first.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use spendfuse_broken::Break;
use spendfuse_tests::Lab;
use spendfuse_tests::holds::{Options, run};
use spendfuse_tests::lab::has_broken_executable;
use spendfuse_tests::traffic::now;

/// What reservations rest on.
const VARIANTS: [Break; 3] = [
    Break::PendingDroppedTooEarly,
    Break::RollbackForgotten,
    Break::NewcomerAdmitsAlone,
];

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
    /// Hold what calls cost and kill nobody: no limit may be passed at all
    #[arg(long)]
    exact: bool,
    /// Break one guarantee after the other on purpose, and show that the checks notice
    #[arg(long)]
    variants: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let any = || now().0.unsigned_abs() % 1_000_000;
    let options = Options {
        seed: arguments.seed.unwrap_or_else(any),
        length: Duration::from_secs(arguments.seconds),
        clients: arguments.clients,
        is_exact: arguments.exact,
    };
    eprintln!("seed {}", options.seed);
    let is_right = match arguments.variants {
        false => {
            let outcome = run(&Lab::empty("holds"), options);
            print!("{outcome}");
            outcome.is_right()
        }
        true => are_caught(options),
    };
    ExitCode::from(u8::from(!is_right))
}

fn are_caught(options: Options) -> bool {
    if !has_broken_executable() {
        return false;
    }
    let is_caught = VARIANTS.map(|broken| {
        let mut lab = Lab::empty(&format!("holds_{}", broken.name().replace('-', "_")));
        lab.break_on_purpose(broken);
        // A newcomer is one that was killed.
        let is_exact = broken != Break::NewcomerAdmitsAlone;
        let outcome = run(
            &lab,
            Options {
                is_exact,
                ..options
            },
        );
        let is_caught = !outcome.is_right();
        let verdict = if is_caught { "caught" } else { "NOT CAUGHT" };
        print!("{outcome}");
        println!("{verdict}  {}", broken.name());
        is_caught
    });
    is_caught.iter().all(|is_caught| *is_caught)
}
