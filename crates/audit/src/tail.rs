//! The part of a topic that was not read yet.

use std::ops::ControlFlow;

use spendfuse_bus::{InputRecord, PartitionRange};

use crate::context::Context;
use crate::error::AuditError;

/// How far a topic was read.
#[derive(Clone, Debug)]
pub struct Tail {
    topic: String,
    /// Per partition, the next offset to read.
    next: Vec<i64>,
    /// Per partition, whether it is read from the first record that it ever held.
    whole: Vec<bool>,
}

impl Tail {
    /// A topic of which nothing was read, from its beginning or from a time on.
    pub fn new(context: &Context<'_>, topic: &str, since: Option<i64>) -> Result<Self, AuditError> {
        let ranges = context.ranges(topic, since)?;
        let first = ranges.iter().map(|range| range.from);
        Ok(Self {
            topic: topic.to_owned(),
            whole: first.clone().map(|from| from == 0).collect(),
            next: first.collect(),
        })
    }

    /// Number of partitions.
    pub fn partitions(&self) -> usize {
        self.next.len()
    }

    /// Whether retention has removed records that were not read.
    pub fn is_overtaken(&self, context: &Context<'_>) -> Result<bool, AuditError> {
        let ranges = context.ranges(&self.topic, None)?;
        let mut unread = ranges.iter().zip(&self.next);
        Ok(unread.any(|(range, next)| range.from > *next))
    }

    /// What is there to be read now; at most up to `limits`, where given.
    pub fn waiting(
        &self,
        context: &Context<'_>,
        limits: Option<&[i64]>,
    ) -> Result<Vec<PartitionRange>, AuditError> {
        let mut ranges = context.ranges(&self.topic, None)?;
        for (range, next) in ranges.iter_mut().zip(&self.next) {
            let limit = limits.map_or(i64::MAX, |limits| limits[range.partition as usize]);
            range.from = range.from.max(*next);
            range.to = range.to.min(limit).max(range.from);
        }
        Ok(ranges)
    }

    /// Reads what is there now; at most up to `limits`, where given. The handler is told whether
    /// everything that the record's partition ever held is read: retention may remove its beginning at
    /// any moment before.
    pub fn read(
        &mut self,
        context: &Context<'_>,
        limits: Option<&[i64]>,
        mut handler: impl FnMut(&InputRecord<'_>, bool) -> Result<(), AuditError>,
    ) -> Result<(), AuditError> {
        let ranges = self.waiting(context, limits)?;
        for (range, next) in ranges.iter().zip(&self.next) {
            self.whole[range.partition as usize] &= *next == range.from || range.from == 0;
        }
        let (topic, whole) = (&self.topic, &mut self.whole);
        let mut has_begun = vec![false; ranges.len()];
        let mut failed = Ok(());
        context.read(topic, &ranges, &mut |record| {
            let place = record.partition as usize;
            let expected = ranges[place].from;
            let is_first = !std::mem::replace(&mut has_begun[place], true);
            if is_first && whole[place] && record.offset > expected {
                match context.ranges(topic, None) {
                    Ok(now) => whole[place] = now[place].from <= expected,
                    Err(error) => failed = Err(error),
                }
            }
            if failed.is_ok() {
                failed = handler(record, whole[place]);
            }
            match failed {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        })?;
        failed?;
        for range in ranges {
            self.next[range.partition as usize] = range.to;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use spendfuse_bus::topics::{self, TopicSpec};
    use spendfuse_bus::{EventProducer, EventRecord, KafkaConfig, ProducerOptions};
    use spendfuse_devstack::{Kafka, KafkaOptions};
    use spendfuse_domain::Topics;
    use spendfuse_pricing::PricingPolicy;
    use spendfuse_warehouse::{Warehouse, WarehouseConfig};
    use tokio::runtime::Runtime;

    use super::*;

    const TOPIC: &str = "rows";
    const PATIENCE: Duration = Duration::from_secs(60);

    /// Found by a fault run that audited in the second in which a log first forgot something.
    #[test]
    fn a_log_whose_beginning_goes_before_it_is_read_is_not_whole() {
        let broker = Kafka::start(KafkaOptions::default()).unwrap();
        let kafka = KafkaConfig::new(&broker.brokers(), "test");
        send_three(&kafka);
        let runtime = Runtime::new().unwrap();
        let warehouse = Warehouse::new(WarehouseConfig::default()).unwrap();
        let context = Context {
            kafka,
            patience: PATIENCE,
            topics: Topics::new(""),
            epoch: 0,
            id_prefix: "test",
            warehouse: &warehouse,
            runtime: &runtime,
            dedupe_horizon_millis: 0,
            kept_millis: 0,
            policy: Arc::new(PricingPolicy::default()),
            book: &|_| None,
            warn: &|_| {},
            since: None,
            waited: Cell::default(),
        };
        let opened = || Tail::new(&context, TOPIC, None).unwrap();
        let read = |mut tail: Tail| {
            let mut seen = Vec::new();
            let taken = tail.read(&context, None, |record, is_whole| {
                seen.push((record.offset, is_whole));
                Ok(())
            });
            taken.unwrap();
            seen
        };
        let (before, in_time) = (opened(), opened());
        assert_eq!(read(in_time), [(0, true), (1, true), (2, true)]);
        let is_overtaken = |tail: &Tail| tail.is_overtaken(&context).unwrap();
        assert!(!is_overtaken(&before));
        delete_first(&broker);
        assert!(is_overtaken(&before));
        assert!(!is_overtaken(&opened()));
        assert_eq!(read(before), [(1, false), (2, false)]);
        assert_eq!(read(opened()), [(1, false), (2, false)]);
    }

    fn send_three(kafka: &KafkaConfig) {
        let topic = TopicSpec {
            name: TOPIC.to_owned(),
            partitions: 1,
            config: BTreeMap::new(),
            least_retention_millis: None,
        };
        topics::create(kafka, &[topic], None, PATIENCE).unwrap();
        let producer = EventProducer::open(kafka, &ProducerOptions::default()).unwrap();
        for value in ["a", "b", "c"] {
            let record = EventRecord {
                topic: TOPIC,
                partition: Some(0),
                key: None,
                value: Some(value.as_bytes()),
                headers: &[],
            };
            let sent = producer.send(&record, |outcome| {
                outcome.unwrap();
            });
            sent.unwrap();
        }
        producer.flush(PATIENCE).unwrap();
    }

    /// What retention does, at once.
    fn delete_first(broker: &Kafka) {
        let wanted = tempfile::NamedTempFile::new().unwrap();
        let first = format!(
            "{{\"version\":1,\"partitions\":[{{\"topic\":\"{TOPIC}\",\"partition\":0,\"offset\":1}}]}}"
        );
        std::fs::write(wanted.path(), first).unwrap();
        let said = Kafka::tool("org.apache.kafka.tools.DeleteRecordsCommand")
            .unwrap()
            .args(["--bootstrap-server", &broker.brokers()])
            .arg("--offset-json-file")
            .arg(wanted.path())
            .output()
            .unwrap();
        assert!(said.status.success(), "{said:?}");
    }
}
