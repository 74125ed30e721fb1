//! Input that retention removed before it was read: where it is missing, and that somebody has accepted
//! it.
//!
//! A partition that lost input stands still until a person accepts the loss by a command. While the
//! group's members live Kafka lets nobody else commit for it, so the command commits for a group of
//! the same name with [`SUFFIX`], of which nobody is a member; whoever stands still looks there. What is
//! found belongs to one position of the group alone, so that it is of no use for a later loss. The same
//! way a command asks a partition to do what it does not do by itself ([`AcceptedGaps::ask`]).

use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::{Offset, TopicPartitionList};

use crate::config::{Isolation, KafkaConfig};
use crate::error::BusError;
use crate::group::committed_offsets;
use crate::native::{Poller, request};
use crate::range::topic_ranges;

/// Follows the group's name where losses of its input are accepted.
pub const SUFFIX: &str = "-gaps";

/// Before what was asked, where otherwise the beginning of a gap stands.
const ASKED: &str = "asked ";

/// A loss that a person has accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcceptedGap {
    /// What the group had committed; 0 for nothing.
    pub from: i64,
    /// Where it goes on.
    pub to: i64,
}

/// Input that a group has not read and that is not there any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenGap {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: u32,
    /// What the group has committed.
    pub from: i64,
    /// Where the log begins; its end, where that is before what is committed.
    pub to: i64,
}

/// Where accepted losses of a group are kept.
pub struct AcceptedGaps(Poller);

impl AcceptedGaps {
    /// Of `group_id`. Nothing is asked yet.
    ///
    /// # Errors
    /// [`BusError::Client`], [`BusError::Property`].
    pub fn open(kafka: &KafkaConfig, group_id: &str) -> Result<Self, BusError> {
        let mut client = kafka.reader(Isolation::ReadCommitted)?;
        client.set("group.id", format!("{group_id}{SUFFIX}"));
        Poller::new(&client).map(Self)
    }

    /// What was accepted last for a partition.
    ///
    /// # Errors
    /// [`BusError::Request`], also after `timeout`.
    pub fn last(
        &self,
        topic: &str,
        partition: u32,
        timeout: Duration,
    ) -> Result<Option<AcceptedGap>, BusError> {
        let noted = self.noted(topic, partition, timeout)?;
        Ok(noted.and_then(|(to, from)| {
            let from = from.parse().ok()?;
            Some(AcceptedGap { from, to })
        }))
    }

    /// What was asked of a partition last, and at which position of the group; `None` where a gap was
    /// accepted since.
    ///
    /// # Errors
    /// As [`Self::last`].
    pub fn asked(
        &self,
        topic: &str,
        partition: u32,
        timeout: Duration,
    ) -> Result<Option<(i64, String)>, BusError> {
        let noted = self.noted(topic, partition, timeout)?;
        Ok(noted.and_then(|(at, text)| {
            let asked = text.strip_prefix(ASKED)?;
            Some((at, asked.to_owned()))
        }))
    }

    fn noted(
        &self,
        topic: &str,
        partition: u32,
        timeout: Duration,
    ) -> Result<Option<(i64, String)>, BusError> {
        let doing = || request(&format!("asking for accepted gaps of topic `{topic}`"));
        let mut wanted = TopicPartitionList::new();
        wanted.add_partition(topic, partition.cast_signed());
        let found = self.0.consumer().committed_offsets(wanted, timeout);
        let found = found.map_err(doing())?;
        let Some(element) = found.elements().into_iter().next() else {
            return Ok(None);
        };
        element.error().map_err(doing())?;
        Ok(match element.offset() {
            Offset::Offset(offset) => Some((offset, element.metadata().to_owned())),
            _ => None,
        })
    }

    /// Accepts a loss: the partition goes on, if it stands still at `gap.from`.
    ///
    /// # Errors
    /// [`BusError::Request`].
    pub fn accept(&self, topic: &str, partition: u32, gap: AcceptedGap) -> Result<(), BusError> {
        self.note(topic, partition, gap.to, gap.from.to_string())
    }

    /// Asks a partition for `what`, if it stands still at the position `at` of the group.
    ///
    /// # Errors
    /// [`BusError::Request`].
    pub fn ask(&self, topic: &str, partition: u32, at: i64, what: &str) -> Result<(), BusError> {
        self.note(topic, partition, at, format!("{ASKED}{what}"))
    }

    fn note(&self, topic: &str, partition: u32, at: i64, text: String) -> Result<(), BusError> {
        let doing = || request(&format!("accepting a gap of topic `{topic}`"));
        let mut list = TopicPartitionList::new();
        let mut element = list.add_partition(topic, partition.cast_signed());
        element.set_offset(Offset::Offset(at)).map_err(doing())?;
        element.set_metadata(text);
        self.0.commit(&list).map_err(doing())
    }

    /// Closes the client without waiting for it.
    pub fn close(self) {
        self.0.drop_later();
    }
}

/// What `group_id` has not read of `topic` and can read no more. Without committed offsets nobody can
/// tell.
///
/// # Errors
/// [`BusError::Unreachable`] after `patience`, [`BusError::TopicMissing`], [`BusError::Request`].
pub fn open_gaps(
    kafka: &KafkaConfig,
    group_id: &str,
    topic: &str,
    patience: Duration,
) -> Result<Vec<OpenGap>, BusError> {
    let committed = committed_offsets(kafka, group_id, topic, patience)?;
    let ranges = topic_ranges(kafka, topic, None, patience)?;
    let gap = |(range, committed): (crate::range::PartitionRange, Option<i64>)| {
        let from = committed?;
        let to = from.clamp(range.from, range.to.max(range.from));
        (to != from).then(|| OpenGap {
            topic: topic.to_owned(),
            partition: range.partition,
            from,
            to,
        })
    };
    Ok(ranges.into_iter().zip(committed).filter_map(gap).collect())
}
