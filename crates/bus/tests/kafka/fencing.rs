//! Two workers that believe they own the same partition: only one of them counts.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};

use spendfuse_bus::{BusError, StageEvent};

use crate::broker::{eventually, numbers, produce};
use crate::summer::Stage;

#[test]
fn a_worker_stalled_before_its_transaction_is_fenced_by_the_groups_generation() {
    let stage = Stage::with_topics("early", 1);
    let reason = stall_and_take_over("early", stage, |stage, stall| {
        // The batch is full with the fifth record: it is committed without another poll, so the
        // worker cannot know yet that its partition has moved.
        stage.config.batch_max_events = 5;
        stage.summer.disturb = Arc::new(move |number| {
            stall.at(number == 5);
            Ok(())
        });
    });
    assert_eq!(reason, "moved");
}

#[test]
fn a_worker_stalled_within_its_transaction_is_fenced_by_its_time_out() {
    let stage = Stage::with_topics("late", 1);
    let reason = stall_and_take_over("late", stage, |stage, stall| {
        stage.summer.disturb_finish = Arc::new(move |_, _| {
            stall.at(true);
            Ok(())
        });
    });
    assert!(["fenced", "transaction"].contains(&reason), "{reason}");
}

/// Stops the thread once, until it is woken.
struct Stall {
    has_stalled: AtomicBool,
    wake: Barrier,
}

impl Stall {
    fn at(&self, is_here: bool) {
        if is_here && !self.has_stalled.swap(true, Ordering::SeqCst) {
            self.wake.wait();
        }
    }
}

/// Returns why the stalled worker started again, once everything was counted exactly once.
fn stall_and_take_over(
    name: &str,
    mut stalled: Stage,
    prepare: impl FnOnce(&mut Stage, Arc<Stall>),
) -> &'static str {
    let stall = Arc::new(Stall {
        has_stalled: AtomicBool::new(false),
        wake: Barrier::new(2),
    });
    prepare(&mut stalled, Arc::clone(&stall));
    let running_stalled = stalled.run();
    eventually("the first worker", || stalled.is_running());
    produce(&format!("{name}-in"), 0, 1..=10);
    eventually("the stall", || stall.has_stalled.load(Ordering::SeqCst));

    // Another worker of the group, with an identity of its own.
    let mut successor = Stage::existing(name, 1);
    successor.config.instance_id = "i-1".to_owned();
    successor.config.transactional_id = format!("{name}-i-1");
    let running_successor = successor.run();
    let output = format!("{name}-out");
    eventually("the take-over", || numbers(&output).len() == 10);

    stall.wake.wait();
    let mut reason = None;
    eventually("the stalled worker to notice", || {
        let inside = stalled.summer.inside.lock().unwrap();
        reason = inside.events.iter().find_map(|event| match event {
            StageEvent::Restarting { reason, .. } => Some(*reason),
            _ => None,
        });
        reason.is_some()
    });
    // The partition is the successor's, and so is what is told of it.
    assert!(stalled.summer.inside.lock().unwrap().cleared.contains(&0));
    produce(&format!("{name}-in"), 0, 11..=20);
    eventually("what came later", || numbers(&output).len() >= 20);
    running_stalled.stop().unwrap();
    running_successor.stop().unwrap();
    assert_eq!(numbers(&output), (1..=20).collect::<Vec<u64>>());
    reason.unwrap()
}

#[test]
fn a_second_worker_with_one_instance_id_is_refused_and_the_first_goes_on() {
    let first = Stage::with_topics("twins", 1);
    let running = first.run();
    eventually("the first worker", || first.is_running());
    // The same machine: known at once.
    let error = Stage::existing("twins", 1).run().thread.join().unwrap();
    let error = error.unwrap_err();
    assert!(
        matches!(&error, BusError::PlaceTaken { instance, .. } if instance == "i-0"),
        "{error}"
    );
    // Another one: once a dead member's session would have ended.
    let error = elsewhere("twins").run().thread.join().unwrap().unwrap_err();
    assert!(
        matches!(&error, BusError::PlaceTaken { whose, .. } if whose.contains("127.0.0.1")),
        "{error}"
    );
    produce("twins-in", 0, 1..=10);
    eventually("the first worker's work", || {
        numbers("twins-out").len() == 10
    });
    let was_fenced = first.has_event(
        |event| matches!(event, StageEvent::Restarting { reason, .. } if *reason == "fenced"),
    );
    assert!(!was_fenced);
    running.stop().unwrap();

    // Of a member that is gone only the session is left. It is waited for, not for ever.
    let successor = elsewhere("twins");
    let running = successor.run();
    eventually("the successor", || successor.is_running());
    running.stop().unwrap();
}

/// The same worker on another machine, as far as can be told.
fn elsewhere(name: &str) -> Stage {
    let mut stage = Stage::existing(name, 1);
    let kafka = &mut stage.config.kafka;
    kafka.client_id = "test@elsewhere".to_owned();
    kafka.brokers = format!("{0},{0}", kafka.brokers);
    stage
}
