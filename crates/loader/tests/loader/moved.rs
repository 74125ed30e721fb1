//! Offsets of the loader's group that somebody has moved by hand.

use std::time::Duration;

use spendfuse_bus::{LogConsumer, LogConsumerConfig, LogEvent, LogPartition};
use spendfuse_devstack::wait_until;

use crate::fixture::{Fixture, PATIENCE};

#[test]
fn offsets_that_were_moved_by_hand_double_and_lose_nothing() {
    let mut fixture = Fixture::start();
    let first = fixture.start_loader();
    fixture.count_calls(0, 6);
    fixture.count_calls(1, 3);
    fixture.wait_for_rows(9);
    first.end();
    fixture.count_calls(0, 2);
    fixture.count_calls(1, 2);

    // Back to the beginning, and behind what nobody has loaded.
    move_offsets(&fixture, &[(0, 0), (1, 5)]);
    let second = fixture.start_loader();
    fixture.wait_for_rows(13);
    fixture.count_calls(0, 1);
    fixture.count_calls(1, 1);
    fixture.wait_for_rows(15);
    second.end();
    // It goes on from its own offsets now.
    let third = fixture.start_loader();
    fixture.count_calls(0, 1);
    fixture.wait_for_rows(16);
    third.end();
    assert!(fixture.alerts.lock().unwrap().is_empty());
}

/// What `kafka-consumer-groups --reset-offsets` does: it writes no metadata.
fn move_offsets(fixture: &Fixture, to: &[(u32, i64)]) {
    let topics = ["spendfuse.rows", "spendfuse.rows.ledger"];
    let config = LogConsumerConfig {
        kafka: fixture.kafka.clone(),
        group_id: fixture.group_id.to_owned(),
        // The stopped loader's own name, so that nobody has to be waited for.
        instance_id: "loader-1".to_owned(),
        topics: topics.map(str::to_owned).to_vec(),
        session_timeout: Duration::from_secs(6),
        max_poll_interval: Duration::from_secs(60),
    };
    let member = LogConsumer::open(config, PATIENCE).unwrap();
    let assigned = || {
        let event = member.poll(Duration::from_millis(100)).unwrap();
        matches!(event, LogEvent::Assigned(_)).then_some(())
    };
    wait_until("membership", PATIENCE, assigned).unwrap();
    member.start(&[]).unwrap();
    for (partition, offset) in to {
        let at = LogPartition {
            topic_index: 0,
            partition: *partition,
        };
        member.commit(at, *offset, "").unwrap();
    }
}
