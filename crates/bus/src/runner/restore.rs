//! Reads changelogs and histories into the logic of newly assigned partitions.
//!
//! The target is the log's end as a `read_uncommitted` client sees it: for `read_committed` the
//! end is the last stable offset, which lies before a transaction that is still open. Reading
//! goes on until past the target, so open transactions are waited out, whoever began them.

use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::{Offset, TopicPartitionList};
use spendfuse_broken::{Break, is_broken};

use super::assignment::Interrupt;
use super::config::{HistoryTopic, StageConfig};
use super::logic::{PartitionLogic, RestoreSource};
use super::position::{POSITION_KEY, Position};
use crate::config::Isolation;
use crate::error::BusError;
use crate::metrics::STAGE_RESTORED_RECORDS;
use crate::native::{Message, PollFailure, Polled, Poller, request};
use crate::unreadable::measure;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the group's consumer is polled meanwhile.
const KEEP_ALIVE: Duration = Duration::from_millis(50);
const OPEN_TRANSACTION_LINE: Duration = Duration::from_secs(10);
/// This machine's clock and the broker's may differ by so much, milliseconds.
const CLOCKS_APART: i64 = 60 * 60 * 1000;

/// A partition while it is restored.
pub(super) struct Restoring<P> {
    pub(super) partition: u32,
    pub(super) logic: P,
    /// As found in the changelog.
    pub(super) position: Option<Position>,
}

/// One log of one partition.
struct Log {
    topic: String,
    source: RestoreSource,
    /// Index into the partitions.
    owner: usize,
    partition: i32,
    from: i64,
    target: i64,
    is_done: bool,
}

/// Asks where logs begin and end, uncommitted records included.
pub(super) struct Probe(Poller);

impl Probe {
    pub(super) fn open(config: &StageConfig) -> Result<Self, BusError> {
        let isolation = match is_broken(Break::RestoreToLastStableOffset) {
            false => Isolation::ReadUncommitted,
            true => Isolation::ReadCommitted,
        };
        let client = config.kafka.reader(isolation)?;
        Poller::new(&client).map(Self)
    }

    /// Closes the client without waiting for it.
    pub(super) fn close(self) {
        self.0.drop_later();
    }

    /// First offset and the one after the last.
    pub(super) fn bounds(&self, topic: &str, partition: u32) -> Result<(i64, i64), BusError> {
        self.0
            .consumer()
            .fetch_watermarks(topic, partition.cast_signed(), REQUEST_TIMEOUT)
            .map_err(request(&format!(
                "asking for the ends of topic `{topic}` partition {partition}"
            )))
    }

    /// The first offset at or after a time; the log's end where there is none.
    fn offset_at(&self, topic: &str, partition: u32, millis: i64) -> Result<Option<i64>, BusError> {
        let doing = || {
            request(&format!(
                "asking for the offset at a time in topic `{topic}` partition {partition}"
            ))
        };
        let mut times = TopicPartitionList::new();
        times
            .add_partition_offset(topic, partition.cast_signed(), Offset::Offset(millis))
            .map_err(doing())?;
        let found = self
            .0
            .consumer()
            .offsets_for_times(times, REQUEST_TIMEOUT)
            .map_err(doing())?;
        let element = found.elements().into_iter().next();
        match element.map(|element| (element.error(), element.offset())) {
            Some((Ok(()), Offset::Offset(offset))) => Ok(Some(offset)),
            Some((Err(error), _)) => Err(doing()(error)),
            _ => Ok(None),
        }
    }
}

/// Restores all partitions at once: their changelogs first, which say how far back their histories
/// are needed. `keep_alive` polls the group's consumer for at most the given time and interrupts
/// where the assignment changes.
pub(super) fn restore<P: PartitionLogic>(
    config: &StageConfig,
    probe: &Probe,
    partitions: &mut [Restoring<P>],
    now_millis: i64,
    keep_alive: &mut dyn FnMut(Duration) -> Result<(), Interrupt>,
) -> Result<(), Interrupt> {
    let reader = Poller::new(&config.kafka.reader(Isolation::ReadCommitted)?)?;
    let changelogs = changelogs(config, probe, partitions, keep_alive)?;
    read(config, &reader, changelogs, partitions, keep_alive)?;
    let histories = histories(config, probe, partitions, now_millis, keep_alive)?;
    read(config, &reader, histories, partitions, keep_alive)?;
    reader.drop_later();
    Ok(())
}

