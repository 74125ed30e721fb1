//! Input that retention has removed before it was read.

use std::process::Command;

use spendfuse_bus::BusError;
use spendfuse_devstack::Kafka;

use crate::broker::{eventually, kafka, numbers, produce, read_all, text};
use crate::summer::Stage;

#[test]
fn lost_input_stops_a_stage_until_it_is_accepted_and_is_told_once() {
    let mut stage = Stage::with_topics("lost", 1);
    produce("lost-in", 0, 1..=50);
    let running = stage.run();
    eventually("the first numbers", || numbers("lost-out").len() == 50);
    running.stop().unwrap();
    produce("lost-in", 0, 51..=100);
    delete_before("lost-in", 80);

    let error = stage.run().thread.join().unwrap().unwrap_err();
    assert!(
        matches!(&error, BusError::PositionGone { topic, partition: 0, .. } if topic == "lost-in"),
        "{error}"
    );
    assert!(error.to_string().contains("accept_lost_input"), "{error}");

    stage.config.accept_lost_input = true;
    let running = stage.run();
    eventually("what is left", || numbers("lost-out").len() == 70);
    running.stop().unwrap();
    // From then on it starts as ever.
    stage.config.accept_lost_input = false;
    produce("lost-in", 0, 101..=110);
    let running = stage.run();
    eventually("what came later", || numbers("lost-out").len() == 80);
    running.stop().unwrap();

    assert_eq!(
        numbers("lost-out"),
        (1..=50).chain(81..=110).collect::<Vec<u64>>()
    );
    let told = read_all(&kafka(), "lost-out-rejected");
    let told: Vec<String> = told.iter().map(|one| text(one.value.as_deref())).collect();
    assert_eq!(told, ["lost-in@50-80"]);
}

/// What retention does, at once.
fn delete_before(topic: &str, offset: i64) {
    let file = std::env::temp_dir().join(format!("{topic}-{}.json", std::process::id()));
    let wanted = format!(
        "{{\"version\":1,\"partitions\":[{{\"topic\":\"{topic}\",\"partition\":0,\"offset\":{offset}}}]}}"
    );
    std::fs::write(&file, wanted).unwrap();
    let mut tool: Command = Kafka::tool("org.apache.kafka.tools.DeleteRecordsCommand").unwrap();
    let said = tool
        .args(["--bootstrap-server", &kafka().brokers, "--offset-json-file"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(said.status.success(), "{said:?}");
    std::fs::remove_file(file).unwrap();
}
