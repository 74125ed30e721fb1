//! How far a worker is behind the logs it reads, asked from the broker.

use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::{Offset, TopicPartitionList};

use super::batch::Slot;
use super::config::StageConfig;
use crate::metrics::STAGE_BACKLOG;
use crate::native::Poller;

/// How long a tick may wait for the answer.
const TIMEOUT: Duration = Duration::from_millis(500);

/// For each slot how many offsets of its inputs are not processed, `None` where the broker did
/// not say. Remembered ends are not enough for a 0: records may have arrived that were not
/// fetched yet, or the broker may be away.
pub(super) fn backlogs<P>(
    config: &StageConfig,
    poller: &Poller,
    slots: &[Slot<P>],
) -> Vec<Option<u64>> {
    let mut question = TopicPartitionList::new();
    for slot in slots {
        for topic in &config.inputs {
            // Asked for a time of -1, the broker answers with the last stable offset.
            let partition = slot.partition.cast_signed();
            let added = question.add_partition_offset(topic, partition, Offset::End);
            debug_assert!(added.is_ok(), "an end is a valid offset");
        }
    }
    let answer = poller.consumer().offsets_for_times(question, TIMEOUT);
    let answer = answer.unwrap_or_default();
    let backlog_of = |slot: &Slot<P>| {
        let each = config.inputs.iter().zip(slot.next.iter().zip(&slot.ends));
        each.map(|(topic, (next, end))| {
            let found = answer.find_partition(topic, slot.partition.cast_signed())?;
            found.error().ok()?;
            let Offset::Offset(last) = found.offset() else {
                return None;
            };
            // A reached end lies behind the last record where the log ends with a marker.
            let reached = end.unwrap_or(*next).max(*next);
            Some(u64::try_from(last - reached).unwrap_or(0))
        })
        .sum()
    };
    let backlogs: Vec<Option<u64>> = slots.iter().map(backlog_of).collect();
    for (slot, backlog) in slots.iter().zip(&backlogs) {
        if let Some(backlog) = backlog {
            let partition = slot.partition.to_string();
            metrics::gauge!(STAGE_BACKLOG, "stage" => config.stage, "partition" => partition)
                .set(*backlog as f64);
        }
    }
    backlogs
}
