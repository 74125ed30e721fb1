//! JSON as serde_json writes it, in half the time, for answers of which there are many.
//!
//! serde_json (1.0.154) looks for what must be escaped byte by byte, in names as in texts, and writes
//! each mark by itself: for the answer to a check that was a quarter of all the processor time that the
//! request took, the kernel's included. Here a text with nothing to escape is copied as a whole, and the
//! name of a field, which never has, is not looked at. What is no object, array, text or number is
//! left to serde_json.

use serde::Serialize;
use serde::ser::{Error as _, Impossible, SerializeMap, SerializeSeq, SerializeStruct, Serializer};
use serde_json::Error;

/// Writes `value` to the end of `text`.
///
/// # Errors
/// Those of `value`.
pub(super) fn write(text: &mut Vec<u8>, value: &impl Serialize) -> Result<(), Error> {
    let begin = text.len();
    let written = value.serialize(Writer(text));
    if written.is_err() {
        text.truncate(begin);
        return serde_json::to_writer(text, value);
    }
    debug_assert!(serde_json::to_vec(value).is_ok_and(|known| known == text[begin..]));
    written
}

struct Writer<'a>(&'a mut Vec<u8>);

/// An object or array that is begun.
struct Begun<'a> {
    text: &'a mut Vec<u8>,
    is_empty: bool,
    end: u8,
}

impl<'a> Begun<'a> {
    #[inline]
    fn new(text: &'a mut Vec<u8>, begin: u8, end: u8) -> Self {
        text.push(begin);
        Self {
            text,
            is_empty: true,
            end,
        }
    }

    #[inline]
    fn separate(&mut self) {
        if !std::mem::take(&mut self.is_empty) {
            self.text.push(b',');
        }
    }

    #[inline]
    fn finish(self) {
        self.text.push(self.end);
    }
}

/// Whether there is nothing to escape; eight bytes at a time, as names and amounts are about as long.
#[inline]
fn is_plain(text: &str) -> bool {
    let (words, rest) = text.as_bytes().as_chunks::<8>();
    let mut last = [b' '; 8];
    last[..rest.len()].copy_from_slice(rest);
    let mut words = words.iter().chain([&last]);
    words.all(|word| to_escape(u64::from_ne_bytes(*word)) == 0)
}

/// Not zero where one of eight bytes must be escaped (Sean Anderson, "Bit Twiddling Hacks": whether a
/// word has a byte less than n, or equal to n).
#[inline]
fn to_escape(word: u64) -> u64 {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH_BITS: u64 = ONES << 7;
    let below = |word: u64, bound: u8| word.wrapping_sub(ONES * u64::from(bound)) & !word;
    let equal = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    (below(word, b' ') | equal(b'"') | equal(b'\\')) & HIGH_BITS
}

#[inline]
fn write_quoted(text: &mut Vec<u8>, plain: &str) {
    text.push(b'"');
    text.extend_from_slice(plain.as_bytes());
    text.push(b'"');
}

/// What is not written here: [`write`] leaves the whole value to serde_json then.
fn unusual<T>() -> Result<T, Error> {
    Err(Error::custom("left to serde_json"))
}

macro_rules! as_serde_json {
    ($($method:ident($type:ty);)*) => {
        $(fn $method(self, value: $type) -> Result<(), Error> {
            serde_json::to_writer(self.0, &value)
        })*
    };
}

impl<'a> Serializer for Writer<'a> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Begun<'a>;
    type SerializeMap = Begun<'a>;
    type SerializeStruct = Begun<'a>;
    type SerializeTuple = Impossible<(), Error>;
    type SerializeTupleStruct = Impossible<(), Error>;
    type SerializeTupleVariant = Impossible<(), Error>;
    type SerializeStructVariant = Impossible<(), Error>;

    as_serde_json! {
        serialize_bool(bool);
        serialize_i8(i8);
        serialize_i16(i16);
        serialize_i32(i32);
        serialize_i64(i64);
        serialize_i128(i128);
        serialize_u8(u8);
        serialize_u16(u16);
        serialize_u32(u32);
        serialize_u64(u64);
        serialize_u128(u128);
        serialize_f32(f32);
        serialize_f64(f64);
        serialize_char(char);
        serialize_bytes(&[u8]);
    }

    #[inline]
    fn serialize_str(self, text: &str) -> Result<(), Error> {
        if is_plain(text) {
            write_quoted(self.0, text);
            return Ok(());
        }
        serde_json::to_writer(self.0, text)
    }

    #[inline]
    fn serialize_none(self) -> Result<(), Error> {
        self.serialize_unit()
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    #[inline]
    fn serialize_unit(self) -> Result<(), Error> {
        self.0.extend_from_slice(b"null");
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Error> {
        self.serialize_unit()
    }

    #[inline]
    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<(), Error> {
        self.serialize_str(variant)
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), Error> {
        unusual()
    }

    #[inline]
    fn serialize_seq(self, _: Option<usize>) -> Result<Begun<'a>, Error> {
        Ok(Begun::new(self.0, b'[', b']'))
    }

    #[inline]
    fn serialize_map(self, _: Option<usize>) -> Result<Begun<'a>, Error> {
        Ok(Begun::new(self.0, b'{', b'}'))
    }

    #[inline]
    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Begun<'a>, Error> {
        // As serde_json names what only itself can write, such as a `RawValue`.
        if name.starts_with('$') {
            return unusual();
        }
        Ok(Begun::new(self.0, b'{', b'}'))
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, Error> {
        unusual()
    }

    fn serialize_tuple_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleStruct, Error> {
        unusual()
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Error> {
        unusual()
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Error> {
        unusual()
    }
}

impl SerializeSeq for Begun<'_> {
    type Ok = ();
    type Error = Error;

    #[inline]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.separate();
        value.serialize(Writer(self.text))
    }

    #[inline]
    fn end(self) -> Result<(), Error> {
        self.finish();
        Ok(())
    }
}

