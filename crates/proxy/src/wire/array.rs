//! A JSON array that arrives element by element, as Gemini streams without `alt=sse`.

use bytes::Bytes;

use super::{Texts, Waiting};

/// Finds where the objects of an array end.
#[derive(Debug, Default)]
pub(crate) struct Elements {
    waiting: Waiting,
    depth: usize,
    texts: Texts,
}

impl Elements {
    pub(crate) fn push(&mut self, chunk: &[u8]) {
        self.waiting.push(chunk);
    }

    /// The bytes up to the end of the next object, with what stands before it in the array.
    pub(crate) fn next(&mut self) -> Option<Bytes> {
        let unseen = self.waiting.bytes[self.waiting.seen..].iter();
        for (index, byte) in unseen.enumerate() {
            if self.texts.take(*byte) {
                continue;
            }
            match byte {
                b'{' => self.depth += 1,
                b'}' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        let end = self.waiting.seen + index + 1;
                        return Some(self.waiting.take(end));
                    }
                }
                _ => {}
            }
        }
        self.waiting.seen = self.waiting.bytes.len();
        self.waiting.take_overlong()
    }

    pub(crate) fn rest(&mut self) -> Bytes {
        self.waiting.take_rest()
    }

    /// The object in what [`Elements::next`] gave.
    pub(crate) fn object(piece: &[u8]) -> &[u8] {
        let begin = piece.iter().position(|byte| *byte == b'{');
        begin.map_or(&[], |begin| &piece[begin..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cut_at_every_byte_the_objects_are_the_same() {
        let stream = br#"[{"a":"}\"]"},
 {"b":{"c":[{}]}}
,{"d":"\\"}]"#;
        for size in 1..=stream.len() {
            let mut elements = Elements::default();
            let (mut objects, mut all) = (Vec::new(), Vec::new());
            for chunk in stream.chunks(size) {
                elements.push(chunk);
                while let Some(piece) = elements.next() {
                    objects.push(String::from_utf8_lossy(Elements::object(&piece)).into_owned());
                    all.extend_from_slice(&piece);
                }
            }
            all.extend_from_slice(&elements.rest());
            assert_eq!(all, stream);
            assert_eq!(
                objects,
                [r#"{"a":"}\"]"}"#, r#"{"b":{"c":[{}]}}"#, r#"{"d":"\\"}"#]
            );
        }
    }
}
