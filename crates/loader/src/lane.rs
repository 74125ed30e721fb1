//! One rows partition as a session sees it: its protocol, its place in the log, its work under way.

use spendfuse_bus::LogPartition;
use spendfuse_domain::UnixMillis;
use tokio::task::JoinHandle;

use crate::checkpoint::BrokenLink;
use crate::metrics as names;
use crate::protocol::{PartitionProtocol, StopReason};
use crate::settled::Settled;

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
        self.paused = false;
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

    pub(crate) fn publish_metrics(&self, now: UnixMillis) {
        let labels = [
            ("topic", self.topic.clone()),
            ("partition", self.at.partition.to_string()),
        ];
        let waiting = self.protocol.waiting_since();
        let lag = waiting.map_or(0, |since| now.since(since).max(0));
        metrics::gauge!(names::LOADER_LAG_SECONDS, &labels).set(lag as f64 / 1000.0);
        let bytes = self.protocol.buffered_bytes();
        metrics::gauge!(names::LOADER_BUFFERED_BYTES, &labels).set(bytes as f64);
        let stopped = u8::from(self.protocol.is_stopped());
        metrics::gauge!(names::LOADER_STOPPED, &labels).set(stopped);
    }
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
    use std::time::{Duration, Instant};

    use super::*;
    use crate::batch::BatchLimits;
    use crate::checkpoint::Checkpoint;
    use crate::protocol::ProtocolRules;

    const RULES: ProtocolRules = ProtocolRules {
        limits: BatchLimits { rows: 4, bytes: 1 },
        flush_interval: 10,
        deduplication_window: 1000,
        deduplication_millis: 1_000_000,
        epoch: 0,
        content_tokens: true,
        completes_parts: true,
    };

    #[test]
    fn rows_put_in_after_a_restart_settle_as_late_as_new_ones() {
        let at = LogPartition {
            topic_index: 0,
            partition: 0,
        };
        let protocol = PartitionProtocol::start("rows", 0, RULES, 5, Checkpoint::default());
        let mut lane = Lane::new(at, "rows", protocol, Some(5));
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
