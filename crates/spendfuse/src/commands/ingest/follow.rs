//! What became of the events that were sent, as the meter says: it writes the identities that it
//! counted, and what it set aside, in the transaction that takes its position past them.

use std::collections::HashMap;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use spendfuse_bus::{Delivered, WatchedGroup};
use spendfuse_domain::Identity;
use spendfuse_domain::event::RejectReason;
use spendfuse_engine::codec;
use spendfuse_engine::meter::dedupe::RememberedIds;

use super::super::kafka::{self, PATIENCE};
use super::super::{dlq, output};
use super::Failure;
use crate::settings::Settings;

/// More events are not followed: their identities take about 16 bytes each.
const MOST_FOLLOWED: usize = 5_000_000;
/// The meter is given up where it does not move for so long.
const STANDS_STILL: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How long nothing has come any further.
pub struct Stillness {
    least: u64,
    moved: Instant,
}

impl Stillness {
    /// From `now` on.
    pub fn since(now: Instant) -> Self {
        Self {
            least: u64::MAX,
            moved: now,
        }
    }

    /// For how long not, where so many are `left` at `now`.
    pub fn with(&mut self, left: u64, now: Instant) -> Duration {
        if left < self.least {
            (self.least, self.moved) = (left, now);
        }
        now.duration_since(self.moved)
    }
}

/// Where the outcomes of events will be written that are sent from now on.
pub struct Follow<'s> {
    settings: &'s Settings,
    meter: WatchedGroup,
    /// Per partition, where the meter's topics ended before the first event was sent.
    ids_from: Vec<i64>,
    dlq_from: Vec<i64>,
    sent: Sent,
    /// Events that were not remembered, because there were too many.
    is_full: bool,
}

/// The identities that were sent, by their halves, and whether the meter has counted them: two of five
/// million are the same once in a million runs.
#[derive(Debug, Default)]
struct Sent(HashMap<u64, bool>);

impl Sent {
    /// Takes note of an identity that the meter wrote, once when it was counted and once more each
    /// time that more was told of it.
    fn note(&mut self, low: u64, outcome: &mut Outcome) {
        match self.0.get_mut(&low) {
            // Others sent it.
            None => {}
            Some(true) => outcome.grown += 1,
            // Each once, whoever sent the copy that was counted.
            Some(is_counted) => {
                *is_counted = true;
                outcome.counted += 1;
            }
        }
    }
}

/// What became of the events.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Those that told more of a call of before among them.
    pub counted: u64,
    /// Told more of a call that was counted in this run.
    pub grown: u64,
    /// Counted before, or sent several times; unknown where events wait.
    pub duplicates: Option<u64>,
    pub late: u64,
    pub rejected: u64,
    /// Not reached by the meter.
    pub waiting: u64,
}

/// Stretches of the usage topic that were sent, by partition.
#[derive(Debug, Default)]
pub struct Places(Vec<Vec<(i64, i64)>>);

impl Places {
    /// Adds an acknowledged event.
    pub fn add(&mut self, delivered: Delivered) {
        let partition = delivered.partition as usize;
        if self.0.len() <= partition {
            self.0.resize_with(partition + 1, Vec::new);
        }
        match self.0[partition].last_mut() {
            Some((_, end)) if *end == delivered.offset => *end += 1,
            _ => self.0[partition].push((delivered.offset, delivered.offset + 1)),
        }
    }

    /// Whether the event at this place was sent. Acknowledgements come in the order of the log.
    fn holds(&self, (partition, offset): dlq::Place) -> bool {
        let Some(stretches) = self.0.get(partition as usize) else {
            return false;
        };
        let after = stretches.partition_point(|(from, _)| *from <= offset);
        after > 0 && offset < stretches[after - 1].1
    }

