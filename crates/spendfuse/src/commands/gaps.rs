//! `spendfuse gaps list|accept`: what was lost before it was counted or loaded.
//!
//! Open gaps are seen in Kafka: a group has committed an offset that its topic does not have any more.
//! Accepting one is recorded in ClickHouse first, for ever, and told to the stopped partition then; a
//! command that is killed in between is given again.

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use serde_json::json;
use spendfuse_bus::{
    AcceptedGap, AcceptedGaps, BusError, OpenGap, committed_offsets, open_gaps, topic_ranges,
};
use spendfuse_domain::{Topics, UnixMillis};
use spendfuse_warehouse::gaps::GapRow;

use super::output::{self, Side, grouped, print_table, table};
use super::warehouse::Connection;
use super::{Failure, found_wrong, kafka};
use crate::settings::Settings;

/// A loader that goes on moves its offset within this time beyond what it gathers, also past ends of
/// transactions alone.
const MOVES_WITHIN: Duration = Duration::from_secs(6);
const LOOK_EVERY: Duration = Duration::from_millis(500);

#[derive(Args, Debug)]
pub struct GapsArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Show what is lost and stops partitions, and what was ever accepted; exit code 1 where
    /// something is lost
    #[command(after_help = "Example:\n  spendfuse gaps list --json | jq '.open[]'")]
    List(OutputArgs),
    /// Let a stopped partition go on behind what is lost; recorded for ever
    #[command(
        after_help = "Examples:\n  spendfuse gaps accept --topic spendfuse.usage --partition 3\n  spendfuse gaps accept --topic spendfuse.rows --partition 0 --to 1042\n\nThe sentence that a stopped partition gives names topic, partition and, where it is needed, --to.\nWhere nothing is lost nothing is accepted, but of a rows topic what the loader's sentence names by\n--to, while its offset stands still."
    )]
    Accept(AcceptArgs),
}

