//! What can go wrong, where it happened, and whether trying again can help.

use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::unreadable::Unreadable;

/// An error of this crate. [`BusError::can_retry`] says whether trying again can help.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// A setting that cannot be used.
    #[error("kafka property `{name}`: {reason}")]
    Property {
        /// The property's name.
        name: String,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// A client could not be created from the settings.
    #[error("cannot create a Kafka client: {0}; check [kafka.properties]")]
    Client(#[source] KafkaError),
    /// No broker answered.
    #[error("no Kafka broker answers at {brokers}: {error}")]
    Unreachable {
        /// Bootstrap servers.
        brokers: String,
        /// What the client said last.
        #[source]
        error: KafkaError,
    },
    /// Brokers answer, but do not let the client in: a certificate, a login or the protocol.
    #[error("Kafka at {brokers} does not let this client in: {reason}; check [kafka.properties]")]
    NotLetIn {
        /// Bootstrap servers.
        brokers: String,
        /// What the client said.
        reason: String,
    },
    /// A topic does not exist.
    #[error("topic `{topic}` does not exist; create it with `spendfuse topics create`")]
    TopicMissing {
        /// Its name.
        topic: String,
    },
    /// A topic has another number of partitions than the stage was set up with.
    #[error(
        "topic `{topic}` has {found} partitions, {expected} are configured; all topics of a stage \
         need the same number, and growing it is a documented procedure"
    )]
    PartitionCount {
        /// Its name.
        topic: String,
        /// Partitions it has.
        found: u32,
        /// Partitions it should have.
        expected: u32,
    },
    /// Two running workers have the same `group.instance.id`.
    #[error(
        "another running process uses the instance id `{instance}` in group `{group}` and has \
         taken over; give every process its own `instance_id`"
    )]
    DuplicateInstance {
        /// Consumer group.
        group: String,
        /// The `group.instance.id` that is used twice.
        instance: String,
    },
    /// The place in the group belongs to a process that lives; it goes on undisturbed.
    #[error(
        "another process {whose} runs with the instance id `{instance}` in group `{group}`; give \
         every process its own `instance_id`, or stop that one"
    )]
    PlaceTaken {
        /// Consumer group.
        group: String,
        /// The `group.instance.id`.
        instance: String,
        /// Where the other one is.
        whose: String,
    },
    /// A member of the group did not get the same partitions of every input topic.
    #[error(
        "group `{group}` was assigned partition {partition} without `{topic}`; all members must \
         run the same version and read the same topics"
    )]
    NotCoPartitioned {
        /// Consumer group.
        group: String,
        /// The partition.
        partition: u32,
        /// The input topic that is missing from the assignment.
        topic: String,
    },
    /// The group hands out what this member does not read: the assignment of one of the same name
    /// that read other topics, whose session has not ended.
    #[error(
        "group `{group}` assigned `{topic}` to this member, which does not read it: one of the same \
         name did so within the session time-out; the group was left and is joined anew"
    )]
    ForeignAssignment {
        /// Consumer group.
        group: String,
        /// A topic that is not read.
        topic: String,
    },
    /// Somebody else works in the group, on other topics.
    #[error(
        "group `{group}` has a member at {host} that reads `{topic}`, a topic of another \
         installation: both would fence each other's transactions; give one of them its own \
         `transactional_id_prefix`, or stop that one"
    )]
    GroupShared {
        /// Consumer group.
        group: String,
        /// Where the member is.
        host: String,
        /// A topic that it reads.
        topic: String,
    },
    /// The state in the changelog belongs to other offsets than the ones committed.
    #[error(
        "partition {partition} of group `{group}`: the changelog `{changelog}` belongs to \
         position {stored}, but the group has committed {committed}; somebody moved the group's \
         offsets, gave the group another name (transactional_id_prefix), or changed the changelog. \
         Once no process of another name reads these topics, set the group's offsets to the \
         changelog's position (kafka-consumer-groups --reset-offsets), then start again"
    )]
    PositionMismatch {
        /// Consumer group.
        group: String,
        /// The partition.
        partition: u32,
        /// Changelog topic.
        changelog: String,
        /// Position in the changelog, `topic@offset` for each input.
        stored: String,
        /// Committed position, in the same form.
        committed: String,
    },
    /// A batch of a log that must not have gaps cannot be read by any client.
    #[error(
        "{0}; without it the state would be wrong. Where another replica of the topic is whole, let \
         it lead (kafka-leader-election), then start again"
    )]
    Unreadable(Unreadable),
    /// An internal record cannot be read.
    #[error("topic `{topic}` partition {partition}: {reason}")]
    BadRecord {
        /// Topic.
        topic: String,
        /// Partition.
        partition: u32,
        /// What is wrong.
        reason: String,
    },
    /// A record is larger than the topic or the client takes. The same record fails again.
    #[error("a record of {bytes} bytes is too large for topic `{topic}` partition {partition}")]
    TooLarge {
        /// Output topic.
        topic: String,
        /// Output partition; -1 where none was chosen.
        partition: i32,
        /// Size of key and value; 0 where the broker refused it and the size is not known.
        bytes: usize,
    },
    /// A record could not be handed over or was not acknowledged.
    #[error("sending to topic `{topic}` partition {partition}: {error}")]
    Send {
        /// Output topic.
        topic: String,
        /// Output partition; -1 where none was chosen.
        partition: i32,
        /// What the client said.
        #[source]
        error: KafkaError,
    },
    /// The local send queue is full.
    #[error("the send queue is full ({queued} records wait for the broker)")]
    QueueFull {
        /// Records waiting.
        queued: usize,
    },
    /// A step of a transaction failed; its outcome may be unknown.
    #[error("transaction step `{step}`: {error}")]
    Transaction {
        /// Which call failed.
        step: &'static str,
        /// What the client said.
        #[source]
        error: KafkaError,
    },
    /// Another request to the broker failed.
    #[error("{doing}: {error}")]
    Request {
        /// What was being done.
        doing: String,
        /// What the client said.
        #[source]
        error: KafkaError,
    },
    /// The consumer reported an error that it does not get over by itself.
    #[error("consuming: {reason} ({code})")]
    Consume {
        /// The client's error code.
        code: RDKafkaErrorCode,
        /// What the client said.
        reason: String,
    },
    /// Something did not happen in time.
    #[error("{doing} took longer than {after:?}")]
    TimedOut {
        /// What was being done.
        doing: String,
        /// How long was waited.
        after: Duration,
    },
    /// The stage's logic failed.
    #[error(transparent)]
    Logic(#[from] LogicError),
    /// The stage's logic panicked.
    #[error("the stage panicked: {message}")]
    Panicked {
        /// The panic's message.
        message: String,
    },
    /// The caller asked to stop while the call was waiting.
    #[error("stopped while waiting")]
    Stopped,
}

