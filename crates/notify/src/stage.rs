//! The notifier as a stage of the bus: alerts, closed findings and requests in; the state of what is
//! told out, in the transaction of the offsets. What is sent follows from what was committed.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use metrics::{counter, gauge};
use spendfuse_bus::{
    InputProgress, InputRecord, InputState, LogicError, Outputs, PartitionLogic, RestoreSource,
    StageLogic, Unreadable,
};
use spendfuse_domain::UnixMillis;
use spendfuse_domain::finding::{Finding, FindingState};
use spendfuse_engine::alert::Alert;

use crate::broken::HeldBack;
use crate::dispatch::{Dispatch, Ended};
use crate::metrics::{ALERTS, FAILED_MESSAGES, OPEN_MESSAGES, UNKNOWN_RECORDS};
use crate::route::Routes;
use crate::rules::message::State;
use crate::rules::{Notifier, Request};

/// The inputs, by their index.
const ALERTS_INPUT: usize = 0;
const FINDINGS_INPUT: usize = 1;
/// Alerts and requests of ours are far smaller. What is kept of one, and of a hundred in a digest, must
/// fit into a record for as long as it is kept, and it grows by reminders and failures: where a record
/// is too large by time alone, none can be passed by for it.
const MOST_BYTES: usize = 64 * 1024;
/// Only findings that hold this somewhere can have closed.
const CLOSED: &[u8] = b"\"closed\"";

/// Makes the notifier's partitions.
pub(crate) struct NotifierStage {
    pub(crate) routes: Arc<Routes>,
    pub(crate) dispatch: Arc<Dispatch>,
}

/// One partition.
pub(crate) struct NotifierPartition {
    partition: u32,
    notifier: Notifier,
    held_back: HeldBack,
    /// It has never had a notifier that knew the time.
    is_first: bool,
    /// The log's time, and when that was; before that is known, the stamp of the last record.
    clock: (UnixMillis, Instant),
    knows_time: bool,
    /// It is read off what is written.
    asks_for_time: bool,
    /// The latest that a stamp may say.
    latest_stamp: UnixMillis,
}

impl StageLogic for NotifierStage {
    type Partition = NotifierPartition;

    fn open(&mut self, partition: u32) -> Result<NotifierPartition, LogicError> {
        // Left from before the partition was elsewhere; what it is about is tried again.
        self.dispatch.take_ended(partition);
        Ok(NotifierPartition::new(partition, Arc::clone(&self.routes)))
    }

    /// Nothing is open, so whatever has not changed is committed, and only that is sent.
    fn between_batches<'p>(
        &mut self,
        partitions: &mut dyn Iterator<Item = (u32, &'p mut NotifierPartition)>,
    ) where
        Self::Partition: 'p,
    {
        for (number, partition) in partitions {
            for ended in self.dispatch.take_ended(number) {
                partition.ended(ended);
            }
            let now = partition.now();
            partition.notifier.advance(now);
            if partition.notifier.has_changes() {
                continue;
            }
            for attempt in partition.notifier.take_attempts(now) {
                self.dispatch.begin(number, attempt);
            }
        }
    }
}

impl NotifierPartition {
    fn new(partition: u32, routes: Arc<Routes>) -> Self {
        Self {
            partition,
            notifier: Notifier::new(partition, routes),
            held_back: HeldBack::default(),
            is_first: false,
            clock: (UnixMillis(0), Instant::now()),
            knows_time: false,
            asks_for_time: false,
            latest_stamp: UnixMillis(0),
        }
    }

    /// The log's time goes on between ticks: retries and digests do not wait for the next one, which
    /// asks the broker for the ends of all inputs.
    fn now(&self) -> UnixMillis {
        let (time, since) = self.clock;
        let passed = i64::try_from(since.elapsed().as_millis()).unwrap_or(i64::MAX);
        time.plus(passed)
    }

    fn set_clock(&mut self, now: UnixMillis) {
        self.clock = (self.now().max(now), Instant::now());
    }

    fn ended(&mut self, ended: Ended) {
        let Ended {
            number,
            place,
            outcome,
        } = ended;
        let failed = self.notifier.outcome(number, place, outcome, self.now());
        self.tell_of_failure(failed);
    }

    fn tell_of_failure(&self, state: Option<State>) {
        if state == Some(State::Failed) {
            counter!(FAILED_MESSAGES).increment(1);
            tracing::error!(
                partition = self.partition,
                "a message was taken by no place of its route within a day and is given up; `spendfuse alerts list` shows it"
            );
        }
    }

