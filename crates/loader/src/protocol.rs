//! The loader's protocol for one rows partition, as a state machine without I/O.
//!
//! Exactly once rests on three things: the range of an insert is written down before the insert (the
//! *intent*, in the metadata of the committed offset); ClickHouse does the same rows with the same
//! token only once as long as it remembers it, and completes what a crash tore (`inserting` looks
//! before it repeats an insert, `healing` puts in what is missing); and after a crash the same range
//! is seen to before anything else.
//!
//! ```text
//! start ─► Reading ──batch full or due──► StoringIntent ──stored──► Inserting ──done──► StoringEnd ─┐
//!   │         ▲                                                        ▲                            │
//!   │         └────────────────────────────────────────────────────────┼──────────stored────────────┘
//!   └─intent─► Replaying ──range read──► Inspecting ──replay───────────┘
//!                                              └─ there already ─► StoringEnd       doubt ─► Stopped
//! ```
//!
//! A partition without records moves its offset to the log's end now and then (`Idling`): after its
//! retention an idle log begins there, and the offset before the last marker would look like loss.
//!
//! Whoever drives it carries out the returned [`Action`] and reports back. When a commit fails, or
//! the partition is assigned anew, the machine is thrown away and a new one starts from what is
//! committed: there is no other way to recover.

use std::collections::{BTreeMap, VecDeque};

use spendfuse_broken::{Break, is_broken};
use spendfuse_domain::UnixMillis;

use crate::batch::{Batch, BatchLimits, RowsRecord, cut};
use crate::checkpoint::{BrokenLink, Checkpoint, Intent, Links};
use crate::recovery::{ReplayDecision, TableFacts, decide_replay};

/// What holds for all partitions.
#[derive(Clone, Copy, Debug)]
pub struct ProtocolRules {
    /// How large batches get.
    pub limits: BatchLimits,
    /// How long a record waits for more, milliseconds.
    pub flush_interval: i64,
    /// Tokens that every table remembers.
    pub deduplication_window: u64,
    /// For how long they are remembered at least, milliseconds.
    pub deduplication_millis: i64,
}

/// What the driver does next. Every action but [`Action::Stop`] is answered by a call.
#[derive(Clone, Debug)]
pub enum Action {
    /// Commit `offset` with `metadata`, then call [`PartitionProtocol::committed`].
    Commit {
        /// The offset.
        offset: i64,
        /// Its metadata.
        metadata: String,
    },
    /// Insert each table's rows, again and again until they are in, then call
    /// [`PartitionProtocol::inserted`]; [`PartitionProtocol::refused`] where ClickHouse will never
    /// take them.
    Insert(Batch),
    /// The same, where an earlier loader may have inserted it before.
    InsertAgain(Batch),
    /// Look how much of the batch is in the tables, then call [`PartitionProtocol::inspected`].
    Inspect(Batch),
    /// Leave the partition alone and tell people.
    Stop(StopReason),
}

/// Why a partition is no longer loaded. Each needs a person; nothing is lost, because the records
/// stay in the topic for its retention.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StopReason {
    /// A record that is not a block this program can load.
    #[error("the record at offset {offset} cannot be loaded: {detail}")]
    Poison {
        /// Its offset.
        offset: i64,
        /// Why.
        detail: String,
    },
    /// The committed offset or its metadata cannot be used.
    #[error("cannot go on from the committed offset {position}: {detail}")]
    Start {
        /// The offset.
        position: i64,
        /// Why.
        detail: String,
    },
    /// ClickHouse will not take these rows.
    #[error("ClickHouse refuses the rows of offsets {start} to {end} (exclusive): {detail}")]
    Refused {
        /// First offset of the batch.
        start: i64,
        /// Its end.
        end: i64,
        /// ClickHouse's words.
        detail: String,
    },
    /// It cannot be told whether an interrupted insert happened.
    #[error(
        "an interrupted insert of offsets {start} to {end} (exclusive) is in doubt: {detail}; \
         compare the warehouse with the topic (spendfuse audit) and repair by hand"
    )]
    Doubt {
        /// First offset of the batch.
        start: i64,
        /// Its end.
        end: i64,
        /// What speaks against going on.
        detail: String,
    },
}

#[derive(Debug)]
enum State {
    Reading,
    Replaying(Intent),
    Inspecting(Intent, Batch),
    StoringIntent(Batch),
    Inserting(Batch),
    StoringEnd(Batch),
    /// The offset moves to the end of the log, which has no records before it.
    Idling(i64),
    Stopped,
}

