//! Producers and consumers that are not ours.

use std::collections::BTreeSet;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use spendfuse_tests::ledger::{FIRST_LIMIT, watching_budgets};
use spendfuse_tests::{Lab, PATIENCE, Record, Traffic, eventually};

const EVENTS: usize = 300;

#[test]
fn kafkas_console_tools_and_librdkafkas_default_partitioner_work() {
    let lab = Lab::new("clients");
    lab.apply_budgets(&watching_budgets(FIRST_LIMIT));
    let _processor = lab.processor("1");
    let _loader = lab.loader();
    let mut traffic = Traffic::new(&lab, 6);

    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("events are text");
    let lines: Vec<String> = (0..EVENTS)
        .map(|_| traffic.good())
        .map(|record| {
            format!(
                "{}\t{}",
                text(record.key.unwrap_or_default()),
                text(record.value)
            )
        })
        .collect();
    lab.console_produce("usage", &lines);
    let by_librdkafka: Vec<Record> = (0..EVENTS).map(|_| traffic.good()).collect();
    produce_with_defaults(&lab, &by_librdkafka);

    lab.settle(traffic.expected(), PATIENCE);
    lab.settle_ledger(traffic.expected(), PATIENCE);
    // Librdkafka's CRC32 puts most sessions elsewhere than murmur2: they were handed over.
    assert!(!lab.read("usage.rerouted").is_empty());

    // At least: every customer's entry of both limits and the first heartbeats.
    let count = traffic.expected().by_customer.len() * 2;
    let seen: BTreeSet<String> = lab
        .console_consume("blocklist", count)
        .into_iter()
        .map(|(key, value)| {
            let entry: serde_json::Value = serde_json::from_str(&value).expect("values are JSON");
            assert_eq!(entry["v"], 1, "{key}: {value}");
            key
        })
        .collect();
    assert!(
        seen.iter()
            .any(|key| key.starts_with("customers|acme/customer=c-")),
        "{seen:?}"
    );
}

/// Everything that a batch can be compressed with.
const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

/// Plain producers of librdkafka, one for each codec: default partitioner, default everything else.
fn produce_with_defaults(lab: &Lab, records: &[Record]) {
    let each = records.len().div_ceil(CODECS.len());
    for (codec, records) in CODECS.iter().zip(records.chunks(each)) {
        produce_by(lab, codec, records);
    }
}

fn produce_by(lab: &Lab, codec: &str, records: &[Record]) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", lab.kafka().brokers())
        .set("compression.type", codec)
        .create()
        .expect("a producer can be made");
    let topic = lab.topic("usage");
    for record in records {
        let key = record.key.as_deref().unwrap_or_default();
        let native = BaseRecord::to(&topic).key(key).payload(&record.value[..]);
        producer
            .send(native)
            .map_err(|(error, _)| error)
            .expect("it is queued");
    }
    eventually("everything is acknowledged", PATIENCE, || {
        producer.poll(Duration::from_millis(50));
        match producer.in_flight_count() {
            0 => Ok(()),
            waiting => Err(format!("{waiting} are waiting")),
        }
    });
}
