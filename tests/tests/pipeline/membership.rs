//! Who counts: processes that come, go and are restarted, and two of one name.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use spendfuse_tests::load::Sender;
use spendfuse_tests::{Address, Lab, PATIENCE, Role, Traffic, eventually};

use crate::take_over::await_shares;

/// A dead member's place is free after this time.
const SESSION: Duration = Duration::from_secs(10);
/// Handing over takes well below a second on a machine that has time.
const HANDED_OVER: Duration = Duration::from_secs(4);

#[test]
fn an_orderly_stop_hands_over_at_once_and_a_restart_is_cheap() {
    let lab = Lab::new("orderly_stop");
    let mut first = lab.processor("1");
    let second = lab.processor("2");
    await_shares(&[&first, &second]);

    let begin = Instant::now();
    first.stop();
    let stopped = begin.elapsed();
    await_shares(&[&second]);
    let handed_over = begin.elapsed();
    println!(
        "SIGTERM of one of two processors -> the other has all partitions: {handed_over:?} (ended after {stopped:?})"
    );
    assert!(
        handed_over < HANDED_OVER,
        "{handed_over:?}\n{}",
        second.log()
    );

    let begin = Instant::now();
    first.restart();
    await_shares(&[&first, &second]);
    println!(
        "started again -> the partitions are shared: {:?}",
        begin.elapsed()
    );
    second.stop();
    await_shares(&[&first]);

    // Alone it keeps its place: nobody else would take over.
    let begin = Instant::now();
    first.stop();
    first.restart();
    await_shares(&[&first]);
    let restarted = begin.elapsed();
    println!("the only processor, stopped and started again -> all partitions: {restarted:?}");
    assert!(restarted < HANDED_OVER, "{restarted:?}\n{}", first.log());

    let begin = Instant::now();
    first.kill();
    first.restart();
    await_shares(&[&first]);
    let restarted = begin.elapsed();
    println!("killed and started again -> all partitions: {restarted:?}");
    assert!(restarted < SESSION, "{restarted:?}\n{}", first.log());
}

#[test]
fn a_second_process_of_a_name_is_refused_and_roles_without_a_name_are_told_apart() {
    let lab = Lab::new("names");
    let unnamed = |role: &str, log: &str| {
        let settings = [("instance_id", ""), ("sidecar.listen", "127.0.0.1:0")];
        lab.role(role, log, &settings)
    };
    let up = unnamed("up", "a");
    await_shares(&[&up]);

    // Other commands of the machine are other processes: they share the work.
    let processor = unnamed("processor", "b");
    await_shares(&[&up, &processor]);

    let loader = unnamed("loader", "c");
    for (number, twin) in ["up", "processor", "loader"].iter().enumerate() {
        assert_refused(&unnamed(twin, &format!("twin-{number}")));
    }
    assert!(loader.is_running(), "{}", loader.log());
    let traffic = &mut Traffic::new(&lab, 13);
    let sender = Sender::new(&lab);
    for _ in 0..50 {
        sender.send(&traffic.good());
    }
    sender.flush();
    lab.settle(traffic.expected(), PATIENCE);
    for role in [&up, &processor] {
        let log = role.log();
        assert!(role.is_running() && !log.contains("starts again"), "{log}");
    }
}

#[test]
fn of_all_roles_in_one_process_a_failing_one_is_started_again_and_the_others_go_on() {
    let lab = Lab::new("failing_role");
    let taken = TcpListener::bind("127.0.0.1:0").expect("the system has a free port");
    let sidecar = taken.local_addr().expect("it is bound").to_string();
    let admin = Address::free();
    let settings = [
        ("sidecar.listen", sidecar.as_str()),
        ("admin.listen", &admin.setting()),
    ];
    let up = lab.role("up", "1", &settings);
    up.await_line("role failed", PATIENCE);
    let traffic = &mut Traffic::new(&lab, 14);
    let sender = Sender::new(&lab);
    sender.send(&traffic.good());
    sender.flush();
    lab.settle(traffic.expected(), PATIENCE);
    let (status, ready) = admin.get("/readyz").expect("the admin address answers");
    assert_eq!(status, 503, "{ready}");
    assert!(ready.contains(&sidecar), "{ready}");

    drop(taken);
    up.await_line("the sidecar answers", Duration::from_secs(40));
    eventually("everything is ready", PATIENCE, || {
        match admin.get("/readyz") {
            Some((200, _)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

fn assert_refused(twin: &Role) {
    eventually("the second process ends", PATIENCE, || {
        if twin.is_running() {
            Err(twin.log())
        } else {
            Ok(())
        }
    });
    let log = twin.log();
    assert!(
        log.contains("another process on this machine runs with the instance id"),
        "{log}"
    );
    assert!(
        log.contains("give every process its own `instance_id`"),
        "{log}"
    );
}
