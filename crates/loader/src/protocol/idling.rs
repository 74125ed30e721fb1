//! A partition without records keeps up with the end of its log.

use spendfuse_broken::{Break, is_broken};
use spendfuse_domain::UnixMillis;

use super::{Action, PartitionProtocol, State};

/// How long a partition is idle before its offset moves to the log's end, milliseconds. Every batch
/// is followed by a marker: moving at once would double the commits.
const IDLE_MILLIS: i64 = 5_000;

impl PartitionProtocol {
    pub(super) fn idle(&mut self, now: UnixMillis, read_to: i64) -> Option<Action> {
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
}
