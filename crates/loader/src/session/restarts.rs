//! A ClickHouse that was restarted may have lost what it had acknowledged: the last minutes are
//! compared with the log, and what is missing is loaded again.

use std::sync::Arc;
use std::time::Instant;

use spendfuse_bus::LogPartition;

use super::{REQUEST_TIMEOUT, Session};
use crate::LoaderError;
use crate::checkpoint::Unsynced;
use crate::protocol::PartitionProtocol;
use crate::region::Region;

impl Session<'_> {
    /// The server says which run this is.
    pub(super) fn server_runs(&mut self, run: i64) {
        let known = self.server.run.replace(run);
        if known.is_some_and(|known| known != run) {
            tracing::warn!("ClickHouse was restarted: comparing the last minutes with the log");
            self.whole_sums = Arc::default();
            for lane in self.lanes.values_mut() {
                lane.looks_again = true;
            }
        }
    }

    /// What a restart from now on may take of what goes in from offset `from` on. It goes into each
    /// commit of a lane, the first one as well: whoever comes next compares nothing without it.
    pub(super) fn unsynced_from(&self, from: i64) -> Option<Unsynced> {
        let server_run = self.server.run?;
        Some(Unsynced { server_run, from })
    }

    /// A lane was opened with what is committed.
    pub(super) fn compare_runs(&mut self, at: LogPartition) {
        let (Some(lane), Some(run)) = (self.lanes.get_mut(&at), self.server.run) else {
            return;
        };
        if let Some(unsynced) = lane.protocol.unsynced() {
            lane.settle_from(unsynced.from);
            lane.looks_again = unsynced.server_run != run;
        }
    }

    /// Once a second: what is committed next says from where on a restart may take something.
    pub(super) fn note_settled(&mut self) {
        let Some(server_run) = self.server.run else {
            return;
        };
        let now = Instant::now();
        for lane in self.lanes.values_mut() {
            if lane.looks_again || lane.protocol.is_looking() || lane.protocol.is_stopped() {
                continue;
            }
            lane.settled.note(now, lane.protocol.position());
            let from = lane.settled.from();
            lane.protocol.set_unsynced(Unsynced { server_run, from });
        }
    }

    /// Begins to compare a partition with its log where that is due and nothing is under way.
    pub(super) fn look_again(&mut self, at: LogPartition) -> Result<(), LoaderError> {
        let lane = self.lanes.get(&at).filter(|lane| lane.looks_again);
        let (Some(lane), Some(server_run)) = (lane, self.server.run) else {
            return Ok(());
        };
        let Some((position, checkpoint)) = lane.protocol.at_rest() else {
            return Ok(());
        };
        let (first, _) = self.consumer.bounds(at, REQUEST_TIMEOUT)?;
        let topic = self.topic(at).to_owned();
        let rules = self.rules();
        let Some(lane) = self.lanes.get_mut(&at) else {
            return Ok(());
        };
        let unsynced = Unsynced {
            server_run,
            from: lane.begin_comparison(),
        };
        let from = unsynced.from.max(first);
        if from >= position {
            lane.protocol.set_unsynced(unsynced);
            return Ok(());
        }
        let region = Region::after_restart(position, unsynced);
        let partition = at.partition;
        tracing::info!(topic, partition, from, to = position, "comparing");
        lane.protocol =
            PartitionProtocol::start_with(&topic, partition, rules, from, region, checkpoint);
        lane.read_again();
        for lane in self.lanes.values_mut() {
            lane.assigned_again();
        }
        Ok(self.consumer.begin(at, from)?)
    }
}
