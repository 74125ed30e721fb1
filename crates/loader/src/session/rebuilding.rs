//! A warehouse that lost its disk, or was set back: its partitions stand still until somebody wants
//! what the topics still have to be loaded again (`spendfuse warehouse rebuild`).
//!
//! Nothing is trusted then: every batch is looked for by its addresses and its content, and put in
//! where it is missing, so that a rebuild that is asked for without need changes nothing, and one that is
//! interrupted begins again. Only its end is committed.

use spendfuse_bus::LogPartition;

use super::{REQUEST_TIMEOUT, Session};
use crate::checkpoint::Checkpoint;
use crate::lane::Lane;
use crate::protocol::{PartitionProtocol, StopReason};
use crate::recovery::starting_point;
use crate::region::Region;
use crate::{LoaderError, known_epochs};

impl Session<'_> {
    /// Why nothing is loaded, where the offsets belong to another database.
    pub(super) fn other_database(&self, checkpoint: &Checkpoint) -> Option<StopReason> {
        let (loaded, found) = (
            checkpoint.warehouse.as_ref()?,
            self.server.database.as_ref()?,
        );
        (loaded != found).then(|| {
            let database = &self.warehouse.config().database;
            let detail = format!(
                "database {database} is not the one that has been loaded (its id is {found}, not {loaded})"
            );
            StopReason::Behind { detail }
        })
    }

    pub(super) fn waits_for_rebuild(&self, at: LogPartition) -> bool {
        let reason = self
            .lanes
            .get(&at)
            .and_then(|lane| lane.stopped_by.as_ref());
        matches!(reason, Some(StopReason::Behind { .. }))
    }

    /// Somebody has asked for it at a position of the group, for a database.
    pub(super) fn rebuild_if_meant(
        &mut self,
        at: LogPartition,
        position: i64,
        database: &str,
    ) -> Result<(), LoaderError> {
        let committed = self.lanes.get(&at).and_then(|lane| lane.committed);
        // What was asked before is of no use for another loss.
        let is_meant =
            committed == Some(position) && self.server.database.as_deref() == Some(database);
        match is_meant {
            true => self.rebuild(at),
            false => Ok(()),
        }
    }

    fn rebuild(&mut self, at: LogPartition) -> Result<(), LoaderError> {
        let (topic, partition) = (self.topic(at).to_owned(), at.partition);
        // The command has told the new database which epochs the topics have.
        let asked = known_epochs(self.config, self.warehouse);
        self.known_epochs = self.runtime.block_on(asked)?;
        let Some(committed) = self.consumer.committed(at, REQUEST_TIMEOUT)? else {
            return Ok(());
        };
        let (first, _) = self.consumer.bounds(at, REQUEST_TIMEOUT)?;
        // Loss by retention is looked at from where the log begins: the command has recorded it.
        let Ok(start) = starting_point((committed.offset, committed.metadata), i64::MIN) else {
            return Ok(());
        };
        let position = start.position;
        let intent = start.checkpoint.intent;
        let until = intent.map_or(position, |intent| intent.end).max(first);
        let checkpoint = Checkpoint {
            intent: None,
            links: start.checkpoint.links,
            unsynced: self.unsynced_from(first),
            warehouse: self.server.database.clone(),
        };
        tracing::warn!(
            topic,
            partition,
            from = first,
            to = until,
            "looking for everything that the topic has, and loading what the warehouse lacks"
        );
        self.standing.goes_on(&topic, partition);
        let region = Region::rebuilding(position, until);
        let rules = self.rules();
        let protocol =
            PartitionProtocol::start_with(&topic, partition, rules, first, region, checkpoint);
        let mut lane = Lane::new(at, &topic, protocol, Some(position));
        lane.read_again();
        self.lanes.insert(at, lane);
        for lane in self.lanes.values_mut() {
            lane.assigned_again();
        }
        Ok(self.consumer.begin(at, first)?)
    }
}
