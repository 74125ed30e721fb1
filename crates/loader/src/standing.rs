//! How the loader is, for those who ask whether it is ready.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use spendfuse_bus::{Health, LogConsumer, Part};

use crate::metrics as names;

/// A broker that has not answered for this long is away; shorter is a slow answer.
const AWAY_AFTER: Duration = Duration::from_secs(3);
const TIMEOUT: Duration = Duration::from_millis(500);

/// Topic and number of a partition.
pub(crate) type PartitionName = (String, u32);

/// What the loader depends on, and what it has.
pub(crate) struct Parts {
    pub(crate) kafka: Part,
    pub(crate) clickhouse: Part,
    partitions: Part,
    /// What the last assignment was, of this session or of one that failed.
    assigned: RefCell<BTreeSet<PartitionName>>,
}

impl Parts {
    pub(crate) fn of(health: &Health) -> Self {
        Self {
            kafka: health.part("Kafka"),
            clickhouse: health.part("ClickHouse"),
            partitions: health.part("partitions"),
            assigned: RefCell::default(),
        }
    }

    /// Exactly `partitions` are this loader's from now on; returns those that are not any more.
    pub(crate) fn assigned(&self, partitions: BTreeSet<PartitionName>) -> Vec<PartitionName> {
        let mut before = self.assigned.replace(partitions.clone());
        before.retain(|one| !partitions.contains(one));
        before.into_iter().collect()
    }
}

/// What a session has seen.
pub(crate) struct Standing {
    answered_at: Instant,
    is_assigned: bool,
    /// Partitions that wait for a person, and why.
    stopped: BTreeMap<PartitionName, String>,
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
        metrics::gauge!(
            names::LOADER_STOPPED,
            "topic" => topic.to_owned(),
            "partition" => partition.to_string()
        )
        .set(1);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Kafka was away for a moment, and another loader has one of the partitions since.
    #[test]
    fn what_a_session_that_failed_had_is_not_told_of_for_ever() {
        let set = |partitions: &[u32]| {
            let names = partitions.iter().map(|one| ("rows".to_owned(), *one));
            names.collect::<BTreeSet<PartitionName>>()
        };
        let parts = Parts::of(&Health::default());
        assert!(parts.assigned(set(&[0, 1])).is_empty());
        assert_eq!(parts.assigned(set(&[1, 2])), [("rows".to_owned(), 0)]);
        let rest: BTreeSet<_> = parts.assigned(set(&[])).into_iter().collect();
        assert_eq!(rest, set(&[1, 2]));
    }
}
