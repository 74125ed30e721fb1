//! What a stage must do: the traits that meter and ledger implement.

use crate::error::LogicError;
use crate::headers::Headers;
use crate::outputs::Outputs;
use crate::unreadable::Unreadable;

/// One input record, valid while it is processed.
#[derive(Debug, Clone, Copy)]
pub struct InputRecord<'a> {
    /// Which of [`StageConfig::inputs`](crate::StageConfig::inputs) it comes from.
    pub topic_index: usize,
    /// Its partition, the same as that of the logic it is given to.
    pub partition: u32,
    /// Its offset.
    pub offset: i64,
    /// The log's timestamp, milliseconds since 1970.
    pub timestamp_millis: i64,
    /// Key, if any.
    pub key: Option<&'a [u8]>,
    /// Value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Headers.
    pub headers: Headers<'a>,
}

impl InputRecord<'_> {
    /// Where and when it was logged, and nothing of what is in it.
    pub(super) fn without_content(&self) -> Self {
        Self {
            key: None,
            value: None,
            headers: Headers::EMPTY,
            ..*self
        }
    }
}

/// How far one input of a partition is processed at a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputProgress {
    /// Everything before this offset is processed.
    pub reached: i64,
    /// What lies behind it.
    pub state: InputState,
}

/// What an input holds that is not processed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputState {
    /// Nothing: what the log held at the tick's time is processed, as the broker said.
    Complete,
    /// Records wait, or the broker did not say.
    Behind,
    /// Records that may not be read yet: a transaction that is still open holds them back.
    Held,
}

/// Which log a restored record comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RestoreSource {
    /// The compacted changelog.
    Changelog,
    /// [`StageConfig::history`](crate::StageConfig::history) at this index.
    History(usize),
}

/// The state of one partition and what its records do to it.
///
/// Calls come in this order: `restore`* → `restored_time` → `history`* → `restore`* → `restored` → `ready` until it says yes → batches of
/// `begin` → (`process` | `reject` | `unreadable` | `tick`)* → `finish`. After any error, and whenever the
/// partition is taken away, the value is dropped and a new one restored: nothing may survive
/// outside the changelog.
pub trait PartitionLogic {
    /// Takes one record of changelog or history. Records of one log come in its order, those of the
    /// changelog before those of histories, different histories interleaved; `value` of `None` is a
    /// tombstone.
    ///
    /// # Errors
    /// [`LogicError::Fatal`] stops the worker: the state cannot be read.
    fn restore(
        &mut self,
        source: RestoreSource,
        key: &[u8],
        value: Option<&[u8]>,
        timestamp_millis: i64,
    ) -> Result<(), LogicError>;

    /// The time that the restored changelog has come to, on the log's clock, milliseconds since
    /// 1970: histories are restored from [`HistoryTopic::since_millis`](crate::HistoryTopic) before
    /// it on, not before the present, which is later by as long as nobody has counted. `None` where
    /// nothing was restored.
    fn restored_time(&self) -> Option<i64> {
        None
    }

    /// The history at `index` is restored next. Nothing that was written to it since
    /// `complete_since_millis` is missing; before that, retention may have removed records.
    fn history(&mut self, index: usize, complete_since_millis: i64) {
        let _ = (index, complete_since_millis);
    }

    /// Everything is restored. `seq` is the number of the partition's last commit, 0 for none.
    ///
    /// # Errors
    /// As [`PartitionLogic::restore`].
    fn restored(&mut self, seq: u64) -> Result<(), LogicError>;

    /// Asked after `restored`, several times a second, until it says yes: input is read only
    /// then. A logic that needs something from elsewhere (its budgets) says no until it is there.
    ///
    /// # Errors
    /// [`LogicError::Fatal`] stops the worker.
    fn ready(&mut self) -> Result<bool, LogicError> {
        Ok(true)
    }

    /// A batch begins, and its commit will have the number `seq`. Called again with the same
    /// number where nothing was written since. `now_millis` is the time on the log's clock as far
    /// as the monotonic clock vouches for it: a record whose stamp lies well ahead of it was stamped
    /// by a clock that jumped.
    fn begin(&mut self, seq: u64, now_millis: i64);

    /// Processes one record.
    ///
    /// # Errors
    /// [`LogicError::Input`] (or a panic): the record comes again, through
    /// [`PartitionLogic::reject`].
    fn process(&mut self, record: &InputRecord<'_>) -> Result<(), LogicError>;

    /// Takes a record that made the batch fail for `reason`, to put it where such records go. Where
    /// that fails too, it comes once more without key, value and headers.
    ///
    /// # Errors
    /// Any error but a retryable one stops the worker.
    fn reject(&mut self, record: &InputRecord<'_>, reason: &str) -> Result<(), LogicError>;

    /// Takes note of records of the input `topic_index` that no client can read, and that are passed
    /// by: to tell where they were, and people. It is the batch's only input.
    ///
    /// # Errors
    /// Any error but a retryable one stops the worker.
    fn unreadable(&mut self, topic_index: usize, lost: &Unreadable) -> Result<(), LogicError>;

    /// Time passes. `inputs` says how far each input is processed, asked from the broker and not
    /// remembered.
    fn tick(&mut self, now_millis: i64, inputs: &[InputProgress]);

    /// When something is due by time alone, on the log's clock, milliseconds since 1970: the next
    /// tick comes no later. `None` where the usual ticks are enough.
    fn next_due(&self) -> Option<i64> {
        None
    }

    /// Whether there is something to write although no record was processed.
    fn has_output(&self) -> bool;

    /// The partition goes to another worker, maybe of another process: metrics of this one say no more
    /// how it is, since what was told last would stand for as long as the process lives.
    fn clear_metrics(&self) {}

    /// The batch ends: writes outputs and changed state, which are committed with its offsets.
    ///
    /// # Errors
    /// An error of an output is passed on. A deterministic error makes the runner narrow the
    /// batch down to the record that causes it.
    fn finish(&mut self, outputs: &mut Outputs<'_>) -> Result<(), LogicError>;
}

/// A stage: makes the state machines of its partitions.
pub trait StageLogic {
    /// The state machine of one partition.
    type Partition: PartitionLogic;

    /// A new, empty state machine for `partition`.
    ///
    /// # Errors
    /// [`LogicError::Fatal`] stops the worker, [`LogicError::Retry`] starts it again.
    fn open(&mut self, partition: u32) -> Result<Self::Partition, LogicError>;

    /// Called while no batch is open, before each batch, before each tick and several times a
    /// second: the place to pick up new configuration and hand it to the partitions, which have
    /// not been begun. A partition that then [has output](PartitionLogic::has_output) is
    /// committed at once.
    fn between_batches<'p>(
        &mut self,
        partitions: &mut dyn Iterator<Item = (u32, &'p mut Self::Partition)>,
    ) where
        Self::Partition: 'p,
    {
        let _ = partitions;
    }
}
