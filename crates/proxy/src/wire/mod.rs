//! Pieces of streamed answers, found again in bytes that are cut anywhere. Nothing here waits or does
//! I/O: bytes in, whole pieces out.

mod array;
mod frames;
mod members;
mod pruned;
mod sse;

use bytes::{Bytes, BytesMut};

pub(crate) use array::Elements;
pub(crate) use frames::Frames;
pub(crate) use members::Members;
pub(crate) use pruned::Pruned;
pub(crate) use sse::{Events, data_of};

/// A piece longer than this is passed on without being read.
pub(crate) const LONGEST_PIECE: usize = 8 * 1024 * 1024;

/// Where texts stand in JSON: what is within them is none of its structure.
#[derive(Debug, Default)]
struct Texts {
    is_within: bool,
    is_escaped: bool,
}

impl Texts {
    /// Whether the next byte belongs to a text, its quotes too.
    fn take(&mut self, byte: u8) -> bool {
        let is_escaped = std::mem::take(&mut self.is_escaped);
        let was_within = self.is_within;
        match byte {
            b'\\' if was_within && !is_escaped => self.is_escaped = true,
            b'"' if !is_escaped => self.is_within = !was_within,
            _ => {}
        }
        was_within || self.is_within
    }
}

/// Bytes that wait for the end of the piece which they belong to.
#[derive(Debug, Default)]
struct Waiting {
    bytes: BytesMut,
    /// How many of them were looked at.
    seen: usize,
}

impl Waiting {
    fn push(&mut self, chunk: &[u8]) {
        self.bytes.extend_from_slice(chunk);
    }

    /// The first `length` bytes.
    fn take(&mut self, length: usize) -> Bytes {
        self.seen = 0;
        self.bytes.split_to(length).freeze()
    }

    /// All of them, where they are too many to wait on.
    fn take_overlong(&mut self) -> Option<Bytes> {
        let is_overlong = self.bytes.len() > LONGEST_PIECE;
        is_overlong.then(|| self.take(self.bytes.len()))
    }

    fn take_rest(&mut self) -> Bytes {
        self.take(self.bytes.len())
    }
}
