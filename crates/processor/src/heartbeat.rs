//! How far a partition has come, told to the enforcement points.

use metrics::gauge;
use spendfuse_domain::UnixMillis;
use spendfuse_domain::verdict::{Heartbeat, Stage, heartbeat_key};

use crate::metrics::WATERMARK_LAG;

/// A partition's watermark: everything that the broker accepted before it has been processed.
#[derive(Debug)]
pub struct Watermark {
    stage: Stage,
    partition: u32,
    complete_to: UnixMillis,
    due: Option<i64>,
}

impl Watermark {
    /// A partition that has seen nothing.
    pub fn new(stage: Stage, partition: u32) -> Self {
        Self {
            stage,
            partition,
            complete_to: UnixMillis::default(),
            due: None,
        }
    }

    /// A record with this log time was processed. Never event time: an idle or late sender must not
    /// hold the watermark back.
    pub fn processed(&mut self, log_time: UnixMillis) {
        self.complete_to = self.complete_to.max(log_time);
    }

    /// Time passes; `at_end`: the whole log as of `now` is processed. A heartbeat is due.
    pub fn tick(&mut self, now_millis: i64, at_end: bool) {
        let now = UnixMillis(now_millis);
        if at_end {
            self.complete_to = self.complete_to.max(now);
        }
        self.due = Some(now_millis);
        let stage = match self.stage {
            Stage::Meter => "meter",
            Stage::Ledger => "ledger",
        };
        let lag_seconds = self.lag_millis(now_millis) as f64 / 1000.0;
        gauge!(WATERMARK_LAG, "stage" => stage, "partition" => self.partition.to_string())
            .set(lag_seconds);
    }

    /// Up to when everything is processed: how far the partition's own time may advance. The wall
    /// clock would end sessions and windows whose events still wait in the log.
    pub fn complete_to(&self) -> UnixMillis {
        self.complete_to
    }

    /// Whether a heartbeat is due.
    pub fn is_due(&self) -> bool {
        self.due.is_some()
    }

    /// The heartbeat that is due, with its blocklist key.
    pub fn take(&mut self, seq: u64) -> Option<(String, Heartbeat)> {
        let now_millis = self.due.take()?;
        let heartbeat = Heartbeat {
            v: 1,
            partition: self.partition,
            complete_to: self.complete_to,
            lag_ms: self.lag_millis(now_millis),
            version: seq,
        };
        Some((heartbeat_key(self.stage, self.partition), heartbeat))
    }

    fn lag_millis(&self, now_millis: i64) -> u64 {
        now_millis
            .saturating_sub(self.complete_to.0)
            .max(0)
            .unsigned_abs()
    }
}
