//! Records that are not counted here: handed over to their home partition, or set aside in the DLQ.

use metrics::counter;
use spendfuse_bus::{BusError, InputRecord, Outputs, Unreadable};
use spendfuse_domain::event::{
    MAX_EVENT_BYTES, RejectReason, Rejection, redact, redact_bytes, redact_header,
};
use spendfuse_domain::row::Origin;
use spendfuse_domain::{Topics, UnixMillis};
use xxhash_rust::xxh3::xxh3_128;

use super::REROUTED;
use crate::metrics::MEMBERS_REMOVED;

/// Where an event first arrived; on records of the rerouted topic.
const ARRIVED_PARTITION: &str = "spendfuse_arrived_partition";
const ARRIVED_OFFSET: &str = "spendfuse_arrived_offset";
const ARRIVED_AT: &str = "spendfuse_arrived_at";

/// Where and why a record was rejected; on records of the DLQ.
pub const REASON: &str = "spendfuse_reason";
const DETAIL: &str = "spendfuse_detail";
const TOPIC: &str = "spendfuse_topic";
const PARTITION: &str = "spendfuse_partition";
const OFFSET: &str = "spendfuse_offset";
const LAST_OFFSET: &str = "spendfuse_last_offset";

/// Headers of a record that are read and kept. CloudEvents in binary mode has a dozen; the bound is
/// against records that unpack to more than a broker takes back.
const MAX_HEADERS: usize = 128;

/// A sentence about what is wrong takes a few hundred bytes; that of a panic is whatever it is.
const MAX_DETAIL_BYTES: usize = 2_048;

/// On late events that the warehouse does not know: they are counted whatever their age.
pub const VERIFIED_LATE: &str = "spendfuse_verified_late";

/// On events of history that the warehouse does not know: it has everything that was counted before
/// the time that this names (milliseconds since 1970, by the brokers' clock).
pub const BACKFILL: &str = "spendfuse_backfill";

/// A record with owned parts, to be written at the end of the batch.
#[derive(Debug)]
pub struct OwnedRecord {
    /// What is kept of the key.
    pub key: Option<Vec<u8>>,
    /// What is kept of the value; `None` where a tombstone came.
    pub value: Option<Vec<u8>>,
    /// What is kept of the headers, and ours.
    pub headers: Vec<(String, Vec<u8>)>,
}

/// An event on its way to its home partition.
#[derive(Debug)]
pub struct Handover {
    /// Its home partition.
    pub home: u32,
    /// The record.
    pub record: OwnedRecord,
}

/// A record on its way to the DLQ.
#[derive(Debug)]
pub struct RejectedRecord {
    /// Why.
    pub reason: RejectReason,
    /// The record.
    pub record: OwnedRecord,
}

/// The headers of `record` that are read: the same wherever it is handed over to.
pub fn headers_of<'r>(record: &InputRecord<'r>) -> Vec<(&'r str, &'r [u8])> {
    record.headers.iter().take(MAX_HEADERS).collect()
}

impl Handover {
    /// Hands `record` over to partition `home`, with the place and time of its arrival.
    pub fn of(record: &InputRecord<'_>, home: u32) -> Self {
        let mut owned = OwnedRecord::kept_of(record);
        let arrival = [
            (ARRIVED_PARTITION, i64::from(record.partition)),
            (ARRIVED_OFFSET, record.offset),
            (ARRIVED_AT, record.timestamp_millis),
        ];
        for (name, number) in arrival {
            owned.header(name, number.to_string());
        }
        Self {
            home,
            record: owned,
        }
    }

    /// Where an input record first arrived: here, or where its headers say.
    pub fn origin_of(record: &InputRecord<'_>) -> Origin {
        let here = Origin {
            rerouted: false,
            partition: record.partition,
            offset: record.offset,
            arrival: UnixMillis(record.timestamp_millis),
        };
        if record.topic_index != REROUTED {
            return here;
        }
        let number = |name: &str| -> Option<i64> {
            let text = std::str::from_utf8(record.headers.get(name)?).ok()?;
            text.parse().ok()
        };
        let arrived = || {
            Some(Origin {
                rerouted: true,
                partition: u32::try_from(number(ARRIVED_PARTITION)?).ok()?,
                offset: number(ARRIVED_OFFSET)?,
                arrival: UnixMillis(number(ARRIVED_AT)?),
            })
        };
        arrived().unwrap_or(here)
    }
}

