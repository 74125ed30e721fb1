//! What the runner promises while nothing fails, and what it refuses to start with.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use spendfuse_bus::{BusError, LogicError, StageEvent};

use crate::broker::{create, eventually, numbers, produce};
use crate::summer::Stage;

#[test]
fn a_stage_counts_each_record_once_across_an_orderly_restart() {
    let stage = Stage::with_topics("orderly", 2);
    produce("orderly-in", 0, 1..=100);
    let running = stage.run();
    eventually("the first hundred", || numbers("orderly-out").len() == 100);
    produce("orderly-also", 1, 101..=150);
    eventually("the second input", || numbers("orderly-out").len() == 150);
    eventually("both partitions at the end of their logs", || {
        let inside = stage.summer.inside.lock().unwrap();
        inside.at_end.contains(&5050) && inside.at_end.contains(&6275)
    });
    running.stop().unwrap();

    produce("orderly-in", 0, 151..=200);
    let running = stage.run();
    eventually("the rest", || numbers("orderly-out").len() == 200);
    running.stop().unwrap();

    assert_eq!(numbers("orderly-out"), (1..=200).collect::<Vec<u64>>());
    let inside = stage.summer.inside.lock().unwrap();
    let second_start = |wanted: u32| {
        let found = inside.restored.iter().skip(2);
        found
            .copied()
            .find(|(partition, ..)| *partition == wanted)
            .unwrap()
    };
    let (_, seq, sum) = second_start(0);
    assert!(seq > 0);
    assert_eq!(sum, 5050);
    assert_eq!(second_start(1).2, (101..=150).sum::<u64>());
}

#[test]
fn a_missing_topic_or_another_number_of_partitions_is_refused_by_name() {
    let stage = Stage::existing("refused", 2);
    create("refused-in", 2, &[]);
    create("refused-also", 3, &[]);
    create("refused-out", 1, &[]);
    create("refused-out-rejected", 1, &[]);
    let error = stage.run().thread.join().unwrap().unwrap_err();
    assert!(
        matches!(&error, BusError::TopicMissing { topic } if topic == "refused-state"),
        "{error}"
    );

    create("refused-state", 2, &[]);
    let error = stage.run().thread.join().unwrap().unwrap_err();
    assert!(
        matches!(&error, BusError::PartitionCount { topic, found: 3, expected: 2 } if topic == "refused-also"),
        "{error}"
    );
}

#[test]
fn workers_share_the_partitions_and_hand_them_over_without_loss_or_repetition() {
    let first = Stage::with_topics("shared", 4);
    for partition in 0..4 {
        produce(
            "shared-in",
            partition,
            (1..=1000).map(|n| n * 10 + u64::from(partition)),
        );
    }
    let running_first = first.run();
    eventually("a beginning", || !numbers("shared-out").is_empty());
    let mut second = Stage::existing("shared", 4);
    second.config.instance_id = "i-1".to_owned();
    second.config.transactional_id = "shared-i-1".to_owned();
    let running_second = second.run();
    eventually("two partitions each", || {
        let has_two = |stage: &Stage| {
            stage.has_event(|event| {
                matches!(event, StageEvent::Running { partitions, .. } if partitions.len() == 2)
            })
        };
        has_two(&first) && has_two(&second)
    });
    // What stays where it was is not restored again.
    let inside = first.summer.inside.lock().unwrap();
    let stayed = inside.events.iter().rev().find_map(|event| match event {
        StageEvent::Running { partitions, .. } => Some(partitions.clone()),
        _ => None,
    });
    for partition in stayed.unwrap() {
        let restores = inside.restored.iter().filter(|(one, ..)| *one == partition);
        assert_eq!(restores.count(), 1, "of partition {partition}");
    }
    // How those are that went elsewhere is no longer told here.
    assert!((0..4).all(|partition| inside.cleared.contains(&partition)));
    drop(inside);
    for partition in 0..4 {
        produce(
            "shared-also",
            partition,
            (1001..=2000).map(|n| n * 10 + u64::from(partition)),
        );
    }
    eventually("progress of both", || numbers("shared-out").len() > 4000);
    running_first.stop().unwrap();
    eventually("everything", || numbers("shared-out").len() >= 8000);
    running_second.stop().unwrap();
    let mut expected: Vec<u64> = (1..=2000)
        .flat_map(|n| (0..4).map(move |partition| n * 10 + partition))
        .collect();
    expected.sort_unstable();
    assert_eq!(numbers("shared-out"), expected);
}

#[test]
fn a_record_that_cannot_be_processed_yet_waits_and_what_came_before_it_does_not() {
    let mut stage = Stage::with_topics("not-yet", 1);
    let may = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(AtomicU32::new(0));
    let (allowed, count) = (Arc::clone(&may), Arc::clone(&asked));
    stage.summer.disturb = Arc::new(move |number| {
        if number != 5 || allowed.load(Ordering::SeqCst) {
            return Ok(());
        }
        count.fetch_add(1, Ordering::SeqCst);
        Err(LogicError::NotYet("five".to_owned()))
    });
    produce("not-yet-in", 0, 1..=9);
    let running = stage.run();
    eventually("what came before it is written", || {
        numbers("not-yet-out").len() == 4 && asked.load(Ordering::SeqCst) > 3
    });
    may.store(true, Ordering::SeqCst);
    eventually("the others follow", || numbers("not-yet-out").len() == 9);
    running.stop().unwrap();
    assert_eq!(numbers("not-yet-out"), (1..=9).collect::<Vec<u64>>());
}
