//! How fast a backlog drains. Run by hand on a quiet machine:
//! `cargo test --release -p spendfuse-tests --test pipeline -- --ignored --nocapture backlog`.

use std::time::{Duration, Instant};

use spendfuse_tests::ledger::{FIRST_LIMIT, watching_budgets};
use spendfuse_tests::load::Sender;
use spendfuse_tests::role::cpu_seconds;
use spendfuse_tests::{Lab, PATIENCE, Traffic, eventually, pause};

const EVENTS: u64 = 1_000_000;
const AT_LEAST_PER_SECOND: f64 = 50_000.0;

#[test]
#[ignore = "a measurement of minutes, for a quiet machine"]
fn a_backlog_of_a_million_events_drains_at_50_000_a_second() {
    let lab = Lab::for_measurement("backlog");
    lab.apply_budgets(&watching_budgets(FIRST_LIMIT));
    let mut traffic = Traffic::new(&lab, 11);
    let sender = Sender::new(&lab);
    for _ in 0..EVENTS {
        sender.send(&traffic.steady());
    }
    sender.flush();
    println!("{EVENTS} events wait");

    let begin = Instant::now();
    let loader = lab.loader();
    let processor = lab.role("processor", "1", &[]);
    println!("processor has process id {:?}", processor.process_id());
    processor.await_line("stage=\"meter\"", PATIENCE);
    let running = Instant::now();
    println!("counting after {:.1} s", begin.elapsed().as_secs_f64());
    let (kafka, clickhouse) = (lab.kafka().process_id(0), lab.clickhouse().process_id());
    let used = || {
        let server = |id: Option<u32>| cpu_seconds(id.expect("the server runs"));
        let servers = [server(kafka), server(clickhouse)];
        [
            processor.cpu_seconds(),
            loader.cpu_seconds(),
            servers[0],
            servers[1],
        ]
    };
    let used_before = used();
    let warehouse = lab.warehouse();
    let mut reported = Instant::now();
    eventually(
        "the backlog is in the warehouse",
        Duration::from_secs(300),
        || {
            // Not so often that asking would cost what is measured.
            pause(Duration::from_millis(250));
            let count = warehouse.numbers("SELECT count() FROM spend")?[0];
            if reported.elapsed() >= Duration::from_secs(2) {
                println!("{:6.1} s: {count} rows", running.elapsed().as_secs_f64());
                reported = Instant::now();
            }
            if count >= i128::from(EVENTS) {
                Ok(())
            } else {
                Err(format!("{count} rows"))
            }
        },
    );
    let rate = EVENTS as f64 / running.elapsed().as_secs_f64();
    println!("{rate:.0} events/s from Kafka to rows");
    let names = ["processor", "loader", "Kafka", "ClickHouse"];
    for (name, (before, after)) in names.iter().zip(used_before.iter().zip(used())) {
        println!("{name}: {:.1} CPU-seconds", after - before);
    }
    lab.settle(traffic.expected(), PATIENCE);
    lab.settle_ledger(traffic.expected(), PATIENCE);
    assert!(rate >= AT_LEAST_PER_SECOND, "{rate:.0} events/s");
}
