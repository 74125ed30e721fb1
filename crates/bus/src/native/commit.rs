//! Committing offsets outside of transactions, with a time limit.

use std::ptr::{self, NonNull};
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::bindings as sys;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;

use super::{Event, Poller};

/// For how long a commit is waited for. A broker that starts again has its coordinators by then.
const PATIENCE: Duration = Duration::from_secs(30);

impl Poller {
    /// Commits offsets of the group and waits for the answer, for half a minute: librdkafka's own call
    /// (2.12.1) waits for as long as no coordinator is known, which in a client that has forgotten its
    /// brokers is for ever. After that the outcome is unknown, as that of an answer that got lost.
    pub(crate) fn commit(&self, offsets: &TopicPartitionList) -> Result<(), KafkaError> {
        let client = self.consumer().client().native_ptr();
        let millis = i32::try_from(PATIENCE.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the client is alive and copies the list; the queue is made here and given back here,
        // and an answer that comes later finds it closed; the event is asked for what each event has.
        let error = unsafe {
            let queue = sys::rd_kafka_queue_new(client);
            let (list, none) = (offsets.ptr(), ptr::null_mut());
            let asked = sys::rd_kafka_commit_queue(client, list, queue, None, none);
            let error = match asked {
                RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => {
                    match NonNull::new(sys::rd_kafka_queue_poll(queue, millis)).map(Event) {
                        Some(event) => sys::rd_kafka_event_error(event.ptr()),
                        None => RDKafkaRespErr::RD_KAFKA_RESP_ERR__TIMED_OUT,
                    }
                }
                refused => refused,
            };
            sys::rd_kafka_queue_destroy(queue);
            error
        };
        match error {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
            error => Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::from(error))),
        }
    }
}
