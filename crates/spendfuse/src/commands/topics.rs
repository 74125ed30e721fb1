//! `spendfuse topics create|check`.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;
use spendfuse_bus::Backoff;
use spendfuse_bus::topics::{self, TopicReport, TopicSpec};

use super::{Failure, found_wrong, kafka, output};
use crate::settings::Settings;

const PATIENCE: Duration = Duration::from_secs(10);
const ONE_LOOK: Duration = Duration::from_secs(5);
const PAUSES: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(10));

#[derive(Args, Debug)]
pub struct TopicsArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Create the topics that are missing; existing ones are checked, never changed
    #[command(
        after_help = "Example:\n  spendfuse topics create --set partitions=8 --set kafka.replication_factor=3"
    )]
    Create(OutputArgs),
    /// Compare the topics with what spendfuse needs; exit code 1 on a difference
    #[command(after_help = "Example:\n  spendfuse topics check")]
    Check(OutputArgs),
}

#[derive(Args, Debug)]
struct OutputArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(settings: &Settings, args: &TopicsArgs) -> Result<ExitCode, Failure> {
    let (report, output) = match &args.action {
        Action::Create(output) => (create(settings)?, output),
        Action::Check(output) => {
            let specs = specs(settings);
            let mismatches = topics::check(&settings.kafka(), &specs, PATIENCE);
            let mismatches = mismatches.map_err(|error| kafka::failure(settings, &error))?;
            let is_in_order =
                |name: &String| mismatches.iter().all(|mismatch| mismatch.topic != *name);
            let report = TopicReport {
                created: Vec::new(),
                unchanged: specs
                    .into_iter()
                    .map(|spec| spec.name)
                    .filter(is_in_order)
                    .collect(),
                mismatches,
            };
            (report, output)
        }
    };
    if output.json {
        print_json(&report);
    } else {
        print(&report);
    }
    Ok(match report.mismatches.is_empty() {
        true => ExitCode::SUCCESS,
        false => found_wrong(),
    })
}

/// Makes the topics that are missing, for `up`; a broker that is away is waited for.
pub fn create_missing(settings: &Settings) -> Result<(), Failure> {
    let mut backoff = PAUSES;
    loop {
        let specs = specs(settings);
        match topics::create(&settings.kafka(), &specs, replication(settings), ONE_LOOK) {
            Ok(report) => {
                for topic in &report.created {
                    tracing::info!(topic, "topic created");
                }
                return Ok(());
            }
            Err(error) if error.can_retry() => {
                tracing::warn!(error = %error, "waiting for Kafka");
                backoff.wait();
            }
            Err(error) => return Err(Failure::work(error)),
        }
    }
}

fn create(settings: &Settings) -> Result<TopicReport, Failure> {
    let specs = specs(settings);
    topics::create(&settings.kafka(), &specs, replication(settings), PATIENCE)
        .map_err(|error| kafka::failure(settings, &error))
}

/// What every topic must be.
pub fn specs(settings: &Settings) -> Vec<TopicSpec> {
    let (topics, horizon) = (settings.topics(), settings.dedupe_horizon_millis());
    spendfuse_processor::topics::specs(&topics, settings.partitions(), horizon)
}

/// `None` is the broker's default.
fn replication(settings: &Settings) -> Option<u16> {
    u16::try_from(settings.values.kafka.replication_factor).ok()
}

fn print(report: &TopicReport) {
    for topic in &report.created {
        output::line(format!("created    {topic}"));
    }
    for topic in &report.unchanged {
        output::line(format!("in order   {topic}"));
    }
    for mismatch in &report.mismatches {
        output::line(format!("different  {mismatch}"));
    }
}

fn print_json(report: &TopicReport) {
    let different = report.mismatches.iter().map(|mismatch| {
        json!({
            "topic": mismatch.topic, "setting": mismatch.setting,
            "expected": mismatch.expected, "found": mismatch.found,
        })
    });
    output::json(&json!({
        "created": report.created,
        "in_order": report.unchanged,
        "different": different.collect::<Vec<_>>(),
    }));
}
