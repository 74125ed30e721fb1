//! Replicates compacted topics into memory: read from the beginning, then followed, on a thread
//! of its own, whatever happens to the brokers.

mod ends;
mod heard;
mod trouble;

use std::collections::HashMap;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rdkafka::Offset;

use heard::{Heard, Place};
use trouble::Trouble;

use crate::backoff::Backoff;
use crate::config::{Isolation, KafkaConfig};
use crate::error::BusError;
use crate::metrics::{FOLLOWER_FAILURES, FOLLOWER_RECORDS};
use crate::native::{PollFailure, Polled, Poller, TopicPartition};
use crate::runner::InputRecord;
use crate::shutdown::Shutdown;
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
    /// No more records came for a millisecond. The end of a partition is told only with the broker's
    /// next answer, which it may put off for `fetch.wait.max.ms`.
    Drained,
    /// The brokers are away, a topic is missing, or the like; it goes on trying. Comes again every
    /// 10 s while that lasts. So do batches that cannot be read and are passed by.
    Failed(&'a BusError),
    /// After `Failed`: the brokers are heard again, and nothing is missed.
    Recovered,
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
/// Whoever waits to act until all has come that is on its way waits so long for more.
const SOON: Duration = Duration::from_millis(1);
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
            trouble: Trouble::default(),
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
    trouble: Trouble,
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
        let (mut is_caught_up, mut is_drained) = (false, true);
        let records = metrics::counter!(FOLLOWER_RECORDS, "follower" => self.config.name);
        while !self.shutdown.is_requested() {
            if !is_caught_up && behind.is_empty() {
                is_caught_up = true;
                (self.handler)(FollowerEvent::CaughtUp);
            }
            let patience = if is_drained { POLL } else { SOON };
            match reader.poll(patience) {
                Polled::Record(message) => {
                    let Some(topic_index) = self.index_of(message.topic()) else {
                        continue;
                    };
                    self.recovered();
                    is_drained = false;
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
                    self.recovered();
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
                Polled::Nothing if !is_drained => {
                    is_drained = true;
                    (self.handler)(FollowerEvent::Drained);
                }
                Polled::Nothing | Polled::Assigned(_) | Polled::Revoked => {}
            }
            if self.trouble.asks() && self.is_at_its_end(&reader, &next) {
                self.recovered();
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

    fn recovered(&mut self) {
        if self.trouble.ends() {
            tracing::info!(follower = self.config.name, "follows again");
            (self.handler)(FollowerEvent::Recovered);
        }
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
            self.trouble.begins();
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
        if !self.trouble.begins() {
            return;
        }
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
