//! `spendfuse topics create|check|new-epoch`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use serde_json::json;
use spendfuse_bus::Backoff;
use spendfuse_bus::topics::{self, Mismatch, TopicReport, TopicSpec};
use spendfuse_domain::Installation;
use spendfuse_domain::installation::NEWEST_FORMAT;
use spendfuse_warehouse::TopicSet;

use super::warehouse::Connection;
use super::{Failure, found_wrong, kafka, output};
use crate::installation::{self, Known, Unknown};
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
    /// Begin the next epoch with topics that were made anew
    #[command(
        name = "new-epoch",
        after_help = "Example:\n  spendfuse topics new-epoch\n\nFor topics that were deleted and made anew, or a second set of topics on one ClickHouse database. Rows keep the addresses of the epoch that they were counted in."
    )]
    NewEpoch(OutputArgs),
}

#[derive(Args, Debug)]
struct OutputArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(settings: &Settings, args: &TopicsArgs) -> Result<ExitCode, Failure> {
    let (mut report, output) = match &args.action {
        Action::NewEpoch(output) => return new_epoch(settings, output),
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
    let known = looked(settings)?;
    let made_anew = made_anew(&known);
    report
        .unchanged
        .retain(|name| made_anew.iter().all(|wrong| wrong.topic != *name));
    report.mismatches.extend(made_anew);
    if output.json {
        print_json(&report, &known.installation);
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
                return record_first(settings);
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
    let report = topics::create(&settings.kafka(), &specs, replication(settings), PATIENCE)
        .map_err(|error| kafka::failure(settings, &error))?;
    record_first(settings)?;
    Ok(report)
}

/// What is recorded about the topics, and their ids.
pub fn looked(settings: &Settings) -> Result<Known, Failure> {
    installation::look(settings).map_err(|error| unknown(settings, error))
}

fn unknown(settings: &Settings, error: Unknown) -> Failure {
    match error {
        Unknown::Bus(error) => kafka::failure(settings, &error),
        error => Failure::work(error),
    }
}

/// Records the topics where nothing is recorded. A topic that was made a moment ago may have no leader
/// yet that knows of it: it is asked again.
fn record_first(settings: &Settings) -> Result<(), Failure> {
    let (deadline, mut backoff) = (Instant::now() + PATIENCE, PAUSES);
    loop {
        match record_once(settings) {
            Err(Unknown::Bus(error)) if error.can_retry() && Instant::now() < deadline => {
                backoff.wait();
            }
            recorded => return recorded.map_err(|error| unknown(settings, error)),
        }
    }
}

/// Topics in which nothing was counted yet are those of a new installation: no older program has a
/// part in it, and the warehouse may know earlier epochs. Where only the record of others was lost, their
/// rows say what it said.
fn record_once(settings: &Settings) -> Result<(), Unknown> {
    let known = installation::look(settings)?;
    if known.installation.topics.is_some() {
        return Ok(());
    }
    let (epoch, format) = match installation::is_new(settings)? {
        true => (first_epoch(settings), Some(NEWEST_FORMAT)),
        false => match installation::epoch_of_rows(settings)? {
            Some(epoch) => (epoch, Some(NEWEST_FORMAT)),
            None => (0, None),
        },
    };
    installation::record(settings, &known, epoch, format)?;
    tracing::info!(epoch, "topics recorded");
    Ok(())
}

/// The first epoch that the warehouse does not know. Where it does not answer it may not exist yet, so
/// topics are made all the same, and the operator is told what to see to.
fn first_epoch(settings: &Settings) -> u32 {
    let next = Connection::open(settings)
        .and_then(|connection| connection.wait(connection.warehouse.next_epoch()));
    next.unwrap_or_else(|_| {
        output::warning(
            "ClickHouse does not answer, so the topics are recorded as epoch 0: if its database has \
             rows of other topics, run `spendfuse topics new-epoch` before anything is counted",
        );
        0
    })
}

/// Topics that are not those of the recorded epoch.
fn made_anew(known: &Known) -> Vec<Mismatch> {
    let epoch = known.installation.epoch();
    let strangers = known.installation.strangers(&known.ids).into_iter();
    strangers
        .filter(|name| known.ids.contains_key(name))
        .map(|topic| Mismatch {
            topic,
            setting: "id".to_owned(),
            expected: format!("that of epoch {epoch}"),
            found: "that of a topic made anew (see `spendfuse topics new-epoch`)".to_owned(),
        })
        .collect()
}

fn new_epoch(settings: &Settings, args: &OutputArgs) -> Result<ExitCode, Failure> {
    let known = looked(settings)?;
    let installation = &known.installation;
    let strangers = installation.strangers(&known.ids);
    if strangers.iter().any(|name| !known.ids.contains_key(name)) {
        return Err(Failure::work(known.complaint().unwrap_or_default()));
    }
    let connection = Connection::open(settings)?;
    let rows = topic_set(settings, &known);
    let taken = connection.warehouse.epoch_is_taken(&rows);
    let taken = connection.wait(taken)?;
    let is_due = !strangers.is_empty() || taken || installation.topics.is_none();
    let mut epoch = installation.epoch();
    if is_due {
        if !installation.is_finalized() {
            return Err(Failure::work(
                "rows that name their epoch are written only after `spendfuse finalize --yes`: run that first",
            ));
        }
        epoch = connection
            .wait(connection.warehouse.next_epoch())?
            .max(epoch + 1);
        installation::record(settings, &known, epoch, None)
            .map_err(|error| kafka::failure(settings, &error))?;
    }
    if args.json {
        output::json(&json!({"epoch": epoch, "changed": is_due, "made_anew": strangers}));
    } else {
        let what = if is_due { "recorded  " } else { "in order  " };
        output::line(format!("{what} epoch {epoch}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// The topics of rows, by which a warehouse knows an epoch again.
pub fn topic_set(settings: &Settings, known: &Known) -> TopicSet {
    let topics = settings.topics();
    let id = |name: &String| known.ids.get(name).cloned().unwrap_or_default();
    TopicSet {
        epoch: known.installation.epoch(),
        rows: id(&topics.rows),
        ledger_rows: id(&topics.rows_ledger),
    }
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

fn print_json(report: &TopicReport, installation: &Installation) {
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
        "epoch": installation.epoch(),
        "format": installation.format,
    }));
}
