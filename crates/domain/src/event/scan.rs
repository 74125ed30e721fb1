//! A quick reading of the JSON that nearly every event is: texts without escapes, whole numbers of
//! at most 18 digits.
//!
//! What is unusual (escapes, signs, fractions and exponents where a number is wanted, deep nesting)
//! and whatever is wrong ends it with [`Unusual`], and `serde_json` reads the same text from its
//! beginning. So `serde_json` alone decides what is refused, and why; this here must only never
//! read something else than it does, which `fuzz/` tries.

mod plain_length;

use std::fmt;
use std::iter::once;

use serde::de::value::{BorrowedStrDeserializer, MapDeserializer};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::json::{JsonKind, Members, ObjectInto, TEXT_OR_NUMBER};
use plain_length::plain_length;

/// Values within values, at most; `serde_json` allows 128.
const DEEPEST: usize = 16;
/// Numbers of so many digits fit into 64 bits.
const MOST_DIGITS: usize = 18;

/// The text is not of the usual form, or not JSON.
#[derive(Debug)]
pub(super) struct Unusual;

impl fmt::Display for Unusual {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("unusual JSON")
    }
}

impl std::error::Error for Unusual {}

impl Error for Unusual {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

/// Reads `text`, which must be one JSON value and nothing else, into `target`; says of what kind
/// the value was. After an error `target` may be half filled.
pub(super) fn scan_into<'de, T: Members<'de>>(
    text: &'de str,
    target: &mut T,
) -> Result<JsonKind, Unusual> {
    let mut scanner = Scanner {
        text,
        at: 0,
        depth: 0,
    };
    let kind = ObjectInto(target).deserialize(&mut scanner)?;
    match scanner.next_significant() {
        None => Ok(kind),
        Some(_) => Err(Unusual),
    }
}

struct Scanner<'de> {
    text: &'de str,
    /// The next byte to be read.
    at: usize,
    depth: usize,
}

impl<'de> Scanner<'de> {
    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The next byte that is no white space, which is not taken yet.
    #[inline]
    fn next_significant(&mut self) -> Option<u8> {
        loop {
            match self.peek() {
                Some(b' ' | b'\n' | b'\t' | b'\r') => self.at += 1,
                other => return other,
            }
        }
    }

    #[inline]
    fn take(&mut self, byte: u8) -> Result<(), Unusual> {
        if self.next_significant() != Some(byte) {
            return Err(Unusual);
        }
        self.at += 1;
        Ok(())
    }

    #[inline]
    fn word(&mut self, word: &str) -> Result<(), Unusual> {
        let rest = &self.text.as_bytes()[self.at..];
        if !rest.starts_with(word.as_bytes()) {
            return Err(Unusual);
        }
        self.at += word.len();
        Ok(())
    }

    /// The text whose opening quote comes next.
    #[inline]
    fn quoted(&mut self) -> Result<&'de str, Unusual> {
        self.take(b'"')?;
        self.rest_of_text()
    }

    /// The text whose opening quote has been taken.
    #[inline]
    fn rest_of_text(&mut self) -> Result<&'de str, Unusual> {
        let start = self.at;
        let rest = self.text.as_bytes().get(start..).ok_or(Unusual)?;
        let length = plain_length(rest);
        if rest.get(length) != Some(&b'"') {
            return Err(Unusual);
        }
        let end = start + length;
        self.at = end + 1;
        Ok(&self.text[start..end])
    }

    /// The digits that come next, without a leading zero.
    #[inline]
    fn digits(&mut self) -> Result<u64, Unusual> {
        let start = self.at;
        let mut number = 0_u64;
        while let Some(byte @ b'0'..=b'9') = self.peek() {
            number = number.wrapping_mul(10).wrapping_add(u64::from(byte - b'0'));
            self.at += 1;
        }
        let count = self.at - start;
        let leads_with_zero = count > 1 && self.text.as_bytes()[start] == b'0';
        if count == 0 || count > MOST_DIGITS || leads_with_zero {
            return Err(Unusual);
        }
        Ok(number)
    }

    #[inline]
    fn whole_number(&mut self) -> Result<u64, Unusual> {
        let number = self.digits()?;
        match self.peek() {
            Some(b'.' | b'e' | b'E') => Err(Unusual),
            _ => Ok(number),
        }
    }

    /// Goes one level down, for `read`.
    #[inline]
    fn within<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Unusual>,
    ) -> Result<T, Unusual> {
        if self.depth == DEEPEST {
            return Err(Unusual);
        }
        self.depth += 1;
        let result = read(self)?;
        self.depth -= 1;
        Ok(result)
    }

    /// Whether another item of the array or object that `end` ends is there. `first`: none has been
    /// read yet.
    #[inline]
    fn has_next(&mut self, first: &mut bool, end: u8) -> Result<bool, Unusual> {
        let next = self.next_significant().ok_or(Unusual)?;
        if next == end {
            self.at += 1;
            return Ok(false);
        }
        if !std::mem::take(first) {
            if next != b',' {
                return Err(Unusual);
            }
            self.at += 1;
        }
        Ok(true)
    }

    /// Skips the next value.
    fn skip(&mut self) -> Result<(), Unusual> {
        match self.next_significant() {
            Some(b'"') => {
                self.at += 1;
                self.rest_of_text().map(drop)
            }
            Some(b'0'..=b'9') => {
                self.digits()?;
                if self.peek() == Some(b'.') {
                    self.at += 1;
                    let start = self.at;
                    while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
                        self.at += 1;
                    }
                    if self.at == start {
                        return Err(Unusual);
                    }
                }
                match self.peek() {
                    Some(b'e' | b'E') => Err(Unusual),
                    _ => Ok(()),
                }
            }
            Some(b'n') => self.word("null"),
            Some(b't') => self.word("true"),
            Some(b'f') => self.word("false"),
            Some(b'{') => self.within(|scanner| {
                scanner.at += 1;
                let mut first = true;
                while scanner.has_next(&mut first, b'}')? {
                    scanner.quoted()?;
                    scanner.take(b':')?;
                    scanner.skip()?;
                }
                Ok(())
            }),
            Some(b'[') => self.within(|scanner| {
                scanner.at += 1;
                let mut first = true;
                while scanner.has_next(&mut first, b']')? {
                    scanner.skip()?;
                }
                Ok(())
            }),
            _ => Err(Unusual),
        }
    }
}

