//! The `spendfuse` command: every role and every tool in one binary.
//!
//! It only wires: settings come from [`settings`], what a command does stands in [`commands`], and
//! the work is done by the crates below. The demo, which runs all roles in its own process, is
//! another executable around the same [`main`] (crate `demo`).

mod admin;
mod commands;
#[cfg(test)]
mod documented;
mod installation;
#[cfg(test)]
mod layers;
mod loader_alerts;
mod logging;
mod metrics;
mod open_files;
mod roles;
mod settings;
mod sidecar_client;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use settings::{ProcessEnvironment, name_instance, resolve, unknown_variables};

pub use commands::demo::{DemoArgs, Fault};
pub use commands::migrate::prepare_database;
pub use commands::topics::create_missing as create_missing_topics;
pub use commands::{Failure, found_wrong, output};
pub use metrics::{MetricsHandle, install as install_metrics};
pub use roles::{OnFailure, Role, RunningRoles, Watched, start, wait_for_signal, watched};
pub use settings::{Resolved, ResolvedSettings, Settings, SettingsError, Source};

/// Plays the demo.
pub type Play = fn(&Settings, &DemoArgs) -> Result<ExitCode, Failure>;

/// Keeps AI spend under control: meters usage events, enforces budgets, finds runaway sessions.
#[derive(Parser, Debug)]
#[command(
    name = "spendfuse",
    version,
    propagate_version = true,
    max_term_width = 100
)]
struct CommandLine {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args, Debug)]
struct Common {
    /// Configuration file; without it spendfuse.toml is read if it is there
    #[arg(long, global = true, value_name = "FILE", help_heading = "Settings")]
    config: Option<PathBuf>,
    /// Overrides a setting, such as --set kafka.brokers=kafka-1:9092 (see `spendfuse config`)
    #[arg(
        long,
        global = true,
        value_name = "KEY=VALUE",
        help_heading = "Settings"
    )]
    set: Vec<String>,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run all roles but the proxy in one process
    #[command(after_help = "Example:\n  spendfuse up --set kafka.brokers=kafka-1:9092")]
    Up,
    /// Run the processor: count events, add up budgets, publish verdicts
    #[command(after_help = "Example:\n  spendfuse processor --set instance_id=processor-2")]
    Processor,
    /// Run the loader: bring counted rows into ClickHouse
    #[command(
        after_help = "Example:\n  spendfuse loader --set clickhouse.url=http://clickhouse:8123"
    )]
    Loader,
    /// Run a sidecar: answer checks from memory, take usage events
    #[command(
        after_help = "Example:\n  spendfuse sidecar --set sidecar.socket=/run/spendfuse.sock --set sidecar.spool_dir=/var/spool/spendfuse"
    )]
    Sidecar,
    /// Run a proxy: guard and meter any client of OpenAI, Anthropic, Gemini, Azure or Bedrock by its base URL
    #[command(
        after_help = "Example:\n  spendfuse proxy\n  OPENAI_BASE_URL=http://127.0.0.1:4119/openai/v1 python app.py"
    )]
    Proxy,
    /// Run the notifier: bring alerts to people, by Slack, webhook, mail and others
    #[command(
        after_help = "Example:\n  spendfuse notifier --set notifier.channels.ops.kind=slack --set notifier.routes.all.to=ops\n\nThe channel's address comes from SPENDFUSE_NOTIFIER_CHANNELS_OPS_URL_FILE, for it is a secret."
    )]
    Notifier,
    /// Replay an hour of real traffic through real parts, live on screen, checked at the end
    Demo(commands::demo::DemoArgs),
    /// Create or update the tables in ClickHouse
    Migrate(commands::migrate::MigrateArgs),
    /// Budgets: check a file, put it into force, see what is spent
    Budgets(commands::budgets::BudgetsArgs),
    /// Decide whether a call may go ahead, as a sidecar would
    Check(commands::check::CheckArgs),
    /// Send events from a file to the usage topic
    Ingest(commands::ingest::IngestArgs),
    /// Prices: import, show, compare and change them, cost a call
    Prices(commands::prices::PricesArgs),
    /// Findings of the detectors
    Findings(commands::findings::FindingsArgs),
    /// Alerts, and what became of telling people; try out a channel, tell again, mute
    Alerts(commands::alerts::AlertsArgs),
    /// Entries that should not stand as they were counted: void them, amend them
    Correct(commands::correct::CorrectArgs),
    /// Price entries again that were counted at a wrong price, or at none
    Rerate(commands::rerate::RerateArgs),
    /// Events that could not be counted, and their way back
    Dlq(commands::dlq::DlqArgs),
    /// Compare input, ledger, warehouse and blocklist; every difference with its commit
    Audit(commands::audit::AuditArgs),
    /// What was lost before it was counted or loaded, and its acceptance
    Gaps(commands::gaps::GapsArgs),
    /// ClickHouse after its disk was lost: load again what Kafka still has
    Warehouse(commands::rebuild::WarehouseArgs),
    /// After Kafka was lost, or for more partitions: a new set of topics learns from ClickHouse what
    /// was counted before
    Recover(commands::recover::RecoverArgs),
    /// Look at everything that spendfuse stands on; exit code 1 on what will hurt within a week
    Doctor(commands::doctor::DoctorArgs),
    /// Fingerprint of a prompt or tool call, as apps send it instead of the text
    Fingerprint(commands::fingerprint::FingerprintArgs),
    /// Keys of sidecar and proxy: who may ask, and whom it counts against
    Keys(commands::keys::KeysArgs),
    /// Create the topics with the right settings, or check them
    Topics(commands::topics::TopicsArgs),
    /// After an upgrade of every process: store records as only this release reads them
    Finalize(commands::finalize::FinalizeArgs),
    /// Take budgets, upstreams and keys over from another proxy's configuration
    Import(commands::import::ImportArgs),
    /// Check a configuration before anything is started by it
    ValidateConfig(commands::validate_config::ValidateConfigArgs),
    /// Show the configuration in force and where each value came from
    Config(commands::config::ConfigArgs),
}

