//! A meter's partition: what counts, where it is told, and what a successor knows of it.

use std::sync::atomic::Ordering;

use spendfuse_bus::{OutputRecord, Outputs, PartitionLogic, RestoreSource};

use super::{
    Incoming, NOW, Stages, batch, batch_at, blocks, call, deltas_of, header, of, restore_changelog,
    with_record,
};
use crate::meter::{REROUTED, USAGE};

#[test]
fn a_successor_goes_on_from_the_outputs_alone_and_counts_nothing_twice() {
    let stages = Stages::new();
    let topics = &stages.topics;
    let mut meter = stages.meter(0);
    let first = batch(&mut meter, 0, 7, &[call("r-1", "c-1", 0, 0)]);
    assert_eq!(blocks(&first, &topics.rows)[0].rows, 1);

    let mut successor = stages.meter(0);
    restore_changelog(&mut successor, &first);
    for record in of(&first, &topics.meter_ids) {
        let value = record.value.as_deref();
        let source = RestoreSource::History(0);
        successor.restore(source, &[], value, NOW).unwrap();
    }
    successor.restored(7).unwrap();
    assert!(successor.ready().unwrap());

    let again = batch(&mut successor, 0, 8, &[call("r-1", "c-1", 0, 1)]);
    assert_eq!(of(&again, &topics.rows), Vec::<&OutputRecord>::new());
    assert_eq!(of(&again, &topics.deltas), Vec::<&OutputRecord>::new());
    let next = batch(&mut successor, 0, 9, &[call("r-2", "c-1", 0, 2)]);
    let link = blocks(&next, &topics.rows)[0].link;
    assert_eq!((link.previous, link.seq), (7, 9), "the chain goes on");
}

#[test]
fn a_duplicate_whose_identity_the_log_has_lost_is_late_and_not_counted_again() {
    let stages = Stages::new();
    let topics = &stages.topics;
    let first = batch(&mut stages.meter(0), 0, 7, &[call("r-1", "c-1", 0, 0)]);
    let mut successor = stages.meter(0);
    restore_changelog(&mut successor, &first);
    assert_eq!(successor.restored_time(), Some(NOW));
    // The ids topic has nothing from before its retention any more.
    successor.history(0, NOW - 60_000);
    successor.restored(7).unwrap();
    let again = batch(&mut successor, 0, 8, &[call("r-1", "c-1", 0, 1)]);
    assert_eq!(of(&again, &topics.rows), Vec::<&OutputRecord>::new());
    let [late] = of(&again, &topics.dlq)[..] else {
        panic!("set aside: {again:?}");
    };
    assert_eq!(header(late, "spendfuse_reason"), "late");
    let [alert] = of(&again, &topics.alerts)[..] else {
        panic!("people are told: {again:?}");
    };
    let (_, alert) = alert_of(alert);
    assert_eq!(
        (&alert["kind"], &alert["scope"], &alert["caused_by"]["id"]),
        (&"late_spend".into(), &"acme".into(), &"r-1".into())
    );
}

/// Nobody can tell how old an event is whose time lies in the future: it counts at its arrival, each
/// time that nobody remembers it.
#[test]
fn an_event_from_the_future_is_a_duplicate_as_long_as_it_is_remembered() {
    const HOUR: i64 = 3_600_000;
    let stages = Stages::new();
    let topics = &stages.topics;
    let mut meter = stages.meter(0);
    let mut send = |hours: i64, time: &str| {
        let mut event = call(time, "c-1", 0, hours);
        let text = String::from_utf8(event.value).unwrap();
        event.value = text.replace("2026-11-22T11:59:59Z", time).into_bytes();
        event.stamp_ahead = hours * HOUR;
        let seq = 7 + hours.cast_unsigned();
        let now = NOW + event.stamp_ahead;
        let written = batch_at(now, &mut meter, 0, seq, &[event]);
        let late = of(&written, &topics.dlq).len();
        (of(&written, &topics.rows).len(), late)
    };
    let (usual, future) = ("2026-11-22T11:59:58Z", "2030-01-01T00:00:00Z");
    let (counted, duplicate, late) = ((1, 0), (0, 0), (0, 1));
    assert_eq!((send(0, usual), send(1, future)), (counted, counted));
    assert_eq!((send(22, usual), send(23, future)), (duplicate, duplicate));
    assert_eq!((send(26, usual), send(27, future)), (late, counted));
}

