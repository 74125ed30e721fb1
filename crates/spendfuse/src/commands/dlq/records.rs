//! The records of the DLQ: rejected events, and notes of what became of them.
//!
//! A note is a record with the header `spendfuse_settled` and no key, whose value lists coordinates
//! in the DLQ: `{"v":1,"settled":[[partition, offset], …]}`. `dlq replay` writes it in the transaction
//! that sends the events, so that neither can be there without the other.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use spendfuse_bus::{Headers, InputRecord, OutputRecord, PartitionRange};
use spendfuse_domain::UnixMillis;

use super::{Failure, kafka, output};
use crate::settings::Settings;

const REASON: &str = "spendfuse_reason";
const DETAIL: &str = "spendfuse_detail";
const TOPIC: &str = "spendfuse_topic";
const PARTITION: &str = "spendfuse_partition";
const OFFSET: &str = "spendfuse_offset";
const SETTLED: &str = "spendfuse_settled";
/// Begins the names of all headers that are ours and not the sender's.
pub const OWN_HEADERS: &str = "spendfuse_";

/// Records that a look at what waits goes through, unless all are asked for.
const MOST_LOOKED_AT: i64 = 200_000;
/// How far back it goes where the DLQ has more, milliseconds: a week, a day, six hours, an hour, ten
/// minutes, a minute. By time, so that the notes on what was settled are all there.
const SPANS_MILLIS: [i64; 6] = [
    604_800_000,
    86_400_000,
    21_600_000,
    3_600_000,
    600_000,
    60_000,
];

/// Settled events that are told from those that wait, when these are only counted; about 24 bytes each.
const MOST_SETTLED: usize = 1_000_000;

/// Partition and offset in the DLQ.
pub type Place = (u32, i64);

/// An event that was set aside, without its value.
#[derive(Debug)]
pub struct SetAside {
    /// Where it lies in the DLQ.
    pub at: Place,
    /// When it was set aside.
    pub logged_at: UnixMillis,
    /// Why, as in the contract.
    pub reason: String,
    /// What is wrong, in words.
    pub detail: String,
    /// Where it lay in the usage topic, where the DLQ says.
    pub origin: Option<Place>,
    /// Whether it was replayed, or found to be counted already.
    pub is_settled: bool,
}

#[derive(Serialize, Deserialize)]
struct Note {
    v: u32,
    settled: Vec<Place>,
}

/// A part of the DLQ that reaches to its end.
pub struct Part {
    /// Where it begins; `None` where it is all that the topic has.
    pub since: Option<UnixMillis>,
    ranges: Vec<PartitionRange>,
}

impl Part {
    /// Everything.
    pub fn all(settings: &Settings) -> Result<Self, Failure> {
        let ranges = kafka::ranges(settings, &settings.topics().dlq)?;
        Ok(Self {
            since: None,
            ranges,
        })
    }

    /// What was set aside since then.
    pub fn since(settings: &Settings, since: UnixMillis) -> Result<Self, Failure> {
        Ok(Self {
            since: Some(since),
            ranges: kafka::ranges_since(settings, &settings.topics().dlq, since)?,
        })
    }

    /// Everything, or as much of the latest as can be looked at in passing.
    pub fn lately(settings: &Settings) -> Result<Self, Failure> {
        let now = output::now();
        Self::short_enough(|span| match span {
            None => Self::all(settings),
            Some(span) => Self::since(settings, now.plus(-span)),
        })
    }

    fn short_enough(
        mut part: impl FnMut(Option<i64>) -> Result<Self, Failure>,
    ) -> Result<Self, Failure> {
        let mut found = part(None)?;
        for span in SPANS_MILLIS {
            if found.records() <= MOST_LOOKED_AT {
                break;
            }
            found = part(Some(span))?;
        }
        Ok(found)
    }

    /// How many at most.
    fn records(&self) -> i64 {
        self.ranges.iter().map(|range| range.to - range.from).sum()
    }
}

/// The events of a part of the DLQ, in the order of its partitions and offsets.
pub fn read(settings: &Settings, part: &Part) -> Result<Vec<SetAside>, Failure> {
    let mut events = Vec::new();
    let mut settled: HashSet<Place> = HashSet::new();
    kafka::read(
        settings,
        &settings.topics().dlq,
        &part.ranges,
        &mut |record| {
            match is_note(record) {
                true => settled.extend(settled_by(record)),
                false => events.push(SetAside::of(record)),
            }
            ControlFlow::Continue(())
        },
    )?;
    for event in &mut events {
        event.is_settled = settled.contains(&event.at);
    }
    events.sort_by_key(|event| event.at);
    Ok(events)
}

