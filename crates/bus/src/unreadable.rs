//! Batches that no client can read: which offsets they take, and so the way past them.
//!
//! Records lie in the log by batches, and a batch is read as a whole: where its compression is
//! unknown or its bytes are damaged, librdkafka (2.12) reports the batch's first offset and asks for
//! the same again, for ever. Where the batch ends it does not say. That is found by looking: a
//! reader that begins within the batch is given all of it and fails at the same first offset, one
//! that begins behind it does not.
//!
//! Whoever meets such a batch measures it and is assigned its partitions anew, this one from behind
//! it. Behind a batch with a wrong checksum librdkafka goes on at a wrong place in the answer, makes
//! up an offset from what lies there, and asks the broker for that (`rd_kafka_buf_skip_to` in
//! `rd_kafka_msgset_reader_v2`). What comes of it is outdated by the new assignment, but for the
//! report that the log does not have such an offset.

use std::fmt;
use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::consumer::Consumer;

use crate::config::{Isolation, KafkaConfig};
use crate::error::BusError;
use crate::metrics::UNREADABLE_BATCHES;
use crate::native::{Polled, Poller, TopicPartition, request};

/// How long one look may take; the broker answers within milliseconds.
const LOOK: Duration = Duration::from_secs(5);

/// Offsets `from..to` of one partition, which cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: u32,
    /// The first offset that is missed.
    pub from: i64,
    /// The first offset behind the batch.
    pub to: i64,
    /// What the client said about it.
    pub reason: String,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "offsets {} to {} of topic `{}` partition {} cannot be read: {}",
            self.from,
            self.to - 1,
            self.topic,
            self.partition,
            self.reason
        )
    }
}

/// What lies at an offset.
enum Seen {
    /// A record, or the end of the log.
    Readable,
    /// A batch with this first offset that cannot be read.
    Unreadable { base: i64, reason: String },
}

/// Measures the batch that a reader failed at, which is at `start` or holds it. `None` where the log
/// can be read there after all. Counts it and writes a line.
///
/// # Errors
/// [`BusError::Request`], [`BusError::Consume`]; [`BusError::TimedOut`] where it takes longer than
/// `patience`.
pub(crate) fn measure(
    kafka: &KafkaConfig,
    at: &TopicPartition,
    start: i64,
    patience: Duration,
) -> Result<Option<Unreadable>, BusError> {
    let looking = Looking {
        kafka,
        at,
        deadline: Instant::now() + patience,
    };
    let Seen::Unreadable { base, reason } = looking.at(start)? else {
        return Ok(None);
    };
    let from = start.max(base);
    let to = looking.end_of(base, from)?;
    let found = Unreadable {
        topic: at.topic.clone(),
        partition: at.partition.cast_unsigned(),
        from,
        to,
        reason,
    };
    metrics::counter!(UNREADABLE_BATCHES, "topic" => at.topic.clone()).increment(1);
    tracing::error!(
        topic = at.topic,
        partition = at.partition,
        from,
        to,
        error = found.reason,
        "a batch of the log cannot be read by any client and is passed by"
    );
    Ok(Some(found))
}

struct Looking<'l> {
    kafka: &'l KafkaConfig,
    at: &'l TopicPartition,
    deadline: Instant,
}

impl Looking<'_> {
    /// The first offset behind the batch at `base`, which holds `within`.
    fn end_of(&self, base: i64, within: i64) -> Result<i64, BusError> {
        // The batch was handed out, so all of it lies before the last stable offset.
        let mut beyond = self.last_stable()?.max(within + 1);
        let mut within = within;
        let mut step = 1;
        while beyond - within > 1 {
            // In growing steps at first: most batches are short, and the log behind may be long.
            let between = (within + step).min(within + (beyond - within) / 2);
            match self.at(between)? {
                Seen::Unreadable { base: found, .. } if found == base => {
                    within = between;
                    step *= 2;
                }
                // The next batch begins there, or before.
                Seen::Unreadable { base: found, .. } => beyond = between.min(found),
                Seen::Readable => beyond = between,
            }
        }
        Ok(beyond)
    }

    fn last_stable(&self) -> Result<i64, BusError> {
        let reader = self.reader()?;
        let ends = reader
            .consumer()
            .fetch_watermarks(&self.at.topic, self.at.partition, LOOK)
            .map_err(request(&format!(
                "asking for the end of topic `{}` partition {}",
                self.at.topic, self.at.partition
            )));
        reader.drop_later();
        ends.map(|(_, end)| end)
    }

    /// Looks with a client of its own: what another one has fetched before cannot come in between.
    fn at(&self, offset: i64) -> Result<Seen, BusError> {
        let reader = self.reader()?;
        let seen = self.look(&reader, offset);
        reader.drop_later();
        seen
    }

    fn reader(&self) -> Result<Poller, BusError> {
        Poller::new(&self.kafka.reader(Isolation::ReadCommitted)?)
    }

    fn look(&self, reader: &Poller, offset: i64) -> Result<Seen, BusError> {
        let (topic, partition) = (self.at.topic.as_str(), self.at.partition);
        reader.assign(&[(topic, partition, Offset::Offset(offset))])?;
        let deadline = self.deadline.min(Instant::now() + LOOK);
        loop {
            match reader.poll(Duration::from_millis(50)) {
                Polled::Record(_) | Polled::End { .. } => return Ok(Seen::Readable),
                Polled::Failed(failure) => {
                    if let Some(base) = failure.unreadable_batch() {
                        return Ok(Seen::Unreadable {
                            base,
                            reason: failure.reason,
                        });
                    }
                    if !failure.is_transient() {
                        return Err(failure.into_error());
                    }
                }
                Polled::Nothing | Polled::Assigned(_) | Polled::Revoked => {}
            }
            if Instant::now() >= deadline {
                return Err(BusError::TimedOut {
                    doing: format!(
                        "looking for the end of an unreadable batch of topic `{topic}` partition \
                         {partition}"
                    ),
                    after: LOOK,
                });
            }
        }
    }
}
