//! Followers, producer, writer, log consumer and topics.

use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use spendfuse_bus::producer::{EventProducer, EventRecord, ProducerOptions};
use spendfuse_bus::topics::{self, TopicSpec};
use spendfuse_bus::{
    BusError, Follower, FollowerConfig, FollowerEvent, LogConsumer, LogConsumerConfig, LogEvent,
    LogPartition, OutputRecord, write_in_one_transaction,
};

use crate::broker::{PATIENCE, create, eventually, kafka, produce, text};

fn table_record(partition: u32, key: &str, value: Option<&str>) -> OutputRecord {
    OutputRecord {
        topic: "table".to_owned(),
        partition,
        key: Some(key.into()),
        value: value.map(Into::into),
        headers: Vec::new(),
    }
}

#[test]
fn a_follower_builds_the_table_is_caught_up_then_follows() {
    create("table", 2, &[("cleanup.policy", "compact")]);
    let first = [
        table_record(0, "a", Some("1")),
        table_record(0, "a", Some("2")),
        table_record(0, "b", Some("3")),
        table_record(0, "b", None),
        table_record(1, "c", Some("4")),
    ];
    write_in_one_transaction(&kafka(), "table-writer", &first, PATIENCE).unwrap();
    // Fails after some records were sent; none of them may be seen.
    let torn = [
        table_record(0, "a", Some("torn")),
        table_record(1, "x", Some(&"y".repeat(20 << 20))),
    ];
    let error = write_in_one_transaction(&kafka(), "table-writer", &torn, PATIENCE).unwrap_err();
    assert!(matches!(error, BusError::TooLarge { .. }), "{error}");

    let lines: Arc<Mutex<Vec<String>>> = Arc::default();
    let written = Arc::clone(&lines);
    let config = FollowerConfig {
        kafka: kafka(),
        name: "table",
        topics: vec!["table".to_owned()],
        partition: None,
        tombstones: Duration::from_secs(86_400),
    };
    let follower = Follower::start(config, move |event| {
        let line = match event {
            FollowerEvent::Record(record) => {
                let value = record.value.map(|value| text(Some(value)));
                format!("{} {} {value:?}", record.partition, text(record.key))
            }
            FollowerEvent::CaughtUp => "caught up".to_owned(),
            FollowerEvent::EndOfPartition { .. }
            | FollowerEvent::Partitions { .. }
            | FollowerEvent::Drained => return,
            other => format!("{other:?}"),
        };
        written.lock().unwrap().push(line);
    })
    .unwrap();
    eventually("catching up", || {
        lines
            .lock()
            .unwrap()
            .last()
            .is_some_and(|line| line == "caught up")
    });
    let later = [table_record(1, "c", Some("5"))];
    write_in_one_transaction(&kafka(), "table-writer", &later, PATIENCE).unwrap();
    eventually("following", || lines.lock().unwrap().len() >= 7);
    follower.stop();
    let lines = lines.lock().unwrap();
    let of_partition_0: Vec<&String> = lines.iter().filter(|l| l.starts_with('0')).collect();
    assert_eq!(
        of_partition_0,
        [
            r#"0 a Some("1")"#,
            r#"0 a Some("2")"#,
            r#"0 b Some("3")"#,
            "0 b None"
        ]
    );
    assert_eq!(lines[5..], ["caught up", r#"1 c Some("5")"#]);
}

#[test]
fn a_writer_refuses_a_topic_that_does_not_exist() {
    let record = OutputRecord {
        topic: "nowhere".to_owned(),
        ..table_record(0, "a", None)
    };
    let error = write_in_one_transaction(&kafka(), "w", &[record], PATIENCE).unwrap_err();
    assert!(
        matches!(&error, BusError::TopicMissing { topic } if topic == "nowhere"),
        "{error}"
    );
}

#[test]
fn a_producer_acknowledges_pushes_back_and_routes_like_java() {
    create("events", 4, &[]);
    let options = ProducerOptions {
        max_queued: 10,
        ..ProducerOptions::default()
    };
    let producer = EventProducer::open(&kafka(), &options).unwrap();
    assert_eq!(producer.partition_count("events", PATIENCE).unwrap(), 4);
    let (sender, acks) = mpsc::channel();
    let record = EventRecord {
        topic: "events",
        partition: None,
        key: Some(b"21"),
        value: Some(b"x"),
        headers: &[],
    };
    producer
        .send(&record, move |ack| sender.send(ack).unwrap())
        .unwrap();
    let delivered = acks.recv_timeout(PATIENCE).unwrap().unwrap();
    assert_eq!(delivered.offset, 0);
    // murmur2("21") = -973932308 in Kafka's own tests.
    assert_eq!(
        delivered.partition,
        (-973_932_308_i32 & 0x7fff_ffff) as u32 % 4
    );

    let results = (0..1000).map(|_| producer.send(&record, |_| {}));
    let full = results.filter_map(Result::err).next().unwrap();
    assert!(matches!(full, BusError::QueueFull { .. }), "{full}");
    producer.flush(PATIENCE).unwrap();
    assert_eq!(producer.queued(), 0);
}

#[test]
fn a_log_consumer_goes_on_where_it_committed_and_finds_its_metadata() {
    create("blocks", 1, &[]);
    produce("blocks", 0, 1..=5);
    let config = LogConsumerConfig {
        kafka: kafka(),
        group_id: "loader".to_owned(),
        instance_id: "l-0".to_owned(),
        topics: vec!["blocks".to_owned()],
        session_timeout: Duration::from_millis(1500),
        max_poll_interval: Duration::from_secs(2),
    };
    let at = LogPartition {
        topic_index: 0,
        partition: 0,
    };
    for (expected, values) in [(None, ["1", "2"]), (Some((2, "intent=2")), ["3", "4"])] {
        let consumer = LogConsumer::open(config.clone(), PATIENCE).unwrap();
        let mut read = Vec::new();
        eventually("two records", || {
            match consumer.poll(Duration::from_millis(100)).unwrap() {
                LogEvent::Assigned(partitions) => {
                    assert_eq!(partitions, [at]);
                    let committed = consumer.committed(at, PATIENCE).unwrap();
                    let found = committed.as_ref().map(|c| (c.offset, c.metadata.as_str()));
                    assert_eq!(found, expected);
                    let (low, _) = consumer.bounds(at, PATIENCE).unwrap();
                    let start = committed.as_ref().map_or(low, |c| c.offset);
                    consumer.start(&[(at, start)]).unwrap();
                }
                LogEvent::Record(holder) => read.push(text(holder.record().value)),
                _ => {}
            }
            read.len() >= 2
        });
        assert_eq!(read, values);
        consumer.commit(at, 2, "intent=2").unwrap();
    }
}

#[test]
fn existing_topics_are_compared_not_changed() {
    create("kept", 2, &[("cleanup.policy", "delete")]);
    let spec = TopicSpec {
        name: "kept".to_owned(),
        partitions: 3,
        config: [("cleanup.policy".to_owned(), "compact".to_owned())].into(),
        least_retention_millis: None,
    };
    let report = topics::create(&kafka(), std::slice::from_ref(&spec), Some(1), PATIENCE).unwrap();
    assert!(report.created.is_empty());
    let differing: Vec<&str> = report
        .mismatches
        .iter()
        .map(|m| m.setting.as_str())
        .collect();
    assert_eq!(differing, ["partitions", "cleanup.policy"]);
    assert_eq!(
        topics::check(&kafka(), &[spec], PATIENCE).unwrap(),
        report.mismatches
    );
    assert_eq!(
        topics::partition_count(&kafka(), "kept", PATIENCE).unwrap(),
        2
    );
}
