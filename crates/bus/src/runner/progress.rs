//! How far a worker has processed the logs it reads, asked from the broker.

use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::{Offset, TopicPartitionList};

use super::batch::Slot;
use super::config::StageConfig;
use super::logic::{InputProgress, InputState};
use crate::config::Isolation;
use crate::error::BusError;
use crate::metrics::STAGE_BACKLOG;
use crate::native::Poller;

/// How long a tick may wait for the answer.
const TIMEOUT: Duration = Duration::from_millis(500);

/// How far the slots have come.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Whether the broker answered at all.
    pub(super) is_answered: bool,
    /// For each slot the progress of its inputs.
    pub(super) inputs: Vec<Vec<InputProgress>>,
}

/// Asks where the inputs end, transactions that are still open included. The worker's own client
/// cannot: for `read_committed` the broker answers with the last stable offset, so that an event
/// behind somebody's open transaction looks as if it were not there.
pub(super) struct LogEnds(Poller);

impl LogEnds {
    pub(super) fn open(config: &StageConfig) -> Result<Self, BusError> {
        let client = config.kafka.reader(Isolation::ReadUncommitted)?;
        Poller::new(&client).map(Self)
    }

    /// Closes the client without waiting for it.
    pub(super) fn close(self) {
        self.0.drop_later();
    }

    /// What the broker says now.
    pub(super) fn progress<P>(&self, config: &StageConfig, slots: &[Slot<P>]) -> Progress {
        let mut question = TopicPartitionList::new();
        for slot in slots {
            for topic in &config.inputs {
                let partition = slot.partition.cast_signed();
                let added = question.add_partition_offset(topic, partition, Offset::End);
                debug_assert!(added.is_ok(), "an end is a valid offset");
            }
        }
        let answer = self.0.consumer().offsets_for_times(question, TIMEOUT);
        let is_answered = answer.is_ok();
        let answer = answer.unwrap_or_default();
        let end_of = |topic: &str, partition: u32| {
            let found = answer.find_partition(topic, partition.cast_signed())?;
            found.error().ok()?;
            match found.offset() {
                Offset::Offset(end) => Some(end),
                _ => None,
            }
        };
        let all = slots.iter().map(|slot| {
            let inputs = config.inputs.iter().zip(slot.next.iter().zip(&slot.ends));
            let progress: Vec<InputProgress> = inputs
                .map(|(topic, (next, eof))| judge(*next, *eof, end_of(topic, slot.partition)))
                .collect();
            let ends = config
                .inputs
                .iter()
                .map(|topic| end_of(topic, slot.partition));
            show_backlog(config, slot.partition, ends.zip(&progress));
            progress
        });
        Progress {
            is_answered,
            inputs: all.collect(),
        }
    }
}

/// `eof`: where the worker's client reached the end of what it may read and nothing came since;
/// behind the last record where the log ends with a marker. Remembered ends are not enough to be
/// complete: records may have arrived that were not fetched yet, or the broker may be away.
fn judge(next: i64, eof: Option<i64>, end: Option<i64>) -> InputProgress {
    let reached = eof.unwrap_or(next).max(next);
    let state = match end {
        Some(end) if end <= reached => InputState::Complete,
        Some(_) if eof.is_some() => InputState::Held,
        _ => InputState::Behind,
    };
    InputProgress { reached, state }
}

fn show_backlog<'p>(
    config: &StageConfig,
    partition: u32,
    inputs: impl Iterator<Item = (Option<i64>, &'p InputProgress)>,
) {
    let behind = inputs.map(|(end, input)| Some((end? - input.reached).max(0)));
    if let Some(backlog) = behind.sum::<Option<i64>>() {
        set_backlog(config, partition, backlog);
    }
}

/// The partition is another worker's.
pub(super) fn clear_backlog(config: &StageConfig, partition: u32) {
    set_backlog(config, partition, 0);
}

fn set_backlog(config: &StageConfig, partition: u32, backlog: i64) {
    let partition = partition.to_string();
    metrics::gauge!(STAGE_BACKLOG, "stage" => config.stage, "partition" => partition)
        .set(backlog as f64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_complete_only_where_the_log_ends_and_not_where_reading_ends() {
        let state = |next, eof, end| judge(next, eof, end).state;
        assert_eq!(state(10, None, Some(10)), InputState::Complete);
        // The log ends with a marker, which only the end that was reached tells.
        assert_eq!(state(10, Some(11), Some(11)), InputState::Complete);
        assert_eq!(state(10, None, Some(11)), InputState::Behind);
        // An open transaction.
        assert_eq!(state(10, Some(10), Some(12)), InputState::Held);
        assert_eq!(state(10, Some(10), None), InputState::Behind);
        assert_eq!(judge(10, Some(11), None).reached, 11);
    }
}