/// How many events in `ranges` of the DLQ, which reach to its end, are not settled; `None` where that
/// was not known by `deadline`, or there are more notes than can be kept.
pub fn count_until(
    settings: &Settings,
    ranges: &[PartitionRange],
    deadline: Instant,
) -> Result<Option<u64>, Failure> {
    let mut count = Waiting::among(ranges);
    let mut is_whole = true;
    kafka::read(settings, &settings.topics().dlq, ranges, &mut |record| {
        is_whole = Instant::now() <= deadline && count.settled.len() <= MOST_SETTLED;
        match (is_whole, is_note(record)) {
            (false, _) => return ControlFlow::Break(()),
            (true, true) => count.settle(settled_by(record)),
            (true, false) => count.events += 1,
        }
        ControlFlow::Continue(())
    })?;
    Ok(is_whole.then(|| count.waiting()))
}

/// Events that are counted without being kept.
struct Waiting<'r> {
    ranges: &'r [PartitionRange],
    events: u64,
    /// Of them.
    settled: HashSet<Place>,
}

impl<'r> Waiting<'r> {
    fn among(ranges: &'r [PartitionRange]) -> Self {
        Self {
            ranges,
            events: 0,
            settled: HashSet::new(),
        }
    }

    /// Notes also name earlier events than those that are counted.
    fn settle(&mut self, places: Vec<Place>) {
        let is_counted = |(partition, offset): &Place| {
            let mut ranges = self.ranges.iter();
            ranges.any(|range| {
                range.partition == *partition && (range.from..range.to).contains(offset)
            })
        };
        self.settled.extend(places.into_iter().filter(is_counted));
    }

    fn waiting(&self) -> u64 {
        self.events.saturating_sub(self.settled.len() as u64)
    }
}

/// The events that a note says are settled; one that cannot be read is told, and says nothing.
fn settled_by(note: &InputRecord<'_>) -> Vec<Place> {
    match serde_json::from_slice::<Note>(note.value.unwrap_or_default()) {
        Ok(note) => note.settled,
        Err(error) => {
            output::warning(format!(
                "a note in the DLQ at {}@{} cannot be read: {error}",
                note.partition, note.offset
            ));
            Vec::new()
        }
    }
}

/// Whether a record is a note and not an event.
pub fn is_note(record: &InputRecord<'_>) -> bool {
    record.headers.get(SETTLED).is_some()
}

/// The event in a record of the DLQ that lay in the topic `usage`; `None` where it is something else.
pub fn set_aside(record: &InputRecord<'_>, usage: &str) -> Option<SetAside> {
    let is_from_there = !is_note(record) && text(&record.headers, TOPIC) == usage;
    is_from_there.then(|| SetAside::of(record))
}

/// The note that these events are settled, for partition 0 of the DLQ.
pub fn note(topic: &str, settled: Vec<Place>) -> OutputRecord {
    let note = Note { v: 1, settled };
    OutputRecord {
        topic: topic.to_owned(),
        partition: 0,
        key: None,
        value: Some(serde_json::to_vec(&note).expect("integers always become JSON")),
        headers: vec![(SETTLED.to_owned(), b"1".to_vec())],
    }
}

impl SetAside {
    fn of(record: &InputRecord<'_>) -> Self {
        let headers = &record.headers;
        let origin = || {
            let partition = text(headers, PARTITION).parse().ok()?;
            Some((partition, text(headers, OFFSET).parse().ok()?))
        };
        Self {
            at: (record.partition, record.offset),
            logged_at: UnixMillis(record.timestamp_millis),
            reason: text(headers, REASON),
            detail: text(headers, DETAIL),
            origin: origin(),
            is_settled: false,
        }
    }
}

fn text(headers: &Headers<'_>, name: &str) -> String {
    let value = headers.get(name).unwrap_or_default();
    String::from_utf8_lossy(value).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_counted_without_what_is_settled_once_or_twice_or_lies_before() {
        let ranges = [PartitionRange {
            partition: 1,
            from: 10,
            to: 20,
        }];
        let mut count = Waiting::among(&ranges);
        count.events = 5;
        count.settle(vec![(1, 9), (1, 10), (1, 19), (1, 20), (0, 12)]);
        count.settle(vec![(1, 10)]);
        assert_eq!(count.waiting(), 3);
    }

    #[test]
    fn of_a_long_dlq_as_much_of_the_latest_is_looked_at_as_can_be() {
        let looked_at = |a_second: i64| {
            let part = |span: Option<i64>| {
                let kept = 30 * 86_400_000;
                let records = a_second * span.unwrap_or(kept) / 1000;
                let range = PartitionRange {
                    partition: 0,
                    from: 1_000,
                    to: 1_000 + records,
                };
                Ok(Part {
                    since: span.map(UnixMillis),
                    ranges: vec![range],
                })
            };
            Part::short_enough(part).unwrap().since
        };
        assert_eq!(looked_at(0), None);
        assert_eq!(looked_at(1), Some(UnixMillis(86_400_000)));
        assert_eq!(looked_at(50), Some(UnixMillis(3_600_000)));
        assert_eq!(looked_at(100_000), Some(UnixMillis(60_000)));
    }
}
