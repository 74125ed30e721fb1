//! Batches of a stopped broker's log on disk, and what a disk can make of them.

use std::fs;
use std::path::PathBuf;

use super::Kafka;

/// The first segment of a partition's log.
#[derive(Debug, Clone)]
pub struct Segment(PathBuf);

/// Where a batch lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredBatch {
    /// Its first offset.
    pub first: i64,
    /// The offset after its last.
    pub end: i64,
    start: usize,
    size: usize,
}

/// What is done to a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// It names a compression that nobody knows; the checksum is right.
    UnknownCodec,
    /// Its records are not what its compression makes; the checksum is right.
    NotCompressed,
    /// A bit of its records is another.
    FlippedBit,
}

// A batch's fields, in bytes from its start (record format 2).
const LENGTH: usize = 8;
const CRC: usize = 17;
const ATTRIBUTES: usize = 21;
const LAST_DELTA: usize = 23;
const RECORDS: usize = 61;

impl Segment {
    /// The segment of a partition on the first node, which must have been stopped in order: after a
    /// crash a broker checks its logs.
    pub fn of(kafka: &Kafka, topic: &str, partition: u32) -> Self {
        let log = format!("node-1/data/{topic}-{partition}/00000000000000000000.log");
        Self(kafka.folder().join(log))
    }

    /// Its batches in order.
    ///
    /// # Panics
    /// Where the file cannot be read, or is none.
    pub fn batches(&self) -> Vec<StoredBatch> {
        let bytes = self.bytes();
        let field = |at: usize| i64::from(i32::from_be_bytes(array(&bytes[at..at + 4])));
        let mut batches = Vec::new();
        let mut start = 0;
        while start + RECORDS < bytes.len() {
            let first = i64::from_be_bytes(array(&bytes[start..start + 8]));
            let size = field(start + LENGTH) as usize + LENGTH + 4;
            batches.push(StoredBatch {
                first,
                end: first + field(start + LAST_DELTA) + 1,
                start,
                size,
            });
            start += size;
        }
        batches
    }

    /// Damages a batch.
    ///
    /// # Panics
    /// Where the file cannot be read or written.
    pub fn damage(&self, batch: &StoredBatch, damage: Damage) {
        let mut bytes = self.bytes();
        let batch = &mut bytes[batch.start..batch.start + batch.size];
        match damage {
            Damage::UnknownCodec => batch[ATTRIBUTES + 1] |= 7,
            Damage::NotCompressed => batch[RECORDS..].fill(0x5a),
            Damage::FlippedBit => batch[RECORDS + 9] ^= 0x10,
        }
        if damage != Damage::FlippedBit {
            let sum = crc32c(&batch[ATTRIBUTES..]);
            batch[CRC..CRC + 4].copy_from_slice(&sum.to_be_bytes());
        }
        fs::write(&self.0, bytes).expect("the segment can be written");
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(&self.0).expect("the segment can be read")
    }
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("the slice has that length")
}

/// Castagnoli's polynomial, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |sum: u32| (sum >> 1) ^ (0x82f6_3b78 & (sum & 1).wrapping_neg());
    let sum = bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| step(sum))
    });
    !sum
}
