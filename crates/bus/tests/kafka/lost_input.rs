//! Input that retention has removed before it was read.

use std::process::Command;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use spendfuse_bus::{
    AcceptedGap, AcceptedGaps, Health, LogConsumer, LogConsumerConfig, LogEvent, LogPartition,
    OpenGap, committed_offsets, open_gaps,
};
use spendfuse_devstack::Kafka;

use crate::broker::{PATIENCE, create, eventually, kafka, numbers, produce, read_all, text};
use crate::restoring::delete_group;
use crate::summer::Stage;

#[test]
fn lost_input_stops_its_partition_until_it_is_accepted_and_is_told_once() {
    let stage = Stage::with_topics("lost", 2);
    produce("lost-in", 0, 1..=50);
    let running = stage.run();
    eventually("the first numbers", || numbers("lost-out").len() == 50);
    running.stop().unwrap();
    produce("lost-in", 0, 51..=100);
    delete_before("lost-in", 80);

    let group = &stage.config.group_id;
    let gap = OpenGap {
        topic: "lost-in".to_owned(),
        partition: 0,
        from: 50,
        to: 80,
    };
    let open = || open_gaps(&kafka(), group, "lost-in", PATIENCE).unwrap();
    assert_eq!(open(), [gap]);
    let health = Health::default();
    let mut config = stage.config.clone();
    config.health = health.part("worker");
    let watched = Stage {
        config,
        ..stage.clone()
    };
    let running = watched.run();
    eventually("a partition that stands still", || {
        let reasons = health.report().reasons.join("\n");
        reasons.contains("spendfuse gaps accept --topic lost-in --partition 0")
    });
    // The other one goes on.
    produce("lost-in", 1, 201..=210);
    eventually("the other partition", || numbers("lost-out").len() == 60);

    let accepted = AcceptedGaps::open(&kafka(), group).unwrap();
    let accept = |from, to| {
        accepted
            .accept("lost-in", 0, AcceptedGap { from, to })
            .unwrap();
    };
    // Of another loss.
    accept(49, 80);
    produce("lost-in", 1, 211..=220);
    eventually("the other partition", || numbers("lost-out").len() == 70);
    accept(50, 80);
    eventually("what is left", || numbers("lost-out").len() == 90);
    eventually("a healthy stage", || health.report().is_ready);
    assert_eq!(open(), []);
    running.stop().unwrap();
    // From then on it starts as ever.
    produce("lost-in", 0, 101..=110);
    let running = stage.run();
    eventually("what came later", || numbers("lost-out").len() == 100);
    running.stop().unwrap();

    let mut found = numbers("lost-out");
    found.sort_unstable();
    let kept: Vec<u64> = (1..=50).chain(81..=110).chain(201..=220).collect();
    assert_eq!(found, kept);
    let told = read_all(&kafka(), "lost-out-rejected");
    let told: Vec<String> = told.iter().map(|one| text(one.value.as_deref())).collect();
    assert_eq!(told, ["lost-in@50-80"]);
}

/// Brokers forget the offsets of a group that is away for a week, which is as long as inputs are kept.
#[test]
fn lost_input_of_a_group_whose_offsets_are_gone_can_be_accepted() {
    let stage = Stage::with_topics("expired", 1);
    produce("expired-in", 0, 1..=50);
    let running = stage.run();
    eventually("the first numbers", || numbers("expired-out").len() == 50);
    running.stop().unwrap();
    produce("expired-in", 0, 51..=100);
    delete_before("expired-in", 80);
    delete_group("expired");

    let group = &stage.config.group_id;
    let running = stage.run();
    let gap = OpenGap {
        topic: "expired-in".to_owned(),
        partition: 0,
        from: 50,
        to: 80,
    };
    eventually("where the group stands", || {
        open_gaps(&kafka(), group, "expired-in", PATIENCE).unwrap() == [gap.clone()]
    });
    let accepted = AcceptedGaps::open(&kafka(), group).unwrap();
    let to = AcceptedGap { from: 50, to: 80 };
    accepted.accept("expired-in", 0, to).unwrap();
    eventually("what is left", || numbers("expired-out").len() == 70);
    running.stop().unwrap();
}

/// The last record is followed by the marker of its transaction, so the log ends one offset behind
/// what was read, and after weeks without records it begins there.
#[test]
fn a_partition_that_idles_past_retention_goes_on() {
    goes_on_behind_retention("idle", true);
}

