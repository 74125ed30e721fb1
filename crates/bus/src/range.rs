//! Reads known stretches of a topic and stops: lists, replays, audits.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::{Offset, TopicPartitionList};

use crate::config::{Isolation, KafkaConfig};
use crate::error::BusError;
use crate::native::{Polled, Poller, request};
use crate::runner::InputRecord;
use crate::topics::partition_counts;

/// Offsets `from..to` of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionRange {
    /// Partition.
    pub partition: u32,
    /// First offset.
    pub from: i64,
    /// The offset after the last.
    pub to: i64,
}

/// What every partition of a topic holds of committed records now; from `since_millis` on
/// (milliseconds since 1970, by the log's timestamps) if given.
///
/// # Errors
/// [`BusError::Unreachable`] after `patience`, [`BusError::TopicMissing`], [`BusError::Request`].
pub fn topic_ranges(
    kafka: &KafkaConfig,
    topic: &str,
    since_millis: Option<i64>,
    patience: Duration,
) -> Result<Vec<PartitionRange>, BusError> {
    let reader = Poller::new(&kafka.reader(Isolation::ReadCommitted)?)?;
    let ranges = ranges_of(&reader, kafka, topic, since_millis, patience);
    reader.drop_later();
    ranges
}

fn ranges_of(
    reader: &Poller,
    kafka: &KafkaConfig,
    topic: &str,
    since_millis: Option<i64>,
    patience: Duration,
) -> Result<Vec<PartitionRange>, BusError> {
    let consumer = reader.consumer();
    let counts = partition_counts(consumer.client(), &kafka.brokers, patience)?;
    let count = *counts.get(topic).ok_or_else(|| BusError::TopicMissing {
        topic: topic.to_owned(),
    })?;
    let doing = || request(&format!("asking where topic `{topic}` begins and ends"));
    let mut ranges = Vec::new();
    for partition in 0..count {
        let (from, to) = consumer
            .fetch_watermarks(topic, partition.cast_signed(), patience)
            .map_err(doing())?;
        ranges.push(PartitionRange {
            partition,
            from,
            to,
        });
    }
    let Some(since) = since_millis else {
        return Ok(ranges);
    };
    let mut times = TopicPartitionList::new();
    for range in &ranges {
        times
            .add_partition_offset(topic, range.partition.cast_signed(), Offset::Offset(since))
            .map_err(doing())?;
    }
    let found = consumer
        .offsets_for_times(times, patience)
        .map_err(doing())?;
    for range in &mut ranges {
        let element = found.find_partition(topic, range.partition.cast_signed());
        range.from = match element.map(|element| element.offset()) {
            Some(Offset::Offset(offset)) => offset.clamp(range.from, range.to),
            // Nothing that late.
            _ => range.to,
        };
    }
    Ok(ranges)
}

/// Hands every committed record of the ranges to `handler`, each partition in order, until all
/// are read or the handler breaks.
///
/// # Errors
/// [`BusError::TimedOut`] where nothing arrives for `patience`, [`BusError::Consume`].
pub fn read_ranges(
    kafka: &KafkaConfig,
    topic: &str,
    ranges: &[PartitionRange],
    patience: Duration,
    handler: &mut dyn FnMut(&InputRecord<'_>) -> ControlFlow<()>,
) -> Result<(), BusError> {
    let open: Vec<PartitionRange> = ranges
        .iter()
        .copied()
        .filter(|range| range.from < range.to)
        .collect();
    if open.is_empty() {
        return Ok(());
    }
    let reader = Poller::new(&kafka.reader(Isolation::ReadCommitted)?)?;
    let read = read_open(&reader, topic, open, patience, handler);
    reader.drop_later();
    read
}

/// The latest of the timestamps of the last committed records of a partition, milliseconds since
/// 1970; `None` where it has none.
pub(crate) fn last_timestamp(
    kafka: &KafkaConfig,
    topic: &str,
    partition: u32,
    patience: Duration,
) -> Result<Option<i64>, BusError> {
    /// A transaction's last record may be followed by its marker, and by those of others.
    const LAST: i64 = 8;
    let reader = Poller::new(&kafka.reader(Isolation::ReadCommitted)?)?;
    let mut last = None;
    let read = reader
        .consumer()
        .fetch_watermarks(topic, partition.cast_signed(), patience)
        .map_err(request(&format!("asking where topic `{topic}` ends")))
        .and_then(|(from, to)| {
            let from = from.max(to - LAST);
            let range = PartitionRange {
                partition,
                from,
                to,
            };
            let open = if from < to { vec![range] } else { Vec::new() };
            read_open(&reader, topic, open, patience, &mut |record| {
                last = last.max(Some(record.timestamp_millis));
                ControlFlow::Continue(())
            })
        });
    reader.drop_later();
    read.map(|()| last)
}

fn read_open(
    reader: &Poller,
    topic: &str,
    mut open: Vec<PartitionRange>,
    patience: Duration,
    handler: &mut dyn FnMut(&InputRecord<'_>) -> ControlFlow<()>,
) -> Result<(), BusError> {
    let starts: Vec<(&str, i32, Offset)> = open
        .iter()
        .map(|range| {
            let partition = range.partition.cast_signed();
            (topic, partition, Offset::Offset(range.from))
        })
        .collect();
    reader.assign(&starts)?;
    let mut last_news = Instant::now();
    while !open.is_empty() {
        let (partition, next) = match reader.poll(Duration::from_millis(100)) {
            Polled::Record(message) => {
                let record = message.as_input(0);
                let is_wanted = open
                    .iter()
                    .any(|range| range.partition == record.partition && record.offset < range.to);
                if is_wanted && handler(&record).is_break() {
                    return Ok(());
                }
                (record.partition, record.offset + 1)
            }
            Polled::End { at, offset } => (at.partition.cast_unsigned(), offset),
            Polled::Failed(failure) if !failure.is_transient() => {
                return Err(failure.into_error());
            }
            _ if last_news.elapsed() >= patience => {
                return Err(BusError::TimedOut {
                    doing: format!("reading topic `{topic}`"),
                    after: patience,
                });
            }
            _ => continue,
        };
        last_news = Instant::now();
        open.retain(|range| range.partition != partition || next < range.to);
    }
    Ok(())
}
