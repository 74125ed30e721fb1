//! A worker's partitions, and the bookkeeping of the batch that is open on them.

use std::time::{Duration, Instant};

use rdkafka::{Offset, TopicPartitionList};
use spendfuse_broken::{Break, is_broken};

use super::config::StageConfig;
use super::logic::PartitionLogic;
use super::position::Position;
use crate::error::BusError;
use crate::native::request;

/// Input that retention has removed before it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LostInput {
    pub(super) input: usize,
    /// One sentence, with the command that accepts it.
    pub(super) sentence: String,
}

/// One partition of the worker.
pub(super) struct Slot<P> {
    pub(super) partition: u32,
    pub(super) logic: P,
    /// Number of the last commit.
    pub(super) seq: u64,
    /// Next offset of each input.
    pub(super) next: Vec<i64>,
    /// The end of each input where it was reached and nothing came since.
    pub(super) ends: Vec<Option<i64>>,
    /// The input that is lost, where it stands still until somebody accepts that.
    pub(super) lost: Option<LostInput>,
    /// Whether the logic was told about the batch.
    pub(super) begun: bool,
    /// Records in the open batch.
    pub(super) records: usize,
}

impl<P> Slot<P> {
    /// Moves behind what ends an input without being a record: markers of transactions. Retention may
    /// remove a log up to its end, and a position before that could not be told from loss.
    pub(super) fn pass_markers(&mut self) {
        if is_broken(Break::IdlePositionStays) {
            return;
        }
        for (next, end) in self.next.iter_mut().zip(&self.ends) {
            *next = end.map_or(*next, |end| end.max(*next));
        }
    }

    /// Whether the next commit has something of it to write.
    pub(super) fn has_news(&self) -> bool
    where
        P: PartitionLogic,
    {
        self.records > 0 || self.logic.has_output()
    }

    /// Whether an input was read up to an end behind its next offset.
    pub(super) fn is_before_end(&self) -> bool {
        let mut inputs = self.next.iter().zip(&self.ends);
        let is_behind = inputs.any(|(next, end)| end.is_some_and(|end| end > *next));
        // What stands still has records that were not counted.
        is_behind && self.lost.is_none() && !is_broken(Break::IdlePositionStays)
    }

    /// What the changelog will say after the next commit.
    pub(super) fn next_position(&self, config: &StageConfig) -> Position {
        let inputs = config.inputs.iter().cloned();
        Position {
            seq: self.seq + 1,
            inputs: inputs.zip(self.next.clone()).collect(),
            group: Some(config.group_id.clone()),
        }
    }

    /// Adds the offsets of all inputs, unchanged ones too: they carry the group's generation,
    /// which fences a worker whose partition has moved.
    pub(super) fn add_offsets(
        &self,
        inputs: &[String],
        offsets: &mut TopicPartitionList,
    ) -> Result<(), BusError> {
        for (topic, next) in inputs.iter().zip(&self.next) {
            offsets
                .add_partition_offset(topic, self.partition.cast_signed(), Offset::Offset(*next))
                .map_err(request("collecting offsets"))?;
        }
        Ok(())
    }

    /// The batch was committed.
    pub(super) fn committed(&mut self) {
        self.seq += 1;
        self.begun = false;
        self.records = 0;
    }
}

/// How full the open batch is.
#[derive(Debug, Default)]
pub(super) struct Batch {
    first_at: Option<Instant>,
    pub(super) records: usize,
    bytes: usize,
    /// Records and bytes since the clock was last read.
    unclocked: (usize, usize),
    /// How long its first record had waited in the log.
    waited: Duration,
    /// How long the commit of the batch before took.
    commit_took: Duration,
    /// The most records it may have, where one of them is a suspect.
    pub(super) limit: Option<usize>,
}

/// Reading the clock for each record would cost as much as a small record's processing.
const CLOCK_EVERY_RECORDS: usize = 32;
/// Large records take long themselves.
const CLOCK_EVERY_BYTES: usize = 16 * 1024;

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Begins with a record that has waited in the log for `waited_millis`.
    pub(super) fn begin(&mut self, waited_millis: i64) {
        self.first_at = Some(Instant::now());
        self.waited = Duration::from_millis(waited_millis.try_into().unwrap_or(0));
    }

    /// Adds a record.
    pub(super) fn add(&mut self, bytes: usize) {
        debug_assert!(self.first_at.is_some(), "a batch begins first");
        self.records += 1;
        self.bytes += bytes;
        self.unclocked.0 += 1;
        self.unclocked.1 += bytes;
    }

    /// The record that was added last does not belong to it.
    pub(super) fn take_back(&mut self, bytes: usize) {
        self.records -= 1;
        self.bytes -= bytes;
    }

    /// Whether it must be committed although more records wait.
    pub(super) fn is_full(&mut self, config: &StageConfig) -> bool {
        if self.records >= self.limit.unwrap_or(config.batch_max_events)
            || self.bytes >= config.batch_max_bytes
        {
            return true;
        }
        let (records, bytes) = self.unclocked;
        if records < CLOCK_EVERY_RECORDS && bytes < CLOCK_EVERY_BYTES {
            return false;
        }
        self.unclocked = (0, 0);
        self.age() >= self.interval(config)
    }

    /// How long it may stay open while records keep coming. Larger batches cost less a record, so
    /// the more a worker is behind, the longer it gathers: half of what its records have waited,
    /// which shortens the wait where prompt commits would only keep it as it is. And at least as
    /// long as the last commit took: under load no more than half of the time goes into commits.
    fn interval(&self, config: &StageConfig) -> Duration {
        let most = config.catch_up_interval.max(config.commit_interval);
        let wanted = (self.waited / 2).max(self.commit_took);
        wanted.clamp(config.commit_interval, most)
    }

    /// How long more records may be waited for: none once `commit_min` has passed.
    pub(super) fn patience(&self, config: &StageConfig) -> Duration {
        config.commit_min.saturating_sub(self.age())
    }

    /// Nothing is open any more, committed or not.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// It was committed, which took so long.
    pub(super) fn committed(&mut self, commit_took: Duration) {
        self.clear();
        self.commit_took = commit_took;
    }

    fn age(&self) -> Duration {
        self.first_at
            .map_or(Duration::ZERO, |first| first.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KafkaConfig;

    #[test]
    fn batches_grow_with_the_time_that_records_have_waited_and_commits_take() {
        let kafka = KafkaConfig::new("localhost:9092", "test");
        let config = StageConfig::new(kafka, "meter", "meter", "meter-1");
        let after = |commit_millis, waited_millis| {
            let mut batch = Batch::default();
            batch.committed(Duration::from_millis(commit_millis));
            batch.begin(waited_millis);
            batch.interval(&config)
        };
        let interval = |waited_millis| after(5, waited_millis);
        let (least, most) = (config.commit_interval, config.catch_up_interval);
        assert_eq!([interval(-5), interval(10)], [least; 2]);
        assert_eq!(interval(100), Duration::from_millis(50));
        assert_eq!(interval(3_600_000), most);
        assert_eq!(after(70, 100), Duration::from_millis(70));
        assert_eq!(after(5_000, 0), most);
    }
}
