//! Which partition an event or a scope belongs to: Kafka's own murmur2, so that any producer that
//! keys by the routing key with Java's default partitioner is at home from the start.

use crate::identity::Identity;

/// Kafka's murmur2 (32 bit, seed `0x9747b28c`), as in `org.apache.kafka.common.utils.Utils`.
pub fn murmur2(key: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const MULTIPLIER: u32 = 0x5bd1_e995;
    let mut hash = SEED ^ key.len() as u32;
    let mut words = key.chunks_exact(4);
    for word in words.by_ref() {
        let mut block = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        block = block.wrapping_mul(MULTIPLIER);
        block ^= block >> 24;
        block = block.wrapping_mul(MULTIPLIER);
        hash = hash.wrapping_mul(MULTIPLIER) ^ block;
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (position, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * position);
        }
        hash = hash.wrapping_mul(MULTIPLIER);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MULTIPLIER);
    hash ^ (hash >> 15)
}

/// The partition of `key` among `partitions` (at least 1), as Java's default partitioner picks it.
pub fn partition_of(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) & 0x7fff_ffff) % partitions
}

/// The partition in which an event is counted, among `partitions`: that of its session's key (root
/// session, else session), else that of its identity.
pub fn home(session_key: Option<&str>, identity: Identity, partitions: u32) -> u32 {
    match session_key {
        Some(key) => partition_of(key.as_bytes(), partitions),
        None => partition_of(&identity.0.to_be_bytes(), partitions),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values from `org.apache.kafka.common.utils.UtilsTest#testMurmur2`.
    #[test]
    fn murmur2_agrees_with_kafka() {
        for (key, expected) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            (
                "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
        ] {
            assert_eq!(murmur2(key.as_bytes()) as i32, expected, "{key}");
        }
    }
}
