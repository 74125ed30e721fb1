//! An insert that was interrupted: its range is read again, inspected, and repeated or told.

use spendfuse_domain::UnixMillis;

use super::{Action, PartitionProtocol, State, StopReason};
use crate::checkpoint::Intent;
use crate::recovery::{ReplayDecision, TableFacts, decide_replay};

impl PartitionProtocol {
    pub(super) fn begin_replay(&mut self, intent: Intent) -> Action {
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
        match self.rules.completes_parts {
            true => Action::Compare(batch),
            false => Action::Inspect(batch),
        }
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
}
