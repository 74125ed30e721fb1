//! `spendfuse topics create|check`.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use spendfuse_bus::topics::{self, TopicReport};

use super::{Failure, found_wrong};
use crate::settings::Settings;

const PATIENCE: Duration = Duration::from_secs(30);

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
    Create,
    /// Compare the topics with what spendfuse needs; exit code 1 on a difference
    #[command(after_help = "Example:\n  spendfuse topics check")]
    Check,
}

pub fn run(settings: &Settings, args: &TopicsArgs) -> Result<ExitCode, Failure> {
    let horizon = settings.dedupe_horizon_millis().map_err(Failure::usage)?;
    let partitions = settings.partitions().map_err(Failure::usage)?;
    let specs = settings.topics().specs(partitions, horizon);
    let kafka = settings.kafka();
    let report = match args.action {
        Action::Create => {
            let replication: i32 = settings
                .number("kafka.replication_factor")
                .map_err(Failure::usage)?;
            let replication = u16::try_from(replication).ok();
            topics::create(&kafka, &specs, replication, PATIENCE)
        }
        Action::Check => topics::check(&kafka, &specs, PATIENCE).map(|mismatches| TopicReport {
            mismatches,
            ..TopicReport::default()
        }),
    };
    Ok(print(&report.map_err(Failure::work)?))
}

fn print(report: &TopicReport) -> ExitCode {
    for topic in &report.created {
        println!("created    {topic}");
    }
    for topic in &report.unchanged {
        println!("in order   {topic}");
    }
    for mismatch in &report.mismatches {
        println!("different  {mismatch}");
    }
    if report.mismatches.is_empty() {
        ExitCode::SUCCESS
    } else {
        found_wrong()
    }
}
