//! Faults against the real system: real Kafka, real ClickHouse and the real executable, killed,
//! stopped, cut off and lied to at random for minutes, under load. Afterwards everything must agree
//! to the nano-dollar. The seed decides what happens when; it is printed first.

mod actor;
mod behind;
mod budgets;
mod changes;
mod check;
mod clock;
mod events;
mod fault;
mod http;
mod ledger;
mod levers;
mod logs;
mod operator;
mod order;
mod proxied;
mod quiet;
mod report;
mod retention;
mod rows;
mod run;
mod schedule;
mod sender;
mod system;
mod tape;
mod timeline;
mod variants;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use spendfuse_broken::Break;
use spendfuse_tests::lab::{broken_executable, spendfuse};
use spendfuse_tests::traffic::now;

use run::{Outcome, RunOptions};
use variants::Verdict;

/// Injects faults into the real system and checks that nothing is lost or counted twice.
#[derive(Parser, Debug)]
#[command(after_help = "Example: chaos --seed 7 --seconds 90")]
struct Options {
    /// Decides which faults happen when; any if not given
    #[arg(long)]
    seed: Option<u64>,
    /// How long faults happen
    #[arg(long, default_value_t = 420)]
    seconds: u64,
    /// Nodes of Kafka: 1, or 3 with replication 3 and min.insync.replicas 2
    #[arg(long, default_value_t = 1, value_parser = node_count)]
    nodes: u16,
    /// Break each guarantee on purpose instead, and show that the checks notice; a name breaks one
    #[arg(long, value_name = "NAME", num_args = 0.., value_parser = broken)]
    variants: Option<Vec<Break>>,
    /// With --variants: break nothing, so that nothing may be noticed
    #[arg(long, requires = "variants")]
    control: bool,
    /// The previous release's executable, which takes turns with the present one in every role
    #[arg(long, value_name = "FILE", conflicts_with = "variants")]
    previous: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    /// Keep data and logs in this folder, also where all is right
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
}

fn node_count(text: &str) -> Result<u16, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        _ => Err("write 1 or 3".to_owned()),
    }
}

fn broken(name: &str) -> Result<Break, String> {
    Break::named(name).ok_or_else(|| {
        let names = Break::ALL.map(Break::name);
        format!("one of {}", names.join(", "))
    })
}

fn main() -> ExitCode {
    run_as_told(Options::parse()).unwrap_or_else(|error| {
        // Without the backtrace, which would push the rest of the report off the screen.
        eprintln!("error: {error:#}");
        ExitCode::from(2)
    })
}

fn run_as_told(options: Options) -> Result<ExitCode> {
    let seed = options
        .seed
        .unwrap_or_else(|| now().0.unsigned_abs() % 1_000_000);
    eprintln!("seed {seed}");
    let folder = Folder::new(options.keep)?;
    if let Some(wanted) = options.variants {
        let verdicts = variants::run(
            &broken_executable(),
            &folder.path,
            seed,
            &wanted,
            options.control,
        )?;
        let right = verdicts.iter().all(Verdict::is_right);
        if options.json {
            let verdicts: Vec<_> = verdicts.iter().map(Verdict::json).collect();
            println!("{:#}", serde_json::Value::from(verdicts));
        } else {
            verdicts
                .iter()
                .for_each(|verdict| println!("{}", verdict.line()));
        }
        return Ok(exit_code(right));
    }
    let run_options = RunOptions {
        seed,
        length: Duration::from_secs(options.seconds),
        nodes: options.nodes,
        program: spendfuse(),
        previous: options.previous,
        folder: folder.path.clone(),
    };
    let outcome = run::run(&run_options);
    if !outcome.as_ref().is_ok_and(Outcome::is_right) {
        eprintln!("data and logs are kept in {}", folder.keep().display());
    }
    let outcome = outcome?;
    if options.json {
        println!("{:#}", report::json(&run_options, &outcome));
    } else {
        println!("{}", report::text(&run_options, &outcome));
    }
    Ok(exit_code(outcome.is_right()))
}

fn exit_code(is_right: bool) -> ExitCode {
    if is_right {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    }
}

/// Data and logs of a run.
struct Folder {
    path: PathBuf,
    temporary: Option<tempfile::TempDir>,
}

impl Folder {
    fn new(kept: Option<PathBuf>) -> Result<Self> {
        if let Some(path) = kept {
            std::fs::create_dir_all(&path)?;
            let path = path.canonicalize()?;
            return Ok(Self {
                path,
                temporary: None,
            });
        }
        let temporary = tempfile::Builder::new()
            .prefix("spendfuse-chaos-")
            .tempdir()?;
        Ok(Self {
            path: temporary.path().to_owned(),
            temporary: Some(temporary),
        })
    }

    /// Leaves it where it is.
    fn keep(self) -> PathBuf {
        if let Some(temporary) = self.temporary {
            return temporary.keep();
        }
        self.path
    }
}
