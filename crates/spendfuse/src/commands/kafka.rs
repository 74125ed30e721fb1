//! Reading topics to their end, for commands; errors name the brokers and what to do.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::thread;
use std::time::{Duration, Instant};

use spendfuse_bus::{
    BusError, InputRecord, OutputRecord, PartitionRange, TransactionalWriter, committed_offsets,
    log_ends, read_ranges, topic_ranges, write_in_one_transaction,
};
use spendfuse_domain::UnixMillis;
use spendfuse_domain::verdict::BlocklistKey;

use super::{Failure, output, signals};
use crate::settings::Settings;

/// How long a command waits for a broker that does not answer.
pub const PATIENCE: Duration = Duration::from_secs(8);
/// Reports of processors come every second, among the last records of each partition of the blocklist:
/// so many are looked at, more where none is there. New scopes, and windows that end for all customers
/// at once, are told as fast as the broker takes them.
const LAST_RECORDS: [i64; 3] = [2_000, 50_000, 500_000];

/// The transactional id of everybody who writes corrections, without its prefix.
pub const CORRECT: &str = "correct";
/// A transaction of theirs takes milliseconds.
const LEFT_OPEN_AFTER: Duration = Duration::from_secs(3);
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// A failure to talk to Kafka, in words that say what to do.
pub fn failure(settings: &Settings, error: &BusError) -> Failure {
    match error {
        BusError::Unreachable { brokers, .. } => {
            let source = settings.resolved().get("kafka.brokers");
            let source = source.map_or_else(String::new, |found| format!(", {}", found.source));
            Failure::kafka_unreachable(format!(
                "no Kafka broker answers at {brokers} (kafka.brokers{source}); start one, or name \
                 yours with --set kafka.brokers=HOST:PORT (--set log.level=warn shows what the \
                 client says)"
            ))
        }
        // Of a broker that dies while a topic is read nothing more is heard.
        BusError::NotLetIn { .. } | BusError::TimedOut { .. } => Failure::kafka_unreachable(error),
        other => Failure::work(other),
    }
}

/// The transactional id of a command that writes: of two that run at once the earlier one fails.
pub fn transactional_id(settings: &Settings, what: &str) -> String {
    format!("{}-{what}", settings.values.transactional_id_prefix)
}

/// Takes the word from whoever corrects, re-rates or recovers at this moment: what that one has open is
/// taken back at once.
pub fn correcting(settings: &Settings) -> Result<TransactionalWriter, Failure> {
    let id = transactional_id(settings, CORRECT);
    TransactionalWriter::open(&settings.kafka(), &id, PATIENCE)
        .map_err(|error| failure(settings, &error))
}

/// Takes back what a killed one of them has left open, instead of waiting for its time-out. Whoever is at
/// work goes on.
pub fn end_left_open(settings: &Settings) -> Result<(), Failure> {
    let topic = settings.topics().corrections;
    let held = held_back(settings, &topic, LEFT_OPEN_AFTER);
    match held.map_err(|error| failure(settings, &error))?.is_empty() {
        true => Ok(()),
        false => correcting(settings).map(drop),
    }
}

/// Partitions of `topic` whose committed records end before the log does, and go on doing so for
/// `patience`: an open transaction holds them back.
pub fn held_back(
    settings: &Settings,
    topic: &str,
    patience: Duration,
) -> Result<Vec<usize>, BusError> {
    let config = settings.kafka();
    let committed = || -> Result<Vec<i64>, BusError> {
        let ranges = topic_ranges(&config, topic, None, PATIENCE)?;
        Ok(ranges.into_iter().map(|range| range.to).collect())
    };
    let began = Instant::now();
    let first = committed()?;
    let ends = log_ends(&config, topic, PATIENCE)?;
    loop {
        let now = committed()?;
        let held: Vec<usize> = (0..now.len())
            .filter(|at| now[*at] < ends[*at] && now[*at] == first[*at])
            .collect();
        if held.is_empty() || began.elapsed() >= patience {
            return Ok(held);
        }
        thread::park_timeout(LOOK_AGAIN);
    }
}

