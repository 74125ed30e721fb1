//! Writes alerts as a processor would.

use std::time::Duration;

use serde_json::json;
use spendfuse_bus::{EventProducer, EventRecord, ProducerOptions};

use crate::lab::Lab;
use crate::traffic::now;

/// Longer than any restart of a broker.
const PATIENCE: Duration = Duration::from_secs(120);

/// A writer of alerts.
pub struct Alerts {
    producer: EventProducer,
    topic: String,
}

impl Alerts {
    /// Writes to the lab's topic of alerts.
    ///
    /// # Panics
    /// Where no client can be made.
    pub fn new(lab: &Lab) -> Self {
        let options = ProducerOptions {
            delivery_timeout: PATIENCE,
            ..ProducerOptions::default()
        };
        let producer = EventProducer::open(&lab.kafka_config(), &options);
        Self {
            producer: producer.expect("a producer can be made"),
            topic: lab.topic("alerts"),
        }
    }

    /// Sends the alert `number` of this scope and kind.
    ///
    /// # Panics
    /// Where the client refuses it, or the broker does.
    pub fn send(&self, scope: &str, kind: &str, number: usize) {
        let value = json!({
            "v": 1, "key": format!("{kind}|{scope}|{number}"), "kind": kind, "severity": "warning",
            "scope": scope, "subject": number.to_string(), "at": now(),
            "message": format!("{scope}: alert {number}"),
        });
        let value = value.to_string();
        let record = EventRecord {
            topic: &self.topic,
            // Partitioned by scope, as the ledger's are.
            partition: None,
            key: Some(scope.as_bytes()),
            value: Some(value.as_bytes()),
            headers: &[],
        };
        let sent = self.producer.send(&record, |outcome| {
            outcome.expect("the broker takes it");
        });
        sent.expect("the record is taken");
    }

    /// Waits until the broker has all.
    ///
    /// # Panics
    /// Where it has not after two minutes.
    pub fn flush(&self) {
        let flushed = self.producer.flush(PATIENCE);
        flushed.expect("the broker takes all");
    }
}
