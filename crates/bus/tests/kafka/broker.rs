//! The shared broker, topics of a test, and reading what lies in them.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use spendfuse_bus::producer::{EventProducer, EventRecord, ProducerOptions};
use spendfuse_bus::topics::{self, TopicSpec};
use spendfuse_bus::{
    Follower, FollowerConfig, FollowerEvent, KafkaConfig, OutputRecord, read_ranges, topic_ranges,
};
use spendfuse_devstack::{Kafka, KafkaOptions};

pub const PATIENCE: Duration = Duration::from_secs(30);

/// Starts the broker for the first test that asks; it ends with this process.
pub fn kafka() -> KafkaConfig {
    static KAFKA: OnceLock<Kafka> = OnceLock::new();
    let kafka = KAFKA.get_or_init(start);
    KafkaConfig::new(&kafka.brokers(), "test")
}

pub fn start() -> Kafka {
    Kafka::start(KafkaOptions {
        // Take-overs in two seconds instead of thirty.
        properties: vec![("group.min.session.timeout.ms".into(), "500".into())],
        ..KafkaOptions::default()
    })
    .expect("Kafka starts; `make setup` fetches it")
}

pub fn create(topic: &str, partitions: u32, settings: &[(&str, &str)]) {
    create_at(&kafka(), topic, partitions, settings);
}

pub fn create_at(kafka: &KafkaConfig, topic: &str, partitions: u32, settings: &[(&str, &str)]) {
    let config = settings.iter().map(|(k, v)| ((*k).into(), (*v).into()));
    let spec = TopicSpec {
        name: topic.to_owned(),
        partitions,
        config: config.collect::<BTreeMap<String, String>>(),
        least_retention_millis: None,
    };
    let report = topics::create(kafka, &[spec], Some(1), PATIENCE).unwrap();
    assert_eq!(report.created, [topic]);
}

/// Sends values to a partition and waits until they are acknowledged.
pub fn produce(topic: &str, partition: u32, values: impl IntoIterator<Item = u64>) {
    produce_at(&kafka(), topic, partition, values);
}

pub fn produce_at(
    kafka: &KafkaConfig,
    topic: &str,
    partition: u32,
    values: impl IntoIterator<Item = u64>,
) {
    let producer = EventProducer::open(kafka, &ProducerOptions::default()).unwrap();
    send(&producer, topic, partition, values);
}

/// The same with a producer that is there, in batches of its own.
pub fn send(
    producer: &EventProducer,
    topic: &str,
    partition: u32,
    values: impl IntoIterator<Item = u64>,
) {
    for value in values {
        let value = value.to_string();
        let record = EventRecord {
            topic,
            partition: Some(partition),
            key: None,
            value: Some(value.as_bytes()),
            headers: &[("kind", b"number")],
        };
        producer
            .send(&record, |ack| {
                ack.unwrap();
            })
            .unwrap();
    }
    producer.flush(PATIENCE).unwrap();
}

/// All committed records of a topic.
pub fn read_all(kafka: &KafkaConfig, topic: &str) -> Vec<OutputRecord> {
    let ranges = topic_ranges(kafka, topic, None, PATIENCE).unwrap();
    let mut records = Vec::new();
    read_ranges(kafka, topic, &ranges, PATIENCE, &mut |record| {
        records.push(OutputRecord {
            topic: topic.to_owned(),
            partition: record.partition,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: Vec::new(),
        });
        ControlFlow::Continue(())
    })
    .unwrap();
    records
}

/// The committed values of a topic as numbers, sorted.
pub fn numbers(topic: &str) -> Vec<u64> {
    numbers_at(&kafka(), topic)
}

pub fn numbers_at(kafka: &KafkaConfig, topic: &str) -> Vec<u64> {
    let mut numbers: Vec<u64> = read_all(kafka, topic)
        .into_iter()
        .map(|record| text(record.value.as_deref()).parse().unwrap())
        .collect();
    numbers.sort_unstable();
    numbers
}

pub fn text(bytes: Option<&[u8]>) -> String {
    String::from_utf8(bytes.unwrap_or_default().to_vec()).unwrap()
}

/// Waits for a condition on another thread's work.
#[allow(clippy::disallowed_methods, reason = "polls a condition")]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(
            std::time::Instant::now() < deadline,
            "never happened: {what}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Follows a topic of one partition whose log stays as it is, and the lines that come.
pub fn follow(
    kafka: &KafkaConfig,
    name: &'static str,
    topic: &str,
) -> (Follower, Arc<Mutex<Vec<String>>>) {
    let followed: Arc<Mutex<Vec<String>>> = Arc::default();
    let lines = Arc::clone(&followed);
    let config = FollowerConfig {
        kafka: kafka.clone(),
        name,
        topics: vec![topic.to_owned()],
        partition: Some(0),
        tombstones: Duration::from_secs(86_400),
    };
    let follower = Follower::start(config, move |event| match event {
        FollowerEvent::Record(record) => lines.lock().unwrap().push(text(record.value)),
        FollowerEvent::Reset => panic!("nothing was lost"),
        _ => {}
    });
    (follower.unwrap(), followed)
}
