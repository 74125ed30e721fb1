//! Input that cannot be read: damaged batches, and what retention has removed. That it was passed by
//! is told in the transaction that moves the offsets behind it.
//!
//! Damaged batches are passed by at once. A partition whose input was removed stands still, while the
//! others go on, until somebody accepts the loss (see [`gaps`](crate::gaps)).

use std::time::{Duration, Instant};

use super::Worker;
use crate::error::BusError;
use crate::gaps::{AcceptedGap, AcceptedGaps};
use crate::metrics::STAGE_STOPPED;
use crate::native::{PollFailure, TopicPartition};
use crate::runner::assignment::starts;
use crate::runner::batch::{LostInput, Slot};
use crate::runner::logic::{PartitionLogic, StageLogic};
use crate::runner::membership::check_failure;
use crate::unreadable::{Unreadable, measure};

const BETWEEN_QUESTIONS: Duration = Duration::from_secs(1);
const QUESTION: Duration = Duration::from_millis(500);

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
        self.commit_open_batch()?;
        self.stand_still(place)?;
        self.read_on()
    }

    fn stand_still(&mut self, place: Place<'_>) -> Result<(), BusError> {
        let (first, end) = self.poller.bounds(place.at)?;
        let slot = &mut self.slots[place.slot];
        let (next, topic, partition) = (slot.next[place.input], &place.at.topic, slot.partition);
        let what = match first > next {
            true => format!(
                "offsets {next} to {} of topic `{topic}` are lost: its retention removed them before \
                 they were counted",
                first - 1
            ),
            false => format!(
                "topic `{topic}` ends at offset {end} and was counted up to {next}: Kafka has lost \
                 records, or the topic was made anew"
            ),
        };
        let sentence = format!(
            "{what}; `spendfuse gaps accept --topic {topic} --partition {partition}` goes on behind them"
        );
        let stage = self.config.stage;
        tracing::error!(
            stage,
            partition,
            reason = sentence,
            "partition stopped; others go on"
        );
        show_stopped(stage, partition, true);
        slot.lost = Some(LostInput {
            input: place.input,
            sentence,
        });
        // Whoever accepts the loss asks the group where it stands, and its offsets may have expired while
        // nobody was there.
        self.commit_slots(|slot| slot.partition == partition)
    }

    /// Lets partitions go on whose loss somebody has accepted. The others are read meanwhile, so a
    /// broker that does not answer is asked again at another tick.
    pub(super) fn look_for_acceptance(&mut self) -> Result<(), BusError> {
        let is_lost = |slot: &Slot<L::Partition>| slot.lost.is_some();
        if !self.slots.iter().any(is_lost) || self.asked_at.elapsed() < BETWEEN_QUESTIONS {
            return Ok(());
        }
        self.asked_at = Instant::now();
        let accepted = AcceptedGaps::open(&self.config.kafka, &self.config.group_id)?;
        let mut goes_on = false;
        for index in 0..self.slots.len() {
            let slot = &self.slots[index];
            let Some(input) = slot.lost.as_ref().map(|lost| lost.input) else {
                continue;
            };
            // A worker that has just noticed that it lost the partition may have said otherwise.
            show_stopped(self.config.stage, slot.partition, true);
            let topic = &self.config.inputs[input];
            match accepted.last(topic, slot.partition, QUESTION) {
                Ok(Some(gap)) if gap.from == slot.next[input] && gap.from != gap.to => {
                    self.accept(index, input, gap)?;
                    goes_on = true;
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(stage = self.config.stage, %error, "acceptance not read");
                }
            }
        }
        accepted.close();
        match goes_on {
            true => self.read_on(),
            false => Ok(()),
        }
    }

    fn accept(&mut self, index: usize, input: usize, gap: AcceptedGap) -> Result<(), BusError> {
        let (stage, partition) = (self.config.stage, self.slots[index].partition);
        let lost = Unreadable {
            topic: self.config.inputs[input].clone(),
            partition,
            from: gap.from.min(gap.to),
            to: gap.from.max(gap.to),
            reason: "they were removed before they were counted, and their loss was accepted"
                .to_owned(),
        };
        tracing::error!(stage, error = %lost, "lost input is accepted");
        self.tell_of(index, input, &lost, gap.to)?;
        self.slots[index].lost = None;
        show_stopped(stage, partition, false);
        Ok(())
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
            self.tell_of(place.slot, place.input, &lost, lost.to)?;
        }
        self.read_on()
    }

    /// One commit that says what was passed by and goes on at `next`.
    fn tell_of(
        &mut self,
        slot: usize,
        input: usize,
        lost: &Unreadable,
        next: i64,
    ) -> Result<(), BusError> {
        self.call_between_batches();
        let slot = &mut self.slots[slot];
        slot.logic.begin(slot.seq + 1, self.clock.millis());
        slot.begun = true;
        slot.logic.unreadable(input, lost)?;
        slot.records += 1;
        slot.next[input] = next;
        slot.ends[input] = None;
        self.commit()
    }

    /// Reads all partitions from where they are.
    fn read_on(&self) -> Result<(), BusError> {
        self.poller.assign(&starts(self.config, &self.slots))
    }
}

/// Shows whether a partition stands still.
pub(super) fn show_stopped(stage: &'static str, partition: u32, is_stopped: bool) {
    let partition = partition.to_string();
    metrics::gauge!(STAGE_STOPPED, "stage" => stage, "partition" => partition)
        .set(f64::from(u8::from(is_stopped)));
}
