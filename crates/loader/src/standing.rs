//! How the loader is, for those who ask whether it is ready.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use spendfuse_bus::{Health, LogConsumer, Part};

/// A broker that has not answered for this long is away; shorter is a slow answer.
const AWAY_AFTER: Duration = Duration::from_secs(3);
const TIMEOUT: Duration = Duration::from_millis(500);

/// What the loader depends on.
pub(crate) struct Parts {
    pub(crate) kafka: Part,
    pub(crate) clickhouse: Part,
    partitions: Part,
}

impl Parts {
    pub(crate) fn of(health: &Health) -> Self {
        Self {
            kafka: health.part("Kafka"),
            clickhouse: health.part("ClickHouse"),
            partitions: health.part("partitions"),
        }
    }
}

/// What a session has seen.
pub(crate) struct Standing {
    answered_at: Instant,
    is_assigned: bool,
    /// Partitions that wait for a person, and why.
    stopped: BTreeMap<(String, u32), String>,
}

impl Standing {
    pub(crate) fn new() -> Self {
        Self {
            answered_at: Instant::now(),
            is_assigned: false,
            stopped: BTreeMap::new(),
        }
    }

    /// Exactly these partitions begin anew; perhaps none.
    pub(crate) fn assigned(&mut self) {
        self.is_assigned = true;
        self.stopped.clear();
    }

    pub(crate) fn stopped(&mut self, topic: &str, partition: u32, reason: String) {
        let at = (topic.to_owned(), partition);
        self.stopped.insert(at, reason);
    }

    pub(crate) fn goes_on(&mut self, topic: &str, partition: u32) {
        self.stopped.remove(&(topic.to_owned(), partition));
    }

    /// Once a second: asks the broker, and tells.
    pub(crate) fn look(&mut self, consumer: &LogConsumer, parts: &Parts) {
        if consumer.broker_answers(TIMEOUT) {
            self.answered_at = Instant::now();
        }
        let silent = self.answered_at.elapsed();
        if silent >= AWAY_AFTER {
            let seconds = silent.as_secs();
            parts.kafka.not_ready(format!("no answer for {seconds} s"));
        } else {
            parts.kafka.ready();
        }
        let mut stopped = self.stopped.iter();
        match stopped.next() {
            Some(((topic, partition), reason)) => {
                let others = match stopped.count() {
                    0 => String::new(),
                    more => format!(" (and {more} more)"),
                };
                let reason = format!("{topic} {partition} is stopped: {reason}{others}");
                parts.partitions.not_ready(reason);
            }
            None if self.is_assigned => parts.partitions.ready(),
            None => parts.partitions.not_ready("waiting for them"),
        }
    }
}