#[derive(Args, Debug)]
struct OutputArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct AcceptArgs {
    /// The topic, with its prefix
    #[arg(long, value_name = "TOPIC")]
    topic: String,
    /// The partition
    #[arg(long, value_name = "NUMBER")]
    partition: u32,
    /// The offset to go on at; without it, where the topic begins
    #[arg(long, value_name = "OFFSET")]
    to: Option<i64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(settings: &Settings, args: &GapsArgs) -> Result<ExitCode, Failure> {
    match &args.action {
        Action::List(output) => list(settings, output.json),
        Action::Accept(args) => accept(settings, args),
    }
}

/// The topics that somebody reads on from where it left off, by group.
pub fn inputs(settings: &Settings) -> Vec<(String, String)> {
    inputs_of(settings.topics(), &settings.values.transactional_id_prefix)
}

fn inputs_of(topics: Topics, id_prefix: &str) -> Vec<(String, String)> {
    let group = |stage: &str| format!("{id_prefix}-{stage}");
    [
        (topics.usage, "meter"),
        (topics.rerouted, "meter"),
        (topics.corrections, "meter"),
        (topics.deltas, "ledger"),
        (topics.rows, "loader"),
        (topics.rows_ledger, "loader"),
        (topics.alerts, "notifier"),
        (topics.findings, "notifier"),
        (topics.notifier_requests, "notifier"),
    ]
    .map(|(topic, stage)| (topic, group(stage)))
    .into()
}

fn list(settings: &Settings, as_json: bool) -> Result<ExitCode, Failure> {
    let mut open = Vec::new();
    for (topic, group) in inputs(settings) {
        match open_gaps(&settings.kafka(), &group, &topic, kafka::PATIENCE) {
            Ok(gaps) => open.extend(gaps),
            Err(BusError::TopicMissing { topic }) if may_lack(settings, &topic) => {}
            Err(error) => return Err(kafka::failure(settings, &error)),
        }
    }
    let accepted = Connection::open(settings)
        .and_then(|connection| connection.wait(connection.warehouse.gaps()));
    let known = accepted.as_deref().ok();
    match as_json {
        true => output::json(&json!({
            "open": open.iter().map(open_json).collect::<Vec<_>>(),
            "accepted": known.map(|gaps| gaps.iter().map(gap_json).collect::<Vec<_>>()),
        })),
        // What stops partitions is known to Kafka alone.
        false => match (known, open.is_empty()) {
            (None, true) => output::line("nothing is lost now; what was accepted is not known"),
            (known, _) => print(&open, known.unwrap_or_default()),
        },
    }
    accepted?;
    Ok(match open.is_empty() {
        true => ExitCode::SUCCESS,
        false => found_wrong(),
    })
}

/// Whether an installation of an older release has no such topic.
pub fn may_lack(settings: &Settings, topic: &str) -> bool {
    let topics = settings.topics();
    let younger = [topics.corrections, topics.notifier_requests];
    younger.iter().any(|known| known == topic)
}

fn accept(settings: &Settings, args: &AcceptArgs) -> Result<ExitCode, Failure> {
    let gap = wanted(settings, args)?;
    let connection = Connection::open(settings)?;
    connection.wait(connection.warehouse.record_gap(&gap))?;
    let GapRow {
        group,
        topic,
        partition,
        from,
        to,
        ..
    } = &gap;
    let told = AcceptedGaps::open(&settings.kafka(), group).and_then(|gaps| {
        let (from, to) = (*from, *to);
        let told = gaps.accept(topic, *partition, AcceptedGap { from, to });
        gaps.close();
        told
    });
    told.map_err(|error| kafka::failure(settings, &error))?;
    match args.json {
        true => output::json(&gap_json(&gap)),
        false if to > from => output::line(format!(
            "accepted   {topic} partition {partition} goes on at offset {to}; what was lost from {from} on is recorded"
        )),
        false => output::line(format!(
            "accepted   {topic} partition {partition} goes on at offset {to}; recorded, with {from}, where its group was"
        )),
    }
    Ok(ExitCode::SUCCESS)
}

fn wanted(settings: &Settings, args: &AcceptArgs) -> Result<GapRow, Failure> {
    let (topic, partition) = (&args.topic, args.partition);
    let known = inputs(settings)
        .into_iter()
        .find(|(known, _)| known == topic);
    let Some((_, group)) = known else {
        let names: Vec<String> = inputs(settings).into_iter().map(|(name, _)| name).collect();
        return Err(Failure::usage(format!(
            "--topic {topic}: nobody goes on in it; name one of {}",
            names.join(", ")
        )));
    };
    let place = partition as usize;
    let failed = |error| kafka::failure(settings, &error);
    let committed =
        committed_offsets(&settings.kafka(), &group, topic, kafka::PATIENCE).map_err(failed)?;
    let ranges = topic_ranges(&settings.kafka(), topic, None, kafka::PATIENCE).map_err(failed)?;
    let (Some(committed), Some(range)) = (committed.get(place), ranges.get(place)) else {
        return Err(Failure::usage(format!(
            "--partition {partition}: {topic} has {} partitions",
            ranges.len()
        )));
    };
    let from = committed.unwrap_or(0);
    let is_loaded = [settings.topics().rows, settings.topics().rows_ledger].contains(topic);
    let to = goes_on_at(from, (range.from, range.to), args.to, is_loaded).map_err(|refused| {
        let known = format!(
            "its group goes on at offset {from}, and the topic has {} to {}",
            range.from, range.to
        );
        match refused {
            Refused::NothingLost => Failure::work(format!(
                "nothing of {topic} partition {partition} is lost: {known}"
            )),
            Refused::Elsewhere { to, least, most } => Failure::usage(format!(
                "--to {to}: {topic} partition {partition} goes on at an offset from {least} to \
                 {most}: {known}"
            )),
        }
    })?;
    if (range.from..range.to).contains(&from) {
        must_stand_still(settings, &group, topic, (partition, from))?;
    }
    Ok(GapRow {
        accepted_at: output::now(),
        group,
        topic: topic.clone(),
        partition,
        from,
        to,
    })
}

/// Kafka does not say that a loader is stopped whose topic lacks nothing, but shows that it goes on.
fn must_stand_still(
    settings: &Settings,
    group: &str,
    topic: &str,
    (partition, from): (u32, i64),
) -> Result<(), Failure> {
    let within = MOVES_WITHIN + settings.values.loader.flush_interval * 2;
    let began = Instant::now();
    while began.elapsed() < within {
        let committed = committed_offsets(&settings.kafka(), group, topic, kafka::PATIENCE);
        let now = committed.map_err(|error| kafka::failure(settings, &error))?;
        let now = now.get(partition as usize).copied().flatten();
        if let Some(now) = now.filter(|now| *now != from) {
            return Err(Failure::work(format!(
                "{topic} partition {partition} is not stopped: its group has just gone on from \
                 offset {from} to {now}"
            )));
        }
        thread::park_timeout(LOOK_EVERY);
    }
    Ok(())
}

/// Why a gap is not accepted.
#[derive(Debug, PartialEq, Eq)]
enum Refused {
    NothingLost,
    Elsewhere { to: i64, least: i64, most: i64 },
}

/// Where a partition goes on whose group has come to `from`, and whose topic has the offsets `held`,
/// the end exclusive.
///
/// A loader also stops at what the topic has: rows that cannot be loaded, or an insert in doubt. It
/// may lie before where the group has come to, where what was loaded is looked for once more (a
/// restarted ClickHouse, a rebuild). Only the loader knows, and its sentence names --to.
fn goes_on_at(
    from: i64,
    held: (i64, i64),
    wanted: Option<i64>,
    is_loaded: bool,
) -> Result<i64, Refused> {
    let (begin, end) = (held.0, held.1.max(held.0));
    let is_lost = !(begin..=end).contains(&from);
    let may_be_said = is_loaded && wanted.is_some();
    if !is_lost && !may_be_said {
        return Err(Refused::NothingLost);
    }
    let to = wanted.unwrap_or(from.clamp(begin, end));
    let least = match from > end {
        // A log that became shorter may have grown since the loader named its end.
        _ if is_loaded => begin,
        true => end,
        false => begin.max(from),
    };
    match (least..=end).contains(&to) {
        true => Ok(to),
        false => Err(Refused::Elsewhere {
            to,
            least,
            most: end,
        }),
    }
}

fn open_json(gap: &OpenGap) -> serde_json::Value {
    json!({
        "topic": gap.topic, "partition": gap.partition,
        "from_offset": gap.from, "to_offset": gap.to,
    })
}

/// An accepted gap for programs; the audit prints it, too.
pub fn gap_json(gap: &GapRow) -> serde_json::Value {
    json!({
        "topic": gap.topic, "partition": gap.partition, "group": gap.group,
        "from_offset": gap.from, "to_offset": gap.to,
        "accepted_at": gap.accepted_at.to_string(),
    })
}

/// An accepted gap in words.
pub fn gap_text(gap: &GapRow) -> String {
    if gap.to <= gap.from {
        return format!(
            "{} partition {} went on at offset {} after its group had come to {}, accepted {}",
            gap.topic, gap.partition, gap.to, gap.from, gap.accepted_at
        );
    }
    format!(
        "offsets {} to {} of {} partition {} ({} at most), accepted {}",
        gap.from,
        gap.to - 1,
        gap.topic,
        gap.partition,
        grouped((gap.to - gap.from).unsigned_abs()),
        gap.accepted_at
    )
}

fn print(open: &[OpenGap], accepted: &[GapRow]) {
    if open.is_empty() && accepted.is_empty() {
        output::line("nothing was lost");
        return;
    }
    let mut rows = table([
        ("TOPIC", Side::Left),
        ("PARTITION", Side::Right),
        ("FROM", Side::Right),
        ("TO", Side::Right),
        ("ACCEPTED", Side::Left),
    ]);
    let line = |topic: &str, partition: u32, from: i64, to: i64, at: Option<UnixMillis>| {
        [
            topic.to_owned(),
            partition.to_string(),
            from.to_string(),
            to.to_string(),
            at.map_or_else(
                || "no: the partition is stopped".to_owned(),
                |at| at.to_string(),
            ),
        ]
    };
    for gap in open {
        rows.add_row(line(&gap.topic, gap.partition, gap.from, gap.to, None));
    }
    for gap in accepted {
        let at = Some(gap.accepted_at);
        rows.add_row(line(&gap.topic, gap.partition, gap.from, gap.to, at));
    }
    print_table(&rows);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_lost_is_accepted_and_goes_on_where_the_topic_has_records() {
        let elsewhere = |to, least, most| Err(Refused::Elsewhere { to, least, most });
        for is_loaded in [false, true] {
            let goes_on = |from, to| goes_on_at(from, (10, 20), to, is_loaded);
            assert_eq!(goes_on(15, None), Err(Refused::NothingLost));
            assert_eq!(goes_on(4, None), Ok(10));
            assert_eq!(goes_on(4, Some(12)), Ok(12));
            assert_eq!(goes_on(4, Some(5)), elsewhere(5, 10, 20));
            assert_eq!(goes_on(4, Some(21)), elsewhere(21, 10, 20));
            assert_eq!(goes_on(30, None), Ok(20));
        }
        assert_eq!(goes_on_at(30, (10, 20), Some(18), true), Ok(18));
        let shorter = goes_on_at(30, (10, 20), Some(18), false);
        assert_eq!(shorter, elsewhere(18, 20, 20));
    }

    #[test]
    fn what_stops_a_notifier_can_be_accepted_like_what_stops_others() {
        let inputs = inputs_of(Topics::new("spendfuse."), "acme");
        for topic in ["alerts", "findings", "notifier.requests"] {
            let input = (format!("spendfuse.{topic}"), "acme-notifier".to_owned());
            assert!(inputs.contains(&input), "{input:?}");
        }
    }

    #[test]
    fn a_loader_alone_stops_at_what_the_topic_has() {
        let goes_on = |to, is_loaded| goes_on_at(15, (10, 20), Some(to), is_loaded);
        assert_eq!(goes_on(16, false), Err(Refused::NothingLost));
        assert_eq!([goes_on(15, true), goes_on(16, true)], [Ok(15), Ok(16)]);
        // It looks once more for what it had loaded, and finds other rows there.
        assert_eq!(goes_on(12, true), Ok(12));
        let before = Refused::Elsewhere {
            to: 5,
            least: 10,
            most: 20,
        };
        assert_eq!(goes_on(5, true), Err(before));
    }
}
