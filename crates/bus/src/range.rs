//! Reads known stretches of a topic and stops: lists, replays, audits.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::{Offset, TopicPartitionList};

use crate::config::{Isolation, KafkaConfig};
use crate::error::BusError;
use crate::native::{PollFailure, Polled, Poller, request};
use crate::runner::InputRecord;
use crate::topics::partition_counts;
use crate::unreadable::{Unreadable, measure};

/// How long looking for the end of an unreadable batch may take.
const PASS_BY: Duration = Duration::from_secs(20);

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
    let mut client = kafka.reader(Isolation::ReadCommitted)?;
    client.set("log.connection.close", "true");
    let reader = Poller::new(&client)?;
    let ranges = ranges_of(&reader, kafka, topic, since_millis, patience);
    reader.drop_later();
    ranges
}

/// Where every partition of a topic ends, records of open transactions included: whoever reads up
/// to there, committed records only, waits for the end of those transactions.
///
/// # Errors
/// As [`topic_ranges`].
pub fn log_ends(
    kafka: &KafkaConfig,
    topic: &str,
    patience: Duration,
) -> Result<Vec<i64>, BusError> {
    let reader = Poller::new(&kafka.reader(Isolation::ReadUncommitted)?)?;
    let ranges = ranges_of(&reader, kafka, topic, None, patience);
    reader.drop_later();
    Ok(ranges?.into_iter().map(|range| range.to).collect())
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
/// are read or the handler breaks. What cannot be read by any client is passed by, and returned.
///
/// # Errors
/// [`BusError::TimedOut`] where nothing arrives for `patience`, [`BusError::Consume`].
pub fn read_ranges(
    kafka: &KafkaConfig,
    topic: &str,
    ranges: &[PartitionRange],
    patience: Duration,
    handler: &mut dyn FnMut(&InputRecord<'_>) -> ControlFlow<()>,
) -> Result<Vec<Unreadable>, BusError> {
    let open: Vec<PartitionRange> = ranges
        .iter()
        .copied()
        .filter(|range| range.from < range.to)
        .collect();
    if open.is_empty() {
        return Ok(Vec::new());
    }
    let reader = Poller::new(&kafka.reader(Isolation::ReadCommitted)?)?;
    let read = read_open(&reader, kafka, topic, open, patience, handler);
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
            read_open(&reader, kafka, topic, open, patience, &mut |record| {
                last = last.max(Some(record.timestamp_millis));
                ControlFlow::Continue(())
            })
        });
    reader.drop_later();
    read.map(|_| last)
}

fn read_open(
    reader: &Poller,
    kafka: &KafkaConfig,
    topic: &str,
    mut open: Vec<PartitionRange>,
    patience: Duration,
    handler: &mut dyn FnMut(&InputRecord<'_>) -> ControlFlow<()>,
) -> Result<Vec<Unreadable>, BusError> {
    let mut missed = Vec::new();
    reader.assign(&starts(topic, &open))?;
    let mut last_news = Instant::now();
    while !open.is_empty() {
        let (partition, next) = match reader.poll(Duration::from_millis(100)) {
            Polled::Record(message) => {
                let record = message.as_input(0);
                let is_wanted = open
                    .iter()
                    .any(|range| range.partition == record.partition && record.offset < range.to);
                if is_wanted && handler(&record).is_break() {
                    return Ok(missed);
                }
                (record.partition, record.offset + 1)
            }
            Polled::End { at, offset } => (at.partition.cast_unsigned(), offset),
            Polled::Failed(failure) => {
                missed.extend(pass_by(reader, kafka, topic, &mut open, failure)?);
                continue;
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
        advance(&mut open, partition, next);
    }
    Ok(missed)
}

/// Goes on behind a batch that cannot be read, where the failure is about one of an open range.
fn pass_by(
    reader: &Poller,
    kafka: &KafkaConfig,
    topic: &str,
    open: &mut Vec<PartitionRange>,
    failure: PollFailure,
) -> Result<Option<Unreadable>, BusError> {
    let Some(at) = &failure.at else {
        return check(failure).map(|()| None);
    };
    let mut ranges = open.iter();
    let range = ranges.find(|range| range.partition == at.partition.cast_unsigned());
    let Some(range) = range.copied() else {
        // Nobody asks for what lies behind a range.
        return Ok(None);
    };
    match failure.unreadable_batch() {
        Some(base) => {
            let lost = measure(kafka, at, base.max(range.from), PASS_BY)?;
            if let Some(lost) = &lost {
                advance(open, range.partition, lost.to);
            }
            reader.assign(&starts(topic, open))?;
            Ok(lost)
        }
        None if failure.out_of_range().is_some() && !reader.is_gone(at, range.from)? => {
            reader.assign(&starts(topic, open))?;
            Ok(None)
        }
        None => check(failure).map(|()| None),
    }
}

fn check(failure: PollFailure) -> Result<(), BusError> {
    if failure.is_transient() {
        return Ok(());
    }
    Err(failure.into_error())
}

fn starts<'t>(topic: &'t str, open: &[PartitionRange]) -> Vec<(&'t str, i32, Offset)> {
    let start = |range: &PartitionRange| {
        let partition = range.partition.cast_signed();
        (topic, partition, Offset::Offset(range.from))
    };
    open.iter().map(start).collect()
}

/// Everything before `next` was read.
fn advance(open: &mut Vec<PartitionRange>, partition: u32, next: i64) {
    open.retain_mut(|range| {
        if range.partition == partition {
            range.from = range.from.max(next);
        }
        range.from < range.to
    });
}