/// Writes all records, or none, as `what`; a signal waits for the end of it.
pub fn write_together(
    settings: &Settings,
    what: &str,
    records: &[OutputRecord],
) -> Result<(), Failure> {
    let id = transactional_id(settings, what);
    let _open = signals::in_transaction();
    let written = write_in_one_transaction(&settings.kafka(), &id, records, PATIENCE);
    written.map_err(|error| match error {
        BusError::Transaction { .. } | BusError::Send { .. } => Failure::work(format!(
            "{error}; whoever begins to write as {id} meanwhile stops this command. The same command \
             again does nothing twice"
        )),
        other => failure(settings, &other),
    })
}

/// What a topic holds now.
pub fn ranges(settings: &Settings, topic: &str) -> Result<Vec<PartitionRange>, Failure> {
    topic_ranges(&settings.kafka(), topic, None, PATIENCE)
        .map_err(|error| failure(settings, &error))
}

/// Whether the brokers tell of the prices topic within `patience`.
pub fn answers(settings: &Settings, patience: Duration) -> bool {
    topic_ranges(&settings.kafka(), &settings.topics().prices, None, patience).is_ok()
}

/// What a topic holds now of records since a time, by the log's clock.
pub fn ranges_since(
    settings: &Settings,
    topic: &str,
    since: UnixMillis,
) -> Result<Vec<PartitionRange>, Failure> {
    topic_ranges(&settings.kafka(), topic, Some(since.0), PATIENCE)
        .map_err(|error| failure(settings, &error))
}

