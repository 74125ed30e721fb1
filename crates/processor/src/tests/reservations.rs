//! A reservation ends with its call, whichever instrument told of that first.

use std::sync::Arc;

use spendfuse_warehouse::RowFormat;

use super::{Incoming, Stages, batch, call, of};

/// Call `r-1` as another instrument tells of it, which knows of its reservation.
fn told_otherwise(offset: i64, output_tokens: u64, reservation: &str) -> Incoming {
    let incoming = call("r-1", "c-1", 0, offset);
    let mut event: serde_json::Value = serde_json::from_slice(&incoming.value).unwrap();
    event["data"]["feature"] = "agent".into();
    event["data"]["usage"]["output_tokens"] = output_tokens.into();
    event["data"]["reservation_id"] = reservation.into();
    let value = serde_json::to_vec(&event).unwrap();
    Incoming { value, ..incoming }
}

#[test]
fn an_echo_and_more_of_a_call_end_its_reservation_where_the_first_event_named_none() {
    let mut stages = Stages::new();
    let tables = Arc::get_mut(&mut stages.tables).unwrap();
    tables.row_format = RowFormat::Schema2 { epoch: 1 };
    let records = [
        call("r-1", "c-1", 0, 42),
        told_otherwise(43, 0, "edge-7.00112233445566ff-3"),
        told_otherwise(44, 500, "edge-7.00112233445566ff-4"),
    ];
    let written = batch(&mut stages.meter(0), 0, 7, &records);
    let [record] = of(&written, &stages.topics.inflight)[..] else {
        panic!("told once: {written:?}");
    };
    let told = record.value.as_deref().unwrap();
    let told: serde_json::Value = serde_json::from_slice(told).unwrap();
    let settled = told["settled"].as_array().unwrap().iter();
    let settled = settled.map(|one| (one["n"].as_u64(), one["offset"].as_i64()));
    let settled: Vec<_> = settled.collect();
    assert_eq!(settled, [(Some(3), Some(43)), (Some(4), Some(44))]);
}
