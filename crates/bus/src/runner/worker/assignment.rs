//! Partitions come and go.

use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use spendfuse_broken::{Break, is_broken};

use super::Worker;
use super::lost_input::show_stopped;
use crate::error::BusError;
use crate::metrics::{STAGE_PARTITIONS, STAGE_RESTORE_SECONDS};
use crate::native::TopicPartition;
use crate::runner::assignment::{Interrupt, co_partitioned, take_over};
use crate::runner::kept::keep;
use crate::runner::logic::{PartitionLogic, StageLogic};
use crate::runner::membership::keep_alive;
use crate::runner::observer::StageEvent;
use crate::runner::progress::clear_backlog;

impl<L: StageLogic> Worker<'_, L> {
    pub(super) fn revoked(&mut self) -> Result<(), BusError> {
        // Nothing of the batch was sent yet. It is finished where the partitions are still ours,
        // to save the successor the work; otherwise it is dropped.
        if self.poller.consumer().assignment_lost() {
            self.drop_partitions();
        } else {
            self.commit_all()?;
            self.clear_metrics();
            let slots = std::mem::take(&mut self.slots);
            self.drop_partitions();
            self.kept = keep(self.config, slots);
        }
        self.standing.revoked(self.config);
        self.observer.stage_event(StageEvent::Revoked);
        self.poller.unassign()
    }

    pub(super) fn drop_partitions(&mut self) {
        self.clear_metrics();
        self.kept.clear();
        self.slots.clear();
        self.last_write = None;
        self.slot_of.fill(None);
        self.batch.clear();
        self.suspicion.discarded();
        self.show_partitions();
    }

    pub(super) fn assigned(&mut self, mut assigned: Vec<TopicPartition>) -> Result<(), BusError> {
        let began = Instant::now();
        let mut kept = std::mem::take(&mut self.kept);
        self.drop_partitions();
        loop {
            let (group, inputs) = (&self.config.group_id, &self.config.inputs);
            self.poller.refuse_foreign(group, inputs, &assigned)?;
            let partitions = match co_partitioned(self.config, &assigned) {
                Ok(partitions) => partitions,
                Err(error) => {
                    // Static members are given again what they had, also after their next start.
                    self.poller.refuse_assignment(group)?;
                    return Err(error);
                }
            };
            self.config
                .health
                .not_ready(format!("restores partitions {partitions:?}"));
            self.observer.stage_event(StageEvent::Restoring {
                partitions: partitions.clone(),
            });
            let (config, poller, shutdown) = (self.config, self.poller, self.shutdown);
            let mut keep_alive = |timeout| keep_alive(config, poller, shutdown, timeout);
            let now = self.clock.millis();
            match take_over(
                config,
                self.stage,
                poller,
                &partitions,
                std::mem::take(&mut kept),
                now,
                &mut keep_alive,
            ) {
                Ok(slots) => {
                    if is_broken(Break::InitAfterRestore) {
                        self.producer.fence_predecessors()?;
                    }
                    let times = slots.iter().filter_map(|slot| slot.logic.restored_time());
                    times.for_each(|millis| self.clock.restored(millis));
                    self.slots = slots;
                    self.start(partitions, began.elapsed());
                    // At once: as long as nothing is told, readers' state grows old, and by the
                    // broker's time that is read then the first records' stamps are judged.
                    return self.tick();
                }
                Err(Interrupt::Assigned(again)) => assigned = again,
                Err(Interrupt::Revoked) => return Ok(()),
                Err(Interrupt::Failed(error)) => return Err(error),
            }
        }
    }

    fn start(&mut self, partitions: Vec<u32>, restore: Duration) {
        for (index, slot) in self.slots.iter().enumerate() {
            self.slot_of[slot.partition as usize] = Some(index);
            show_stopped(self.config.stage, slot.partition, false);
        }
        let stage = self.config.stage;
        metrics::histogram!(STAGE_RESTORE_SECONDS, "stage" => stage).record(restore.as_secs_f64());
        self.show_partitions();
        self.standing.assigned(self.config);
        tracing::info!(stage, ?partitions, ?restore, "worker runs");
        self.observer.stage_event(StageEvent::Running {
            partitions,
            restore,
        });
    }

    /// Of partitions that are taken back, or given up after an error.
    pub(super) fn clear_metrics(&self) {
        for slot in &self.slots {
            show_stopped(self.config.stage, slot.partition, false);
            clear_backlog(self.config, slot.partition);
            slot.logic.clear_metrics();
        }
    }

    pub(super) fn show_partitions(&self) {
        let worker = self.config.instance_id.clone();
        metrics::gauge!(STAGE_PARTITIONS, "stage" => self.config.stage, "worker" => worker)
            .set(self.slots.len() as f64);
    }
}
