//! A group whose members read, or have just read, other topics: a processor or loader on a new set
//! of topics, a second installation under one prefix.

use std::time::{Duration, Instant};

use spendfuse_bus::{
    BusError, KafkaConfig, LogConsumer, LogConsumerConfig, LogEvent, LogPartition,
};

use crate::broker::{PATIENCE, create, eventually, kafka, numbers, produce};
use crate::summer::Stage;

/// Longer than any of these tests: nobody is forgotten meanwhile.
const SESSION: Duration = Duration::from_secs(40);
const POLL: Duration = Duration::from_millis(50);

fn member(group: &str, topic: &str) -> LogConsumerConfig {
    LogConsumerConfig {
        kafka: kafka(),
        group_id: group.to_owned(),
        instance_id: "i-0".to_owned(),
        topics: vec![topic.to_owned()],
        session_timeout: SESSION,
        max_poll_interval: SESSION,
    }
}

/// Becomes a member, is given the topic, and dies without a word.
fn lived_on(group: &str, topic: &str) {
    let consumer = LogConsumer::open(member(group, topic), PATIENCE).unwrap();
    eventually("the assignment of the former topic", || {
        let event = consumer.poll(POLL).unwrap();
        matches!(event, LogEvent::Assigned(partitions) if !partitions.is_empty())
    });
}

#[test]
fn a_consumer_on_new_topics_is_not_given_those_of_its_former_self() {
    create("former-rows", 2, &[]);
    create("new-rows", 2, &[]);
    lived_on("moved-loader", "former-rows");

    let begin = Instant::now();
    let mut given = Vec::new();
    eventually("the assignment of the new topic", || {
        let consumer = LogConsumer::open(member("moved-loader", "new-rows"), PATIENCE).unwrap();
        // As the loader does, it begins anew after an error.
        while begin.elapsed() < PATIENCE {
            match consumer.poll(POLL) {
                Ok(LogEvent::Assigned(partitions)) => {
                    given = partitions;
                    return true;
                }
                Ok(_) => {}
                Err(error) => {
                    let is_it = matches!(&error, BusError::ForeignAssignment { topic, .. } if topic == "former-rows");
                    assert!(is_it && error.can_retry(), "{error}");
                    return false;
                }
            }
        }
        false
    });
    given.sort_unstable();
    let at = |partition| LogPartition {
        topic_index: 0,
        partition,
    };
    assert_eq!(given, [at(0), at(1)]);
    assert!(begin.elapsed() < SESSION / 2, "{:?}", begin.elapsed());
}

#[test]
fn a_stage_on_new_topics_joins_anew() {
    create("former-in", 1, &[]);
    lived_on("moved-stage", "former-in");
    let begin = Instant::now();
    let mut stage = Stage::with_topics("anew", 1);
    stage.config.group_id = "moved-stage".to_owned();
    stage.config.session_timeout = SESSION;
    stage.config.max_poll_interval = SESSION;
    produce("anew-in", 0, 1..=10);
    let running = stage.run();
    eventually("the new input", || numbers("anew-out").len() == 10);
    assert!(begin.elapsed() < SESSION / 2, "{:?}", begin.elapsed());
    running.stop().unwrap();
}

#[test]
fn a_second_installation_in_the_group_is_refused_and_disturbs_nobody() {
    let mut first = Stage::with_topics("first-installation", 1);
    first.config.group_id = "shared".to_owned();
    let running = first.run();
    eventually("the first one runs", || first.is_running());
    let mut second = Stage::with_topics("second-installation", 1);
    second.config.kafka = KafkaConfig::new(&kafka().brokers, "elsewhere");
    second.config.group_id = "shared".to_owned();
    second.config.instance_id = "j-0".to_owned();
    second.config.transactional_id = "shared-second".to_owned();
    let refused = second.run().thread.join().unwrap().unwrap_err();
    let said = refused.to_string();
    assert!(
        said.contains("first-installation-") && said.contains("transactional_id_prefix"),
        "{said}"
    );
    produce("first-installation-in", 0, 1..=10);
    eventually("the first one goes on", || {
        numbers("first-installation-out").len() == 10
    });
    running.stop().unwrap();
}
