//! How records lie in a segment: length, checksum, content.
//!
//! `[content length: u32][xxh3-64 of the content: u64][content]`, little endian; the content is
//! `[partition: u32][key length: u32][key][value]`.

use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

const HEADER_BYTES: usize = 12;
/// More than any event and its key; a longer length is not a length.
const MAX_CONTENT_BYTES: usize = 4 * 1024 * 1024;

/// More than any frame.
pub(super) const MAX_BYTES: usize = HEADER_BYTES + MAX_CONTENT_BYTES;

/// An event that waits for the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpooledEvent {
    /// Home partition in the usage topic.
    pub partition: u32,
    /// Routing key.
    pub key: Vec<u8>,
    /// The CloudEvent.
    pub value: Vec<u8>,
}

impl SpooledEvent {
    /// A hash of its bytes, by which it is known again when it leaves the spool.
    pub(crate) fn content(&self) -> u128 {
        xxh3_128(&self.value)
    }

    /// Appends this event's frame to `bytes`.
    pub(super) fn write(&self, bytes: &mut Vec<u8>) {
        let mut content = Vec::with_capacity(8 + self.key.len() + self.value.len());
        content.extend_from_slice(&self.partition.to_le_bytes());
        content.extend_from_slice(&(self.key.len() as u32).to_le_bytes());
        content.extend_from_slice(&self.key);
        content.extend_from_slice(&self.value);
        bytes.extend_from_slice(&(content.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&xxh3_64(&content).to_le_bytes());
        bytes.extend_from_slice(&content);
    }

    /// Reads the frame at the beginning of `bytes` and says how long it is; `None` where there is
    /// no whole, unharmed frame.
    pub(super) fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        let (content, length) = content(bytes)?;
        let (partition, rest) = content.split_first_chunk::<4>()?;
        let (key_length, rest) = rest.split_first_chunk::<4>()?;
        let key_length = u32::from_le_bytes(*key_length) as usize;
        let (key, value) = rest.split_at_checked(key_length)?;
        let event = Self {
            partition: u32::from_le_bytes(*partition),
            key: key.to_vec(),
            value: value.to_vec(),
        };
        Some((event, length))
    }
}

/// Where the last whole, unharmed frame of `bytes` ends: what lies behind was not written whole.
pub(super) fn sound_length(bytes: &[u8]) -> usize {
    let mut sound = 0;
    while let Some(start) = next_sound(&bytes[sound..]) {
        sound += start;
        while let Some((_, length)) = content(&bytes[sound..]) {
            sound += length;
        }
    }
    sound
}

/// Where the first whole, unharmed frame of `bytes` begins, if there is one: before it lies what the
/// disk did not keep.
pub(super) fn next_sound(bytes: &[u8]) -> Option<usize> {
    (0..bytes.len()).find(|start| content(&bytes[*start..]).is_some())
}

fn content(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (checksum, rest) = rest.split_first_chunk::<8>()?;
    let length = u32::from_le_bytes(*length) as usize;
    // A file system may leave zeros behind a torn write.
    if length == 0 || length > MAX_CONTENT_BYTES {
        return None;
    }
    let content = rest.get(..length)?;
    let unharmed = xxh3_64(content) == u64::from_le_bytes(*checksum);
    unharmed.then_some((content, HEADER_BYTES + length))
}
