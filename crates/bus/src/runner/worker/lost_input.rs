//! Input that cannot be read: damaged batches, and what retention has removed. That it was passed by
//! is told in the transaction that moves the offsets behind it.

use std::time::Duration;

use super::Worker;
use crate::error::BusError;
use crate::native::{PollFailure, TopicPartition};
use crate::runner::assignment::starts;
use crate::runner::logic::{PartitionLogic, StageLogic};
use crate::runner::membership::check_failure;
use crate::unreadable::{Unreadable, measure};

/// Where a failure happened, as the worker counts.
#[derive(Clone, Copy)]
struct Place<'f> {
    at: &'f TopicPartition,
    input: usize,
    slot: usize,
}

impl<L: StageLogic> Worker<'_, L> {
    /// What the client reports: passed by where it is about input, left to the client where it gets
    /// over it, an error otherwise.
    pub(super) fn failed(&mut self, failure: &PollFailure) -> Result<(), BusError> {
        let Some(place) = self.place_of(failure) else {
            return check_failure(self.config, self.poller, failure);
        };
        if let Some(base) = failure.unreadable_batch() {
            return self.pass_by(place, base);
        }
        if failure.out_of_range().is_none() {
            return check_failure(self.config, self.poller, failure);
        }
        let next = self.slots[place.slot].next[place.input];
        if !self.poller.is_gone(place.at, next)? {
            return self.read_on();
        }
        let (first, _) = self.poller.bounds(place.at)?;
        if !self.config.accept_lost_input || first < next {
            return check_failure(self.config, self.poller, failure);
        }
        let lost = Unreadable {
            topic: place.at.topic.clone(),
            partition: place.at.partition.cast_unsigned(),
            from: next,
            to: first,
            reason: "the topic's retention removed them before they were counted".to_owned(),
        };
        tracing::error!(stage = self.config.stage, error = %lost, "lost input is accepted");
        self.commit_open_batch()?;
        self.tell_of(place, &lost)?;
        self.read_on()
    }

    /// `None` for what is about no input, or left over from an assignment that was just replaced.
    fn place_of<'f>(&self, failure: &'f PollFailure) -> Option<Place<'f>> {
        let at = failure.at.as_ref()?;
        let slot = *self.slot_of.get(at.partition.cast_unsigned() as usize)?;
        Some(Place {
            at,
            input: self.input_of(at.topic.as_bytes())?,
            slot: slot?,
        })
    }

    fn pass_by(&mut self, place: Place<'_>, base: i64) -> Result<(), BusError> {
        self.commit_open_batch()?;
        let start = base.max(self.slots[place.slot].next[place.input]);
        let patience: Duration = self.config.max_poll_interval / 3;
        if let Some(lost) = measure(&self.config.kafka, place.at, start, patience)? {
            self.tell_of(place, &lost)?;
        }
        self.read_on()
    }

    /// One commit that says what was passed by and goes on behind it.
    fn tell_of(&mut self, place: Place<'_>, lost: &Unreadable) -> Result<(), BusError> {
        self.call_between_batches();
        let slot = &mut self.slots[place.slot];
        slot.logic.begin(slot.seq + 1, self.clock.millis());
        slot.begun = true;
        slot.logic.unreadable(place.input, lost)?;
        slot.records += 1;
        slot.next[place.input] = lost.to;
        slot.ends[place.input] = None;
        self.commit()
    }

    /// Reads all partitions from where they are.
    fn read_on(&self) -> Result<(), BusError> {
        self.poller.assign(&starts(self.config, &self.slots))
    }
}
