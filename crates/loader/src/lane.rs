//! One rows partition as a session sees it: its protocol, its place in the log, its work under way.

use std::collections::VecDeque;

use spendfuse_bus::LogPartition;
use spendfuse_domain::UnixMillis;
use tokio::task::JoinHandle;

use crate::checkpoint::BrokenLink;
use crate::metrics as names;
use crate::protocol::{PartitionProtocol, StopReason};
use crate::settled::Settled;

/// Stamps of records that wait are kept this far apart, milliseconds.
const BETWEEN_STAMPS: i64 = 100;
/// Reading pauses above this many waiting bytes and goes on below half of it.
const PAUSE_ABOVE_BYTES: usize = 64 * 1024 * 1024;

pub(crate) struct Lane {
    pub(crate) at: LogPartition,
    pub(crate) topic: String,
    pub(crate) protocol: PartitionProtocol,
    /// What the group has committed.
    pub(crate) committed: Option<i64>,
    /// Why it waits for a person.
    pub(crate) stopped_by: Option<StopReason>,
    /// Whether the last minutes have to be compared with the log.
    pub(crate) looks_again: bool,
    /// What ClickHouse has on its disk.
    pub(crate) settled: Settled,
    /// Everything before this offset has been received.
    pub(crate) read_to: i64,
    /// People were told of broken chains before this offset; what is read again is not told again.
    chains_told_to: i64,
    /// Offsets that were received, ascending, and when the broker took the record there: those in
    /// between have hardly other stamps.
    stamps: VecDeque<(i64, UnixMillis)>,
    /// The insert or inspection under way.
    pub(crate) work: Option<JoinHandle<()>>,
    paused: bool,
}

/// What to do about reading a partition.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pressure {
    Pause,
    Resume,
}

impl Lane {
    pub(crate) fn new(
        at: LogPartition,
        topic: &str,
        protocol: PartitionProtocol,
        committed: Option<i64>,
    ) -> Self {
        // A series that begins with its first increase shows no increase.
        for kind in BrokenLink::KINDS {
            metrics::counter!(
                names::LOADER_BROKEN_LINKS_TOTAL,
                "topic" => topic.to_owned(),
                "partition" => at.partition.to_string(),
                "kind" => kind
            )
            .increment(0);
        }
        Self {
            at,
            topic: topic.to_owned(),
            read_to: protocol.position(),
            looks_again: false,
            settled: Settled::new(protocol.position()),
            chains_told_to: 0,
            stamps: VecDeque::new(),
            work: None,
            committed,
            stopped_by: None,
            // What is stopped from the start is not read at all.
            paused: protocol.is_stopped(),
            protocol,
        }
    }

    /// Reading begins anew at the protocol's position, of which nothing is paused.
    pub(crate) fn read_again(&mut self) {
        self.read_to = self.protocol.position();
        self.stamps.clear();
        self.paused = false;
    }

    /// The record at `offset` came, which the broker took at `log_time`.
    pub(crate) fn received(&mut self, offset: i64, log_time: UnixMillis) {
        self.read_to = offset + 1;
        // A broker's clock may be set back.
        let is_apart =
            |(_, last): &(i64, UnixMillis)| log_time.since(*last).abs() >= BETWEEN_STAMPS;
        if self.stamps.back().is_none_or(is_apart) {
            self.stamps.push_back((offset, log_time));
        }
    }

    /// How long ago the broker took the oldest record that is not in the warehouse, milliseconds; 0
    /// where none is known. What is only looked for once more does not count.
    fn lag_millis(&mut self, now: UnixMillis) -> i64 {
        if self.protocol.waiting_since().is_none() && !self.protocol.is_stopped() {
            self.stamps.clear();
        }
        // An offset that was moved by hand says nothing.
        let is_read_again = self.protocol.is_looking() && !self.protocol.looks_without_offsets();
        let committed = self.committed.filter(|_| is_read_again);
        let loaded_to = self.protocol.position().max(committed.unwrap_or(0));
        while self.stamps.len() > 1 && self.stamps[1].0 <= loaded_to {
            self.stamps.pop_front();
        }
        let is_waiting = self.read_to > loaded_to;
        let oldest = self.stamps.front().filter(|_| is_waiting);
        oldest.map_or(0, |(_, log_time)| now.since(*log_time).max(0))
    }

