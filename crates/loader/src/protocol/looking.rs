//! What has to be looked for first: the batches of a [`Region`], one by one.

use spendfuse_domain::UnixMillis;

use super::{Action, PartitionProtocol, ProtocolRules, State, StopReason};
use crate::batch::{Batch, cut};
use crate::checkpoint::Checkpoint;
use crate::recovery::{Found, TableFacts, found_of};
use crate::region::Region;

impl PartitionProtocol {
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

    /// Whether it is still looked for what is there.
    pub fn is_looking(&self) -> bool {
        self.region.is_some()
    }

    /// Whether it is, because no offset says it.
    pub(crate) fn looks_without_offsets(&self) -> bool {
        let mut region = self.region.iter();
        region.any(Region::is_without_offsets)
    }

    /// The next batch of the region, or its end.
    pub(super) fn look_for(&mut self, now: UnixMillis, read_to: i64) -> Option<Action> {
        let region = self.region.as_ref()?;
        let until = region.until();
        let all = self.records.make_contiguous();
        let within = all.partition_point(|record| record.offset < until);
        let is_read = read_to >= until || within < all.len();
        let Some(oldest) = all[..within].first() else {
            return match self.obstacle.clone() {
                Some((offset, reason)) if offset < until => Some(self.stop(reason)),
                _ if !is_read || region.awaits_block() => None,
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

    pub(super) fn end_region(&mut self, until: i64) -> Action {
        if let Some(region) = self.region.take() {
            region.complete(&mut self.stored_links);
            region.complete(&mut self.links);
            self.unsynced = region.unsynced_after().or(self.unsynced);
        }
        let end = until.max(self.position);
        self.state = State::Idling(end);
        self.store(end, None)
    }

    pub(super) fn looked_for(&mut self, batch: Batch, facts: &[TableFacts]) -> Option<Action> {
        let must_be_attached = self.region.as_ref().is_some_and(Region::must_be_attached);
        let mut tables = batch.tables.iter().zip(facts);
        if let Some((table, _)) = tables.find(|(_, fact)| must_be_attached && fact.is_detached) {
            let detail = format!(
                "{} lacks rows that were loaded before offset {}, longer ago than a restart of \
                 ClickHouse explains",
                table.table(),
                batch.start
            );
            return Some(self.stop(StopReason::Behind { detail }));
        }
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

    /// Goes on behind a batch of the region, without a commit.
    pub(super) fn pass(&mut self, batch: &Batch) {
        let known_to = self.region.as_ref().and_then(Region::links_at);
        self.follow(batch, known_to.unwrap_or(0));
        self.forget(batch);
    }
}
