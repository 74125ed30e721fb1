//! Time passes: what the logs hold is asked, the partitions are told, the broker's clock is read.

use std::time::{Duration, Instant};

use super::Worker;
use crate::error::BusError;
use crate::metrics::STAGE_CLOCK_JUMP;
use crate::range::last_timestamp;
use crate::runner::batch::Slot;
use crate::runner::logic::{InputProgress, InputState, PartitionLogic, StageLogic};
use crate::runner::progress::Progress;

/// How long a tick may wait for the record that tells the broker's time.
const CLOCK_PATIENCE: Duration = Duration::from_secs(1);
/// Ticks come no faster, however much is due: each asks the broker for the logs' ends.
const BETWEEN_TICKS: Duration = Duration::from_millis(100);

impl<L: StageLogic> Worker<'_, L> {
    /// Ticks get a batch of their own, so that a failure during a tick cannot be a record's.
    pub(super) fn tick(&mut self) -> Result<(), BusError> {
        self.commit_open_batch()?;
        self.next_tick = Instant::now() + self.config.tick_every;
        if self.slots.is_empty() {
            let nothing = Progress::default();
            self.standing
                .look(self.config, self.poller, &self.slots, &nothing);
            return Ok(());
        }
        self.look_for_acceptance()?;
        self.call_between_batches();
        let is_known = self.clock.known_millis().is_some();
        let now_millis = self.clock.millis();
        let ends = self.log_ends.progress(self.config, &self.slots);
        self.standing
            .look(self.config, self.poller, &self.slots, &ends);
        // Where input is lost no time passes: nobody knows what was in it.
        let each = self.slots.iter_mut().zip(ends.inputs);
        for (slot, mut inputs) in each.filter(|(slot, _)| slot.lost.is_none()) {
            // As long as only this machine's clock is known, no time passes: nothing is complete.
            let complete = |input: &&mut InputProgress| input.state == InputState::Complete;
            for input in inputs
                .iter_mut()
                .filter(|input| !is_known && complete(input))
            {
                input.state = InputState::Behind;
            }
            slot.logic.begin(slot.seq + 1, now_millis);
            slot.begun = true;
            slot.logic.tick(now_millis, &inputs);
        }
        self.commit_if_output()?;
        self.commit_ends()?;
        if self.clock.is_due() {
            self.read_clock();
        }
        self.tick_when_due();
        Ok(())
    }

    /// A stage without heartbeats has nothing to write for weeks. Whoever is killed then does not say how
    /// far it has come, and behind its retention an idle log begins after its last marker.
    fn commit_ends(&mut self) -> Result<(), BusError> {
        match self.slots.iter().any(Slot::is_before_end) {
            true => self.commit_slots(Slot::is_before_end),
            false => Ok(()),
        }
    }

    /// Moves the next tick forward where something is due before it.
    pub(super) fn tick_when_due(&mut self) {
        let read = self.slots.iter().filter(|slot| slot.lost.is_none());
        let due = read.filter_map(|slot| slot.logic.next_due());
        if let (Some(due), Some(now)) = (due.min(), self.clock.known_millis()) {
            let wait = u64::try_from(due - now).map_or(Duration::ZERO, Duration::from_millis);
            let next = Instant::now() + wait.max(BETWEEN_TICKS);
            self.next_tick = self.next_tick.min(next);
        }
    }

    /// Reads the broker's clock off the record that was committed last. Where that does not work the
    /// clock goes on as it is, and the next tick tries again.
    fn read_clock(&mut self) {
        let Some((partition, at)) = self.last_write else {
            return;
        };
        let (kafka, changelog) = (&self.config.kafka, &self.config.changelog);
        match last_timestamp(kafka, changelog, partition, CLOCK_PATIENCE) {
            Ok(Some(millis)) => {
                let is_first = self.clock.known_millis().is_none();
                let jump = self.clock.set(millis, at);
                if let Some(jump_millis) = jump {
                    let stage = self.config.stage;
                    tracing::error!(
                        stage,
                        jump_millis,
                        "the broker's clock has jumped further than time has passed: not believed until it lasts; check the clocks (NTP) of the brokers"
                    );
                } else if is_first {
                    self.next_tick = Instant::now();
                }
                let jump = jump.unwrap_or_default() as f64 / 1000.0;
                metrics::gauge!(STAGE_CLOCK_JUMP, "stage" => self.config.stage).set(jump);
            }
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(stage = self.config.stage, error = %error, "broker's time not read");
            }
        }
    }
}
