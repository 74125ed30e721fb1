//! Server-sent events: <https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream>.

use std::borrow::Cow;

use bytes::Bytes;

use super::Waiting;

/// Finds where events end: at an empty line. Lines end with `\n`, `\r\n` or `\r`.
#[derive(Debug, Default)]
pub(crate) struct Events {
    waiting: Waiting,
    /// The byte before the next one that is looked at was `\r`: a `\n` belongs to it.
    after_cr: bool,
    /// Bytes of the current line.
    line: usize,
}

impl Events {
    pub(crate) fn push(&mut self, chunk: &[u8]) {
        self.waiting.push(chunk);
    }

    /// The next whole event with the empty line that ends it, byte for byte as it came.
    pub(crate) fn next(&mut self) -> Option<Bytes> {
        for index in self.waiting.seen..self.waiting.bytes.len() {
            let byte = self.waiting.bytes[index];
            let after_cr = std::mem::replace(&mut self.after_cr, byte == b'\r');
            match byte {
                // The end of an event that was passed on without it.
                b'\n' if after_cr && index == 0 => return Some(self.waiting.take(1)),
                b'\n' if after_cr => {}
                b'\n' | b'\r' if self.line == 0 => {
                    let end = self.end(index);
                    return Some(self.waiting.take(end));
                }
                b'\n' | b'\r' => self.line = 0,
                _ => self.line += 1,
            }
        }
        self.waiting.seen = self.waiting.bytes.len();
        self.waiting.take_overlong()
    }

    /// The end of the event whose last line ends at `index`: with the `\n` of a `\r\n` that is there.
    fn end(&mut self, index: usize) -> usize {
        let has_newline = self.after_cr && self.waiting.bytes.get(index + 1) == Some(&b'\n');
        self.after_cr &= !has_newline;
        index + 1 + usize::from(has_newline)
    }

    /// What came after the last event: nothing, unless the stream was cut.
    pub(crate) fn rest(&mut self) -> Bytes {
        self.waiting.take_rest()
    }
}

/// What may stand at the beginning of a stream.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The data of an event; empty where it has none, as comments do.
pub(crate) fn data_of(event: &[u8]) -> Cow<'_, [u8]> {
    let event = event.strip_prefix(BYTE_ORDER_MARK).unwrap_or(event);
    let lines = event.split(|byte| matches!(byte, b'\n' | b'\r'));
    let mut data = lines.filter_map(|line| {
        let data = line.strip_prefix(b"data")?;
        match data.strip_prefix(b":") {
            Some(data) => Some(data.strip_prefix(b" ").unwrap_or(data)),
            None if data.is_empty() => Some(data),
            None => None,
        }
    });
    let first = data.next().unwrap_or_default();
    let mut whole = Cow::Borrowed(first);
    for line in data {
        let whole = whole.to_mut();
        whole.push(b'\n');
        whole.extend_from_slice(line);
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every event of `stream`, given in pieces of `size` bytes.
    fn events(stream: &[u8], size: usize) -> Vec<Vec<u8>> {
        let mut events = Events::default();
        let mut found = Vec::new();
        for chunk in stream.chunks(size) {
            events.push(chunk);
            while let Some(event) = events.next() {
                found.push(event.to_vec());
            }
        }
        found.push(events.rest().to_vec());
        found
    }

    #[test]
    fn cut_at_every_byte_the_events_are_the_same() {
        for newline in ["\n", "\r\n", "\r"] {
            let stream = ": ping||data: {\"a\":1}||event: x|data: 1|data: 2||data: cut"
                .replace('|', newline)
                .into_bytes();
            for size in 1..=stream.len() {
                let found = events(&stream, size);
                assert_eq!(found.concat(), stream);
                let data: Vec<_> = found.iter().map(|event| data_of(event)).collect();
                let data: Vec<&[u8]> = data.iter().map(|data| &**data).collect();
                let data: Vec<_> = data.into_iter().filter(|data| !data.is_empty()).collect();
                assert_eq!(
                    data,
                    [&b"{\"a\":1}"[..], b"1\n2", b"cut"],
                    "{newline:?} {size}"
                );
            }
        }
    }

    #[test]
    fn a_byte_order_mark_hides_no_event() {
        let events = events(b"\xef\xbb\xbfdata:1\n\ndata: 2\n\n", 1);
        assert_eq!(
            (&*data_of(&events[0]), &*data_of(&events[1])),
            (&b"1"[..], &b"2"[..])
        );
    }

    #[test]
    fn an_event_goes_on_as_soon_as_it_ends() {
        let mut events = Events::default();
        events.push(b"data: 1\n");
        assert_eq!(events.next(), None);
        events.push(b"\ndata");
        assert_eq!(events.next().unwrap(), "data: 1\n\n");
        assert_eq!(events.next(), None);
    }

    #[test]
    fn an_event_without_end_is_passed_on() {
        let mut events = Events::default();
        let chunk = vec![b'x'; 1024 * 1024];
        let passed = (0..9).filter_map(|_| {
            events.push(&chunk);
            events.next()
        });
        assert_eq!(
            passed.map(|piece| piece.len()).sum::<usize>(),
            9 * chunk.len()
        );
    }
}