    /// Retention removed offsets `from` to `to` while it is looked for what is there.
    pub(crate) fn log_begins_at(&mut self, from: i64, to: i64) {
        self.read_to = to;
        tracing::warn!(
            topic = self.topic,
            partition = self.at.partition,
            from,
            to,
            "the topic's retention removed records before they were compared"
        );
    }

    /// Everything before `from` is on disk, as far as is known.
    pub(crate) fn settle_from(&mut self, from: i64) {
        self.settled = Settled::new(from);
    }

    /// Compares with a restarted server from the returned offset on. What is put in again because of it
    /// is on disk later than what was there before.
    pub(crate) fn begin_comparison(&mut self) -> i64 {
        self.looks_again = false;
        let from = self.settled.from();
        self.settle_from(from);
        from
    }

    /// Reading was assigned anew.
    pub(crate) fn assigned_again(&mut self) {
        self.paused = false;
    }

    /// Whether to pause or resume reading, once for each change.
    pub(crate) fn pressure(&mut self) -> Option<Pressure> {
        let bytes = self.protocol.buffered_bytes();
        if !self.paused && (bytes > PAUSE_ABOVE_BYTES || self.protocol.is_stopped()) {
            self.paused = true;
            return Some(Pressure::Pause);
        }
        if self.paused && bytes < PAUSE_ABOVE_BYTES / 2 && !self.protocol.is_stopped() {
            self.paused = false;
            return Some(Pressure::Resume);
        }
        None
    }

    /// Counts and logs a block that does not continue its writer's chain; `false` where that was done
    /// before, because the block is read again.
    pub(crate) fn report_broken(&mut self, offset: i64, broken: &BrokenLink) -> bool {
        if offset < self.chains_told_to {
            return false;
        }
        self.chains_told_to = offset + 1;
        metrics::counter!(
            names::LOADER_BROKEN_LINKS_TOTAL,
            "topic" => self.topic.clone(),
            "partition" => self.at.partition.to_string(),
            "kind" => broken.kind()
        )
        .increment(1);
        tracing::error!(
            topic = self.topic,
            partition = self.at.partition,
            offset,
            table = broken.table,
            kind = broken.kind(),
            expected = broken.expected,
            previous = broken.link.previous,
            seq = broken.link.seq,
            "a block does not continue its writer's chain: rows are missing or come twice; run spendfuse audit"
        );
        true
    }

    pub(crate) fn publish_metrics(&mut self, now: UnixMillis) {
        let lag_seconds = self.lag_millis(now) as f64 / 1000.0;
        let bytes = self.protocol.buffered_bytes() as f64;
        let is_stopped = self.protocol.is_stopped();
        show(
            &self.topic,
            self.at.partition,
            lag_seconds,
            bytes,
            is_stopped,
        );
    }
}

/// The partition is somebody else's, who tells how it is: what was told last would stand for as long as
/// this process lives.
pub(crate) fn clear_metrics(topic: &str, partition: u32) {
    show(topic, partition, 0.0, 0.0, false);
}

fn show(topic: &str, partition: u32, lag_seconds: f64, bytes: f64, is_stopped: bool) {
    let labels = [
        ("topic", topic.to_owned()),
        ("partition", partition.to_string()),
    ];
    metrics::gauge!(names::LOADER_LAG_SECONDS, &labels).set(lag_seconds);
    metrics::gauge!(names::LOADER_BUFFERED_BYTES, &labels).set(bytes);
    metrics::gauge!(names::LOADER_STOPPED, &labels).set(u8::from(is_stopped));
}

