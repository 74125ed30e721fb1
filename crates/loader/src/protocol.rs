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
//! that was restarted and may have lost what it acknowledged), the machine begins with a [`Region`]: its
//! batches are looked for one by one, and put in where they are missing (`Inspecting`, `Restoring`).
//! Nothing is committed until the region's end, so whoever comes next begins with the same region.
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
use spendfuse_warehouse::WarehouseError;

use crate::batch::{Batch, BatchLimits, RowsRecord, TokenKind, cut};
use crate::checkpoint::{BrokenLink, Checkpoint, Intent, Links, Unsynced};
use crate::recovery::{Found, RETENTION, ReplayDecision, TableFacts, decide_replay, found_of};
use crate::region::Region;

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

/// Why a partition is no longer loaded. Each needs a person, who repairs what is wrong, or accepts it
/// and goes on behind it; the records stay in the topic for its retention.
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
    /// Records that are in the topic no longer and not in the warehouse.
    #[error("the rows of offsets {from} to {to} (exclusive) are lost: {detail}")]
    Lost {
        /// First offset.
        from: i64,
        /// Where the log goes on.
        to: i64,
        /// How that is known.
        detail: String,
    },
    /// The topic has fewer records than were read.
    #[error(
        "the topic ends at offset {end}, before what was loaded, up to {read_to}: Kafka has lost \
         records, or the topic was made anew"
    )]
    Shorter {
        /// The next offset to read.
        read_to: i64,
        /// Where the log ends.
        end: i64,
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
        "the insert of offsets {start} to {end} (exclusive) is in doubt: {detail}; \
         spendfuse audit compares the warehouse with the topic"
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

impl StopReason {
    /// The sentence, with the command that accepts what is wrong.
    pub fn with_way_out(&self, topic: &str, partition: u32) -> String {
        let to = match self {
            Self::Start { .. } => return self.to_string(),
            _ => self
                .end()
                .map_or_else(String::new, |end| format!(" --to {end}")),
        };
        format!(
            "{self}; `spendfuse gaps accept --topic {topic} --partition {partition}{to}` goes on behind it"
        )
    }

    /// Where the partition goes on once what is wrong has been accepted; `None` where only another
    /// program can help.
    pub fn end(&self) -> Option<i64> {
        match self {
            Self::Poison { offset, .. } => Some(offset + 1),
            Self::Lost { to, .. } => Some(*to),
            Self::Refused { end, .. } | Self::Doubt { end, .. } | Self::Shorter { end, .. } => {
                Some(*end)
            }
            Self::Start { .. } => None,
        }
    }

    /// Whether somebody who lets the partition go on at `to` means this: never before its end, and
    /// exactly there where good records follow.
    pub fn is_accepted_by(&self, to: i64) -> bool {
        let Some(end) = self.end() else {
            return false;
        };
        match self {
            Self::Lost { .. } | Self::Shorter { .. } => to >= end,
            _ => to == end,
        }
    }
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
    /// Since when there was nothing to do.
    idle_since: Option<UnixMillis>,
}

/// How long a partition is idle before its offset moves to the log's end, milliseconds. Every batch
/// is followed by a marker: moving at once would double the commits.
const IDLE_MILLIS: i64 = 5_000;

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
            idle_since: None,
        }
    }

    /// Starts with `region`, whose records are then read from `first` on.
    pub fn start_with(
        topic: &str,
        partition: u32,
        rules: ProtocolRules,
        first: i64,
        region: Region,
        checkpoint: Checkpoint,
    ) -> Self {
        debug_assert!(checkpoint.intent.is_none(), "an intent comes first");
        let mut started = Self::start(topic, partition, rules, first, checkpoint);
        started.region = Some(region);
        started
    }

    /// What is committed, where nothing is under way and nothing is to be looked for.
    pub fn at_rest(&self) -> Option<(i64, Checkpoint)> {
        let is_at_rest = matches!(self.state, State::Reading) && self.region.is_none();
        is_at_rest.then(|| {
            let checkpoint = Checkpoint {
                intent: None,
                links: self.stored_links.clone(),
                unsynced: self.unsynced,
            };
            (self.position, checkpoint)
        })
    }

    /// Whether it is still looked for what is there.
    pub fn is_looking(&self) -> bool {
        self.region.is_some()
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

    /// Whether the partition is stopped.
    pub fn is_stopped(&self) -> bool {
        matches!(self.state, State::Stopped)
    }

    /// The log does not have offset `from`, which would be read next, and goes on at `to`: behind it,
    /// or before it where it became shorter. What came before is still loaded.
    ///
    /// `true` where reading goes on at `to`: what is looked for is looked for in what the log has.
    pub fn gone(&mut self, from: i64, to: i64) -> bool {
        if self.obstacle.is_some() || self.is_stopped() {
            return false;
        }
        if let Some(region) = &mut self.region
            && (from..=region.until()).contains(&to)
        {
            region.begin_anew(&mut self.links);
            return true;
        }
        let reason = match to < from {
            true => StopReason::Shorter {
                read_to: from,
                end: to,
            },
            false => StopReason::Lost {
                from,
                to,
                detail: RETENTION.to_owned(),
            },
        };
        self.obstacle = Some((from, reason));
        false
    }

    /// A machine that waits for a person from the start.
    pub fn stopped(mut self) -> Self {
        self.state = State::Stopped;
        self
    }

    /// A person has accepted what is wrong before `to`: the partition goes on there. Records are then
    /// read from `to` on.
    pub fn go_on_at(&mut self, to: i64) -> Option<Action> {
        debug_assert!(self.is_stopped() && self.records.is_empty());
        let obstacle = self.obstacle.take();
        // What is looked for beyond the log's end would never come.
        let is_shorter = matches!(obstacle, Some((_, StopReason::Shorter { .. })));
        self.links = self.stored_links.clone();
        self.position = to;
        self.state = State::Reading;
        if self
            .region
            .as_ref()
            .is_some_and(|region| to < region.until() && !is_shorter)
        {
            return None;
        }
        Some(self.end_region(to))
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
        let (table, link) = (record.schema.table, record.block.link);
        let broken = match &self.region {
            Some(region) => match region.follow(&mut self.links, offset, table, link) {
                Ok(broken) => broken,
                Err(detail) => {
                    let (from, to) = (0, self.position);
                    self.obstacle = Some((offset, StopReason::Lost { from, to, detail }));
                    return None;
                }
            },
            None => self.links.follow(table, link).err(),
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

    /// Whether the log will never be read up to `end`.
    fn is_gone_before(&self, end: i64) -> bool {
        let gone = |reason: &StopReason| {
            matches!(reason, StopReason::Lost { .. } | StopReason::Shorter { .. })
        };
        let mut obstacle = self.obstacle.iter();
        obstacle.any(|(offset, reason)| *offset < end && gone(reason))
    }

    /// The next batch of the region, or its end.
    fn look_for(&mut self, now: UnixMillis, read_to: i64) -> Option<Action> {
        let region = self.region.as_ref()?;
        let until = region.until();
        let all = self.records.make_contiguous();
        let within = all.partition_point(|record| record.offset < until);
        let is_read = read_to >= until || within < all.len();
        let Some(oldest) = all[..within].first() else {
            return match self.obstacle.clone() {
                Some((offset, reason)) if offset < until => Some(self.stop(reason)),
                _ if !is_read => None,
                _ => Some(self.end_region(until)),
            };
        };
        let limits = self.rules.limits;
        let full = self.buffered_rows >= limits.rows || self.buffered_bytes >= limits.bytes;
        let due = now.since(oldest.received_at) >= self.rules.flush_interval;
        if !full && !due && !is_read && self.obstacle.is_none() {
            return None;
        }
        let ready = region.limited(&all[..cut(&all[..within], limits)]);
        let compares_content = region.compares_content();
        // Nothing of it is stored, so no older program meets these tokens.
        let batch = self.batch_of(ready, self.rules.content());
        self.state = State::LookingFor(batch.clone());
        Some(match compares_content {
            true => Action::Compare(batch),
            false => Action::Inspect(batch),
        })
    }

    fn end_region(&mut self, until: i64) -> Action {
        if let Some(region) = self.region.take() {
            region.complete(&mut self.stored_links);
            region.complete(&mut self.links);
            self.unsynced = region.unsynced_after().or(self.unsynced);
        }
        let end = until.max(self.position);
        self.state = State::Idling(end);
        self.store(end, None)
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

    fn idle(&mut self, now: UnixMillis, read_to: i64) -> Option<Action> {
        if !self.records.is_empty() || read_to <= self.position {
            self.idle_since = None;
            return None;
        }
        let since = *self.idle_since.get_or_insert(now);
        if now.since(since) < IDLE_MILLIS {
            return None;
        }
        self.leave(read_to)
    }

    /// The partition is given up, read up to `read_to`: at rest its offset moves there at once. Nobody
    /// may come again before the log's retention has passed.
    pub fn leave(&mut self, read_to: i64) -> Option<Action> {
        let is_at_rest = matches!(self.state, State::Reading) && self.region.is_none();
        let has_rest = !self.records.is_empty() || self.obstacle.is_some();
        if !is_at_rest || has_rest || read_to <= self.position {
            return None;
        }
        if is_broken(Break::IdlePositionStays) {
            return None;
        }
        self.state = State::Idling(read_to);
        Some(self.store(read_to, None))
    }

    fn store(&self, offset: i64, intent: Option<Intent>) -> Action {
        let checkpoint = Checkpoint {
            intent,
            links: self.stored_links.clone(),
            unsynced: self.unsynced,
        };
        Action::Commit {
            offset,
            metadata: checkpoint.encode(),
        }
    }

    fn begin_replay(&mut self, intent: Intent) -> Action {
        if let Some((offset, mut reason)) = self.obstacle.clone()
            && offset < intent.end
        {
            // The rest of an insert that may have happened is not loaded a second time.
            if let StopReason::Lost { to, .. } = &mut reason {
                *to = intent.end.max(*to);
            }
            return self.stop(reason);
        }
        let records = self.records.make_contiguous();
        let in_range = records.partition_point(|record| record.offset < intent.end);
        if in_range == 0 {
            return self.doubt(
                intent.end,
                "its records are no longer in the topic".to_owned(),
            );
        }
        let batch = self.batch_of(in_range, intent.tokens);
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

    /// The answer to [`Action::Inspect`] and [`Action::Compare`]: facts of each table of the batch, in
    /// their order.
    pub fn inspected(&mut self, now: UnixMillis, facts: &[TableFacts]) -> Option<Action> {
        if let State::LookingFor(batch) = &self.state {
            let batch = batch.clone();
            return self.looked_for(batch, facts);
        }
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

    fn looked_for(&mut self, batch: Batch, facts: &[TableFacts]) -> Option<Action> {
        let found = found_of(&batch, facts);
        if let (Found::Whole | Found::Missing, Some(region)) = (&found, &mut self.region) {
            region.look_wider();
        }
        match found {
            Found::Whole => {
                self.state = State::Reading;
                self.pass(&batch);
                None
            }
            Found::Missing => {
                self.state = State::Restoring(batch.clone());
                Some(Action::Restore(batch))
            }
            Found::Part => {
                self.state = State::Reading;
                if let Some(region) = &mut self.region {
                    region.look_closer(batch.records as usize, batch.end);
                }
                None
            }
            Found::Doubt(detail) => Some(self.doubt(batch.end, detail)),
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

    /// The answer to [`Action::Insert`], [`Action::Inspect`] and the like: ClickHouse will never take
    /// the rows.
    pub fn refused(&mut self, detail: String) -> Option<Action> {
        let (start, end) = self.range_under_way()?;
        Some(self.stop(StopReason::Refused { start, end, detail }))
    }

    /// As [`Self::refused`] or [`Self::in_doubt`], whichever ClickHouse says.
    pub(crate) fn failed(&mut self, error: WarehouseError) -> Option<Action> {
        match error {
            WarehouseError::InDoubt { detail, .. } => self.in_doubt(detail),
            error => self.refused(error.to_string()),
        }
    }

    /// The answer to the same: the tables do not have what they should have.
    pub fn in_doubt(&mut self, detail: String) -> Option<Action> {
        let (_, end) = self.range_under_way()?;
        Some(self.doubt(end, detail))
    }

    fn range_under_way(&self) -> Option<(i64, i64)> {
        match &self.state {
            State::Inserting(batch)
            | State::Restoring(batch)
            | State::LookingFor(batch)
            | State::Inspecting(_, batch) => Some((batch.start, batch.end)),
            _ => None,
        }
    }

    fn store_end(&mut self, batch: Batch) -> Action {
        self.follow(&batch);
        let offset = batch.end;
        self.state = State::StoringEnd(batch);
        self.store(offset, None)
    }

    /// Goes on behind a batch of the region, without a commit.
    fn pass(&mut self, batch: &Batch) {
        let is_known = self
            .region
            .as_ref()
            .is_some_and(|region| !region.compares_content());
        if !is_known {
            self.follow(batch);
        }
        self.forget(batch);
    }

    fn follow(&mut self, batch: &Batch) {
        for record in self.records.iter().take(batch.records as usize) {
            // A break was reported when the record came.
            self.stored_links
                .adopt(record.schema.table, record.block.link);
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
