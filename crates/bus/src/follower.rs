//! Replicates compacted topics into memory: read from the beginning, then followed, on a thread
//! of its own, whatever happens to the brokers.

mod heard;

use std::collections::HashMap;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::consumer::Consumer;

use heard::{Heard, Place};

use crate::backoff::Backoff;
use crate::config::{Isolation, KafkaConfig};
use crate::error::BusError;
use crate::metrics::{FOLLOWER_FAILURES, FOLLOWER_RECORDS};
use crate::native::{PollFailure, Polled, Poller, TopicPartition, request};
use crate::runner::InputRecord;
use crate::shutdown::Shutdown;
use crate::topics::partition_counts;
use crate::unreadable::measure;

/// What to follow.
#[derive(Debug, Clone)]
pub struct FollowerConfig {
    /// Brokers and client properties.
    pub kafka: KafkaConfig,
    /// Its name in logs and metrics.
    pub name: &'static str,
    /// Topics; events name them by their index here.
    pub topics: Vec<String>,
    /// Only this partition of each topic; `None` is all.
    pub partition: Option<u32>,
    /// How long the topics keep tombstones. Who has heard nothing of a partition for half of that
    /// begins anew, as there may be keys whose deletion cannot be learned any more.
    pub tombstones: Duration,
}

/// What a follower tells.
#[derive(Debug, Clone, Copy)]
pub enum FollowerEvent<'a> {
    /// A record, committed but for [`Follower::start_uncommitted`]; those of one partition come in
    /// the log's order. A `value` of `None` deletes the key.
    Record(InputRecord<'a>),
    /// Everything that was committed when following began has been handed on. Comes once, and
    /// once more after each `Reset`.
    CaughtUp,
    /// How many partitions a topic has; comes for each before anything else, and once more after a
    /// `Reset`.
    Partitions {
        /// Index into the topics.
        topic_index: usize,
        /// How many there are, whether or not all are followed.
        count: u32,
    },
    /// A partition was read to its end.
    EndOfPartition {
        /// Index into the topics.
        topic_index: usize,
        /// Partition.
        partition: u32,
        /// The next record will have this offset or a later one.
        offset: i64,
    },
    /// The brokers are away, a topic is missing, or the like; it goes on trying. At most one
    /// every 10 s, besides batches that cannot be read and are passed by.
    Failed(&'a BusError),
    /// The position was lost: everything comes again from the beginning. What was built so far
    /// must be replaced, not added to.
    Reset,
}

/// A running follower; dropped, it stops.
#[derive(Debug)]
pub struct Follower {
    shutdown: Shutdown,
    thread: Option<JoinHandle<()>>,
}

const PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(100);
const REPORT_EVERY: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
const PAUSES: Backoff = Backoff::new(Duration::from_millis(100), LONGEST_PAUSE);

impl Follower {
    /// Starts following. `handler` is called on the follower's thread and should be quick.
    ///
    /// # Errors
    /// [`BusError::Property`] for settings that cannot be used. Everything else, an absent broker
    /// or topic included, is reported to the handler and tried again.
    pub fn start(
        config: FollowerConfig,
        handler: impl FnMut(FollowerEvent<'_>) + Send + 'static,
    ) -> Result<Self, BusError> {
        Self::start_reading(config, Isolation::ReadCommitted, handler)
    }

    /// The same for who must not wait for transactions of others, and is not misled by what they
    /// never commit.
    ///
    /// # Errors
    /// As [`Follower::start`].
    pub fn start_uncommitted(
        config: FollowerConfig,
        handler: impl FnMut(FollowerEvent<'_>) + Send + 'static,
    ) -> Result<Self, BusError> {
        Self::start_reading(config, Isolation::ReadUncommitted, handler)
    }

    fn start_reading(
        config: FollowerConfig,
        isolation: Isolation,
        handler: impl FnMut(FollowerEvent<'_>) + Send + 'static,
    ) -> Result<Self, BusError> {
        config.kafka.validate()?;
        let shutdown = Shutdown::new();
        let mut following = Following {
            config,
            isolation,
            handler,
            shutdown: shutdown.clone(),
            has_delivered: false,
            last_report: None,
        };
        let thread = thread::Builder::new()
            .name(format!("follow-{}", following.config.name))
            .spawn(move || following.run())
            .expect("the system starts threads");
        Ok(Self {
            shutdown,
            thread: Some(thread),
        })
    }

    /// Stops and waits for the thread.
    pub fn stop(self) {}
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.shutdown.request();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a follower's handler panicked");
        }
    }
}

struct Following<H> {
    config: FollowerConfig,
    isolation: Isolation,
    handler: H,
    shutdown: Shutdown,
    has_delivered: bool,
    last_report: Option<Instant>,
}

/// The next offset of each partition.
type Positions = HashMap<Place, i64>;

/// Every partition with its first offset.
type Starts = Vec<(Behind, i64)>;

/// Why a follower does not go on.
enum Ended {
    Stopped,
    /// Nothing was heard of a partition for so long that tombstones may have been missed.
    WasAway,
}

/// A partition that has not reached the end it had when following began.
struct Behind {
    topic_index: usize,
    partition: u32,
    target: i64,
}

impl<H: FnMut(FollowerEvent<'_>)> Following<H> {
    fn run(&mut self) {
        let mut backoff = PAUSES;
        while !self.shutdown.is_requested() {
            let began = Instant::now();
            match self.follow() {
                Ok(Ended::Stopped) => return,
                Ok(Ended::WasAway) => {
                    let follower = self.config.name;
                    tracing::warn!(
                        follower,
                        "nothing was heard for so long that deletions may have been missed; the topics are read again"
                    );
                    continue;
                }
                Err(error) => self.report(&error),
            }
            backoff.reset_after(began.elapsed());
            self.shutdown.wait(backoff.pause());
        }
    }

    /// Until asked to stop, or an error that librdkafka does not get over.
    fn follow(&mut self) -> Result<Ended, BusError> {
        let client = self.config.kafka.reader(self.isolation)?;
        let reader = Poller::new(&client)?;
        let (counts, mut behind) = self.partitions(&reader)?;
        let mut next: Positions = behind
            .iter()
            .map(|(one, low)| ((one.topic_index, one.partition), *low))
            .collect();
        reader.assign(&self.starts(&next))?;
        if std::mem::take(&mut self.has_delivered) {
            (self.handler)(FollowerEvent::Reset);
        }
        for (topic_index, count) in counts.into_iter().enumerate() {
            (self.handler)(FollowerEvent::Partitions { topic_index, count });
        }
        for (one, low) in &behind {
            if *low == one.target {
                (self.handler)(FollowerEvent::EndOfPartition {
                    topic_index: one.topic_index,
                    partition: one.partition,
                    offset: one.target,
                });
            }
        }
        behind.retain(|(one, low)| *low < one.target);
        let mut behind: Vec<Behind> = behind.into_iter().map(|(one, _)| one).collect();
        let mut heard = Heard::now(next.keys().copied(), self.config.tombstones);
        let mut asks_at = Instant::now() + heard.ask_every();
        let mut is_caught_up = false;
        let records = metrics::counter!(FOLLOWER_RECORDS, "follower" => self.config.name);
        while !self.shutdown.is_requested() {
            if !is_caught_up && behind.is_empty() {
                is_caught_up = true;
                (self.handler)(FollowerEvent::CaughtUp);
            }
            match reader.poll(POLL) {
                Polled::Record(message) => {
                    let Some(topic_index) = self.index_of(message.topic()) else {
                        continue;
                    };
                    let record = message.as_input(topic_index);
                    if heard.hear((topic_index, record.partition)) {
                        return Ok(Ended::WasAway);
                    }
                    self.has_delivered = true;
                    next.insert((topic_index, record.partition), record.offset + 1);
                    (self.handler)(FollowerEvent::Record(record));
                    records.increment(1);
                    advance(
                        &mut behind,
                        topic_index,
                        record.partition,
                        record.offset + 1,
                    );
                }
                Polled::End { at, offset } => {
                    let Some(topic_index) = self.index_of(at.topic.as_bytes()) else {
                        continue;
                    };
                    let place = (topic_index, at.partition.cast_unsigned());
                    if heard.hear(place) {
                        return Ok(Ended::WasAway);
                    }
                    next.insert(place, offset);
                    self.end(place, offset, &mut behind);
                }
                Polled::Failed(failure) => {
                    if let (Some(base), Some(at)) = (failure.unreadable_batch(), &failure.at) {
                        self.pass_by(&reader, at, base, &mut next)?;
                        continue;
                    }
                    if self.is_made_up(&reader, &failure, &next)? {
                        reader.assign(&self.starts(&next))?;
                        continue;
                    }
                    let is_transient = failure.is_transient();
                    let error = failure.into_error();
                    if !is_transient {
                        return Err(error);
                    }
                    self.report(&error);
                }
                Polled::Nothing | Polled::Assigned(_) | Polled::Revoked => {}
            }
            if Instant::now() >= asks_at {
                asks_at = Instant::now() + heard.ask_every();
                if self.ask_silent(&reader, &next, &mut heard) {
                    return Ok(Ended::WasAway);
                }
            }
        }
        Ok(Ended::Stopped)
    }

    /// Asks for the ends of partitions that are silent: where there is nothing to say, they are
    /// known. Returns whether that took too long.
    fn ask_silent(&self, reader: &Poller, next: &Positions, heard: &mut Heard) -> bool {
        let mut was_away = false;
        for place in heard.silent() {
            let topic = &self.config.topics[place.0];
            let partition = place.1.cast_signed();
            let ends = reader
                .consumer()
                .fetch_watermarks(topic, partition, PATIENCE);
            let Ok((_, end)) = ends else {
                // The brokers are away: the others are not heard of either.
                break;
            };
            if next.get(&place).is_some_and(|next| *next >= end) {
                was_away |= heard.hear(place);
            }
        }
        was_away
    }

    /// How many partitions each topic has, and every partition to read with its target and its first
    /// offset.
    fn partitions(&self, reader: &Poller) -> Result<(Vec<u32>, Starts), BusError> {
        let consumer = reader.consumer();
        let counts = partition_counts(consumer.client(), &self.config.kafka.brokers, PATIENCE)?;
        let (mut all, mut found) = (Vec::new(), Vec::new());
        for (topic_index, topic) in self.config.topics.iter().enumerate() {
            let count = *counts.get(topic).ok_or_else(|| BusError::TopicMissing {
                topic: topic.clone(),
            })?;
            all.push(count);
            let wanted = match self.config.partition {
                None => 0..count,
                Some(one) if one < count => one..one + 1,
                Some(one) => {
                    return Err(BusError::PartitionCount {
                        topic: topic.clone(),
                        found: count,
                        expected: one + 1,
                    });
                }
            };
            for partition in wanted {
                // For a `read_committed` client the high end is that of the committed records.
                let (low, target) = consumer
                    .fetch_watermarks(topic, partition.cast_signed(), PATIENCE)
                    .map_err(request("asking for the ends of a followed topic"))?;
                let behind = Behind {
                    topic_index,
                    partition,
                    target,
                };
                found.push((behind, low));
            }
        }
        Ok((all, found))
    }

    fn index_of(&self, topic: &[u8]) -> Option<usize> {
        let mut topics = self.config.topics.iter();
        topics.position(|known| known.as_bytes() == topic)
    }

    fn end(&mut self, (topic_index, partition): Place, offset: i64, behind: &mut Vec<Behind>) {
        advance(behind, topic_index, partition, offset);
        (self.handler)(FollowerEvent::EndOfPartition {
            topic_index,
            partition,
            offset,
        });
    }

    /// What a batch that cannot be read said about its keys is lost; the others are still right.
    fn pass_by(
        &mut self,
        reader: &Poller,
        at: &TopicPartition,
        base: i64,
        next: &mut Positions,
    ) -> Result<(), BusError> {
        let found = measure(&self.config.kafka, at, base, PATIENCE * 4)?;
        if let (Some(lost), Some(topic_index)) = (found, self.index_of(at.topic.as_bytes())) {
            next.insert((topic_index, lost.partition), lost.to);
            (self.handler)(FollowerEvent::Failed(&BusError::Unreadable(lost)));
        }
        reader.assign(&self.starts(next))
    }

    /// Whether an offset is missed that nobody needs.
    fn is_made_up(
        &self,
        reader: &Poller,
        failure: &PollFailure,
        next: &Positions,
    ) -> Result<bool, BusError> {
        let Some(at) = failure.out_of_range() else {
            return Ok(false);
        };
        let topic = self.index_of(at.topic.as_bytes());
        let known = topic.and_then(|topic| next.get(&(topic, at.partition.cast_unsigned())));
        known.map_or(Ok(false), |next| Ok(!reader.is_gone(at, *next)?))
    }

    fn starts(&self, next: &Positions) -> Vec<(&str, i32, Offset)> {
        let each = next.iter().map(|((topic_index, partition), offset)| {
            let topic = self.config.topics[*topic_index].as_str();
            (topic, partition.cast_signed(), Offset::Offset(*offset))
        });
        each.collect()
    }

    fn report(&mut self, error: &BusError) {
        metrics::counter!(FOLLOWER_FAILURES, "follower" => self.config.name).increment(1);
        if self
            .last_report
            .is_some_and(|last| last.elapsed() < REPORT_EVERY)
        {
            return;
        }
        self.last_report = Some(Instant::now());
        let (follower, pause) = (self.config.name, LONGEST_PAUSE);
        tracing::warn!(follower, error = %error, ?pause, "cannot follow, trying again");
        (self.handler)(FollowerEvent::Failed(error));
    }
}

fn advance(behind: &mut Vec<Behind>, topic_index: usize, partition: u32, next: i64) {
    if behind.is_empty() {
        return;
    }
    behind.retain(|one| {
        one.topic_index != topic_index || one.partition != partition || next < one.target
    });
}
