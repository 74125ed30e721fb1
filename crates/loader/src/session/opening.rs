//! A partition is opened: from what is committed, or, without that, from what the warehouse has.

use spendfuse_broken::{Break, is_broken};
use spendfuse_bus::{Committed, LogPartition};
use spendfuse_warehouse::migrations::{DEDUPLICATION_SECONDS, DEDUPLICATION_WINDOW};

use super::{REQUEST_TIMEOUT, Session, stage_of};
use crate::LoaderError;
use crate::checkpoint::{Checkpoint, Links};
use crate::lane::Lane;
use crate::present::chain_ends;
use crate::protocol::{PartitionProtocol, ProtocolRules};
use crate::recovery::{StartingPoint, starting_point};
use crate::region::Region;

impl Session<'_> {
    /// The lane of a partition from what is committed; `None` where it cannot be read.
    pub(super) fn open_lane(&mut self, at: LogPartition) -> Result<Option<Lane>, LoaderError> {
        let topic = self.topic(at).to_owned();
        let committed = self.consumer.committed(at, REQUEST_TIMEOUT)?;
        let (first, _) = self.consumer.bounds(at, REQUEST_TIMEOUT)?;
        let committed = match committed {
            Some(known) if is_loaders_own(&known) => (known.offset, known.metadata),
            other => {
                let moved_to = other.map(|known| known.offset);
                let opened = self.open_without_offset(at, &topic, first, moved_to);
                return opened.map(Some);
            }
        };
        let start = match starting_point(committed, first) {
            Ok(start) => start,
            Err(reason) => {
                self.stopped(&topic, at, reason);
                return Ok(None);
            }
        };
        let StartingPoint {
            position,
            mut checkpoint,
            lost,
        } = start;
        let stops_at = self.other_database(&checkpoint).or(lost);
        checkpoint.warehouse = self.server.database.clone();
        let unsynced = checkpoint.unsynced.or_else(|| self.unsynced_from(position));
        checkpoint.unsynced = unsynced;
        if let Some(intent) = &checkpoint.intent {
            tracing::info!(
                topic,
                partition = at.partition,
                start = position,
                end = intent.end,
                records = intent.records,
                "taking up an interrupted insert"
            );
        }
        let rules = self.rules();
        let mut protocol =
            PartitionProtocol::start(&topic, at.partition, rules, position, checkpoint);
        if let Some(reason) = &stops_at {
            protocol = protocol.stopped();
            self.stopped(&topic, at, reason.clone());
        }
        let mut lane = Lane::new(at, &topic, protocol, Some(position));
        lane.stopped_by = stops_at;
        Ok(Some(lane))
    }

    /// The lane of a partition that nobody has loaded from, or whose offsets are gone, or were moved by
    /// hand: what the warehouse has is told by the warehouse.
    fn open_without_offset(
        &self,
        at: LogPartition,
        topic: &str,
        first: i64,
        moved_to: Option<i64>,
    ) -> Result<Lane, LoaderError> {
        let (partition, rules) = (at.partition, self.rules());
        if let Some(offset) = moved_to {
            tracing::warn!(
                topic,
                partition,
                offset,
                "somebody has moved the group's offset; it says nothing of what is loaded"
            );
        }
        let mut epochs = self.known_epochs.clone();
        epochs.insert(self.config.epoch);
        let asked = chain_ends(self.warehouse, &epochs, partition, stage_of(at));
        let ends = self.runtime.block_on(asked)?;
        // Asked after the warehouse: everything that it has is before this end.
        let (_, end) = self.consumer.bounds(at, REQUEST_TIMEOUT)?;
        let nothing = Checkpoint {
            unsynced: self.unsynced_from(first),
            warehouse: self.server.database.clone(),
            ..Checkpoint::default()
        };
        if ends == Links::default() || is_broken(Break::LoaderTrustsOffsetsOnly) {
            let protocol = PartitionProtocol::start(topic, partition, rules, first, nothing);
            return Ok(Lane::new(at, topic, protocol, moved_to));
        }
        tracing::warn!(
            topic,
            partition,
            from = first,
            to = end,
            "no offset is committed, and the warehouse has rows: looking what is there"
        );
        let accepts_loss = self
            .accepted_gap(topic, partition)?
            .is_some_and(|gap| gap.from == moved_to.unwrap_or(0) && gap.to >= first);
        let region = Region::without_offsets(first, end, ends, accepts_loss);
        let protocol =
            PartitionProtocol::start_with(topic, partition, rules, first, region, nothing);
        Ok(Lane::new(at, topic, protocol, moved_to))
    }

    pub(super) fn rules(&self) -> ProtocolRules {
        ProtocolRules {
            limits: self.config.limits,
            flush_interval: self.config.flush_interval.as_millis() as i64,
            deduplication_window: DEDUPLICATION_WINDOW,
            deduplication_millis: DEDUPLICATION_SECONDS as i64 * 1000,
            epoch: self.config.epoch,
            content_tokens: self.config.content_tokens,
            completes_parts: !self.warehouse.config().replicated,
        }
    }
}

/// Whether a loader has committed an offset: each writes its metadata. What moves offsets by hand
/// (`kafka-consumer-groups --reset-offsets`) leaves none, and an offset without it would be taken for
/// one before which everything is loaded, and behind which nothing is.
fn is_loaders_own(committed: &Committed) -> bool {
    !committed.metadata.is_empty()
}
