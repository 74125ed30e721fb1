//! `spendfuse demo`: played by an executable of its own, so that nothing here draws.

use std::os::unix::process::CommandExt;
use std::process::Command;

use clap::{Args, ValueEnum};

use super::Failure;

/// Plays the demo.
const DEMO: &str = "spendfuse-demo";

// No doc comment: clap would show it instead of the command's own.
#[allow(missing_docs)]
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  spendfuse demo\n  spendfuse demo --headless\n  spendfuse demo --set kafka.brokers=kafka-1:9092 \\\n    --set clickhouse.url=http://clickhouse:8123\n\nWithout a configured Kafka a development stack is started for it (see `make demo`). With one, the\ndemo makes topics and a database of its own there and leaves them behind."
)]
pub struct DemoArgs {
    /// Draw nothing; print the summary as JSON
    #[arg(long, visible_alias = "json")]
    pub headless: bool,
    /// How much of the hour is replayed, percent
    #[arg(long, value_name = "PERCENT", default_value_t = 100,
          value_parser = clap::value_parser!(u32).range(1..=100))]
    pub scale: u32,
    /// Make the pipeline lose or double one event, to see that the check notices
    #[arg(long, hide = true, value_enum)]
    pub sabotage: Option<Fault>,
}

/// What the pipeline does to one event.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Fault {
    /// It is lost.
    Lose,
    /// It is counted twice.
    Double,
}

/// Becomes the demo's executable with this same command; comes back only where that fails.
pub fn hand_over() -> Failure {
    let (Ok(executable), arguments) = (std::env::current_exe(), std::env::args_os().skip(1)) else {
        return Failure::work("the system does not say where this program is");
    };
    let demo = executable.with_file_name(DEMO);
    if !demo.is_file() {
        return Failure::usage(format!(
            "the demo is an executable of its own, and it is not at {}; run `make demo` in the \
             repository, or build it with cargo build --release -p spendfuse-demo",
            demo.display()
        ));
    }
    let error = Command::new(&demo).args(arguments).exec();
    Failure::work(format!("cannot start {}: {error}", demo.display()))
}
