//! Reads topics as a static member of a group whose offsets (with metadata) the caller commits:
//! the loader.

mod offsets;
mod positions;

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use crate::config::{KafkaConfig, Membership};
use crate::error::BusError;
use crate::native::{Polled, Poller, TopicPartition, request};
use crate::place::Place;
use crate::runner::InputRecord;
use crate::shutdown::Shutdown;
use crate::topics::partition_counts;
use crate::unreadable::Unreadable;

pub use offsets::Committed;

/// Nobody waits for these readers to the millisecond: the broker answers once so much has come
/// together, or after `fetch.wait.max.ms`, instead of once a commit of every partition.
const FETCH_MIN_BYTES: &str = "1048576";

/// A partition of one of the consumer's topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogPartition {
    /// Index into the topics that the consumer was opened with.
    pub topic_index: usize,
    /// Partition.
    pub partition: u32,
}

/// What a poll brought.
#[derive(Debug)]
pub enum LogEvent<'a> {
    /// Nothing within the time-out.
    Nothing,
    /// The group assigned exactly these partitions; answer with [`LogConsumer::start`].
    Assigned(Vec<LogPartition>),
    /// The group takes all partitions back. Finish and commit what is begun, unless
    /// [`LogConsumer::is_lost`], and answer with [`LogConsumer::release`].
    Revoked,
    /// A committed record.
    Record(InputRecordHolder<'a>),
    /// Records that no client can read; the consumer has gone on behind them.
    Unreadable {
        /// Which partition.
        at: LogPartition,
        /// What is missed.
        lost: Unreadable,
    },
    /// The log does not have the position of a partition any more (or not yet), which is not read until
    /// [`LogConsumer::begin`].
    Gone {
        /// Which partition.
        at: LogPartition,
        /// The next offset to read.
        from: i64,
        /// Where the log begins; its end, where that is before `from`.
        to: i64,
    },
    /// A partition was read to its end.
    EndOfPartition {
        /// Which.
        at: LogPartition,
        /// The next record will have this offset or a later one.
        offset: i64,
    },
}

/// A record in the client's memory; [`InputRecordHolder::record`] looks at it.
pub struct InputRecordHolder<'a> {
    message: crate::native::Message<'a>,
    topic_index: usize,
}

impl InputRecordHolder<'_> {
    /// The record.
    pub fn record(&self) -> InputRecord<'_> {
        self.message.as_input(self.topic_index)
    }
}

impl std::fmt::Debug for InputRecordHolder<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.record().fmt(formatter)
    }
}

/// How a consumer is set up.
#[derive(Debug, Clone)]
pub struct LogConsumerConfig {
    /// Brokers and client properties.
    pub kafka: KafkaConfig,
    /// Consumer group.
    pub group_id: String,
    /// `group.instance.id`: different for every member, the same after a restart.
    pub instance_id: String,
    /// Topics; partitions name them by their index here.
    pub topics: Vec<String>,
    /// A member that is gone is replaced after this time.
    pub session_timeout: Duration,
    /// A member that does not poll for this long is replaced.
    pub max_poll_interval: Duration,
}

/// A member of a consumer group.
pub struct LogConsumer {
    poller: Poller,
    /// The next offset of each partition that is read.
    next: RefCell<HashMap<LogPartition, i64>>,
    config: LogConsumerConfig,
}

impl LogConsumer {
    /// Creates the client, checks that the topics exist and joins the group.
    ///
    /// # Errors
    /// [`BusError::Unreachable`] after `patience`, [`BusError::TopicMissing`],
    /// [`BusError::Property`].
    pub fn open(config: LogConsumerConfig, patience: Duration) -> Result<Self, BusError> {
        let consumer = Self::connect(config, patience)?;
        consumer.join()?;
        Ok(consumer)
    }