/// The same where nothing is committed between the last record and the orderly stop.
#[test]
fn a_partition_that_was_stopped_at_its_end_goes_on_behind_retention() {
    goes_on_behind_retention("left", false);
}

fn goes_on_behind_retention(name: &str, beats: bool) {
    let (input, output) = (format!("{name}-in"), format!("{name}-out"));
    let mut stage = Stage::with_topics(name, 1);
    stage.summer.beats = beats;
    let sender = sender(&format!("{name}-sender"));
    let send = |numbers: std::ops::RangeInclusive<u64>| {
        sender.begin_transaction().unwrap();
        for number in numbers {
            let number = number.to_string();
            let headers = OwnedHeaders::new().insert(Header {
                key: "kind",
                value: Some("number"),
            });
            let record: BaseRecord<'_, [u8], _> = BaseRecord::to(&input)
                .partition(0)
                .payload(&number)
                .headers(headers);
            sender.send(record).unwrap();
        }
        sender.commit_transaction(PATIENCE).unwrap();
    };
    send(1..=50);
    let running = stage.run();
    eventually("the numbers", || numbers(&output).len() == 50);
    eventually("the end", || {
        stage.summer.inside.lock().unwrap().at_end.len() > 2
    });
    running.stop().unwrap();
    // All that was there: the marker has the last offset.
    delete_before(&input, 51);

    let running = stage.run();
    send(51..=60);
    eventually("what came later", || numbers(&output).len() == 60);
    running.stop().unwrap();
    assert_eq!(numbers(&output), (1..=60).collect::<Vec<u64>>());
    assert!(read_all(&kafka(), &format!("{output}-rejected")).is_empty());
}

/// Nobody stops it in order: it is killed, weeks later.
#[test]
fn a_partition_with_nothing_to_write_follows_the_end_of_its_log() {
    let stage = Stage::with_topics("silent", 1);
    produce("silent-in", 0, 1..=50);
    let running = stage.run();
    eventually("the numbers", || numbers("silent-out").len() == 50);
    let sender = sender("silent-sender");
    sender.begin_transaction().unwrap();
    let record: BaseRecord<'_, [u8], _> = BaseRecord::to("silent-in").partition(0).payload("51");
    sender.send(record).unwrap();
    sender.flush(PATIENCE).unwrap();
    sender.abort_transaction(PATIENCE).unwrap();
    let group = &stage.config.group_id;
    eventually("a position behind the marker", || {
        let committed = committed_offsets(&kafka(), group, "silent-in", PATIENCE).unwrap();
        committed == [Some(52)]
    });
    running.stop().unwrap();
    assert_eq!(numbers("silent-out").len(), 50);
}

/// The same for a consumer that is told to read another partition besides, weeks later.
#[test]
fn an_idle_partition_is_read_on_from_its_end_whatever_is_assigned_anew() {
    create("quiet", 2, &[]);
    let sender = sender("quiet-sender");
    sender.begin_transaction().unwrap();
    let record: BaseRecord<'_, [u8], _> = BaseRecord::to("quiet").partition(0).payload("1");
    sender.send(record).unwrap();
    sender.commit_transaction(PATIENCE).unwrap();
    let config = LogConsumerConfig {
        kafka: kafka(),
        group_id: "quiet-loader".to_owned(),
        instance_id: "1".to_owned(),
        topics: vec!["quiet".to_owned()],
        session_timeout: Duration::from_secs(6),
        max_poll_interval: Duration::from_secs(60),
    };
    let consumer = LogConsumer::open(config, PATIENCE).unwrap();
    let place = |partition| LogPartition {
        topic_index: 0,
        partition,
    };
    let ends = |wanted| {
        eventually("the end of the log", || {
            match consumer.poll(Duration::from_millis(100)).unwrap() {
                LogEvent::Assigned(_) => consumer.start(&[(place(0), 0)]).unwrap(),
                LogEvent::EndOfPartition { at, offset } => {
                    return (at, offset) == (place(0), wanted);
                }
                LogEvent::Gone { at, from, to } => panic!("{at:?} lost {from} to {to}"),
                _ => {}
            }
            false
        });
    };
    ends(2);
    delete_before("quiet", 2);
    consumer.begin(place(1), 0).unwrap();
    ends(2);
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