/// The protocol of one partition.
#[derive(Debug)]
pub struct PartitionProtocol {
    topic: String,
    partition: u32,
    rules: ProtocolRules,
    state: State,
    /// Everything before is in the warehouse and committed.
    position: i64,
    /// The chains up to `position`.
    stored_links: Links,
    /// The chains up to the last record received.
    links: Links,
    /// Records from `position` on.
    records: VecDeque<RowsRecord>,
    buffered_bytes: usize,
    buffered_rows: u64,
    /// A record that cannot be loaded; everything before it still is.
    poison: Option<(i64, String)>,
    /// Since when there was nothing to do.
    idle_since: Option<UnixMillis>,
}

/// How long a partition is idle before its offset moves to the log's end, milliseconds. Every batch
/// is followed by a marker: moving at once would double the commits.
const IDLE_MILLIS: i64 = 60_000;

impl PartitionProtocol {
    /// Starts from the committed offset `position` (the log's first offset where nothing was ever
    /// committed) and its checkpoint. Records are then read from `position` on.
    pub fn start(
        topic: &str,
        partition: u32,
        rules: ProtocolRules,
        position: i64,
        checkpoint: Checkpoint,
    ) -> Self {
        let state = match checkpoint.intent {
            Some(intent) => State::Replaying(intent),
            None => State::Reading,
        };
        Self {
            topic: topic.to_owned(),
            partition,
            rules,
            state,
            position,
            stored_links: checkpoint.links.clone(),
            links: checkpoint.links,
            records: VecDeque::new(),
            buffered_bytes: 0,
            buffered_rows: 0,
            poison: None,
            idle_since: None,
        }
    }

    /// Everything before this offset is in the warehouse.
    pub fn position(&self) -> i64 {
        self.position
    }

    /// Bytes of records that wait.
    pub fn buffered_bytes(&self) -> usize {
        self.buffered_bytes
    }

    /// When the oldest record came that is not yet in the warehouse.
    pub fn waiting_since(&self) -> Option<UnixMillis> {
        self.records.front().map(|record| record.received_at)
    }

    /// Whether the partition is stopped.
    pub fn is_stopped(&self) -> bool {
        matches!(self.state, State::Stopped)
    }

    /// Takes a record in; the result is a broken chain, to be counted and reported.
    pub fn received(
        &mut self,
        offset: i64,
        record: Result<RowsRecord, String>,
    ) -> Option<BrokenLink> {
        if self.poison.is_some() || self.is_stopped() {
            return None;
        }
        let record = match record {
            Ok(record) => record,
            Err(detail) => {
                self.poison = Some((offset, detail));
                return None;
            }
        };
        let broken = self
            .links
            .follow(record.schema.table, record.block.link)
            .err();
        self.buffered_bytes += record.value.len();
        self.buffered_rows += u64::from(record.block.rows);
        self.records.push_back(record);
        broken
    }

    /// What to do next, if anything. `read_to` is the offset up to which the log has been read
    /// (the next record's at the end of the log), `inserts` the tables' insert counters as of late.
    pub fn next(
        &mut self,
        now: UnixMillis,
        read_to: i64,
        inserts: &BTreeMap<String, u64>,
    ) -> Option<Action> {
        match &self.state {
            State::Reading => self
                .begin_batch(now, inserts)
                .or_else(|| self.idle(now, read_to)),
            State::Replaying(intent) if read_to >= intent.end => {
                let intent = intent.clone();
                Some(self.begin_replay(intent))
            }
            _ => None,
        }
    }

    fn begin_batch(&mut self, now: UnixMillis, inserts: &BTreeMap<String, u64>) -> Option<Action> {
        let Some(oldest) = self.records.front() else {
            return self
                .poison
                .clone()
                .map(|(offset, detail)| self.stop(StopReason::Poison { offset, detail }));
        };
        let limits = self.rules.limits;
        let full = self.buffered_rows >= limits.rows || self.buffered_bytes >= limits.bytes;
        let due = now.since(oldest.received_at) >= self.rules.flush_interval;
        if !full && !due && self.poison.is_none() {
            return None;
        }
        let ready = cut(self.records.make_contiguous(), limits);
        let batch = self.batch_of(ready);
        if is_broken(Break::LoaderWithoutIntent) {
            self.state = State::Inserting(batch.clone());
            return Some(Action::Insert(batch));
        }
        let counters = batch.tables.iter().map(|table| {
            let known = inserts.get(table.table()).copied();
            (table.table().to_owned(), known.unwrap_or_default())
        });
        let intent = Intent {
            end: batch.end,
            records: batch.records,
            hash: batch.hash,
            at: now,
            inserts: counters.collect(),
        };
        self.state = State::StoringIntent(batch);
        Some(self.store(self.position, Some(intent)))
    }