/// Work of a lane that is gone is of no use: the intent is replayed by whoever comes next.
impl Drop for Lane {
    fn drop(&mut self) {
        if let Some(work) = &self.work {
            work.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::{Duration, Instant};

    use spendfuse_warehouse::record::{IndexRange, Link, RowBlock};

    use super::*;
    use crate::batch::{BatchLimits, RowsRecord};
    use crate::checkpoint::Checkpoint;
    use crate::protocol::{Action, ProtocolRules};

    const RULES: ProtocolRules = ProtocolRules {
        limits: BatchLimits { rows: 4, bytes: 1 },
        flush_interval: 10,
        deduplication_window: 1000,
        deduplication_millis: 1_000_000,
        epoch: 0,
        content_tokens: true,
        completes_parts: true,
    };

    fn lane() -> Lane {
        let at = LogPartition {
            topic_index: 0,
            partition: 0,
        };
        let protocol = PartitionProtocol::start("rows", 0, RULES, 5, Checkpoint::default());
        Lane::new(at, "rows", protocol, Some(5))
    }

    const NOW: UnixMillis = UnixMillis(100_000);

    /// A block that the broker took at `log_time`, and that is read only now.
    fn receive(lane: &mut Lane, offset: i64, log_time: i64) {
        let seq = offset.unsigned_abs();
        let block = RowBlock {
            table: "spend".to_owned(),
            schema_version: 1,
            rows: 8,
            epoch: 0,
            link: Link {
                partition: 0,
                previous: seq - 1,
                seq,
            },
            indexes: IndexRange { first: 0, last: 7 },
            native: "native".into(),
        };
        let record = RowsRecord::read(offset, NOW, block.encode().into()).unwrap();
        lane.received(offset, UnixMillis(log_time));
        lane.protocol.received(offset, Ok(record));
    }

    fn next(lane: &mut Lane) -> Option<Action> {
        let read_to = lane.read_to;
        lane.protocol.next(NOW, read_to, &BTreeMap::new())
    }

    fn load_one(lane: &mut Lane) {
        assert!(matches!(next(lane), Some(Action::Commit { .. })));
        assert!(matches!(lane.protocol.committed(), Some(Action::Insert(_))));
        let done = lane.protocol.inserted();
        assert!(matches!(done, Some(Action::Commit { .. })));
        assert!(lane.protocol.committed().is_none());
    }

    /// After a day without a loader a minute of its work is not a minute's lag.
    #[test]
    fn the_lag_is_the_age_of_the_oldest_row_that_is_not_in_the_warehouse() {
        let mut lane = lane();
        assert_eq!(lane.lag_millis(NOW), 0);
        receive(&mut lane, 5, 1_000);
        receive(&mut lane, 6, 61_000);
        assert_eq!(lane.lag_millis(NOW), 99_000);
        load_one(&mut lane);
        assert_eq!(lane.lag_millis(NOW), 39_000);
        load_one(&mut lane);
        assert_eq!(lane.lag_millis(NOW), 0);

        // What stops a partition makes it lag more and more.
        lane.received(7, UnixMillis(90_000));
        lane.protocol.received(7, Err("no block".to_owned()));
        assert!(matches!(next(&mut lane), Some(Action::Stop(_))));
        assert_eq!(lane.lag_millis(NOW), 10_000);
        assert_eq!(lane.lag_millis(NOW.plus(3_600_000)), 3_610_000);
    }

    #[test]
    fn an_offset_that_was_moved_to_the_end_hides_no_lag() {
        let mut lane = lane();
        lane.committed = Some(1_000);
        receive(&mut lane, 5, 1_000);
        assert_eq!(lane.lag_millis(NOW), 99_000);
    }

    #[test]
    fn rows_put_in_after_a_restart_settle_as_late_as_new_ones() {
        let mut lane = lane();
        let begin = Instant::now();
        let after = |seconds| begin + Duration::from_secs(seconds);
        lane.settled.note(after(0), 100);
        lane.settled.note(after(590), 200);
        // ClickHouse is restarted, and has lost everything from 5 on.
        assert_eq!(lane.begin_comparison(), 5);
        lane.settled.note(after(600), 200);
        lane.settled.note(after(1199), 300);
        assert_eq!(lane.settled.from(), 5);
        lane.settled.note(after(1200), 300);
        assert_eq!(lane.settled.from(), 200);
    }
}
