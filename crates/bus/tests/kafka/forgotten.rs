//! A cluster that names no broker for a moment, as one does whose brokers are fenced: librdkafka forgets
//! all of them then, and asks nobody any more.

use std::time::Duration;

use spendfuse_bus::{EventProducer, ProducerOptions};

use crate::broker::{eventually, follow, numbers_at, send};
use crate::proxied::Proxied;
use crate::summer::Stage;

#[test]
fn clients_whose_cluster_named_no_broker_are_told_them_again() {
    let proxied = Proxied::start();
    Stage::create_topics(&proxied.direct(), "forgotten", 1);
    let mut kafka = proxied.kafka();
    // Whether a client forgets depends on the order of two of its threads: they get many chances.
    let refresh = "topic.metadata.refresh.interval.ms".to_owned();
    kafka.properties.insert(refresh, "50".to_owned());
    let mut stage = Stage::existing_at(&kafka.brokers, "forgotten", 1);
    stage.config.kafka = kafka.clone();
    let running = stage.run();
    let producer = EventProducer::open(&kafka, &ProducerOptions::default()).unwrap();
    let (follower, followed) = follow(&kafka, "forgotten", "forgotten-out");
    send(&producer, "forgotten-in", 0, 1..=100);
    eventually("what came before", || followed.lock().unwrap().len() == 100);
    // In the middle of transactions, too.
    let feeder = EventProducer::open(&proxied.direct(), &ProducerOptions::default()).unwrap();
    for round in 1..=15 {
        for is_nameless in [true, false] {
            proxied.proxy.name_no_broker(is_nameless);
            send(
                &feeder,
                "forgotten-in",
                0,
                [100 + round * 2 + u64::from(is_nameless)],
            );
            pass(Duration::from_millis(120));
        }
    }
    send(&producer, "forgotten-in", 0, 132..=200);
    eventually("what came after", || followed.lock().unwrap().len() == 199);
    running.stop().unwrap();
    follower.stop();
    let all: Vec<u64> = (1..=100).chain(102..=200).collect();
    assert_eq!(numbers_at(&proxied.direct(), "forgotten-out"), all);
}

/// Lets time pass in which clients ask for brokers.
#[allow(clippy::disallowed_methods)]
fn pass(time: Duration) {
    std::thread::sleep(time);
}