/// Reads logs to their targets.
fn read<P: PartitionLogic>(
    config: &StageConfig,
    reader: &Poller,
    mut logs: Vec<Log>,
    partitions: &mut [Restoring<P>],
    keep_alive: &mut dyn FnMut(Duration) -> Result<(), Interrupt>,
) -> Result<(), Interrupt> {
    logs.retain(|log| log.from < log.target);
    if logs.is_empty() {
        return Ok(());
    }
    let starts: Vec<(&str, i32, Offset)> = logs
        .iter()
        .map(|log| (log.topic.as_str(), log.partition, Offset::Offset(log.from)))
        .collect();
    reader.assign(&starts)?;

    let restored = metrics::counter!(STAGE_RESTORED_RECORDS, "stage" => config.stage);
    let mut missing = logs.len();
    let mut last_kept_alive = Instant::now();
    let mut last_line = Instant::now();
    let mut last_record = Instant::now();
    while missing > 0 {
        match reader.poll(KEEP_ALIVE) {
            Polled::Record(message) => {
                if let Some(log) = find(&mut logs, message.topic(), message.partition()) {
                    apply(log, &message, partitions)?;
                    restored.increment(1);
                    last_record = Instant::now();
                    missing -= usize::from(log.reaches(message.offset() + 1));
                }
            }
            Polled::End { at, offset } => {
                let log = find(&mut logs, at.topic.as_bytes(), at.partition);
                missing -= usize::from(log.is_some_and(|log| log.reaches(offset)));
            }
            Polled::Failed(failure) => check_reading(config, failure)?,
            _ => {}
        }
        if last_kept_alive.elapsed() >= KEEP_ALIVE {
            keep_alive(Duration::ZERO)?;
            last_kept_alive = Instant::now();
        }
        if last_line.elapsed() >= OPEN_TRANSACTION_LINE {
            last_line = Instant::now();
            report_wait(config.stage, missing, last_record.elapsed());
        }
    }
    Ok(())
}

/// A changelog must be read without gaps.
fn check_reading(config: &StageConfig, failure: PollFailure) -> Result<(), BusError> {
    if let (Some(base), Some(at)) = (failure.unreadable_batch(), &failure.at) {
        let patience = config.max_poll_interval / 3;
        return match measure(&config.kafka, at, base, patience)? {
            Some(lost) => Err(BusError::Unreadable(lost)),
            None => Ok(()),
        };
    }
    if failure.is_transient() {
        return Ok(());
    }
    Err(failure.into_error())
}

fn report_wait(stage: &str, logs: usize, silence: Duration) {
    if silence < OPEN_TRANSACTION_LINE {
        tracing::info!(stage, logs, "still restoring");
        return;
    }
    let seconds = silence.as_secs();
    tracing::warn!(
        stage,
        logs,
        "an open transaction has held back the changelog for {seconds} s; it ends by itself within \
         seconds, unless a broker lost its end (kafka-transactions.sh find-hanging)"
    );
}

fn changelogs<P>(
    config: &StageConfig,
    probe: &Probe,
    partitions: &[Restoring<P>],
    keep_alive: &mut dyn FnMut(Duration) -> Result<(), Interrupt>,
) -> Result<Vec<Log>, Interrupt> {
    let mut logs = Vec::new();
    for (owner, restoring) in partitions.iter().enumerate() {
        let (from, target) = probe.bounds(&config.changelog, restoring.partition)?;
        logs.push(Log {
            topic: config.changelog.clone(),
            source: RestoreSource::Changelog,
            owner,
            partition: restoring.partition.cast_signed(),
            from,
            target,
            is_done: false,
        });
        keep_alive(Duration::ZERO)?;
    }
    Ok(logs)
}

