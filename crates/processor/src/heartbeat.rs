//! How far a partition has come, told to the enforcement points.

use metrics::gauge;
use spendfuse_broken::{Break, is_broken};
use spendfuse_bus::{InputProgress, InputState};
use spendfuse_domain::verdict::{Heartbeat, Stage, heartbeat_key};
use spendfuse_domain::{Severity, UnixMillis};
use spendfuse_engine::alert::{Alert, AlertDetails, AlertKind};
use spendfuse_engine::stamps::is_ahead;

use crate::metrics::WATERMARK_LAG;

/// An open transaction that holds an input back for this long is told to people, milliseconds.
/// Kafka ends a transaction whose producer is gone after a minute by default.
const HELD_TOO_LONG: i64 = 60_000;

/// A partition's watermark: everything that the broker accepted before it has been processed, on
/// every input.
#[derive(Debug)]
pub struct Watermark {
    stage: Stage,
    partition: u32,
    inputs: Vec<Input>,
    now: UnixMillis,
    due: Option<Due>,
    /// Nothing can be told yet, but something must be written: the broker's time is read off it.
    asks_for_time: bool,
    alerts: Vec<Alert>,
}

#[derive(Debug, Default)]
struct Input {
    topic: String,
    complete_to: UnixMillis,
    /// Everything before this offset is processed.
    reached: i64,
    /// Since when an open transaction has held the input back there.
    held_since: Option<UnixMillis>,
    is_told: bool,
}

/// What a heartbeat says, as of the moment when it became due: what the running batch adds may yet
/// lie behind the heartbeat in other partitions.
#[derive(Debug)]
struct Due {
    complete_to: UnixMillis,
    usage_offset: Option<i64>,
}

impl Watermark {
    /// A partition that has seen nothing of its input `topics`, a meter's usage topic first.
    pub fn new(stage: Stage, partition: u32, topics: &[&str]) -> Self {
        let input = |topic: &&str| Input {
            topic: (*topic).to_owned(),
            ..Input::default()
        };
        Self {
            stage,
            partition,
            inputs: topics.iter().map(input).collect(),
            now: UnixMillis::default(),
            due: None,
            asks_for_time: false,
            alerts: Vec::new(),
        }
    }

    /// A batch begins at `now`.
    pub fn begin(&mut self, now_millis: i64) {
        self.now = UnixMillis(now_millis);
    }

    /// The record at `offset` of an input was processed; the broker took it at `log_time`. Never
    /// event time: an idle or late sender must not hold the watermark back.
    pub fn processed(&mut self, input: usize, offset: i64, log_time: UnixMillis) {
        let (input, now) = (&mut self.inputs[input], self.now);
        // A stamp of a clock that jumped says nothing.
        if !is_ahead(log_time, now) {
            input.complete_to = input.complete_to.max(log_time);
        }
        input.reached = input.reached.max(offset + 1);
    }

    /// Time passes; `progress` of each input as of `now`. A heartbeat is due.
    pub fn tick(&mut self, now_millis: i64, progress: &[InputProgress]) {
        let now = UnixMillis(now_millis);
        self.now = now;
        let partition = self.partition;
        for (input, progress) in self.inputs.iter_mut().zip(progress) {
            if let Some(alert) = input.advance(partition, *progress, now) {
                self.alerts.push(alert);
            }
        }
        self.asks_for_time = self.complete_to() == UnixMillis::default();
        self.announce();
        self.show_lag(self.lag_millis(self.complete_to()));
    }

    /// The partition is another worker's, who tells how far behind it is.
    pub fn clear_metrics(&self) {
        self.show_lag(0);
    }

    fn show_lag(&self, millis: u64) {
        let stage = match self.stage {
            Stage::Meter => "meter",
            Stage::Ledger => "ledger",
        };
        gauge!(WATERMARK_LAG, "stage" => stage, "partition" => self.partition.to_string())
            .set(millis as f64 / 1000.0);
    }

    /// A heartbeat is due, between two batches. None before every input is known: what a
    /// predecessor told stays true, and 1970 would take it back.
    pub fn announce(&mut self) {
        let is_unknown = self.complete_to() == UnixMillis::default();
        if is_unknown && !is_broken(Break::HeartbeatBegunAnew) {
            return;
        }
        let usage = match self.stage {
            Stage::Meter => self.inputs.first(),
            Stage::Ledger => None,
        };
        self.due = Some(Due {
            complete_to: self.complete_to(),
            usage_offset: usage.map(|input| input.reached),
        });
    }

    /// Up to when everything is processed: how far the partition's own time may advance. The wall
    /// clock would end sessions and windows whose events still wait in the log.
    pub fn complete_to(&self) -> UnixMillis {
        let times = self.inputs.iter().map(|input| input.complete_to);
        times.min().unwrap_or_default()
    }

    /// The last record of an input that is processed, those of the running batch included, by its
    /// offset; `None` before the first.
    pub fn through(&self, input: usize) -> Option<i64> {
        let reached = self.inputs.get(input)?.reached;
        (reached > 0).then(|| reached - 1)
    }

    /// Whether a heartbeat is due, or a commit without one.
    pub fn is_due(&self) -> bool {
        self.due.is_some() || self.asks_for_time
    }