    /// How many events the meter has not passed whose next offsets are `positions`.
    pub fn beyond(&self, positions: &[Option<i64>]) -> u64 {
        let partitions = self.0.iter().zip(positions);
        let waiting = partitions.flat_map(|(stretches, position)| {
            let position = position.unwrap_or(0);
            let beyond = move |(from, to): &(i64, i64)| (to - position.clamp(*from, *to)) as u64;
            stretches.iter().map(beyond)
        });
        waiting.sum()
    }
}

impl<'s> Follow<'s> {
    /// Notes where the meter's topics end now.
    pub fn begin(settings: &'s Settings) -> Result<Self, Failure> {
        let topics = settings.topics();
        let ends = |topic: &str| -> Result<Vec<i64>, Failure> {
            let ranges = kafka::ranges(settings, topic)?;
            Ok(ranges.into_iter().map(|range| range.to).collect())
        };
        let group = format!("{}-meter", settings.values.transactional_id_prefix);
        let meter = WatchedGroup::open(&settings.kafka(), &group);
        Ok(Self {
            settings,
            meter: meter.map_err(|error| kafka::failure(settings, &error))?,
            ids_from: ends(&topics.meter_ids)?,
            dlq_from: ends(&topics.dlq)?,
            sent: Sent::default(),
            is_full: false,
        })
    }

    /// Remembers an event that is sent.
    pub fn add(&mut self, identity: Identity) {
        if self.sent.0.len() < MOST_FOLLOWED {
            self.sent.0.insert(identity.0 as u64, false);
        } else {
            self.is_full = true;
        }
    }

    /// Waits until the meter has passed all `sent` events or stands still; `None` where there were
    /// too many to be followed. `tell` is given how many wait.
    pub fn outcome(
        mut self,
        places: &Places,
        sent: u64,
        tell: impl Fn(u64),
    ) -> Result<Option<Outcome>, Failure> {
        if self.is_full {
            return Ok(None);
        }
        let waiting = self.wait(places, tell)?;
        self.meter.close();
        let mut outcome = Outcome {
            waiting,
            ..Outcome::default()
        };
        let topics = self.settings.topics();
        let mut unreadable = None;
        kafka::read_from(self.settings, &topics.meter_ids, &self.ids_from, |record| {
            match codec::decode::<RememberedIds>(record.value.unwrap_or_default()) {
                Ok(known) => {
                    let ids = known.ids.iter();
                    ids.for_each(|id| self.sent.note(id.low, &mut outcome));
                }
                Err(error) => unreadable = Some(error.to_string()),
            }
        })?;
        if let Some(error) = unreadable {
            let topic = &topics.meter_ids;
            return Err(Failure::work(format!(
                "a record of {topic} cannot be read: {error}; update spendfuse, or leave out what \
                 became of the events with --no-wait"
            )));
        }
        kafka::read_from(self.settings, &topics.dlq, &self.dlq_from, |record| {
            let Some(event) = dlq::set_aside(record, &topics.usage) else {
                return;
            };
            if !event.origin.is_some_and(|origin| places.holds(origin)) {
                return;
            }
            match event.reason == RejectReason::Late.name() {
                true => outcome.late += 1,
                false => outcome.rejected += 1,
            }
        })?;
        let known = outcome.counted + outcome.grown + outcome.late + outcome.rejected;
        outcome.duplicates = (waiting == 0).then(|| sent.saturating_sub(known));
        Ok(Some(outcome))
    }

    /// The offsets that the meter reads next.
    pub fn positions(&self) -> Result<Vec<Option<i64>>, Failure> {
        let usage = self.settings.topics().usage;
        let positions = self.meter.committed(&usage, PATIENCE);
        positions.map_err(|error| kafka::failure(self.settings, &error))
    }

    /// How many events still wait when the meter has passed them or stands still.
    fn wait(&self, places: &Places, tell: impl Fn(u64)) -> Result<u64, Failure> {
        let mut stillness = Stillness::since(Instant::now());
        loop {
            let waiting = places.beyond(&self.positions()?);
            let still_for = stillness.with(waiting, Instant::now());
            if waiting == 0 || still_for >= STANDS_STILL {
                return Ok(waiting);
            }
            tell(waiting);
            thread::park_timeout(LOOK_EVERY);
        }
    }
}

