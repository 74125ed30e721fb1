//! Batches that no client can read stop nobody, and what was passed by is told exactly once.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use spendfuse_bus::producer::{EventProducer, ProducerOptions};
use spendfuse_bus::{
    BusError, Follower, FollowerConfig, FollowerEvent, KafkaConfig, LogConsumer, LogConsumerConfig,
    LogEvent, Shutdown,
};
use spendfuse_devstack::{Damage, Segment, StoredBatch};

use crate::broker::{PATIENCE, eventually, numbers_at, produce_at, read_all, send, start, text};
use crate::summer::Stage;

/// Batches of this many records each.
const EACH: u64 = 7;
const BATCHES: u64 = 30;

#[test]
fn batches_that_cannot_be_read_are_passed_by_and_told_exactly_once() {
    let broker = start();
    let kafka = KafkaConfig::new(&broker.brokers(), "test");
    Stage::create_topics(&kafka, "torn", 1);
    let mut zstd = kafka.clone();
    let codec = ("compression.type".to_owned(), "zstd".to_owned());
    zstd.properties.extend([codec]);
    let producer = EventProducer::open(&zstd, &ProducerOptions::default()).unwrap();
    for batch in 0..BATCHES {
        let first = batch * EACH + 1;
        send(&producer, "torn-in", 0, first..first + EACH);
    }

    // A stage with a little state.
    Stage::create_topics(&kafka, "holed", 1);
    produce_at(&kafka, "holed-in", 0, 1..=10);
    let holed = Stage::existing_at(&kafka.brokers, "holed", 1);
    let running = holed.run();
    eventually("its numbers", || {
        numbers_at(&kafka, "holed-out").len() == 10
    });
    running.stop().unwrap();

    // The first, ten in a row, and the last; the broker is down and does not notice.
    assert!(broker.stop(0));
    let segment = Segment::of(&broker, "torn-in", 0);
    let kinds = [
        Damage::UnknownCodec,
        Damage::NotCompressed,
        Damage::FlippedBit,
    ];
    let batches = segment.batches();
    let is_bad = |offset: i64| offset < 7 || (70..140).contains(&offset) || offset >= 203;
    let bad: Vec<&StoredBatch> = batches.iter().filter(|batch| is_bad(batch.first)).collect();
    for (batch, kind) in bad.iter().zip(kinds.iter().cycle()) {
        segment.damage(batch, *kind);
    }
    let state = Segment::of(&broker, "holed-state", 0);
    state.damage(&state.batches()[0], Damage::FlippedBit);
    broker.restart(0).unwrap();
    broker.wait_ready().unwrap();

    let good: Vec<u64> = (0..BATCHES * EACH)
        .filter(|offset| !is_bad(offset.cast_signed()))
        .map(|offset| offset + 1)
        .collect();
    let mut places: Vec<String> = bad
        .iter()
        .map(|batch| format!("torn-in@{}-{}", batch.first, batch.end))
        .collect();
    places.sort();

    // State with a hole would be wrong: that is refused, by name.
    let error = holed.run().thread.join().unwrap().unwrap_err();
    assert!(
        matches!(&error, BusError::Unreadable(lost) if lost.topic == "holed-state" && lost.from == 0),
        "{error}"
    );

    // Plain readers and followers pass by, too.
    assert_eq!(numbers_at(&kafka, "torn-in"), good);
    assert_eq!(followed(&kafka, "torn-in"), (good.clone(), bad.len()));
    assert_eq!(consumed(&kafka, "torn-in", good.len()), good);

    // A crash in the middle of it: whatever was told has moved the offsets, too.
    let stage = Stage::existing_at(&kafka.brokers, "torn", 1);
    let running = stage.run();
    eventually("some good numbers", || {
        numbers_at(&kafka, "torn-out").len() > 70
    });
    running.stop().unwrap();
    let running = stage.run();
    eventually("all good numbers", || {
        numbers_at(&kafka, "torn-out").len() >= good.len()
    });
    produce_at(&kafka, "torn-in", 0, 1000..1010);
    eventually("what came behind the last bad batch", || {
        numbers_at(&kafka, "torn-out").len() >= good.len() + 10
    });
    running.stop().unwrap();

    let counted = numbers_at(&kafka, "torn-out");
    assert_eq!(counted[..good.len()], good);
    assert_eq!(counted[good.len()..], (1000..1010).collect::<Vec<u64>>());
    let told = read_all(&kafka, "torn-out-rejected");
    let mut told: Vec<String> = told
        .iter()
        .map(|record| text(record.value.as_deref()))
        .collect();
    told.sort();
    assert_eq!(told, places);
}

/// What a follower hands on, and how many batches it reports.
fn followed(kafka: &KafkaConfig, topic: &str) -> (Vec<u64>, usize) {
    let seen: Arc<Mutex<(Vec<u64>, usize)>> = Arc::default();
    let caught_up = Shutdown::new();
    let (inside, done) = (Arc::clone(&seen), caught_up.clone());
    let config = FollowerConfig {
        kafka: kafka.clone(),
        name: "torn",
        topics: vec![topic.to_owned()],
        partition: None,
        tombstones: Duration::from_secs(86_400),
    };
    let follower = Follower::start(config, move |event| match event {
        FollowerEvent::Record(record) => {
            let number = text(record.value).parse().unwrap();
            inside.lock().unwrap().0.push(number);
        }
        FollowerEvent::Failed(BusError::Unreadable(_)) => inside.lock().unwrap().1 += 1,
        FollowerEvent::CaughtUp => done.request(),
        other => assert!(
            matches!(
                other,
                FollowerEvent::EndOfPartition { .. }
                    | FollowerEvent::Partitions { .. }
                    | FollowerEvent::Drained
                    | FollowerEvent::Recovered
            ),
            "{other:?}"
        ),
    })
    .unwrap();
    assert!(caught_up.wait(PATIENCE), "{:?}", seen.lock().unwrap());
    follower.stop();
    let seen = seen.lock().unwrap();
    seen.clone()
}

/// What a member of a group reads.
fn consumed(kafka: &KafkaConfig, topic: &str, count: usize) -> Vec<u64> {
    let config = LogConsumerConfig {
        kafka: kafka.clone(),
        group_id: "torn-loader".to_owned(),
        instance_id: "1".to_owned(),
        topics: vec![topic.to_owned()],
        session_timeout: Duration::from_secs(6),
        max_poll_interval: Duration::from_secs(60),
    };
    let consumer = LogConsumer::open(config, PATIENCE).unwrap();
    let mut numbers = Vec::new();
    eventually("the consumer's records", || {
        match consumer.poll(Duration::from_millis(100)).unwrap() {
            LogEvent::Assigned(partitions) => {
                let starts: Vec<_> = partitions.iter().map(|at| (*at, 0)).collect();
                consumer.start(&starts).unwrap();
            }
            LogEvent::Record(holder) => {
                numbers.push(text(holder.record().value).parse().unwrap());
            }
            _ => {}
        }
        numbers.len() >= count
    });
    numbers
}
