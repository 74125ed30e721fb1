//! Where events go first: the usage topic.

use spendfuse_bus::BusError;
use spendfuse_bus::producer::{EventProducer, EventRecord};
use tokio::sync::oneshot;

use crate::spool::SpooledEvent;

/// Says later whether the broker has an event, and at which offset of its partition.
pub type Acknowledgement = oneshot::Receiver<Result<i64, SinkError>>;

/// Why the broker does not have an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the broker did not take the event: {detail}")]
pub struct SinkError {
    /// What it or its client said.
    pub detail: String,
}

/// Takes events for the broker.
pub trait UsageSink: Send + Sync + 'static {
    /// Queues `event` and returns at once.
    fn send(&self, event: &SpooledEvent) -> Acknowledgement;
}

/// The usage topic of a real broker.
pub struct KafkaSink {
    producer: EventProducer,
    topic: String,
}

impl KafkaSink {
    /// Sends to `topic` through `producer`.
    pub fn new(producer: EventProducer, topic: String) -> Self {
        Self { producer, topic }
    }
}

impl UsageSink for KafkaSink {
    fn send(&self, event: &SpooledEvent) -> Acknowledgement {
        let (acknowledge, acknowledgement) = oneshot::channel();
        let failed = |error: BusError| SinkError {
            detail: error.to_string(),
        };
        let record = EventRecord {
            topic: &self.topic,
            partition: Some(event.partition),
            key: Some(&event.key),
            value: Some(&event.value),
            headers: &[("content-type", b"application/cloudevents+json")],
        };
        let sent = self.producer.send(&record, move |delivered| {
            // Nobody waits any more where the time was up: the event is in the spool then.
            let _ = acknowledge.send(delivered.map(|delivered| delivered.offset).map_err(failed));
        });
        match sent {
            Ok(()) => acknowledgement,
            Err(error) => {
                let (refuse, refusal) = oneshot::channel();
                let _ = refuse.send(Err(failed(error)));
                refusal
            }
        }
    }
}