/// Hands every committed record of a topic to `handler`: from `from` on, by partition, up to where the
/// log ends now. Waits for transactions that are open there.
pub fn read_from(
    settings: &Settings,
    topic: &str,
    from: &[i64],
    mut handler: impl FnMut(&InputRecord<'_>),
) -> Result<(), Failure> {
    let ends = log_ends(&settings.kafka(), topic, PATIENCE);
    let ends = ends.map_err(|error| failure(settings, &error))?;
    let ranges: Vec<PartitionRange> = (0..)
        .zip(from.iter().zip(ends))
        .map(|(partition, (from, to))| PartitionRange {
            partition,
            from: *from,
            to,
        })
        .collect();
    read(settings, topic, &ranges, &mut |record| {
        handler(record);
        ControlFlow::Continue(())
    })
}

/// How many records of `topic` below `ends` a group has still to read, by partition. An end behind which
/// nothing waits is set to 0.
pub fn unread(
    settings: &Settings,
    group: &str,
    topic: &str,
    ends: &mut [i64],
) -> Result<Vec<(u32, u64)>, Failure> {
    let positions = committed_offsets(&settings.kafka(), group, topic, PATIENCE);
    let positions = positions.map_err(|error| failure(settings, &error))?;
    let is_behind = |(end, position): (&i64, &Option<i64>)| position.unwrap_or(0) < *end;
    if !ends.iter().zip(&positions).any(is_behind) {
        return Ok(Vec::new());
    }
    let begins = ranges(settings, topic)?;
    let mut unread = Vec::new();
    for ((begin, end), position) in begins.iter().zip(ends).zip(positions) {
        // What retention has removed nobody waits for.
        let range = PartitionRange {
            partition: begin.partition,
            from: position.unwrap_or(0).max(begin.from),
            to: *end,
        };
        match range.from < range.to && has_record(settings, topic, range)? {
            true => unread.push((range.partition, (range.to - range.from) as u64)),
            false => *end = 0,
        }
    }
    Ok(unread)
}

/// Whether there is anything but ends of transactions in a stretch.
fn has_record(settings: &Settings, topic: &str, range: PartitionRange) -> Result<bool, Failure> {
    let mut found = false;
    let read = read_ranges(&settings.kafka(), topic, &[range], PATIENCE, &mut |_| {
        found = true;
        ControlFlow::Break(())
    });
    match read {
        Ok(missed) => missed.into_iter().for_each(output::warning),
        // Held back by an open transaction: whatever it is, it is not read yet.
        Err(BusError::TimedOut { .. }) => found = true,
        Err(error) => return Err(failure(settings, &error)),
    }
    Ok(found)
}

/// Hands every record that `topic` holds now to `handler`.
pub fn read_topic(
    settings: &Settings,
    topic: &str,
    mut handler: impl FnMut(&InputRecord<'_>),
) -> Result<(), Failure> {
    let ranges = ranges(settings, topic)?;
    read(settings, topic, &ranges, &mut |record| {
        handler(record);
        ControlFlow::Continue(())
    })
}

/// Hands the records of `ranges` to `handler`, until it breaks. Warns of those that cannot be read.
pub fn read(
    settings: &Settings,
    topic: &str,
    ranges: &[PartitionRange],
    handler: &mut dyn FnMut(&InputRecord<'_>) -> ControlFlow<()>,
) -> Result<(), Failure> {
    let missed = read_ranges(&settings.kafka(), topic, ranges, PATIENCE, handler);
    for lost in missed.map_err(|error| failure(settings, &error))? {
        output::warning(lost);
    }
    Ok(())
}

/// The last value of each key of a compacted topic. Records without a readable key are left out.
pub fn read_table(settings: &Settings, topic: &str) -> Result<BTreeMap<String, Vec<u8>>, Failure> {
    let mut table = BTreeMap::new();
    read_topic(settings, topic, |record| {
        let Some(key) = record.key.and_then(|key| std::str::from_utf8(key).ok()) else {
            return;
        };
        match record.value {
            Some(value) => {
                table.insert(key.to_owned(), value.to_vec());
            }
            None => {
                table.remove(key);
            }
        }
    })?;
    Ok(table)
}

/// When the brokers took the last report of a processor.
pub fn newest_report(settings: &Settings) -> Result<Option<i64>, Failure> {
    let topic = settings.topics().blocklist;
    let held = ranges(settings, &topic)?.into_iter();
    let longest = held.map(|range| range.to - range.from).max().unwrap_or(0);
    first_found(longest, |most| {
        newest_of_last(settings, &topic, most, is_report)
    })
}

/// What `look` finds among the last records, of which partitions have `longest` at most.
fn first_found(
    longest: i64,
    mut look: impl FnMut(i64) -> Result<Option<i64>, Failure>,
) -> Result<Option<i64>, Failure> {
    for most in LAST_RECORDS {
        let found = look(most)?;
        if found.is_some() || most >= longest {
            return Ok(found);
        }
    }
    Ok(None)
}

fn is_report(record: &InputRecord<'_>) -> bool {
    let key = record.key.and_then(|key| std::str::from_utf8(key).ok());
    let key = key.and_then(BlocklistKey::parse);
    matches!(key, Some(BlocklistKey::Heartbeat { .. }))
}

/// When the brokers took the newest record that `is_wanted`, among the last `most` of each partition.
pub fn newest_of_last(
    settings: &Settings,
    topic: &str,
    most: i64,
    is_wanted: impl Fn(&InputRecord<'_>) -> bool,
) -> Result<Option<i64>, Failure> {
    let mut last = ranges(settings, topic)?;
    for range in &mut last {
        range.from = range.from.max(range.to - most);
    }
    let mut newest = None;
    read(settings, topic, &last, &mut |record| {
        if is_wanted(record) {
            newest = newest.max(Some(record.timestamp_millis));
        }
        ControlFlow::Continue(())
    })?;
    Ok(newest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_found_behind_a_flood_of_other_records() {
        let looks = |longest: i64, behind: i64| {
            let mut looked_at = Vec::new();
            let found = first_found(longest, |most| {
                looked_at.push(most);
                Ok((most > behind).then_some(7))
            });
            (found.unwrap(), looked_at.len())
        };
        assert_eq!(looks(1_000_000, 10), (Some(7), 1));
        assert_eq!(looks(1_000_000, 30_000), (Some(7), 2));
        // Nobody has ever reported: little is there, and nothing is read twice.
        assert_eq!(looks(500, 1_000_000), (None, 1));
        assert_eq!(looks(1_000_000, 1_000_000), (None, 3));
    }
}
