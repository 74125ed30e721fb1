//! What a consumer group has committed, seen from outside: how far a role has come.

use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use crate::config::{Isolation, KafkaConfig};
use crate::error::BusError;
use crate::log_consumer::Committed;
use crate::native::{Poller, request};
use crate::topics::partition_counts;

const ASK_AGAIN: Duration = Duration::from_millis(200);

/// The next offset that `group_id` will read, for every partition of `topic`; `None` where it has
/// committed nothing. The group is not joined. Offsets of transactions that are still open are
/// waited for.
///
/// # Errors
/// [`BusError::Unreachable`] after `patience`, [`BusError::TopicMissing`], [`BusError::Request`].
pub fn committed_offsets(
    kafka: &KafkaConfig,
    group_id: &str,
    topic: &str,
    patience: Duration,
) -> Result<Vec<Option<i64>>, BusError> {
    let group = WatchedGroup::open(kafka, group_id)?;
    let offsets = group.committed(topic, patience);
    group.close();
    offsets
}

/// The same, with what was stored with each offset.
///
/// # Errors
/// As [`committed_offsets`].
pub fn committed_with_metadata(
    kafka: &KafkaConfig,
    group_id: &str,
    topic: &str,
    patience: Duration,
) -> Result<Vec<Option<Committed>>, BusError> {
    let group = WatchedGroup::open(kafka, group_id)?;
    let committed = group.ask(topic, patience);
    group.close();
    committed
}

/// A group that is asked again and again, by one client: to make one costs three threads and as
/// many connections.
pub struct WatchedGroup {
    reader: Poller,
    kafka: KafkaConfig,
    group_id: String,
}

impl WatchedGroup {
    /// Creates the client; the brokers may be away.
    ///
    /// # Errors
    /// [`BusError::Property`], [`BusError::Client`].
    pub fn open(kafka: &KafkaConfig, group_id: &str) -> Result<Self, BusError> {
        let mut client = kafka.reader(Isolation::ReadCommitted)?;
        client.set("group.id", group_id);
        Ok(Self {
            reader: Poller::new(&client)?,
            kafka: kafka.clone(),
            group_id: group_id.to_owned(),
        })
    }

    /// As [`committed_offsets`].
    ///
    /// # Errors
    /// As [`committed_offsets`].
    pub fn committed(&self, topic: &str, patience: Duration) -> Result<Vec<Option<i64>>, BusError> {
        let committed = self.ask(topic, patience)?.into_iter();
        Ok(committed
            .map(|known| known.map(|known| known.offset))
            .collect())
    }

    fn ask(&self, topic: &str, patience: Duration) -> Result<Vec<Option<Committed>>, BusError> {
        committed_of(&self.reader, &self.kafka, &self.group_id, topic, patience)
    }

    /// Ends the client without waiting for it, which takes 100 ms.
    pub fn close(self) {
        self.reader.drop_later();
    }
}

/// Whether the group has no coordinator for the moment, as after the start of a broker.
fn coordinator_moves(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::NotCoordinator
                | RDKafkaErrorCode::CoordinatorLoadInProgress
                | RDKafkaErrorCode::CoordinatorNotAvailable
        )
    )
}

fn committed_of(
    reader: &Poller,
    kafka: &KafkaConfig,
    group_id: &str,
    topic: &str,
    patience: Duration,
) -> Result<Vec<Option<Committed>>, BusError> {
    let consumer = reader.consumer();
    let counts = partition_counts(consumer.client(), &kafka.brokers, patience)?;
    let count = *counts.get(topic).ok_or_else(|| BusError::TopicMissing {
        topic: topic.to_owned(),
    })?;
    let doing = || request(&format!("asking what group `{group_id}` has committed"));
    let mut wanted = TopicPartitionList::new();
    for partition in 0..count {
        wanted.add_partition(topic, partition.cast_signed());
    }
    let deadline = Instant::now() + patience;
    let found = loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match consumer.committed_offsets(wanted.clone(), left) {
            Err(error) if coordinator_moves(&error) && left > ASK_AGAIN => {
                thread::park_timeout(ASK_AGAIN);
            }
            found => break found.map_err(doing())?,
        }
    };
    let mut committed = vec![None; count as usize];
    for element in found.elements() {
        element.error().map_err(doing())?;
        let index = usize::try_from(element.partition()).ok();
        if let (Offset::Offset(offset), Some(index)) = (element.offset(), index)
            && let Some(known) = committed.get_mut(index)
        {
            *known = Some(Committed {
                offset,
                metadata: element.metadata().to_owned(),
            });
        }
    }
    Ok(committed)
}
