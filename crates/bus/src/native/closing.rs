//! The answer to a rebalance that comes while a member of a group is being closed.
//!
//! librdkafka (2.12.1) loses an assignment that crosses the end of its closing: `rd_kafka_cgrp_op_serve`
//! drops the request without an answer, and the caller waits for ever. A worker that was dropped in
//! such a moment never came back (seen in a test, by its stack). So nobody waits for long: the call
//! is left to a thread of its own, which in that moment stays behind and touches nothing any more.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::bindings as sys;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::types::{RDKafka, RDKafkaRespErr};

use crate::context::LoggingContext;

/// An answer comes within a millisecond.
const PATIENCE: Duration = Duration::from_secs(1);

/// The client of a call that may outlive it.
struct Client(*mut RDKafka);

// SAFETY: librdkafka's clients may be used from any thread.
unsafe impl Send for Client {}

impl Client {
    fn assign(&self, partitions: Option<&TopicPartitionList>) {
        let list = partitions.map_or(std::ptr::null_mut(), TopicPartitionList::ptr);
        // SAFETY: the client is destroyed by the caller of `answer` only after that has returned.
        // Where the call goes on for longer, its request is lost, and it waits on a queue of its own
        // without coming back to the client.
        unsafe { sys::rd_kafka_assign(self.0, list) };
    }
}

/// Accepts what the group assigns or takes back, as rdkafka's own rebalance does.
pub(crate) fn answer(
    consumer: &BaseConsumer<LoggingContext>,
    error: RDKafkaRespErr,
    partitions: &TopicPartitionList,
) {
    let is_assigned = error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
    let assigned = is_assigned.then_some(partitions);
    let client = || Client(consumer.client().native_ptr());
    let (answered, answer) = mpsc::sync_channel(1);
    let (calling, list) = (client(), assigned.cloned());
    let thread = thread::Builder::new().name("close-member".to_owned());
    let thread = thread.spawn(move || {
        calling.assign(list.as_ref());
        // Nobody waits any more where this took too long.
        let _ = answered.send(());
    });
    match thread {
        Ok(_) if answer.recv_timeout(PATIENCE).is_ok() => {}
        Ok(_) => tracing::debug!("an assignment crossed the end of closing and was lost"),
        // Without an answer the client would not close at all.
        Err(_) => client().assign(assigned),
    }
}
