//! Offsets: what the group has committed, and where logs begin and end.

use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::{LogConsumer, LogPartition};
use crate::error::BusError;
use crate::native::request;

/// A committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The next offset to read.
    pub offset: i64,
    /// What was stored with it.
    pub metadata: String,
}

impl LogConsumer {
    /// What the group has committed for a partition; `None` for nothing yet.
    ///
    /// # Errors
    /// [`BusError::Request`], also after `timeout`.
    pub fn committed(
        &self,
        at: LogPartition,
        timeout: Duration,
    ) -> Result<Option<Committed>, BusError> {
        let doing = || self.doing("asking for the committed offset of", at);
        let mut wanted = TopicPartitionList::new();
        wanted.add_partition(self.topic(at), at.partition.cast_signed());
        let found = self
            .poller
            .consumer()
            .committed_offsets(wanted, timeout)
            .map_err(doing())?;
        let element = found.elements().into_iter().next();
        let Some(element) = element else {
            return Ok(None);
        };
        element.error().map_err(doing())?;
        Ok(match element.offset() {
            Offset::Offset(offset) => Some(Committed {
                offset,
                metadata: element.metadata().to_owned(),
            }),
            _ => None,
        })
    }

    /// Commits the next offset to read, with metadata (at most 4 KiB), and waits for the answer, for half
    /// a minute.
    ///
    /// # Errors
    /// [`BusError::Request`]; the partition may belong to somebody else. Where the answer did not come
    /// it may be committed or not.
    pub fn commit(&self, at: LogPartition, offset: i64, metadata: &str) -> Result<(), BusError> {
        let doing = || self.doing("committing", at);
        let mut list = TopicPartitionList::new();
        let mut element = list.add_partition(self.topic(at), at.partition.cast_signed());
        element
            .set_offset(Offset::Offset(offset))
            .map_err(doing())?;
        element.set_metadata(metadata);
        self.poller.commit(&list).map_err(doing())
    }

    /// First offset of a partition's log, and the one after its last committed record.
    ///
    /// # Errors
    /// [`BusError::Request`], also after `timeout`.
    pub fn bounds(&self, at: LogPartition, timeout: Duration) -> Result<(i64, i64), BusError> {
        self.poller
            .consumer()
            .fetch_watermarks(self.topic(at), at.partition.cast_signed(), timeout)
            .map_err(self.doing("asking for the ends of", at))
    }

    fn doing(&self, what: &str, at: LogPartition) -> impl FnOnce(KafkaError) -> BusError + use<> {
        let topic = self.topic(at);
        request(&format!(
            "{what} topic `{topic}` partition {}",
            at.partition
        ))
    }
}
