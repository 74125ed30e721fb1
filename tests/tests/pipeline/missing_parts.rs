//! Parts that are not there, or there later; settings that cannot be.

use std::time::{Duration, Instant};

use spendfuse_tests::load::Sender;
use spendfuse_tests::{Lab, PATIENCE, Traffic, pause};

#[test]
fn roles_wait_for_kafka_and_clickhouse_with_one_clear_line_and_then_work() {
    let lab = Lab::new("missing");
    let traffic_lab = &lab;
    let mut traffic = Traffic::new(traffic_lab, 9);
    lab.kafka().stop(0);
    lab.clickhouse().kill();
    let processor = lab.role("processor", "1", &[]);
    let loader = lab.role("loader", "1", &[]);
    let brokers = lab.kafka().brokers();
    pause(Duration::from_secs(6));
    for role in [&processor, &loader] {
        assert!(role.is_running(), "{}", role.log());
        let log = role.log();
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(&brokers)).collect();
        assert!(
            !lines.is_empty(),
            "nothing names the missing broker:\n{log}"
        );
        // The client library, each worker and the follower of tables may each say it once.
        assert!(log.lines().count() <= 12, "too much is said:\n{log}");
    }

    lab.kafka().restart(0).expect("Kafka starts");
    lab.kafka().wait_ready().expect("Kafka gets ready");
    let sender = Sender::new(&lab);
    for _ in 0..100 {
        sender.send(&traffic.good());
    }
    sender.flush();
    let line = loader.await_line(&lab.clickhouse().url(), PATIENCE);
    println!("the loader says: {line}");
    pause(Duration::from_secs(3));
    assert!(loader.is_running(), "{}", loader.log());
    lab.clickhouse().restart().expect("ClickHouse starts");
    lab.clickhouse()
        .wait_ready()
        .expect("ClickHouse gets ready");
    lab.settle(traffic.expected(), PATIENCE);
    assert!(processor.is_running(), "{}", processor.log());
}

#[test]
fn commands_say_in_one_line_which_server_is_missing() {
    let lab = Lab::empty("no_server");
    let cases: [(&[&str], &str); 3] = [
        (
            &["topics", "check", "--set", "kafka.brokers=127.0.0.1:1"],
            "127.0.0.1:1",
        ),
        (
            &["budgets", "list", "--set", "kafka.brokers=127.0.0.1:1"],
            "kafka.brokers",
        ),
        (
            &["migrate", "--set", "clickhouse.url=http://127.0.0.1:1"],
            "http://127.0.0.1:1",
        ),
    ];
    for (arguments, named) in cases {
        let begin = Instant::now();
        let said = lab.run_alone(arguments);
        println!(
            "{arguments:?} after {:?}: {}",
            begin.elapsed(),
            said.stderr.trim()
        );
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.stderr.contains(named), "{said:?}");
        assert!(said.stderr.trim().lines().count() <= 2, "{said:?}");
    }
}

#[test]
fn wrong_configuration_ends_with_2_and_says_what_where_and_how() {
    let lab = Lab::empty("settings");
    let file = lab.file("wrong.toml");
    std::fs::write(&file, "partition = 4\n").expect("the folder can be written");
    let file = file
        .to_str()
        .expect("temporary folders have plain names")
        .to_owned();
    let cases: [(&[&str], &[&str]); 6] = [
        (
            &["processor", "--set", "partitions=many"],
            &["partitions", "many", "--set"],
        ),
        (
            &["loader", "--set", "loader.flush_interval=fast"],
            &["loader.flush_interval", "fast", "10s"],
        ),
        (
            &["processor", "--set", "kafka.broker=here:9092"],
            &["kafka.broker", "--set", "kafka.brokers"],
        ),
        (
            &["config", "--config", &file],
            &["`partition`", "wrong.toml", "partitions"],
        ),
        (
            &["processor", "--set", "kafka.properties.acks=1"],
            &["kafka.properties.acks", "--set"],
        ),
        (
            &["loader", "--set", "kafka.properties.linger.ms=soon"],
            &["kafka.properties.linger.ms", "soon"],
        ),
    ];
    for (arguments, wanted) in cases {
        let said = lab.run_alone(arguments);
        assert_eq!(said.code, Some(2), "{arguments:?}: {said:?}");
        for part in wanted {
            assert!(
                said.stderr.contains(part),
                "no {part:?} in {:?}",
                said.stderr
            );
        }
    }
}
