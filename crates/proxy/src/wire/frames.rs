//! AWS event streams (`application/vnd.amazon.eventstream`): each message says how long it is.
//!
//! A message is its length and that of its headers, big-endian in four bytes each, a checksum of
//! these, headers, payload, and a checksum of all. Checksums are the client's business.

use bytes::Bytes;

use super::{LONGEST_PIECE, Waiting};

const PRELUDE: usize = 12;
const CHECKSUM: usize = 4;

/// Finds where messages end.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    waiting: Waiting,
    /// What came is no such stream: all of it is passed on.
    is_broken: bool,
}

impl Frames {
    pub(crate) fn push(&mut self, chunk: &[u8]) {
        self.waiting.push(chunk);
    }

    /// The next whole message, byte for byte as it came.
    pub(crate) fn next(&mut self) -> Option<Bytes> {
        let bytes = &self.waiting.bytes;
        if !self.is_broken && bytes.len() >= PRELUDE {
            let (whole, headers) = lengths(bytes);
            let payload = whole.checked_sub(PRELUDE + headers + CHECKSUM);
            match payload {
                Some(_) if whole <= LONGEST_PIECE => {
                    return (bytes.len() >= whole).then(|| self.waiting.take(whole));
                }
                _ => self.is_broken = true,
            }
        }
        let is_lost = self.is_broken && !self.waiting.bytes.is_empty();
        is_lost.then(|| self.waiting.take_rest())
    }

    pub(crate) fn rest(&mut self) -> Bytes {
        self.waiting.take_rest()
    }

    /// The payload of what [`Frames::next`] gave.
    pub(crate) fn payload(message: &[u8]) -> &[u8] {
        if message.len() < PRELUDE + CHECKSUM {
            return &[];
        }
        let (_, headers) = lengths(message);
        let end = message.len() - CHECKSUM;
        message.get(PRELUDE + headers..end).unwrap_or_default()
    }
}

/// Of a message and of its headers.
fn lengths(message: &[u8]) -> (usize, usize) {
    let number = |from: usize| {
        let bytes = message[from..from + 4].iter();
        bytes.fold(0, |number, byte| (number << 8) | usize::from(*byte))
    };
    (number(0), number(4))
}

#[cfg(test)]
pub(crate) fn message(headers: &[u8], payload: &[u8]) -> Vec<u8> {
    let length = PRELUDE + headers.len() + payload.len() + CHECKSUM;
    let mut message = u32::try_from(length).unwrap().to_be_bytes().to_vec();
    message.extend(u32::try_from(headers.len()).unwrap().to_be_bytes());
    message.extend([0; 4]);
    message.extend(headers);
    message.extend(payload);
    message.extend([0; 4]);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cut_at_every_byte_the_messages_are_the_same() {
        let stream = [
            message(b"abc", b"{\"a\":1}"),
            message(b"", b""),
            message(b"d", b"{}"),
        ]
        .concat();
        for size in 1..=stream.len() {
            let mut frames = Frames::default();
            let (mut payloads, mut all) = (Vec::new(), Vec::new());
            for chunk in stream.chunks(size) {
                frames.push(chunk);
                while let Some(piece) = frames.next() {
                    payloads.push(String::from_utf8_lossy(Frames::payload(&piece)).into_owned());
                    all.extend_from_slice(&piece);
                }
            }
            all.extend_from_slice(&frames.rest());
            assert_eq!(all, stream);
            assert_eq!(payloads, ["{\"a\":1}", "", "{}"]);
        }
    }

    #[test]
    fn what_is_no_such_stream_is_passed_on() {
        for hostile in [&b"{\"message\":\"no stream\"}"[..], &[0; 40], &[255; 40]] {
            let mut frames = Frames::default();
            frames.push(hostile);
            assert_eq!(frames.next().as_deref(), Some(hostile));
            frames.push(b"more");
            assert_eq!(frames.next().as_deref(), Some(&b"more"[..]));
            assert_eq!(Frames::payload(hostile.get(..3).unwrap()), b"");
        }
    }
}
