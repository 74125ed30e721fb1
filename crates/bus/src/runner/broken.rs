//! Where the runner makes its guarantees about offsets, and how they are broken on purpose.

use rdkafka::TopicPartitionList;
use spendfuse_broken::{Break, is_broken};

use super::config::StageConfig;
use super::worker::open_producer;
use crate::error::BusError;
use crate::native::{Poller, request};
use crate::transaction::TransactionalProducer;

/// Every transaction carries the offsets of the partitions it writes for, ticks included.
pub(super) fn send_offsets(
    producer: &TransactionalProducer,
    offsets: &TopicPartitionList,
    member: &Poller,
    is_tick: bool,
) -> Result<(), BusError> {
    if is_broken(Break::OffsetsOutsideTransaction) {
        let committed = member.commit(offsets);
        return committed.map_err(request("committing offsets"));
    }
    if is_tick && is_broken(Break::TimerWithoutOffsets) {
        return Ok(());
    }
    producer.send_offsets(offsets, member)
}

/// Into a transaction whose offsets were not taken nothing is written any more.
pub(super) fn go_on_after(sent: Result<(), BusError>) -> Result<Result<(), BusError>, BusError> {
    match sent {
        Err(error) if !is_broken(Break::AbortAndGoOn) => Err(error),
        sent => Ok(sent),
    }
}

/// After a failed transaction nothing is gone on with: clients and state are dropped.
pub(super) fn after_failure(
    producer: &mut TransactionalProducer,
    config: &StageConfig,
    failure: BusError,
) -> Result<(), BusError> {
    if is_broken(Break::AbortAndGoOn) {
        // A new client of the same id aborts what is open; the state stays as it is.
        *producer = open_producer(config)?;
        return Ok(());
    }
    Err(failure)
}
