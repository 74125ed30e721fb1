//! What must be true before a partition is processed.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use spendfuse_bus::{BusError, LogConsumer, LogConsumerConfig, LogEvent, LogPartition};
use spendfuse_devstack::Kafka;

use crate::broker::{PATIENCE, eventually, kafka, numbers, produce};
use crate::summer::Stage;

#[test]
fn a_transaction_still_open_at_the_end_of_the_changelog_is_waited_for() {
    let stage = Stage::with_topics("open", 1);
    let other: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", kafka().brokers)
        .set("transactional.id", "other")
        .create()
        .unwrap();
    other.init_transactions(PATIENCE).unwrap();
    other.begin_transaction().unwrap();
    let record = BaseRecord::to("open-state").key("late").payload("1");
    other.send(record.partition(0)).unwrap();
    other.flush(PATIENCE).unwrap();

    let running = stage.run();
    eventually("the group's assignment", || {
        let inside = stage.summer.inside.lock().unwrap();
        inside
            .events
            .iter()
            .any(|event| format!("{event:?}").contains("Restoring"))
    });
    let waited = Instant::now();
    while waited.elapsed() < Duration::from_millis(700) {
        assert!(
            !stage.is_running(),
            "processing began before the state was complete"
        );
        std::thread::yield_now();
    }
    other.commit_transaction(PATIENCE).unwrap();
    eventually("the start", || stage.is_running());
    running.stop().unwrap();
    assert_eq!(stage.summer.inside.lock().unwrap().extra, ["late"]);
}

#[test]
fn a_group_whose_offsets_were_moved_is_refused() {
    let stage = Stage::with_topics("moved", 1);
    produce("moved-in", 0, 1..=10);
    let running = stage.run();
    eventually("ten numbers", || numbers("moved-out").len() == 10);
    running.stop().unwrap();

    move_offset("moved", "moved-in", 3);
    let error = stage.run().thread.join().unwrap().unwrap_err();
    assert!(
        matches!(&error, BusError::PositionMismatch { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("moved-in@10"), "{error}");
    assert!(error.to_string().contains("moved-in@3"), "{error}");
    assert_eq!(numbers("moved-out").len(), 10);
}

/// Expired while the stage was away, or deleted: state and position lie in the same record of the log.
#[test]
fn a_group_whose_offsets_are_gone_goes_on_where_its_state_is() {
    let stage = Stage::with_topics("gone", 1);
    produce("gone-in", 0, 1..=10);
    let running = stage.run();
    eventually("ten numbers", || numbers("gone-out").len() == 10);
    running.stop().unwrap();

    delete_group("gone");
    produce("gone-in", 0, 11..=20);
    let running = stage.run();
    eventually("ten more", || numbers("gone-out").len() == 20);
    running.stop().unwrap();
    assert_eq!(numbers("gone-out"), (1..=20).collect::<Vec<u64>>());
}

/// Whoever wrote the state may still be running: two groups on one state would count twice.
#[test]
fn a_group_of_another_name_is_refused_the_state() {
    let mut stage = Stage::with_topics("named", 1);
    produce("named-in", 0, 1..=10);
    let running = stage.run();
    eventually("ten numbers", || numbers("named-out").len() == 10);
    running.stop().unwrap();

    stage.config.group_id = "named-anew".to_owned();
    let error = stage.run().thread.join().unwrap().unwrap_err();
    assert!(
        matches!(&error, BusError::PositionMismatch { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("of group named)"), "{error}");
    assert_eq!(numbers("named-out").len(), 10);
}

pub fn delete_group(group: &str) {
    const TOOL: &str = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
    // Its static member is there until the session ends.
    eventually("the group's end", || {
        let mut tool = Kafka::tool(TOOL).unwrap();
        let brokers = kafka().brokers;
        let tool = tool.args(["--bootstrap-server", &brokers]);
        let said = tool.args(["--delete", "--group", group]).output().unwrap();
        String::from_utf8_lossy(&said.stdout).contains("was successful")
    });
}

fn move_offset(group: &str, topic: &str, offset: i64) {
    let config = LogConsumerConfig {
        kafka: kafka(),
        group_id: group.to_owned(),
        // The stopped worker's own name, so that nobody has to be waited for.
        instance_id: "i-0".to_owned(),
        // All that it read: who is given other topics joins anew.
        topics: vec![topic.to_owned(), format!("{group}-also")],
        session_timeout: Duration::from_millis(1500),
        max_poll_interval: Duration::from_secs(2),
    };
    let member = LogConsumer::open(config, PATIENCE).unwrap();
    eventually("membership", || {
        matches!(
            member.poll(Duration::from_millis(100)).unwrap(),
            LogEvent::Assigned(_)
        )
    });
    member.start(&[]).unwrap();
    let at = LogPartition {
        topic_index: 0,
        partition: 0,
    };
    member.commit(at, offset, "").unwrap();
}