impl BusError {
    /// Whether trying again, with new clients, can help. What cannot be helped by trying again
    /// needs a person: configuration, missing topics, lost offsets, unreadable state.
    pub fn can_retry(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::NotLetIn { .. }
            | Self::Send { .. }
            | Self::QueueFull { .. }
            | Self::Transaction { .. }
            | Self::Request { .. }
            | Self::Consume { .. }
            | Self::TimedOut { .. }
            | Self::ForeignAssignment { .. }
            | Self::Panicked { .. } => true,
            Self::Logic(error) => error.can_retry(),
            Self::Property { .. }
            | Self::Client(_)
            | Self::TopicMissing { .. }
            | Self::PartitionCount { .. }
            | Self::DuplicateInstance { .. }
            | Self::PlaceTaken { .. }
            | Self::NotCoPartitioned { .. }
            | Self::GroupShared { .. }
            | Self::PositionMismatch { .. }
            | Self::Unreadable(_)
            | Self::BadRecord { .. }
            | Self::TooLarge { .. }
            | Self::Stopped => false,
        }
    }
}

/// An error of a stage's logic, told apart by what the runner must do.
#[derive(Debug, thiserror::Error)]
pub enum LogicError {
    /// This input can never be processed. The runner takes the batch back, finds the record and
    /// gives it to [`PartitionLogic::reject`](crate::PartitionLogic::reject).
    #[error("cannot process: {0}")]
    Input(String),
    /// State, changelog or configuration cannot be understood. The worker stops with an error.
    #[error("cannot go on: {0}")]
    Fatal(String),
    /// This record can be processed only with something newer that
    /// [`StageLogic::between_batches`](crate::StageLogic::between_batches) picks up; nothing was
    /// changed. The runner commits what came before it, and asks again between batches, for two
    /// seconds.
    #[error("cannot process yet: {0}")]
    NotYet(String),
    /// Something outside failed for now. The worker starts again from the changelog.
    #[error("cannot go on for now: {0}")]
    Retry(String),
    /// An output was refused.
    #[error(transparent)]
    Output(Box<BusError>),
}

impl LogicError {
    /// Whether trying again can help.
    pub fn can_retry(&self) -> bool {
        match self {
            Self::Retry(_) | Self::NotYet(_) => true,
            Self::Output(error) => error.can_retry(),
            Self::Input(_) | Self::Fatal(_) => false,
        }
    }
}

impl From<BusError> for LogicError {
    fn from(error: BusError) -> Self {
        match error {
            BusError::Logic(error) => error,
            other => Self::Output(Box::new(other)),
        }
    }
}
