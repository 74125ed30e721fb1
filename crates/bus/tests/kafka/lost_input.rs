//! Input that retention has removed before it was read.

use std::process::Command;

use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use spendfuse_bus::BusError;
use spendfuse_devstack::Kafka;

use crate::broker::{PATIENCE, eventually, kafka, numbers, produce, read_all, text};
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

/// The last record is followed by the marker of its transaction, so the log ends one offset behind
/// what was read, and after weeks without records it begins there.
#[test]
fn a_partition_that_idles_past_retention_goes_on() {
    let mut stage = Stage::with_topics("idle", 1);
    stage.summer.beats = true;
    let sender = sender("idle-sender");
    let send = |numbers: std::ops::RangeInclusive<u64>| {
        sender.begin_transaction().unwrap();
        for number in numbers {
            let number = number.to_string();
            let headers = OwnedHeaders::new().insert(Header {
                key: "kind",
                value: Some("number"),
            });
            let record: BaseRecord<'_, [u8], _> = BaseRecord::to("idle-in")
                .partition(0)
                .payload(&number)
                .headers(headers);
            sender.send(record).unwrap();
        }
        sender.commit_transaction(PATIENCE).unwrap();
    };
    send(1..=50);
    let running = stage.run();
    eventually("the numbers", || numbers("idle-out").len() == 50);
    eventually("the end", || {
        stage.summer.inside.lock().unwrap().at_end.len() > 2
    });
    running.stop().unwrap();
    // All that was there: the marker has the last offset.
    delete_before("idle-in", 51);

    let running = stage.run();
    send(51..=60);
    eventually("what came later", || numbers("idle-out").len() == 60);
    running.stop().unwrap();
    assert_eq!(numbers("idle-out"), (1..=60).collect::<Vec<u64>>());
    assert!(read_all(&kafka(), "idle-out-rejected").is_empty());
}

fn sender(id: &str) -> BaseProducer {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &kafka().brokers)
        .set("transactional.id", id);
    let sender: BaseProducer = config.create().unwrap();
    sender.init_transactions(PATIENCE).unwrap();
    sender
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