#[test]
fn people_are_told_once_an_hour_of_each_reason_for_which_events_are_set_aside() {
    let stages = Stages::new();
    let topics = &stages.topics;
    let bad = |offset, value: &str| Incoming {
        offset,
        value: value.into(),
        ..Incoming::default()
    };
    let mut meter = stages.meter(0);
    let batches = [
        batch(&mut meter, 0, 1, &[bad(0, "{"), bad(1, "{}"), bad(2, "}")]),
        batch(&mut meter, 0, 2, &[bad(3, "{"), bad(4, "{}")]),
    ];
    let told: Vec<_> = batches
        .iter()
        .flat_map(|batch| of(batch, &topics.alerts))
        .map(alert_of)
        .collect();
    let subjects: Vec<_> = told.iter().map(|(_, alert)| &alert["subject"]).collect();
    assert_eq!(subjects, ["malformed_json", "not_cloudevent"]);
    let message = told[0].1["message"].as_str().unwrap();
    assert!(message.contains("at usage 0@0: "), "{message}");

    // What another partition finds out is the same news, told in the same place.
    let elsewhere = batch(&mut stages.meter(1), 1, 1, &[bad(0, "{")]);
    let [same] = of(&elsewhere, &topics.alerts)[..] else {
        panic!("told: {elsewhere:?}");
    };
    let same = alert_of(same);
    assert_eq!((same.0, &same.1["key"]), (told[0].0, &told[0].1["key"]));

    // A successor knows whom its predecessor told.
    let mut successor = stages.meter(0);
    batches
        .iter()
        .for_each(|batch| restore_changelog(&mut successor, batch));
    successor.restored(2).unwrap();
    let again = batch(&mut successor, 0, 3, &[bad(5, "{")]);
    assert_eq!(of(&again, &topics.alerts), Vec::<&OutputRecord>::new());

    // In the next hour it is news, and nobody need remember whom the last one told.
    const HOUR: i64 = 3_600_000;
    let later = Incoming {
        stamp_ahead: HOUR,
        ..bad(6, "{")
    };
    let next = batch_at(NOW + HOUR, &mut successor, 0, 4, &[later]);
    assert_eq!(of(&next, &topics.alerts).len(), 1);
    let forgotten = of(&next, "changelog").into_iter();
    let forgotten = forgotten.filter(|record| record.value.is_none());
    assert_eq!(forgotten.count(), 2, "both of the hour before");
}

/// Found in the messages of a demo: one model without a price was told twice.
#[test]
fn a_model_without_a_price_is_told_in_one_place_whichever_partition_meets_it() {
    let stages = Stages::new();
    let told = [0, 1].map(|home| {
        let mut unpriced = call("r-1", "c-1", home, 0);
        let event = String::from_utf8(unpriced.value).unwrap();
        unpriced.value = event.replace("gpt-4o", "zebrafish-7").into_bytes();
        let written = batch(&mut stages.meter(home), home, 1, &[unpriced]);
        let [alert] = of(&written, &stages.topics.alerts)[..] else {
            panic!("told: {written:?}");
        };
        let (partition, alert) = alert_of(alert);
        (partition, alert["key"].clone())
    });
    assert_eq!(told[0], told[1]);
}

/// Where an alert is told, and what it says.
fn alert_of(record: &OutputRecord) -> (u32, serde_json::Value) {
    let value = record.value.as_deref().unwrap();
    (record.partition, serde_json::from_slice(value).unwrap())
}

#[test]
fn a_number_that_nothing_reads_is_told_once_of_its_source() {
    let stages = Stages::new();
    let partly_read = |id: &str, home, offset| {
        let mut call = call(id, "c-1", home, offset);
        let event = String::from_utf8(call.value).unwrap();
        let unread = r#""usage":{"sub":{"holo_tokens":7},"#;
        call.value = event.replace("\"usage\":{", unread).into_bytes();
        call
    };
    let calls = [partly_read("r-1", 0, 0), partly_read("r-2", 0, 1)];
    let written = batch(&mut stages.meter(0), 0, 1, &calls);
    let [alert] = of(&written, &stages.topics.alerts)[..] else {
        panic!("told once: {written:?}");
    };
    let (partition, alert) = alert_of(alert);
    assert_eq!(alert["kind"], "partly_read");
    let message = alert["message"].as_str().unwrap();
    assert!(message.contains("usage.sub.holo_tokens"), "{message}");

    // What another partition meets is the same news.
    let elsewhere = batch(&mut stages.meter(1), 1, 1, &[partly_read("r-3", 1, 0)]);
    let same = alert_of(of(&elsewhere, &stages.topics.alerts)[0]);
    assert_eq!((same.0, &same.1["key"]), (partition, &alert["key"]));
}

