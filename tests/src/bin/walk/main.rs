//! `make walk`: what a newcomer does in the first minutes, as the pages print it.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use spendfuse_tests::walk::{Place, Ports, walk};

/// Copies the sources, runs the commands of README's first screens and of the wrong turns in order,
/// compares their answers, and prints how long the first event and the first refusal took.
#[derive(Debug, Parser)]
struct CommandLine {
    /// The repository
    #[arg(long, default_value = ".")]
    root: PathBuf,
    /// Not the ports that the pages name: any free ones
    #[arg(long)]
    free_ports: bool,
}

fn main() -> ExitCode {
    let line = CommandLine::parse();
    let ports = match line.free_ports {
        true => Ports::Free,
        false => Ports::Usual,
    };
    let walked = line
        .root
        .canonicalize()
        .and_then(|root| Place::copy_of(&root, ports))
        .map_err(|error| error.to_string())
        .and_then(|place| walk(&place));
    match walked {
        Ok(walked) => {
            println!("{} snippets print what their pages say", walked.snippets);
            let minutes = |taken: std::time::Duration| taken.as_secs_f64() / 60.0;
            println!("minutes to first event: {:.2}", minutes(walked.first_event));
            println!(
                "minutes to first refusal: {:.2}",
                minutes(walked.first_refusal)
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("walk: {error}");
            ExitCode::FAILURE
        }
    }
}