impl SerializeStruct for Begun<'_> {
    type Ok = ();
    type Error = Error;

    #[inline]
    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        self.separate();
        write_quoted(self.text, name);
        self.text.push(b':');
        value.serialize(Writer(self.text))
    }

    #[inline]
    fn end(self) -> Result<(), Error> {
        self.finish();
        Ok(())
    }
}

impl SerializeMap for Begun<'_> {
    type Ok = ();
    type Error = Error;

    #[inline]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        self.separate();
        let begin = self.text.len();
        key.serialize(Writer(self.text))?;
        // Numbers are keys, too.
        match self.text.get(begin) {
            Some(b'"') => Ok(()),
            _ => unusual(),
        }
    }

    #[inline]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.text.push(b':');
        value.serialize(Writer(self.text))
    }

    #[inline]
    fn end(self) -> Result<(), Error> {
        self.finish();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;
    use serde_json::value::RawValue;

    use super::*;

    fn written(value: &impl Serialize) -> String {
        let mut text = b"before ".to_vec();
        write(&mut text, value).unwrap();
        let text = String::from_utf8(text).unwrap();
        text.strip_prefix("before ").unwrap().to_owned()
    }

    #[derive(Serialize)]
    enum Shape {
        Unit,
        Newtype(u8),
        Tuple(u8, u8),
        Struct { a: u8 },
    }

    #[derive(Serialize)]
    struct Line<'a> {
        name: &'a str,
        #[serde(flatten)]
        more: BTreeMap<&'a str, Option<i128>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        left_out: Option<u8>,
        #[serde(rename = "where")]
        renamed: (),
        lines: Vec<Line<'a>>,
    }

    #[test]
    fn every_value_is_written_as_serde_json_writes_it() {
        let line = |lines| Line {
            name: "größe",
            more: BTreeMap::from([("a\"b", Some(i128::MAX)), ("none", None)]),
            left_out: None,
            renamed: (),
            lines,
        };
        let nested = line(vec![line(vec![]), line(vec![line(vec![])])]);
        assert_eq!(written(&nested), serde_json::to_string(&nested).unwrap());
        let long = "a text of more than a few words, with nothing to escape in it";
        let values = json!({
            "": [], "{}": {}, "numbers": [0, -1, u64::MAX, 0.1, 1e300, 100.0, 1.8446744073709553e18],
            "flags": [true, false, null], long: long, "tab\t": "\u{7f}\u{1f}\n\\\"/é🙂\u{2028}",
        });
        assert_eq!(written(&values), values.to_string());
        assert_eq!(written(&('a', f64::NAN, "x")), r#"["a",null,"x"]"#);
        for shape in [
            Shape::Unit,
            Shape::Newtype(1),
            Shape::Tuple(1, 2),
            Shape::Struct { a: 3 },
        ] {
            assert_eq!(written(&shape), serde_json::to_string(&shape).unwrap());
        }
        assert_eq!(written(&BTreeMap::from([(7, "x")])), r#"{"7":"x"}"#);
        let raw = RawValue::from_string("{ \"as\" : 1.00 }".to_owned()).unwrap();
        assert_eq!(written(&vec![raw]), r#"[{ "as" : 1.00 }]"#);
    }

    #[test]
    fn special_bytes_are_found_wherever_they_stand() {
        for (length, byte) in (1..20).flat_map(|length| (0..=127).map(move |byte| (length, byte))) {
            for place in 0..length {
                let mut text = vec![b'a'; length];
                text[place] = byte;
                let is_special = byte < b' ' || byte == b'"' || byte == b'\\';
                let text = String::from_utf8(text).unwrap();
                assert_eq!(is_plain(&text), !is_special, "{text:?}");
            }
        }
        assert!(is_plain("") && is_plain("größe") && is_plain(&"é🙂".repeat(9)));
    }
}
