//! The broker goes away and comes back; nobody has to be restarted for it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use spendfuse_bus::{
    EventProducer, Follower, FollowerConfig, FollowerEvent, KafkaConfig, ProducerOptions,
    StageEvent,
};

use crate::broker::{eventually, follow, numbers_at, produce_at, send, start, text};
use crate::proxied::Proxied;
use crate::summer::Stage;

#[test]
fn stage_and_follower_survive_an_absent_and_a_crashed_broker() {
    let broker = start();
    let kafka = KafkaConfig::new(&broker.brokers(), "test");
    Stage::create_topics(&kafka, "lost", 1);
    produce_at(&kafka, "lost-in", 0, 1..=100);
    broker.kill(0);

    let stage = Stage::existing_at(&kafka.brokers, "lost", 1);
    let running = stage.run();
    eventually("the complaint about the broker", || {
        stage.has_event(|event| {
            matches!(event, StageEvent::Restarting { reason, .. } if *reason == "unreachable")
        })
    });
    let followed: Arc<Mutex<Vec<String>>> = Arc::default();
    let lines = Arc::clone(&followed);
    let config = FollowerConfig {
        kafka: kafka.clone(),
        name: "lost",
        topics: vec!["lost-out".to_owned()],
        partition: Some(0),
        tombstones: Duration::from_secs(86_400),
    };
    let follower = Follower::start(config.clone(), move |event| match event {
        FollowerEvent::Record(record) => lines.lock().unwrap().push(text(record.value)),
        FollowerEvent::Reset => lines.lock().unwrap().clear(),
        _ => {}
    })
    .unwrap();
    // Whose topics forget tombstones within a second.
    let forgetful = FollowerConfig {
        tombstones: Duration::from_secs(1),
        ..config
    };
    let (known, anew) = (
        Arc::<Mutex<Vec<String>>>::default(),
        Arc::new(AtomicU32::new(0)),
    );
    let (lines, resets) = (Arc::clone(&known), Arc::clone(&anew));
    let forgetful = Follower::start(forgetful, move |event| match event {
        FollowerEvent::Record(record) => lines.lock().unwrap().push(text(record.value)),
        FollowerEvent::Reset => {
            lines.lock().unwrap().clear();
            resets.fetch_add(1, Ordering::SeqCst);
        }
        _ => {}
    })
    .unwrap();
    broker.restart(0).unwrap();
    broker.wait_ready().unwrap();
    eventually("what lay there", || followed.lock().unwrap().len() == 100);
    eventually("the same elsewhere", || known.lock().unwrap().len() == 100);
    // Nothing is written, and that is known: nobody was away.
    silence(Duration::from_secs(2));
    assert_eq!(anew.load(Ordering::SeqCst), 0);

    broker.kill(0);
    silence(Duration::from_secs(1));
    broker.restart(0).unwrap();
    broker.wait_ready().unwrap();
    produce_at(&kafka, "lost-in", 0, 101..=200);
    eventually("what came later", || followed.lock().unwrap().len() >= 200);
    running.stop().unwrap();
    follower.stop();
    eventually("the whole log once more", || {
        anew.load(Ordering::SeqCst) > 0 && known.lock().unwrap().len() == 200
    });
    forgetful.stop();
    let all: Vec<u64> = (1..=200).collect();
    assert_eq!(numbers_at(&kafka, "lost-out"), all);
    let followed: Vec<u64> = followed
        .lock()
        .unwrap()
        .iter()
        .map(|line| line.parse().unwrap())
        .collect();
    assert_eq!(followed, all);
}

/// Topics of settings are silent for weeks.
#[test]
fn a_follower_tells_that_the_broker_is_back_although_nothing_is_written() {
    let mut broker = Proxied::start();
    Stage::create_topics(&broker.direct(), "silent", 1);
    produce_at(&broker.direct(), "silent-in", 0, 1..=3);
    let config = FollowerConfig {
        kafka: broker.kafka(),
        name: "silent",
        topics: vec!["silent-in".to_owned(), "silent-out".to_owned()],
        partition: None,
        tombstones: Duration::from_secs(86_400),
    };
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let lines = Arc::clone(&told);
    let follower = Follower::start(config, move |event| {
        let line = match event {
            FollowerEvent::Record(record) => text(record.value),
            FollowerEvent::Failed(_) => "failed".to_owned(),
            FollowerEvent::Drained => "drained".to_owned(),
            FollowerEvent::CaughtUp => "caught up".to_owned(),
            FollowerEvent::Recovered => "recovered".to_owned(),
            FollowerEvent::Partitions { .. } | FollowerEvent::EndOfPartition { .. } => return,
            FollowerEvent::Reset => panic!("nothing was lost"),
        };
        lines.lock().unwrap().push(line);
    })
    .unwrap();
    let has = |what: &str| told.lock().unwrap().iter().any(|line| line == what);
    eventually("what lay there", || has("caught up") && has("drained"));
    broker.without_proxy(|| {
        eventually("the complaint about the broker", || has("failed"));
        assert!(!has("recovered"));
    });
    eventually("the news that it is back", || has("recovered"));
    follower.stop();
    let told = told.lock().unwrap();
    assert_eq!(told.last().unwrap(), "recovered");
    let records = ["1", "2", "3"];
    assert_eq!(told[..3], records);
    assert!(!told[3..].iter().any(|line| records.contains(&&**line)));
}

/// A machine that sleeps, a container that is paused: the broker comes back fenced by its own
/// controller, and until it has reported again the cluster names no broker at all.
#[test]
fn clients_find_a_broker_again_that_was_frozen_for_longer_than_its_session() {
    let broker = start();
    let kafka = KafkaConfig::new(&broker.brokers(), "test");
    Stage::create_topics(&kafka, "frozen", 1);
    let stage = Stage::existing_at(&kafka.brokers, "frozen", 1);
    let running = stage.run();
    let producer = EventProducer::open(&kafka, &ProducerOptions::default()).unwrap();
    let (follower, followed) = follow(&kafka, "frozen", "frozen-out");
    send(&producer, "frozen-in", 0, 1..=100);
    eventually("what came before", || followed.lock().unwrap().len() == 100);
    for last in [200, 300] {
        broker.pause(0);
        silence(Duration::from_secs(12));
        broker.resume(0);
        send(&producer, "frozen-in", 0, last - 99..=last);
        eventually("what came after the frost", || {
            followed.lock().unwrap().len() == last as usize
        });
    }
    running.stop().unwrap();
    follower.stop();
    assert_eq!(
        numbers_at(&kafka, "frozen-out"),
        (1..=300).collect::<Vec<u64>>()
    );
}

/// Lets time pass in which nothing happens: that is what is tested.
#[allow(clippy::disallowed_methods)]
fn silence(time: Duration) {
    std::thread::sleep(time);
}