impl<'de> Deserializer<'de> for &mut Scanner<'de> {
    type Error = Unusual;

    #[inline]
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unusual> {
        match self.next_significant() {
            Some(b'"') => {
                self.at += 1;
                visitor.visit_borrowed_str(self.rest_of_text()?)
            }
            Some(b'0'..=b'9') => visitor.visit_u64(self.whole_number()?),
            Some(b'{') => self.within(|scanner| {
                scanner.at += 1;
                visitor.visit_map(Items {
                    scanner,
                    first: true,
                })
            }),
            Some(b'[') => self.within(|scanner| {
                scanner.at += 1;
                visitor.visit_seq(Items {
                    scanner,
                    first: true,
                })
            }),
            Some(b'n') => {
                self.word("null")?;
                visitor.visit_unit()
            }
            Some(b't') => {
                self.word("true")?;
                visitor.visit_bool(true)
            }
            Some(b'f') => {
                self.word("false")?;
                visitor.visit_bool(false)
            }
            _ => Err(Unusual),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unusual> {
        if self.next_significant() == Some(b'n') {
            self.word("null")?;
            return visitor.visit_none();
        }
        visitor.visit_some(self)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unusual> {
        self.skip()?;
        visitor.visit_unit()
    }

    /// A text or number, or the text of a value as it stands there: `serde_json`'s `RawValue` asks for it as a newtype
    /// of a name of its own, and takes a map from that name to the text.
    // Always: the names are constants where it is called.
    #[inline(always)]
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Unusual> {
        if name == TEXT_OR_NUMBER {
            return self.deserialize_any(visitor);
        }
        self.next_significant();
        let start = self.at;
        self.skip()?;
        let raw = BorrowedStrDeserializer::new(&self.text[start..self.at]);
        visitor.visit_map(MapDeserializer::new(once((name, raw))))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map struct enum identifier
    }
}

/// The items of an object or array whose opening bracket was read. They must be read to the end.
struct Items<'s, 'de> {
    scanner: &'s mut Scanner<'de>,
    first: bool,
}

impl<'de> MapAccess<'de> for Items<'_, 'de> {
    type Error = Unusual;

    #[inline]
    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Unusual> {
        if !self.scanner.has_next(&mut self.first, b'}')? {
            return Ok(None);
        }
        let key = self.scanner.quoted()?;
        self.scanner.take(b':')?;
        seed.deserialize(BorrowedStrDeserializer::new(key))
            .map(Some)
    }

    #[inline]
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Unusual> {
        seed.deserialize(&mut *self.scanner)
    }
}

impl<'de> SeqAccess<'de> for Items<'_, 'de> {
    type Error = Unusual;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Unusual> {
        if !self.scanner.has_next(&mut self.first, b']')? {
            return Ok(None);
        }
        seed.deserialize(&mut *self.scanner).map(Some)
    }
}