fn histories<P: PartitionLogic>(
    config: &StageConfig,
    probe: &Probe,
    partitions: &mut [Restoring<P>],
    now_millis: i64,
    keep_alive: &mut dyn FnMut(Duration) -> Result<(), Interrupt>,
) -> Result<Vec<Log>, Interrupt> {
    let mut logs = Vec::new();
    for (owner, restoring) in partitions.iter_mut().enumerate() {
        let partition = restoring.partition;
        for (index, history) in config.history.iter().enumerate() {
            let (low, target) = probe.bounds(&history.topic, partition)?;
            let since = history.since(restoring.logic.restored_time(), now_millis);
            let from = probe.offset_at(&history.topic, partition, since)?;
            let from = from.unwrap_or(target).max(low);
            let complete_since = match from {
                // The whole log is read, whatever this machine's clock says.
                0 => 0,
                _ => history.complete_since(since, from == low, now_millis),
            };
            restoring.logic.history(index, complete_since);
            logs.push(Log {
                topic: history.topic.clone(),
                source: RestoreSource::History(index),
                owner,
                partition: partition.cast_signed(),
                from,
                target,
                is_done: false,
            });
        }
        keep_alive(Duration::ZERO)?;
    }
    Ok(logs)
}

impl HistoryTopic {
    /// From when on records are needed: the state may be older than the present, by as long as
    /// nobody has counted or as a backlog is long.
    fn since(&self, restored_time: Option<i64>, now_millis: i64) -> i64 {
        restored_time.map_or(now_millis, |time| time.min(now_millis)) - self.since_millis
    }

    /// From when on no record is missing. `is_cut`: retention has removed records, and none is left
    /// from before `since`.
    fn complete_since(&self, since: i64, is_cut: bool, now_millis: i64) -> i64 {
        match is_cut {
            false => since,
            true => since.max(now_millis - self.retention_millis + CLOCKS_APART),
        }
    }
}

impl Log {
    /// Notes that everything before `offset` was read; returns whether that completed the log.
    fn reaches(&mut self, offset: i64) -> bool {
        let completes = !self.is_done && offset >= self.target;
        self.is_done |= completes;
        completes
    }
}

/// `None` for what was read ahead of logs that are done.
fn find<'l>(logs: &'l mut [Log], topic: &[u8], partition: i32) -> Option<&'l mut Log> {
    logs.iter_mut()
        .find(|log| log.partition == partition && log.topic.as_bytes() == topic)
}

fn apply<P: PartitionLogic>(
    log: &Log,
    message: &Message<'_>,
    partitions: &mut [Restoring<P>],
) -> Result<(), BusError> {
    let restoring = &mut partitions[log.owner];
    let key = message.key().unwrap_or_default();
    if log.source == RestoreSource::Changelog && key == POSITION_KEY {
        let value = message.value().unwrap_or_default();
        let position = Position::decode(value).map_err(|reason| BusError::BadRecord {
            topic: log.topic.clone(),
            partition: restoring.partition,
            reason,
        })?;
        restoring.position = Some(position);
        return Ok(());
    }
    restoring
        .logic
        .restore(log.source, key, message.value(), message.timestamp_millis())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 60 * 60 * 1000;
    const NOW: i64 = 1_000 * HOUR;

    #[test]
    fn a_history_is_read_from_before_the_states_time_and_says_what_retention_removed() {
        let ids = HistoryTopic {
            topic: "ids".to_owned(),
            since_millis: 25 * HOUR,
            retention_millis: 48 * HOUR,
        };
        assert_eq!(ids.since(None, NOW), NOW - 25 * HOUR);
        // Ten hours down: what is judged next is judged by what was known then.
        let stopped_at = NOW - 10 * HOUR;
        let since = ids.since(Some(stopped_at), NOW);
        assert_eq!(since, stopped_at - 25 * HOUR);
        for is_cut in [false, true] {
            assert_eq!(ids.complete_since(since, is_cut, NOW), since);
        }
        // Two days down: retention went on meanwhile, but not where something older is left.
        let since = ids.since(Some(NOW - 48 * HOUR), NOW);
        assert_eq!(ids.complete_since(since, true, NOW), NOW - 47 * HOUR);
        assert_eq!(ids.complete_since(since, false, NOW), since);
        // A state that a clock ahead has stamped needs nothing of the future.
        assert_eq!(ids.since(Some(NOW + HOUR), NOW), NOW - 25 * HOUR);
    }
}