#[test]
fn a_stamp_a_day_ahead_makes_nothing_late_and_ends_nothing() {
    let stages = Stages::new();
    let topics = &stages.topics;
    let mut meter = stages.meter(0);
    batch(&mut meter, 0, 1, &[call("r-1", "c-1", 0, 0)]);
    let jumped = Incoming {
        stamp_ahead: 25 * 60 * 60 * 1000,
        ..call("r-2", "c-1", 0, 1)
    };
    let told = batch(&mut meter, 0, 2, std::slice::from_ref(&jumped));
    assert_eq!(blocks(&told, &topics.rows)[0].rows, 1, "it counts");
    let alerts = of(&told, &topics.alerts);
    let is_of_clock = |record: &&OutputRecord| {
        String::from_utf8_lossy(record.value.as_deref().unwrap()).contains("\"kind\":\"clock\"")
    };
    assert_eq!(alerts.into_iter().filter(is_of_clock).count(), 1);
    let next = batch(&mut meter, 0, 3, &[call("r-3", "c-1", 0, 2)]);
    assert!(of(&next, &topics.dlq).is_empty(), "nothing is late");
    assert_eq!(blocks(&next, &topics.rows)[0].rows, 1);
    // Its duplicate is still known, and so is what came before it.
    let again = [call("r-1", "c-1", 0, 3), call("r-2", "c-1", 0, 4), jumped];
    let again = batch(&mut meter, 0, 4, &again);
    assert!(of(&again, &topics.rows).is_empty() && of(&again, &topics.dlq).is_empty());
    assert_eq!(meter.restored_time(), Some(NOW));

    let mut ledger = stages.ledger(0);
    for mut deltas in deltas_of(&told, topics) {
        deltas.stamp_ahead = 25 * 60 * 60 * 1000;
        batch(&mut ledger, 0, 1, &[deltas]);
        assert_eq!(ledger.restored_time(), Some(NOW));
    }
}

#[test]
fn an_event_is_handed_over_once_and_keeps_its_first_place() {
    let stages = Stages::new();
    let topics = &stages.topics;
    let elsewhere = batch(&mut stages.meter(0), 0, 1, &[call("r-1", "c-1", 1, 42)]);
    let [handed_over] = of(&elsewhere, &topics.rerouted)[..] else {
        panic!("handed over once: {elsewhere:?}");
    };
    assert_eq!(handed_over.partition, 1);
    assert!(of(&elsewhere, &topics.rows).is_empty() && of(&elsewhere, &topics.deltas).is_empty());

    let mut arrived = Incoming {
        topic_index: REROUTED,
        offset: 5,
        value: handed_over.value.clone().unwrap(),
        headers: handed_over.headers.clone(),
        stamp_ahead: 0,
    };
    let home = batch(&mut stages.meter(1), 1, 1, &[arrived.clone()]);
    assert_eq!(blocks(&home, &topics.rows)[0].rows, 1);
    // What is wrong with it is told of the place that its sender knows.
    arrived.value = b"{".to_vec();
    let rejected = batch(&mut stages.meter(1), 1, 1, &[arrived]);
    let [rejected] = of(&rejected, &topics.dlq)[..] else {
        panic!("set aside once: {rejected:?}");
    };
    let place = ["spendfuse_partition", "spendfuse_offset"].map(|name| header(rejected, name));
    assert_eq!(place, ["0", "42"]);
}

#[test]
fn one_bad_record_costs_no_other_its_place() {
    let stages = Stages::new();
    let topics = &stages.topics;
    let bad = Incoming {
        topic_index: USAGE,
        offset: 1,
        value: br#"{"specversion":"1.0"}"#.to_vec(),
        ..Incoming::default()
    };
    let records = [call("r-1", "c-1", 0, 0), bad, call("r-2", "c-1", 0, 2)];
    let written = batch(&mut stages.meter(0), 0, 1, &records);
    assert_eq!(blocks(&written, &topics.rows)[0].rows, 2);
    let [rejected] = of(&written, &topics.dlq)[..] else {
        panic!("set aside once: {written:?}");
    };
    assert_eq!(header(rejected, "spendfuse_offset"), "1");
}