    /// The heartbeat that is due, with its blocklist key.
    pub fn take(&mut self, seq: u64, budget_version: u64) -> Option<(String, Heartbeat)> {
        self.asks_for_time = false;
        let due = self.due.take()?;
        let heartbeat = Heartbeat {
            v: 1,
            partition: self.partition,
            complete_to: due.complete_to,
            lag_ms: self.lag_millis(due.complete_to),
            version: seq,
            usage_offset: due.usage_offset,
            budget_version,
            openings: Vec::new(),
        };
        Some((heartbeat_key(self.stage, self.partition), heartbeat))
    }

    /// What people should be told.
    pub fn take_alerts(&mut self) -> Vec<Alert> {
        std::mem::take(&mut self.alerts)
    }

    fn lag_millis(&self, complete_to: UnixMillis) -> u64 {
        self.now.since(complete_to).max(0).unsigned_abs()
    }
}

impl Input {
    fn advance(
        &mut self,
        partition: u32,
        progress: InputProgress,
        now: UnixMillis,
    ) -> Option<Alert> {
        let has_moved = progress.reached > self.reached;
        self.reached = self.reached.max(progress.reached);
        if progress.state == InputState::Complete {
            self.complete_to = self.complete_to.max(now);
        }
        if progress.state != InputState::Held || has_moved {
            self.held_since = None;
            self.is_told = false;
        }
        if progress.state != InputState::Held {
            return None;
        }
        let since = *self.held_since.get_or_insert(now);
        if now.since(since) < HELD_TOO_LONG || self.is_told {
            return None;
        }
        self.is_told = true;
        let (topic, offset) = (&self.topic, self.reached);
        Some(Alert {
            v: 1,
            key: format!("held_transaction|{topic}|{partition}|{offset}"),
            kind: AlertKind::HeldTransaction,
            severity: Severity::Critical,
            scope: "*".to_owned(),
            subject: format!("{topic} partition {partition}"),
            message: format!(
                "an open transaction has held back partition {partition} of topic {topic} behind offset {offset} since {since}: what it holds is not counted and checks are answered as stale; find its producer, or end it with kafka-transactions.sh find-hanging and abort"
            ),
            at: now,
            count: None,
            details: AlertDetails::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(reached: i64, state: InputState) -> InputProgress {
        InputProgress { reached, state }
    }

    #[test]
    fn an_open_transaction_holds_the_watermark_back_and_is_told_once_after_a_minute() {
        let mut watermark = Watermark::new(Stage::Meter, 3, &["usage", "rerouted"]);
        let complete = progress(5, InputState::Complete);
        watermark.tick(1_000, &[complete, complete]);
        assert_eq!(watermark.complete_to(), UnixMillis(1_000));
        let held = progress(7, InputState::Held);
        for now in (2_000..=62_000).step_by(1_000) {
            watermark.tick(now, &[complete, held]);
            let told = watermark.take_alerts();
            assert_eq!(told.len(), usize::from(now == 62_000), "{now}");
        }
        assert_eq!(watermark.complete_to(), UnixMillis(1_000));
        watermark.tick(63_000, &[complete, held]);
        assert_eq!(watermark.take_alerts(), []);
        // What may be read is still counted, and only that advances the input.
        watermark.processed(1, 7, UnixMillis(1_500));
        assert_eq!(watermark.complete_to(), UnixMillis(1_500));
        watermark.tick(64_000, &[complete, progress(9, InputState::Complete)]);
        let (_, beat) = watermark.take(1, 4).expect("a heartbeat is due");
        assert_eq!(beat.complete_to, UnixMillis(64_000));
        assert_eq!((beat.usage_offset, beat.budget_version), (Some(5), 4));
    }

    #[test]
    fn a_busy_input_does_not_speak_for_a_quiet_one() {
        let mut watermark = Watermark::new(Stage::Meter, 0, &["usage", "rerouted"]);
        watermark.tick(1_000, &[progress(0, InputState::Complete); 2]);
        watermark.processed(0, 4, UnixMillis(9_000));
        assert_eq!(watermark.complete_to(), UnixMillis(1_000));
    }

    #[test]
    fn a_heartbeat_says_nothing_of_the_batch_that_it_is_written_with() {
        let mut watermark = Watermark::new(Stage::Meter, 0, &["usage"]);
        watermark.tick(1_000, &[progress(4, InputState::Complete)]);
        watermark.announce();
        watermark.begin(2_000);
        watermark.processed(0, 4, UnixMillis(1_900));
        let (_, beat) = watermark.take(1, 0).expect("a heartbeat is due");
        assert_eq!(beat.complete_to, UnixMillis(1_000));
        assert_eq!((beat.lag_ms, beat.usage_offset), (1_000, Some(4)));
    }

    #[test]
    fn before_time_is_known_something_is_written_and_nothing_told() {
        let mut watermark = Watermark::new(Stage::Meter, 0, &["usage"]);
        watermark.announce();
        assert!(!watermark.is_due());
        watermark.tick(1_000, &[progress(0, InputState::Behind)]);
        assert!(
            watermark.is_due(),
            "the broker's time is read off what is written"
        );
        assert_eq!(watermark.take(1, 0), None);
        assert!(!watermark.is_due());
        watermark.tick(2_000, &[progress(0, InputState::Complete)]);
        assert!(watermark.take(2, 0).is_some());
    }
}
