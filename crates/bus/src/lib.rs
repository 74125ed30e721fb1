//! Kafka for spendfuse: bytes, topics, partitions and offsets, and nothing of the domain.
//!
//! * [`runner`] runs a stage: input topics in, one transaction a batch out, state restored from a
//!   changelog. The processor's meter and ledger are written against its traits.
//! * [`follower`] replicates compacted topics (budgets, prices, blocklist) into memory.
//! * [`producer`] sends usage events; [`writer`] replaces sets of records in one transaction.
//! * [`log_consumer`] reads with a group whose offsets the caller commits (the loader).
//! * [`topics`] creates and checks topics.
//!
//! It is the only crate that knows rdkafka, and the only one that holds unsafe code (`native`).

pub mod backoff;
pub mod config;
mod context;
pub mod error;
pub mod follower;
pub mod gaps;
pub mod group;
pub mod headers;
pub mod health;
pub mod log_consumer;
pub mod metrics;
mod native;
pub mod outputs;
pub mod place;
pub mod producer;
pub mod range;
pub mod runner;
pub mod shutdown;
pub mod takeover;
pub mod topics;
mod transaction;
pub mod unreadable;
pub mod writer;

pub use backoff::Backoff;
pub use config::KafkaConfig;
pub use error::{BusError, LogicError};
pub use follower::{Follower, FollowerConfig, FollowerEvent};
pub use gaps::{AcceptedGap, AcceptedGaps, OpenGap, open_gaps};
pub use group::{WatchedGroup, committed_offsets, committed_with_metadata};
pub use headers::Headers;
pub use health::{Condition, Health, Part};
pub use log_consumer::{Committed, LogConsumer, LogConsumerConfig, LogEvent, LogPartition};
pub use outputs::{OutputRecord, OutputSink, Outputs};
pub use place::Place;
pub use producer::{Delivered, EventProducer, EventRecord, ProducerOptions};
pub use range::{PartitionRange, log_ends, read_ranges, topic_ranges};
pub use runner::{
    HistoryTopic, InputProgress, InputRecord, InputState, PartitionLogic, RestoreSource,
    StageConfig, StageEvent, StageLogic, StageObserver, run_stage,
};
pub use shutdown::Shutdown;
pub use takeover::Takeovers;
pub use unreadable::Unreadable;
pub use writer::{TransactionalWriter, write_in_one_transaction};