    /// The same at a place that is claimed, once nobody elsewhere has it.
    ///
    /// # Errors
    /// As [`LogConsumer::open`]; [`BusError::PlaceTaken`], [`BusError::Stopped`].
    pub fn open_at(
        place: &Place,
        config: LogConsumerConfig,
        patience: Duration,
        shutdown: &Shutdown,
    ) -> Result<Self, BusError> {
        let consumer = Self::connect(config, patience)?;
        let session_timeout = consumer.config.session_timeout;
        let topics = &consumer.config.topics;
        place.settle(&consumer.poller, topics, session_timeout, shutdown)?;
        consumer.join()?;
        Ok(consumer)
    }

    /// Ends in order: where others can take over, they do so at once.
    pub fn close(self, place: &Place) {
        place.give_up(&self.poller);
    }

    fn connect(config: LogConsumerConfig, patience: Duration) -> Result<Self, BusError> {
        let mut settings = config.kafka.member(&Membership {
            group_id: &config.group_id,
            instance_id: &config.instance_id,
            session_timeout: config.session_timeout,
            max_poll_interval: config.max_poll_interval,
        })?;
        config
            .kafka
            .set_unless_given(&mut settings, "fetch.min.bytes", FETCH_MIN_BYTES);
        let poller = Poller::new(&settings)?;
        let client = poller.consumer().client();
        let existing = partition_counts(client, &config.kafka.brokers, patience)?;
        let missing = config
            .topics
            .iter()
            .find(|topic| !existing.contains_key(*topic));
        if let Some(topic) = missing {
            return Err(BusError::TopicMissing {
                topic: topic.clone(),
            });
        }
        Ok(Self {
            poller,
            next: RefCell::default(),
            config,
        })
    }

    fn join(&self) -> Result<(), BusError> {
        let topics: Vec<&str> = self.config.topics.iter().map(String::as_str).collect();
        self.poller
            .consumer()
            .subscribe(&topics)
            .map_err(request("subscribing"))
    }

