//! `spendfuse dlq list|replay`: events that were set aside, and their way back.

mod list;
mod records;
mod replay;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use spendfuse_bus::PartitionRange;
use spendfuse_domain::UnixMillis;
use spendfuse_domain::event::RejectReason;

use super::{Failure, audit, kafka, output};
use crate::settings::Settings;
use records::Part;

pub use records::{Place, set_aside};

#[derive(Args, Debug)]
pub struct DlqArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Show the events that wait in the DLQ: spend that no budget counts
    #[command(
        after_help = "Examples:\n  spendfuse dlq list\n  spendfuse dlq list --reason late --limit 0\n  spendfuse dlq list --since 2h\n  spendfuse dlq list --json | jq -r '.events[].value'\n\nOf a DLQ with hundreds of thousands of events only the latest are looked at, as far back as the\nanswer says, unless --since or --limit 0 asks for more."
    )]
    List(list::ListArgs),
    /// Send events to the usage topic again, each once
    #[command(
        after_help = "Examples:\n  spendfuse dlq replay --dry-run\n  spendfuse dlq replay --reason internal_error\n  spendfuse dlq replay --reason late --verify\n\nWhat was replayed is noted in the DLQ in the same transaction, so that a second replay does not\nsend it again. Events that would be rejected again stay where they are.\n\nWith --verify it waits until ClickHouse has what was counted. Events older than what ClickHouse\nkeeps (clickhouse.retention_months) stay in the DLQ."
    )]
    Replay(replay::ReplayArgs),
}

pub fn run(settings: &Settings, args: &DlqArgs) -> Result<ExitCode, Failure> {
    match &args.action {
        Action::List(args) => list::run(settings, args),
        Action::Replay(args) => replay::run(settings, args),
    }
}

/// Events that wait in the DLQ.
pub struct NotCounted {
    /// How many, by reason.
    pub by_reason: BTreeMap<String, u64>,
    /// When the first of them was set aside at the earliest; `None` where all are there.
    pub since: Option<UnixMillis>,
}

/// How many events wait in the DLQ: of all, or where it has more than can be looked at in passing of
/// the latest.
pub fn waiting_by_reason(settings: &Settings) -> Result<NotCounted, Failure> {
    let part = Part::lately(settings)?;
    let mut by_reason = BTreeMap::new();
    for event in records::read(settings, &part)? {
        if !event.is_settled {
            *by_reason.entry(event.reason).or_default() += 1;
        }
    }
    let since = part.since;
    Ok(NotCounted { by_reason, since })
}

/// How many of the events in `ranges` of the DLQ, which reach to its end, wait; `None` where that is
/// not known after `patience`.
pub fn waiting_in(
    settings: &Settings,
    ranges: &[PartitionRange],
    patience: Duration,
) -> Result<Option<u64>, Failure> {
    records::count_until(settings, ranges, Instant::now() + patience)
}

/// Reads `--reason`.
fn known_reason(text: &str) -> Result<String, String> {
    let known = RejectReason::from_name(text).map(|reason| reason.name().to_owned());
    known.ok_or_else(|| {
        let names: Vec<&str> = RejectReason::ALL.iter().map(|one| one.name()).collect();
        format!("use one of {}", names.join(", "))
    })
}