impl RejectedRecord {
    /// Sets aside what is kept of `record`, with hash and size instead of a value that is too
    /// large.
    pub fn of(record: &InputRecord<'_>, rejection: &Rejection, topics: &Topics) -> Self {
        let mut owned = OwnedRecord::kept_of(record);
        let origin = Handover::origin_of(record);
        owned
            .headers
            .retain(|(name, _)| !name.starts_with("spendfuse_"));
        owned.header(REASON, rejection.reason.name());
        owned.header(DETAIL, shortened(&rejection.detail));
        // Where not even the headers are left, the place is that of the handed over record.
        let is_elsewhere = record.topic_index == REROUTED && !origin.rerouted;
        let topic = match is_elsewhere {
            true => &topics.rerouted,
            false => &topics.usage,
        };
        owned.header(TOPIC, topic.as_str());
        owned.header(PARTITION, origin.partition.to_string());
        owned.header(OFFSET, origin.offset.to_string());
        Self {
            reason: rejection.reason,
            record: owned,
        }
    }
}

impl RejectedRecord {
    /// The place of records that no client can read: all that is known of them.
    pub fn unreadable(lost: &Unreadable) -> Self {
        let mut owned = OwnedRecord {
            key: None,
            value: None,
            headers: Vec::new(),
        };
        let reason = RejectReason::InternalError;
        owned.header(REASON, reason.name());
        owned.header(DETAIL, shortened(&lost.to_string()));
        owned.header(TOPIC, lost.topic.as_str());
        owned.header(PARTITION, lost.partition.to_string());
        owned.header(OFFSET, lost.from.to_string());
        owned.header(LAST_OFFSET, (lost.to - 1).to_string());
        Self {
            reason,
            record: owned,
        }
    }
}

impl OwnedRecord {
    /// What is kept of `record`: what apps write to Kafka themselves may hold prompts.
    fn kept_of(record: &InputRecord<'_>) -> Self {
        let headers = headers_of(record);
        let kept = |(name, value): &(&str, &[u8])| {
            let (name, value) = redact_header(name, value);
            (name.into_owned(), value.into_owned())
        };
        Self {
            key: record.key.map(|key| redact_bytes(key).into_owned()),
            value: record.value.map(|value| kept_value(value, &headers)),
            headers: headers.iter().map(kept).collect(),
        }
    }

    fn header(&mut self, name: &str, value: impl Into<Vec<u8>>) {
        self.headers.push((name.to_owned(), value.into()));
    }

    /// Writes the record.
    pub fn send(
        &self,
        outputs: &mut Outputs<'_>,
        topic: &str,
        partition: u32,
    ) -> Result<(), BusError> {
        let headers = self.headers.iter();
        let headers: Vec<(&str, &[u8])> = headers
            .map(|(name, value)| (name.as_str(), value.as_slice()))
            .collect();
        let (key, value) = (self.key.as_deref(), self.value.as_deref());
        outputs.send(topic, partition, key, value, &headers)
    }
}

/// The beginning of a sentence for people.
fn shortened(detail: &str) -> &str {
    &detail[..detail.floor_char_boundary(MAX_DETAIL_BYTES)]
}

fn kept_value(value: &[u8], headers: &[(&str, &[u8])]) -> Vec<u8> {
    if value.len() > MAX_EVENT_BYTES {
        let hash = xxh3_128(value);
        return format!("{{\"bytes\":{},\"xxh3_128\":\"{hash:032x}\"}}", value.len()).into_bytes();
    }
    let kept = redact(value, headers);
    counter!(MEMBERS_REMOVED).increment(kept.removed.count);
    kept.value.into_owned()
}

#[cfg(test)]
mod tests {
    use spendfuse_bus::Headers;

    use super::*;

    #[test]
    fn what_is_set_aside_fits_into_a_record_whatever_came() {
        let long = vec![b'k'; 20_000_000];
        let headers: Vec<(&str, &[u8])> = vec![("hostile", &long[..10_000]); 5_000];
        let record = InputRecord {
            topic_index: 0,
            partition: 3,
            offset: 42,
            timestamp_millis: 0,
            key: Some(&long),
            value: Some(&long),
            headers: Headers::from_slice(&headers),
        };
        let rejection = Rejection::new(RejectReason::TooLarge, "too large".to_owned());
        let kept = RejectedRecord::of(&record, &rejection, &Topics::new("test.")).record;
        let size = |part: &Option<Vec<u8>>| part.as_ref().map_or(0, Vec::len);
        let headers: usize = kept
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        let total = size(&kept.key) + size(&kept.value) + headers;
        assert!(total < 500_000, "{total} bytes");
        let offset = kept.headers.iter().find(|(name, _)| name == OFFSET);
        assert_eq!(offset.unwrap().1, b"42");
    }
}