    fn unknown(&self, record: &InputRecord<'_>, error: &dyn fmt::Display) {
        counter!(UNKNOWN_RECORDS).increment(1);
        let (partition, offset) = (record.partition, record.offset);
        tracing::warn!(input = record.topic_index, partition, offset, error = %error, "a record that this version cannot read is passed by");
    }
}

impl PartitionLogic for NotifierPartition {
    fn restore(
        &mut self,
        _source: RestoreSource,
        key: &[u8],
        value: Option<&[u8]>,
        _timestamp_millis: i64,
    ) -> Result<(), LogicError> {
        let key = String::from_utf8_lossy(key);
        let restored = self.notifier.restore(&key, value);
        restored.map_err(|error| LogicError::Fatal(error.to_string()))
    }

    fn restored_time(&self) -> Option<i64> {
        self.notifier.last_time().map(|time| time.0)
    }

    fn restored(&mut self, _seq: u64) -> Result<(), LogicError> {
        self.is_first = !self.notifier.has_begun();
        if self.is_first {
            self.notifier.await_beginning();
        }
        self.notifier.restored();
        Ok(())
    }

    /// Until the log's time is known this is that of this machine, whose clock may be an hour ahead:
    /// windows would be told as over that are not, and what comes now as old news.
    fn begin(&mut self, _seq: u64, now_millis: i64) {
        let now = UnixMillis(now_millis);
        self.latest_stamp = now;
        if self.knows_time {
            self.set_clock(now);
        }
    }

    fn process(&mut self, record: &InputRecord<'_>) -> Result<(), LogicError> {
        let Some(value) = record.value else {
            return Ok(());
        };
        if record.topic_index != FINDINGS_INPUT && value.len() > MOST_BYTES {
            self.unknown(record, &format_args!("it has {} bytes", value.len()));
            return Ok(());
        }
        if !self.knows_time {
            self.set_clock(UnixMillis(record.timestamp_millis).min(self.latest_stamp));
        }
        let now = self.now();
        match record.topic_index {
            ALERTS_INPUT => match serde_json::from_slice::<Alert>(value) {
                Ok(alert) => {
                    counter!(ALERTS).increment(1);
                    self.notifier.alert(alert, now);
                }
                Err(error) => self.unknown(record, &error),
            },
            FINDINGS_INPUT => {
                let may_be_closed = value.windows(CLOSED.len()).any(|part| part == CLOSED);
                if !may_be_closed {
                    return Ok(());
                }
                match serde_json::from_slice::<Finding>(value) {
                    Ok(finding) if finding.state == FindingState::Closed => {
                        self.notifier.finding_closed(&finding, now);
                    }
                    Ok(_) => {}
                    Err(error) => self.unknown(record, &error),
                }
            }
            _ => match serde_json::from_slice::<Request>(value) {
                Ok(request) => self.notifier.request(request, now),
                Err(error) => self.unknown(record, &error),
            },
        }
        Ok(())
    }

    fn reject(&mut self, record: &InputRecord<'_>, reason: &str) -> Result<(), LogicError> {
        counter!(UNKNOWN_RECORDS).increment(1);
        let (partition, offset) = (record.partition, record.offset);
        tracing::error!(
            input = record.topic_index,
            partition,
            offset,
            error = reason,
            "a record could not be handled and is passed by"
        );
        Ok(())
    }

    /// The runner has logged it; nobody can say what the records were.
    fn unreadable(&mut self, _topic_index: usize, _lost: &Unreadable) -> Result<(), LogicError> {
        counter!(UNKNOWN_RECORDS).increment(1);
        Ok(())
    }

    fn tick(&mut self, now_millis: i64, inputs: &[InputProgress]) {
        // No input is complete as long as the time is not known.
        let is_complete = |input: &InputProgress| input.state == InputState::Complete;
        self.knows_time |= inputs.iter().any(is_complete);
        self.asks_for_time = !self.knows_time;
        if self.knows_time {
            self.set_clock(UnixMillis(now_millis));
            if std::mem::take(&mut self.is_first) {
                self.notifier.begin_first(self.now());
            }
            self.notifier.advance(self.now());
        }
        let open = self.notifier.open_messages();
        let partition = self.partition.to_string();
        gauge!(OPEN_MESSAGES, "partition" => partition).set(open as f64);
    }

    fn has_output(&self) -> bool {
        self.notifier.has_changes() || self.held_back.is_waiting() || self.asks_for_time
    }

    fn finish(&mut self, outputs: &mut Outputs<'_>) -> Result<(), LogicError> {
        self.asks_for_time = false;
        let changes = self.notifier.take_changes();
        for (key, value) in self.held_back.written_now(changes) {
            outputs.changelog(key.as_bytes(), value.as_deref())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
