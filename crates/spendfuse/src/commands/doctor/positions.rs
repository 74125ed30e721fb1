//! How far the roles are, what of their inputs retention removes soon, and what an open transaction
//! holds back.

use std::time::Duration;

use spendfuse_bus::topics::cluster;
use spendfuse_bus::{BusError, PartitionRange, committed_offsets, topic_ranges};

use super::super::{kafka, output};
use super::kafka::retention_millis;
use super::report::Report;
use crate::settings::Settings;

/// A transaction of ours ends within its time-out of 5 s, and the broker looks every 10 s.
const TRANSACTION_PATIENCE: Duration = Duration::from_secs(20);
const NOTIFIER: &str = "notifier";

pub(super) fn look(settings: &Settings, report: &mut Report) {
    let names = settings.topics();
    let processor = "processor";
    let roles = [
        ("meter", processor, &names.usage),
        ("meter", processor, &names.rerouted),
        ("meter", processor, &names.corrections),
        ("ledger", processor, &names.deltas),
        ("loader", "loader", &names.rows),
        ("loader", "loader", &names.rows_ledger),
        (NOTIFIER, NOTIFIER, &names.alerts),
        (NOTIFIER, NOTIFIER, &names.findings),
        (NOTIFIER, NOTIFIER, &names.notifier_requests),
    ];
    for (group, role, topic) in roles {
        if let Err(error) = position(settings, group, role, topic, report).or_else(if_it_is_there) {
            let found = format!(
                "group {group} on topic {topic}: {}",
                kafka::failure(settings, &error)
            );
            report.unknown(
                "positions",
                found,
                "let this client read the topic and the group's offsets",
            );
        }
    }
    for (_, _, topic) in roles.iter().filter(|(group, ..)| *group != NOTIFIER) {
        if let Err(error) = open_transaction(settings, topic, report).or_else(if_it_is_there) {
            let found = kafka::failure(settings, &error).to_string();
            report.unknown("transactions", found, "let this client read the topic");
        }
    }
}

/// A topic that is not there is missed by the look at topics.
fn if_it_is_there(error: BusError) -> Result<(), BusError> {
    match error {
        BusError::TopicMissing { .. } => Ok(()),
        error => Err(error),
    }
}

/// Where a group stands in one of its inputs.
fn position(
    settings: &Settings,
    group: &str,
    role: &str,
    topic: &str,
    report: &mut Report,
) -> Result<(), BusError> {
    let config = settings.kafka();
    let name = format!("{}-{group}", settings.values.transactional_id_prefix);
    // In this order: a log grows, and is never behind what was committed before.
    let committed = committed_offsets(&config, &name, topic, kafka::PATIENCE)?;
    let held = topic_ranges(&config, topic, None, kafka::PATIENCE)?;
    if committed.iter().all(Option::is_none) {
        // Not everybody has people told.
        if role == NOTIFIER {
            return Ok(());
        }
        let is_empty = held.iter().all(|range| range.from == range.to);
        let found = format!("{name} has committed nothing in {topic}");
        match is_empty {
            true => report.ok("positions", format!("{found}, which is empty")),
            false => report.warning(
                "positions",
                format!("{found}: no {role} has run, or its offsets were removed"),
                format!("start one: spendfuse {role}; its log says how it begins"),
            ),
        }
        return Ok(());
    }
    let (removed, shorter) = lost(&held, &committed);
    for (lost, how) in [
        (&removed, "retention has removed what it had not read of"),
        (&shorter, "it has read further than there is of"),
    ] {
        if !lost.is_empty() {
            report.wrong(
                "positions",
                format!("{name}: {how} {topic}, partitions {lost:?}"),
                "spendfuse gaps list says what is lost, and spendfuse gaps accept lets its partition go on",
            );
        }
    }
    if !removed.is_empty() || !shorter.is_empty() {
        return Ok(());
    }
    let cluster = cluster(
        &config,
        &super::super::topics::specs(settings),
        kafka::PATIENCE,
    )?;
    let behind = match retention_millis(&cluster, topic) {
        Some(kept) => behind(settings, topic, kept, &committed)?,
        None => Vec::new(),
    };
    if behind.is_empty() {
        let waiting = held
            .iter()
            .zip(&committed)
            .map(|(range, offset)| range.to - offset.unwrap_or(range.from));
        let waiting = waiting.filter(|count| *count > 0).sum::<i64>();
        report.ok(
            "positions",
            format!("{name} has about {waiting} records of {topic} to read"),
        );
    } else {
        report.wrong(
            "positions",
            format!("{name}: what waits in {topic}, partitions {behind:?}, is older than half of its retention"),
            format!("start spendfuse {role}, or raise retention.ms of the topic until it has caught up"),
        );
    }
    Ok(())
}

/// The partitions whose log begins behind what a group has committed, and those whose log ends before
/// it: both stand still.
fn lost(held: &[PartitionRange], committed: &[Option<i64>]) -> (Vec<u32>, Vec<u32>) {
    let mut lost = (Vec::new(), Vec::new());
    for (range, offset) in held.iter().zip(committed) {
        match *offset {
            Some(offset) if offset < range.from => lost.0.push(range.partition),
            Some(offset) if offset > range.to => lost.1.push(range.partition),
            _ => {}
        }
    }
    lost
}

/// Partitions where the next record to read is older than half of what is kept.
fn behind(
    settings: &Settings,
    topic: &str,
    kept: i64,
    committed: &[Option<i64>],
) -> Result<Vec<u32>, BusError> {
    let half = output::now().plus(-kept / 2);
    let young = topic_ranges(&settings.kafka(), topic, Some(half.0), kafka::PATIENCE)?;
    let is_behind = |(range, offset): &(&PartitionRange, &Option<i64>)| {
        offset.is_some_and(|offset| offset < range.from)
    };
    let behind = young.iter().zip(committed).filter(is_behind);
    // Where nothing is young the range is empty, and a position at its end is not behind.
    Ok(behind.map(|(range, _)| range.partition).collect())
}

/// Whether the records that may be read end before the log does, and go on doing so.
fn open_transaction(settings: &Settings, topic: &str, report: &mut Report) -> Result<(), BusError> {
    let held = kafka::held_back(settings, topic, TRANSACTION_PATIENCE)?;
    match held.is_empty() {
        true => report.ok("transactions", format!("none holds back {topic}")),
        false => report.wrong(
            "transactions",
            format!("an open transaction holds back {topic}, partitions {held:?}: what it holds is not counted"),
            "kafka-transactions.sh find-hanging, then abort; then spendfuse audit",
        ),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_begins_behind_a_position_or_ends_before_it_has_lost_something() {
        let range = |partition| PartitionRange {
            partition,
            from: 10,
            to: 20,
        };
        let held: Vec<PartitionRange> = (0..5).map(range).collect();
        let committed = [Some(9), Some(10), Some(20), Some(21), None];
        assert_eq!(lost(&held, &committed), (vec![0], vec![3]));
    }
}