    /// Waits for the next event. Must be called again within the maximum poll interval.
    ///
    /// # Errors
    /// [`BusError::DuplicateInstance`] where another process took over, [`BusError::ForeignAssignment`]
    /// where the group handed out topics of another consumer of this name, [`BusError::Consume`]: open
    /// a new consumer.
    pub fn poll(&self, timeout: Duration) -> Result<LogEvent<'_>, BusError> {
        Ok(match self.poller.poll(timeout) {
            Polled::Nothing => LogEvent::Nothing,
            Polled::Record(message) => match self.index_of(message.topic()) {
                Some(topic_index) => {
                    let at = LogPartition {
                        topic_index,
                        partition: message.partition().cast_unsigned(),
                    };
                    self.next.borrow_mut().insert(at, message.offset() + 1);
                    LogEvent::Record(InputRecordHolder {
                        message,
                        topic_index,
                    })
                }
                None => LogEvent::Nothing,
            },
            Polled::End { at, offset } => match self.partition(&at) {
                Some(at) => {
                    self.follow_end(at, offset);
                    LogEvent::EndOfPartition { at, offset }
                }
                None => LogEvent::Nothing,
            },
            Polled::Assigned(assigned) => {
                let (group, topics) = (&self.config.group_id, &self.config.topics);
                self.poller.refuse_foreign(group, topics, &assigned)?;
                let partitions = assigned.iter().filter_map(|at| self.partition(at));
                LogEvent::Assigned(partitions.collect())
            }
            Polled::Revoked => LogEvent::Revoked,
            Polled::Failed(failure) => {
                if let (Some(base), Some(at)) = (failure.unreadable_batch(), &failure.at) {
                    return self.pass_by(at, base);
                }
                if self.is_made_up(&failure)? {
                    self.start_again()?;
                    return Ok(LogEvent::Nothing);
                }
                if let Some(gone) = self.gone(&failure)? {
                    return Ok(gone);
                }
                let cause = self.poller.consumer().client().fatal_error();
                let code = cause.map_or(failure.code, |(code, _)| code);
                match code {
                    RDKafkaErrorCode::FencedInstanceId => {
                        return Err(BusError::DuplicateInstance {
                            group: self.config.group_id.clone(),
                            instance: self.config.instance_id.clone(),
                        });
                    }
                    _ if failure.is_transient() => LogEvent::Nothing,
                    _ => return Err(failure.into_error()),
                }
            }
        })
    }

    /// Reads a partition from `offset`, besides those that are read. Whatever was paused is read again.
    ///
    /// # Errors
    /// [`BusError::Request`].
    pub fn begin(&self, at: LogPartition, offset: i64) -> Result<(), BusError> {
        self.next.borrow_mut().insert(at, offset);
        self.start_unpaused()
    }

    /// An assignment alone leaves paused what was (librdkafka 2.12).
    fn start_unpaused(&self) -> Result<(), BusError> {
        self.start_again()?;
        let read: Vec<LogPartition> = self.next.borrow().keys().copied().collect();
        self.resume(&read)
    }

    fn start_again(&self) -> Result<(), BusError> {
        let next = self.next.borrow();
        let starts: Vec<(&str, i32, Offset)> = next
            .iter()
            .map(|(at, offset)| {
                let partition = at.partition.cast_signed();
                (self.topic(*at), partition, Offset::Offset(*offset))
            })
            .collect();
        self.poller.assign(&starts)
    }

    /// Answers an assignment, or replaces what is read: exactly these partitions, each from its
    /// offset. None is a valid answer while the caller prepares.
    ///
    /// # Errors
    /// [`BusError::Request`].
    pub fn start(&self, positions: &[(LogPartition, i64)]) -> Result<(), BusError> {
        *self.next.borrow_mut() = positions.iter().copied().collect();
        self.start_again()
    }

    /// Answers a revocation; nothing is read any more.
    ///
    /// # Errors
    /// [`BusError::Request`].
    pub fn release(&self) -> Result<(), BusError> {
        self.poller.unassign()
    }

    /// Whether the partitions already belong to somebody else, so that a commit would fail.
    pub fn is_lost(&self) -> bool {
        self.poller.consumer().assignment_lost()
    }

    /// Whether any broker answers a small question within `timeout`.
    pub fn broker_answers(&self, timeout: Duration) -> bool {
        let client = self.poller.consumer().client();
        let topic = self.config.topics.first().map(String::as_str);
        client.fetch_metadata(topic, timeout).is_ok()
    }

    /// Stops fetching partitions until [`LogConsumer::resume`], to push back.
    ///
    /// # Errors
    /// [`BusError::Request`].
    pub fn pause(&self, partitions: &[LogPartition]) -> Result<(), BusError> {
        self.poller
            .consumer()
            .pause(&self.list(partitions))
            .map_err(request("pausing partitions"))
    }

    /// Fetches paused partitions again.
    ///
    /// # Errors
    /// [`BusError::Request`].
    pub fn resume(&self, partitions: &[LogPartition]) -> Result<(), BusError> {
        self.poller
            .consumer()
            .resume(&self.list(partitions))
            .map_err(request("resuming partitions"))
    }

    fn list(&self, partitions: &[LogPartition]) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for at in partitions {
            list.add_partition(self.topic(*at), at.partition.cast_signed());
        }
        list
    }

    fn topic(&self, at: LogPartition) -> &str {
        &self.config.topics[at.topic_index]
    }

    fn index_of(&self, topic: &[u8]) -> Option<usize> {
        let mut topics = self.config.topics.iter();
        topics.position(|known| known.as_bytes() == topic)
    }

    fn partition(&self, at: &TopicPartition) -> Option<LogPartition> {
        Some(LogPartition {
            topic_index: self.index_of(at.topic.as_bytes())?,
            partition: at.partition.cast_unsigned(),
        })
    }
}