#[test]
fn of_what_cannot_even_be_rejected_the_place_is_told() {
    let stages = Stages::new();
    let mut meter = stages.meter(1);
    meter.begin(1, NOW);
    let bare = Incoming {
        topic_index: REROUTED,
        offset: 5,
        ..Incoming::default()
    };
    let panic = "what is wrong ".repeat(1_000_000);
    with_record(1, &bare, |record| meter.reject(record, &panic)).unwrap();
    let mut written = Vec::new();
    meter
        .finish(&mut Outputs::new(&mut written, "changelog", 1))
        .unwrap();
    let [rejected] = of(&written, &stages.topics.dlq)[..] else {
        panic!("set aside once: {written:?}");
    };
    let place = ["spendfuse_topic", "spendfuse_partition", "spendfuse_offset"];
    let place = place.map(|name| header(rejected, name));
    assert_eq!(place, [stages.topics.rerouted.as_str(), "1", "5"]);
    assert!(header(rejected, "spendfuse_detail").len() < 10_000);
}

#[test]
fn who_gave_a_reservation_is_told_once_what_its_call_cost_and_where_it_is_counted() {
    let stages = Stages::new();
    let topics = &stages.topics;
    let ours = "edge-7.00112233445566ff-3";
    let with = |incoming: Incoming, reservation: &str| {
        let mut event: serde_json::Value = serde_json::from_slice(&incoming.value).unwrap();
        event["data"]["reservation_id"] = reservation.into();
        let value = serde_json::to_vec(&event).unwrap();
        Incoming { value, ..incoming }
    };
    let here = with(call("r-1", "c-1", 0, 42), ours);
    let other = with(call("r-2", "c-1", 0, 43), "edge-8.ff00112233445566-9");
    let records = [
        here.clone(),
        // Neither a duplicate, nor a call without one, nor names that no sidecar gives.
        here.clone(),
        other,
        call("r-3", "c-1", 0, 44),
        with(call("r-4", "c-1", 0, 45), "a name of somebody's own"),
    ];
    let mut meter = stages.meter(0);
    let written = batch(&mut meter, 0, 7, &records);
    let told = |written: &[OutputRecord]| -> Vec<(String, serde_json::Value)> {
        let records = of(written, &topics.inflight).into_iter();
        records
            .map(|record| {
                assert_eq!(record.partition, 0);
                let key = String::from_utf8(record.key.clone().unwrap()).unwrap();
                let value = serde_json::from_slice(record.value.as_ref().unwrap()).unwrap();
                (key, value)
            })
            .collect()
    };
    let record = |incarnation: &str, settled: serde_json::Value| {
        let settled = [settled];
        serde_json::json!({"v": 1, "incarnation": incarnation, "seq": 7, "settled": settled})
    };
    let call_of = |n: u64, offset: i64| serde_json::json!({"n": n, "cost_usd": "0.025", "tokens": 10_000, "offset": offset});
    let expected = [
        (
            "settled|edge-7|0",
            record("00112233445566ff", call_of(3, 42)),
        ),
        (
            "settled|edge-8|0",
            record("ff00112233445566", call_of(9, 43)),
        ),
    ];
    let expected = expected.map(|(key, value)| (key.to_owned(), value));
    assert_eq!(told(&written), expected);
    assert!(told(&batch(&mut meter, 0, 8, &[call("r-5", "c-1", 0, 46)])).is_empty());

    // One that was handed over stands at no offset of this partition.
    let astray = batch(
        &mut stages.meter(1),
        1,
        1,
        &[with(call("r-6", "c-1", 0, 5), ours)],
    );
    assert!(of(&astray, &topics.inflight).is_empty());
    let [handed_over] = of(&astray, &topics.rerouted)[..] else {
        panic!("handed over once: {astray:?}");
    };
    let arrived = Incoming {
        topic_index: REROUTED,
        offset: 0,
        value: handed_over.value.clone().unwrap(),
        headers: handed_over.headers.clone(),
        stamp_ahead: 0,
    };
    let written = batch(&mut meter, 0, 9, &[arrived]);
    let settled = &told(&written)[0].1["settled"][0];
    assert_eq!((&settled["n"], settled.get("offset")), (&3.into(), None));

    // Where there is no topic for it, nothing is told.
    stages.tables.tells_settled.store(false, Ordering::Relaxed);
    let written = batch(&mut stages.meter(0), 0, 1, &[here]);
    assert!(of(&written, &topics.inflight).is_empty());
}
