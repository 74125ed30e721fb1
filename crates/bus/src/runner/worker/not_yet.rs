//! A record that must wait for something newer than the stage has: tables change between batches
//! only, and a stage asks for no time.

use std::time::{Duration, Instant};

use super::Worker;
use crate::error::{BusError, LogicError};
use crate::runner::logic::{InputRecord, PartitionLogic, StageLogic};
use crate::runner::suspicion::{Address, Doing};

/// How long a record waits before the worker starts again.
const PATIENCE: Duration = Duration::from_secs(2);
const BETWEEN: Duration = Duration::from_millis(1);

impl<L: StageLogic> Worker<'_, L> {
    /// Commits what the batch holds without `record`, which was not processed yet, and processes it
    /// as the first of a new batch as soon as the stage can.
    pub(super) fn process_later(
        &mut self,
        index: usize,
        address: Address,
        record: &InputRecord<'_>,
    ) -> Result<(), BusError> {
        let bytes = record.value.map_or(0, <[u8]>::len);
        self.batch.take_back(bytes);
        if self.batch.is_empty() {
            self.batch.clear();
            self.suspicion.discarded();
        } else {
            self.commit()?;
        }
        let deadline = Instant::now() + PATIENCE;
        self.suspicion.record(address);
        loop {
            self.call_between_batches();
            let slot = &mut self.slots[index];
            slot.logic.begin(slot.seq + 1, self.clock.millis());
            slot.begun = true;
            self.suspicion.now(Doing::Record(address));
            match slot.logic.process(record) {
                Err(LogicError::NotYet(what)) if Instant::now() >= deadline => {
                    return Err(LogicError::Retry(what).into());
                }
                Err(LogicError::NotYet(_)) if self.shutdown.wait(BETWEEN) => {
                    return Err(BusError::Stopped);
                }
                Err(LogicError::NotYet(_)) => {}
                processed => {
                    processed?;
                    break;
                }
            }
        }
        self.batch
            .begin(self.clock.millis() - record.timestamp_millis);
        self.batch.add(bytes);
        Ok(())
    }
}