impl Outcome {
    /// In one line, and what to do where something was not counted.
    pub fn print(&self) {
        self.print_counts();
        if self.grown > 0 {
            output::line(
                "grown: these told more of calls that stand in the input before, and the difference counts",
            );
        }
        if self.duplicates.is_some_and(|count| count > 0) {
            output::line(
                "duplicates: events with these ids were counted before, or stand in the input twice; \
                 where their content differs, that is an alert",
            );
        }
        if self.late > 0 {
            output::line(
                "late: older than the dedupe horizon, no budget counts them, and they wait in the DLQ. \
                 Of history: `spendfuse ingest FILE --backfill` counts what ClickHouse does not know, \
                 without alerts, and `spendfuse dlq replay --reason late --verify` then settles what \
                 waits. Of now: the latter alone counts them as if they came in time",
            );
        }
        self.print_left();
    }

    /// The same for history, which is judged elsewhere.
    pub fn print_history(&self) {
        self.print_counts();
        if self.late > 0 {
            output::line(
                "late: the meter remembers too little of what was counted while this ran \
                 (processor.dedupe_capacity): run the same command again, nothing is counted twice",
            );
        }
        self.print_left();
    }

    fn print_counts(&self) {
        let grouped = output::grouped;
        let mut parts = vec![format!("{} counted", grouped(self.counted))];
        if self.grown > 0 {
            parts.push(format!("{} grown", grouped(self.grown)));
        }
        if let Some(duplicates) = self.duplicates {
            parts.push(format!("{} duplicates", grouped(duplicates)));
        }
        parts.push(format!("{} late", grouped(self.late)));
        parts.push(format!("{} rejected", grouped(self.rejected)));
        if self.waiting > 0 {
            parts.push(format!(
                "{} not reached by the meter",
                grouped(self.waiting)
            ));
        }
        output::line(parts.join(", "));
    }

    fn print_left(&self) {
        if self.rejected > 0 {
            output::line("rejected: no budget counts them; `spendfuse dlq list` says why");
        }
        if self.waiting > 0 {
            output::line(
                "not reached: they are safe in Kafka and are counted once a processor runs; \
                 `spendfuse dlq list` shows then what was set aside",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_no_further_stands_still_even_where_more_is_left() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut stillness = Stillness::since(began);
        for (second, left, still_for) in [(1, 9, 0), (5, 9, 4), (6, 12, 5), (7, 8, 0), (9, 8, 2)] {
            let found = stillness.with(left, at(second));
            assert_eq!(found, Duration::from_secs(still_for), "second {second}");
        }
    }

    #[test]
    fn each_identity_is_counted_once_and_then_grows() {
        let mut sent = Sent(HashMap::from([(1, false), (2, false)]));
        let mut outcome = Outcome::default();
        for low in [1, 1, 3, 1, 2, 3] {
            sent.note(low, &mut outcome);
        }
        assert_eq!((outcome.counted, outcome.grown), (2, 2));
    }

    #[test]
    fn places_know_what_was_sent_and_what_is_beyond() {
        let mut places = Places::default();
        for (partition, offset) in [(1, 5), (1, 6), (0, 9), (1, 9)] {
            places.add(Delivered { partition, offset });
        }
        for place in [(0, 9), (1, 5), (1, 6), (1, 9)] {
            assert!(places.holds(place), "{place:?}");
        }
        for place in [(0, 8), (0, 10), (1, 4), (1, 7), (1, 10), (2, 5)] {
            assert!(!places.holds(place), "{place:?}");
        }
        assert_eq!(places.beyond(&[None, None]), 4);
        assert_eq!(places.beyond(&[Some(10), Some(6)]), 2);
        assert_eq!(places.beyond(&[Some(11), Some(10)]), 0);
    }
}
