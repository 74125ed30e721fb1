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
//! Where the committed offset does not say what is in the warehouse (no offset at all, or a ClickHouse
//! that was restarted and may have lost what it acknowledged, or lost its disk), the machine begins with
//! a [`Region`]: its batches are looked for one by one, and put in where they are missing (`LookingFor`,
//! `Restoring`).
//! Nothing is committed until the region's end, so whoever comes next begins with the same region.
//!
//! A partition without records moves its offset to the log's end now and then (`Idling`): after its
//! retention an idle log begins there, and the offset before the last marker would look like loss.
//!
//! Whoever drives it carries out the returned [`Action`] and reports back. When a commit fails, or
//! the partition is assigned anew, the machine is thrown away and a new one starts from what is
//! committed: there is no other way to recover.

mod idling;
mod looking;
mod replaying;
mod stopping;

use std::collections::{BTreeMap, VecDeque};

use spendfuse_broken::{Break, is_broken};
use spendfuse_domain::UnixMillis;

use crate::batch::{Batch, BatchLimits, RowsRecord, TokenKind, cut};
use crate::checkpoint::{BrokenLink, Checkpoint, Intent, Links, Unsynced};
use crate::region::Region;

pub use stopping::StopReason;

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
    /// The set of topics that is read.
    pub epoch: u32,
    /// Whether tokens name what they insert: older programs cannot replay such inserts.
    pub content_tokens: bool,
    /// Whether what is missing of a batch can be put in without its token: in plain tables, see
    /// `healing` and `sums`.
    pub completes_parts: bool,
}

impl ProtocolRules {
    pub(crate) fn tokens(&self) -> TokenKind {
        match self.content_tokens {
            true => self.content(),
            false => TokenKind::Range,
        }
    }

    fn content(&self) -> TokenKind {
        TokenKind::Content { epoch: self.epoch }
    }
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
    /// Put in what is missing of a batch of which nobody knows when, or in which batch, it went in
    /// before, then as for [`Action::Insert`].
    Restore(Batch),
    /// As [`Action::Inspect`], and whether it is the same rows that have their addresses.
    Compare(Batch),
    /// Look how much of the batch is in the tables, then call [`PartitionProtocol::inspected`].
    Inspect(Batch),
    /// Leave the partition alone and tell people.
    Stop(StopReason),
}

#[derive(Debug)]
enum State {
    Reading,
    Replaying(Intent),
    Inspecting(Intent, Batch),
    /// A batch of the region.
    LookingFor(Batch),
    Restoring(Batch),
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
    /// An offset that stops the partition; everything before it still is loaded.
    obstacle: Option<(i64, StopReason)>,
    /// What has to be looked for first.
    region: Option<Region>,
    unsynced: Option<Unsynced>,
    warehouse: Option<String>,
    /// Since when there was nothing to do.
    idle_since: Option<UnixMillis>,
}

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
            obstacle: None,
            region: None,
            unsynced: checkpoint.unsynced,
            warehouse: checkpoint.warehouse,
            idle_since: None,
        }
    }

    /// What is committed, where nothing is under way and nothing is to be looked for.
    pub fn at_rest(&self) -> Option<(i64, Checkpoint)> {
        let is_at_rest = matches!(self.state, State::Reading) && self.region.is_none();
        is_at_rest.then(|| (self.position, self.checkpoint(None)))
    }

    /// What a restart of the server may have taken, as it was stored last.
    pub fn unsynced(&self) -> Option<Unsynced> {
        self.unsynced
    }

    /// What a restart of the server may have taken, to be stored with whatever is committed next.
    pub fn set_unsynced(&mut self, unsynced: Unsynced) {
        self.unsynced = Some(unsynced);
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

    /// Takes a record in; the result is a broken chain, to be counted and reported.
    pub fn received(
        &mut self,
        offset: i64,
        record: Result<RowsRecord, String>,
    ) -> Option<BrokenLink> {
        if self.obstacle.is_some() || self.is_stopped() {
            return None;
        }
        let is_passed = |region: &Region| offset < region.passed_until();
        let record = match record {
            Ok(record) => record,
            // Somebody accepted it before.
            Err(_) if self.region.as_ref().is_some_and(is_passed) => return None,
            Err(detail) => {
                self.obstacle = Some((offset, StopReason::Poison { offset, detail }));
                return None;
            }
        };
        let (chain, link) = (record.chain(), record.block.link);
        let broken = match &mut self.region {
            Some(region) => match region.follow(&mut self.links, offset, chain, link) {
                Ok(broken) => broken,
                Err(detail) => {
                    let (from, to) = (0, self.position);
                    self.obstacle = Some((offset, StopReason::Lost { from, to, detail }));
                    return None;
                }
            },
            None => self.links.follow(chain, link).err(),
        };
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
            State::Reading if self.region.is_some() => self.look_for(now, read_to),
            State::Reading => self
                .begin_batch(now, inserts)
                .or_else(|| self.idle(now, read_to)),
            State::Replaying(intent)
                if read_to >= intent.end || self.is_gone_before(intent.end) =>
            {
                let intent = intent.clone();
                Some(self.begin_replay(intent))
            }
            _ => None,
        }
    }

    fn begin_batch(&mut self, now: UnixMillis, inserts: &BTreeMap<String, u64>) -> Option<Action> {
        let Some(oldest) = self.records.front() else {
            return self.obstacle.clone().map(|(_, reason)| self.stop(reason));
        };
        let limits = self.rules.limits;
        let full = self.buffered_rows >= limits.rows || self.buffered_bytes >= limits.bytes;
        let due = now.since(oldest.received_at) >= self.rules.flush_interval;
        if !full && !due && self.obstacle.is_none() {
            return None;
        }
        let ready = cut(self.records.make_contiguous(), limits);
        let tokens = self.rules.tokens();
        let batch = self.batch_of(ready, tokens);
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
            tokens,
        };
        self.state = State::StoringIntent(batch);
        Some(self.store(self.position, Some(intent)))
    }

    fn store(&self, offset: i64, intent: Option<Intent>) -> Action {
        Action::Commit {
            offset,
            metadata: self.checkpoint(intent).encode(),
        }
    }

    fn checkpoint(&self, intent: Option<Intent>) -> Checkpoint {
        Checkpoint {
            intent,
            links: self.stored_links.clone(),
            unsynced: self.unsynced,
            warehouse: self.warehouse.clone(),
        }
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
            State::Restoring(batch) => {
                self.pass(&batch);
                None
            }
            other => {
                self.state = other;
                None
            }
        }
    }

    fn store_end(&mut self, batch: Batch) -> Action {
        self.follow(&batch, batch.start);
        let offset = batch.end;
        self.state = State::StoringEnd(batch);
        self.store(offset, None)
    }

    /// Goes on along the chains with the batch's records from offset `from` on.
    fn follow(&mut self, batch: &Batch, from: i64) {
        let records = self.records.iter().take(batch.records as usize);
        for record in records.filter(|record| record.offset >= from) {
            // A break was reported when the record came.
            self.stored_links.adopt(record.chain(), record.block.link);
        }
    }

    fn forget(&mut self, batch: &Batch) {
        for record in self.records.drain(..batch.records as usize) {
            self.buffered_bytes -= record.value.len();
            self.buffered_rows -= u64::from(record.block.rows);
        }
        self.position = batch.end;
    }

    fn batch_of(&mut self, count: usize, tokens: TokenKind) -> Batch {
        let records = &self.records.make_contiguous()[..count];
        Batch::of(&self.topic, self.partition, self.position, records, tokens)
    }
}