    fn idle(&mut self, now: UnixMillis, read_to: i64) -> Option<Action> {
        if !self.records.is_empty() || read_to <= self.position {
            self.idle_since = None;
            return None;
        }
        let since = *self.idle_since.get_or_insert(now);
        if now.since(since) < IDLE_MILLIS {
            return None;
        }
        self.state = State::Idling(read_to);
        Some(self.store(read_to, None))
    }

    fn store(&self, offset: i64, intent: Option<Intent>) -> Action {
        let checkpoint = Checkpoint {
            intent,
            links: self.stored_links.clone(),
        };
        Action::Commit {
            offset,
            metadata: checkpoint.encode(),
        }
    }

    fn begin_replay(&mut self, intent: Intent) -> Action {
        if let Some((offset, detail)) = self.poison.clone()
            && offset < intent.end
        {
            return self.stop(StopReason::Poison { offset, detail });
        }
        let records = self.records.make_contiguous();
        let in_range = records.partition_point(|record| record.offset < intent.end);
        if in_range == 0 {
            return self.doubt(
                intent.end,
                "its records are no longer in the topic".to_owned(),
            );
        }
        let batch = self.batch_of(in_range);
        let same =
            batch.end == intent.end && batch.records == intent.records && batch.hash == intent.hash;
        if !same {
            let detail = format!(
                "the topic now has {} records with hash {:016x} there, the insert had {} with {:016x}",
                batch.records, batch.hash, intent.records, intent.hash
            );
            return self.doubt(intent.end, detail);
        }
        self.state = State::Inspecting(intent, batch.clone());
        Action::Inspect(batch)
    }

    /// The answer to [`Action::Inspect`]: facts of each table of the batch, in their order.
    pub fn inspected(&mut self, now: UnixMillis, facts: &[TableFacts]) -> Option<Action> {
        let State::Inspecting(intent, batch) = &self.state else {
            return None;
        };
        let (intent, batch) = (intent.clone(), batch.clone());
        Some(
            match decide_replay(&self.rules, &intent, &batch, facts, now) {
                ReplayDecision::Replay => {
                    self.state = State::Inserting(batch.clone());
                    Action::InsertAgain(batch)
                }
                ReplayDecision::Complete => self.store_end(batch),
                ReplayDecision::Doubt(detail) => self.doubt(intent.end, detail),
            },
        )
    }

    /// The answer to [`Action::Commit`] that went well.
    pub fn committed(&mut self) -> Option<Action> {
        match std::mem::replace(&mut self.state, State::Reading) {
            State::StoringIntent(batch) => {
                self.state = State::Inserting(batch.clone());
                Some(Action::Insert(batch))
            }
            State::StoringEnd(batch) => {
                self.forget(&batch);
                None
            }
            State::Idling(end) => {
                self.position = end;
                self.idle_since = None;
                None
            }
            other => {
                self.state = other;
                None
            }
        }
    }

    /// The answer to [`Action::Insert`] and [`Action::InsertAgain`]: all tables have all rows.
    pub fn inserted(&mut self) -> Option<Action> {
        match std::mem::replace(&mut self.state, State::Reading) {
            State::Inserting(batch) => Some(self.store_end(batch)),
            other => {
                self.state = other;
                None
            }
        }
    }

    /// The answer to [`Action::Insert`]: ClickHouse will never take the rows.
    pub fn refused(&mut self, detail: String) -> Option<Action> {
        let State::Inserting(batch) = &self.state else {
            return None;
        };
        let (start, end) = (batch.start, batch.end);
        Some(self.stop(StopReason::Refused { start, end, detail }))
    }

    fn store_end(&mut self, batch: Batch) -> Action {
        let records = self.records.iter();
        for record in records.take(batch.records as usize) {
            // A break was reported when the record came.
            let _ = self
                .stored_links
                .follow(record.schema.table, record.block.link);
        }
        let offset = batch.end;
        self.state = State::StoringEnd(batch);
        self.store(offset, None)
    }

    fn forget(&mut self, batch: &Batch) {
        for record in self.records.drain(..batch.records as usize) {
            self.buffered_bytes -= record.value.len();
            self.buffered_rows -= u64::from(record.block.rows);
        }
        self.position = batch.end;
    }

    fn batch_of(&mut self, count: usize) -> Batch {
        let records = &self.records.make_contiguous()[..count];
        Batch::of(&self.topic, self.partition, self.position, records)
    }

    fn doubt(&mut self, end: i64, detail: String) -> Action {
        let start = self.position;
        self.stop(StopReason::Doubt { start, end, detail })
    }

    fn stop(&mut self, reason: StopReason) -> Action {
        self.state = State::Stopped;
        self.records.clear();
        self.buffered_bytes = 0;
        self.buffered_rows = 0;
        Action::Stop(reason)
    }
}
