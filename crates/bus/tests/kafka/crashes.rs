//! Exactly once through crashes: of the transaction, and of the whole process.

use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use spendfuse_bus::{LogicError, StageEvent};

use crate::broker::{eventually, kafka, numbers, produce};
use crate::summer::Stage;

#[test]
fn a_transaction_that_fails_leaves_nothing_behind_and_is_repeated() {
    let mut stage = Stage::with_topics("torn", 1);
    let failures = AtomicU32::new(0);
    stage.summer.disturb_finish = Arc::new(move |_, _| {
        if failures.fetch_add(1, Ordering::Relaxed) == 0 {
            // The outputs are on the broker by then, in an open transaction.
            wait(Duration::from_millis(100));
            return Err(LogicError::Retry("torn on purpose".to_owned()));
        }
        Ok(())
    });
    produce("torn-in", 0, 1..=50);
    let running = stage.run();
    eventually("all numbers", || numbers("torn-out").len() >= 50);
    running.stop().unwrap();
    assert_eq!(numbers("torn-out"), (1..=50).collect::<Vec<u64>>());
    assert!(stage.has_event(
        |event| matches!(event, StageEvent::Restarting { reason, .. } if *reason == "logic")
    ));
    let inside = stage.summer.inside.lock().unwrap();
    assert_eq!(inside.restored, [(0, 0, 0), (0, 0, 0)]);
}

const CHILD_VARIABLE: &str = "SPENDFUSE_BUS_TEST_BROKERS";
const COUNT: u64 = 30_000;

#[test]
fn killing_the_process_loses_and_repeats_nothing() {
    let stage = Stage::with_topics("killed", 1);
    produce("killed-in", 0, 1..=COUNT);
    for kill_at in [1_000, 8_000, 16_000] {
        let mut child = start_child();
        eventually("progress", || numbers("killed-out").len() > kill_at);
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let before = numbers("killed-out").len() as u64;
    assert!(before < COUNT, "the kills came too late to mean anything");
    let running = stage.run();
    eventually("all numbers", || {
        numbers("killed-out").len() as u64 >= COUNT
    });
    running.stop().unwrap();
    assert_eq!(numbers("killed-out"), (1..=COUNT).collect::<Vec<u64>>());
}

/// Runs [`child_of_the_kill_test`] in a process of its own.
fn start_child() -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["crashes::child_of_the_kill_test", "--exact", "--ignored"])
        .env(CHILD_VARIABLE, kafka().brokers)
        .spawn()
        .unwrap()
}

#[test]
#[ignore = "the process that `killing_the_process_loses_and_repeats_nothing` kills"]
fn child_of_the_kill_test() {
    let brokers = std::env::var(CHILD_VARIABLE).unwrap();
    let mut stage = Stage::existing_at(&brokers, "killed", 1);
    stage.config.batch_max_events = 200;
    // Slow enough to be killed in the middle.
    stage.summer.disturb_finish = Arc::new(|_, _| {
        wait(Duration::from_millis(2));
        Ok(())
    });
    stage.run().thread.join().unwrap().unwrap();
}

#[allow(clippy::disallowed_methods, reason = "lets time pass on purpose")]
fn wait(time: Duration) {
    std::thread::sleep(time);
}
