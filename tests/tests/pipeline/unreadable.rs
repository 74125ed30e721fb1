//! Batches of the usage topic that no client can read.

use std::time::Instant;

use spendfuse_devstack::{Damage, Segment};
use spendfuse_tests::load::Sender;
use spendfuse_tests::{Lab, PATIENCE, Traffic, eventually};

const IN_A_ROW: usize = 10;

#[test]
fn ten_unreadable_batches_become_coordinates_and_alerts_and_their_partition_goes_on() {
    let lab = Lab::new("unreadable");
    let mut processor = lab.processor("1");
    let loader = lab.loader();
    let mut traffic = Traffic::new(&lab, 11);
    let sender = Sender::new(&lab);
    sender.send(&traffic.good());
    sender.flush();
    lab.settle(traffic.expected(), PATIENCE);

    // Those behind it in its partition are not counted before the disk has spoiled them.
    processor.stop();
    let (partition, mut spoiled) = (0, Traffic::new(&lab, 12).counting_from(1_000_000));
    for _ in 0..IN_A_ROW {
        let mut record = spoiled.good();
        record.partition = Some(partition);
        sender.send(&record);
        sender.flush();
    }
    assert!(lab.kafka().stop(0));
    let segment = Segment::of(lab.kafka(), &lab.topic("usage"), partition);
    let batches = segment.batches();
    let bad = &batches[batches.len() - IN_A_ROW..];
    let kinds = [
        Damage::UnknownCodec,
        Damage::NotCompressed,
        Damage::FlippedBit,
    ];
    for (batch, kind) in bad.iter().zip(kinds.iter().cycle()) {
        segment.damage(batch, *kind);
    }
    lab.kafka().restart(0).expect("Kafka starts");
    lab.kafka().wait_ready().expect("Kafka gets ready");

    let begin = Instant::now();
    processor.restart();
    let sender = Sender::new(&lab);
    for _ in 0..50 {
        sender.send(&traffic.good());
    }
    sender.flush();
    let mut expected = traffic.expected().clone();
    expected.rejected = IN_A_ROW as u64;
    lab.settle(&expected, PATIENCE);
    println!(
        "events behind {IN_A_ROW} bad batches are rows after {:?}",
        begin.elapsed()
    );

    let mut told: Vec<(String, String)> = lab
        .read("usage.dlq")
        .iter()
        .map(|record| {
            assert_eq!(record.header("spendfuse_reason"), "internal_error");
            assert_eq!(record.header("spendfuse_topic"), lab.topic("usage"));
            assert_eq!(record.header("spendfuse_partition"), partition.to_string());
            assert!(record.header("spendfuse_detail").contains("cannot be read"));
            let place = ["spendfuse_offset", "spendfuse_last_offset"];
            let [first, last] = place.map(|name| record.header(name));
            (first, last)
        })
        .collect();
    told.sort();
    let mut places: Vec<(String, String)> = bad
        .iter()
        .map(|batch| (batch.first.to_string(), (batch.end - 1).to_string()))
        .collect();
    places.sort();
    assert_eq!(told, places);
    let alerts = lab.read("alerts");
    let about = alerts.iter().filter(|alert| {
        let value = alert.value.as_deref().unwrap_or_default();
        String::from_utf8_lossy(value).contains("\"unreadable_input\"")
    });
    assert_eq!(about.count(), IN_A_ROW);

    // Whoever reads the topic from outside is not stopped, either.
    let listed = lab.run(&["dlq", "list"]);
    assert!(listed.stdout.contains("cannot be read"), "{listed:?}");
    let audit = eventually("the audit", PATIENCE, || {
        let said = lab.run(&["audit"]);
        if said.code == Some(0) {
            Ok(said)
        } else {
            Err(format!("{said:?}"))
        }
    });
    assert!(audit.stdout.contains("cannot be read"), "{audit:?}");
    assert!(loader.is_running() && processor.is_running());
}
