//! Questions for where partitions begin and end.

use std::time::Duration;

use rdkafka::consumer::Consumer;

use super::heard::Heard;
use super::{Behind, Following, PATIENCE, Positions, Starts};
use crate::error::BusError;
use crate::native::{Poller, request};
use crate::topics::partition_counts;

/// How long one of the questions may take whether trouble is over: meanwhile nothing is handed on.
const SHORT_PATIENCE: Duration = Duration::from_secs(1);

impl<H> Following<H> {
    /// Asks for the ends of partitions that are silent: where there is nothing to say, they are
    /// known. Returns whether that took too long.
    pub(super) fn ask_silent(&self, reader: &Poller, next: &Positions, heard: &mut Heard) -> bool {
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

    /// Whether the brokers answer, and have nothing that is not handed on. Where they have, its coming
    /// says the same.
    pub(super) fn is_at_its_end(&self, reader: &Poller, next: &Positions) -> bool {
        next.iter().all(|((topic_index, partition), next)| {
            let topic = &self.config.topics[*topic_index];
            let consumer = reader.consumer();
            let ends = consumer.fetch_watermarks(topic, partition.cast_signed(), SHORT_PATIENCE);
            ends.is_ok_and(|(_, end)| *next >= end)
        })
    }

    /// How many partitions each topic has, and every partition to read with its target and its first
    /// offset.
    pub(super) fn partitions(&self, reader: &Poller) -> Result<(Vec<u32>, Starts), BusError> {
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
}