impl Command {
    /// Its part of the process's name.
    fn name(&self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Processor => "processor",
            Self::Loader => "loader",
            Self::Sidecar => "sidecar",
            Self::Proxy => "proxy",
            Self::Notifier => "notifier",
            Self::Demo(_) => "demo",
            // Commands are no members of a group.
            _ => "command",
        }
    }

    /// Whether it runs until it is stopped, so that its log is what people watch.
    fn is_service(&self) -> bool {
        matches!(
            self,
            Self::Up
                | Self::Processor
                | Self::Loader
                | Self::Sidecar
                | Self::Proxy
                | Self::Notifier
        )
    }
}

/// Carries out the command line of this process. Without `play`, `demo` is handed over to the
/// executable that has it.
pub fn main(play: Option<Play>) -> ExitCode {
    if asks_for_json() {
        commands::speak_json();
    }
    let line = match CommandLine::try_parse() {
        Ok(line) => line,
        Err(error) => return commands::misused(&error),
    };
    match run(line, play) {
        Ok(code) => code,
        Err(failure) => {
            failure.tell();
            failure.exit_code()
        }
    }
}

/// Looked up before the arguments are read: what is wrong with them is told as JSON, too.
fn asks_for_json() -> bool {
    let mut arguments = std::env::args_os().take_while(|argument| argument != "--");
    arguments.any(|argument| argument == "--json")
}

fn run(line: CommandLine, play: Option<Play>) -> Result<ExitCode, Failure> {
    let mut resolved = resolve(
        line.common.config.as_deref(),
        &ProcessEnvironment,
        &line.common.set,
    )
    .map_err(|error| Failure::settings(&error))?;
    name_instance(&mut resolved, line.command.name());
    let settings = Settings::new(resolved).map_err(|error| Failure::settings(&error))?;
    let is_service = line.command.is_service();
    logging::start(&settings, is_service).map_err(|error| Failure::settings(&error))?;
    if is_service && settings.values.log.format == "json" {
        // Why a role gave up is the last line of its log.
        commands::speak_json();
    }
    let is_handed_over = play.is_none() && matches!(line.command, Command::Demo(_));
    if !is_handed_over {
        commands::warn_of(&unknown_variables(&ProcessEnvironment), is_service);
    }
    match line.command {
        Command::Up => roles::up(&settings),
        Command::Processor => roles::run(&settings, roles::Role::Processor),
        Command::Loader => roles::run(&settings, roles::Role::Loader),
        Command::Sidecar => roles::run(&settings, roles::Role::Sidecar),
        Command::Proxy => roles::run(&settings, roles::Role::Proxy),
        Command::Notifier => roles::run(&settings, roles::Role::Notifier),
        Command::Demo(args) => match play {
            Some(play) => play(&settings, &args),
            None => Err(commands::demo::hand_over()),
        },
        Command::Migrate(args) => commands::migrate::run(&settings, &args),
        Command::Budgets(args) => commands::budgets::run(&settings, &args),
        Command::Check(args) => commands::check::run(&settings, &args),
        Command::Ingest(args) => commands::ingest::run(&settings, &args),
        Command::Prices(args) => commands::prices::run(&settings, &args),
        Command::Findings(args) => commands::findings::run(&settings, &args),
        Command::Alerts(args) => commands::alerts::run(&settings, &args),
        Command::Correct(args) => commands::correct::run(&settings, &args),
        Command::Rerate(args) => commands::rerate::run(&settings, &args),
        Command::Dlq(args) => commands::dlq::run(&settings, &args),
        Command::Audit(args) => commands::audit::run(&settings, &args),
        Command::Gaps(args) => commands::gaps::run(&settings, &args),
        Command::Warehouse(args) => commands::rebuild::run(&settings, &args),
        Command::Recover(args) => commands::recover::run(&settings, &args),
        Command::Doctor(args) => commands::doctor::run(&settings, &args),
        Command::Fingerprint(args) => commands::fingerprint::run(&settings, &args),
        Command::Keys(args) => commands::keys::run(&settings, &args),
        Command::Topics(args) => commands::topics::run(&settings, &args),
        Command::Finalize(args) => commands::finalize::run(&settings, &args),
        Command::Import(args) => commands::import::run(&args),
        Command::ValidateConfig(args) => commands::validate_config::run(&settings, &args),
        Command::Config(args) => commands::config::run(&settings, &args),
    }
}
