//! Calls whose events came by another way than this sidecar: the meter tells who gave them their
//! reservations.

use spendfuse_guard::Place;

use super::InFlight;
use super::wire::Settled;
use crate::reservations;

impl InFlight {
    /// Ends the reservations of calls that are counted, where this start gave them. Most are ended
    /// already, by events that came through here: those are not known any more, and nothing happens.
    pub(super) fn settle(&self, settled: &Settled<'_>) {
        if !self.names.gave(settled) {
            return;
        }
        let partition = settled.meter_partition;
        let now_millis = self.monotonic();
        for call in &settled.record.settled {
            let place = match call.offset {
                Some(offset) => Place::Log { partition, offset },
                None => Place::Commit {
                    partition,
                    seq: settled.record.seq,
                },
            };
            let spend = call.spend();
            if let Some(pair) = self.guard.settle(call.n, &spend, place) {
                reservations::count("settled");
                self.guard.learn(pair, &spend, now_millis);
            }
        }
    }
}
