//! Lenient reading of JSON without a tree: a wrong type is noted instead of failing the event, and
//! texts borrow from the input unless they hold escapes.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// What a JSON value is, as a rejection's detail names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum JsonKind {
    /// Nothing is there.
    #[default]
    Absent,
    Null,
    Boolean,
    Count,
    Negative,
    Fraction,
    Text,
    Array,
    /// `[]`, which is what PHP makes of an object without members.
    EmptyArray,
    Object,
}

impl JsonKind {
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Null => "null",
            Self::Boolean => "true or false",
            Self::Count => "a number",
            Self::Negative => "a negative number",
            Self::Fraction => "a number with a fraction",
            Self::Text => "a text",
            Self::Array | Self::EmptyArray => "an array",
            Self::Object => "an object",
        }
    }
}

/// One member of an object: absent (or null), of a wrong kind, or a value.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Field<T> {
    #[default]
    Absent,
    Wrong(JsonKind),
    Value(T),
}

/// Texts, borrowed wherever the JSON has no escapes. A number is taken to the digit as it is
/// written: ids are numbers in many systems, some of more digits than numbers of programs have.
pub(super) type TextField<'a> = Field<Cow<'a, str>>;

/// Texts that numbers are not taken for: money, which must not have passed through a float, and
/// hexadecimal digits.
pub(super) type WrittenField<'a> = Field<Written<'a>>;

/// A text that was written as one.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Written<'a>(pub(super) Cow<'a, str>);

/// The name under which a text or number is asked for. [`super::scan`] takes it for any value;
/// `serde_json`, whose visitors are given fractions and large numbers as floats, hands the value on
/// to [`Visitor::visit_newtype_struct`].
pub(super) const TEXT_OR_NUMBER: &str = "spendfuse::TextOrNumber";

/// Types that a [`Field`] can hold.
pub(super) trait FromJson<'de>: Sized {
    fn from_text(_text: Cow<'de, str>) -> Option<Self> {
        None
    }
    fn from_count(_count: u64) -> Option<Self> {
        None
    }
    /// From a number as it is written.
    fn from_digits(_digits: &'de str) -> Option<Self> {
        None
    }
    fn field<D: Deserializer<'de>>(deserializer: D) -> Result<Field<Self>, D::Error> {
        deserializer.deserialize_any(FieldVisitor(PhantomData))
    }
}

impl<'de> FromJson<'de> for Cow<'de, str> {
    fn from_text(text: Cow<'de, str>) -> Option<Self> {
        Some(text)
    }
    /// Only from [`super::scan`], which reads a number so only where these are its digits.
    fn from_count(count: u64) -> Option<Self> {
        Some(Cow::Owned(count.to_string()))
    }
    fn from_digits(digits: &'de str) -> Option<Self> {
        Some(Cow::Borrowed(digits))
    }
    fn field<D: Deserializer<'de>>(deserializer: D) -> Result<Field<Self>, D::Error> {
        deserializer.deserialize_newtype_struct(TEXT_OR_NUMBER, FieldVisitor(PhantomData))
    }
}

impl<'de> FromJson<'de> for Written<'de> {
    fn from_text(text: Cow<'de, str>) -> Option<Self> {
        Some(Self(text))
    }
}

impl FromJson<'_> for u64 {
    fn from_count(count: u64) -> Option<Self> {
        Some(count)
    }
}

impl<'de, T: FromJson<'de>> Deserialize<'de> for Field<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::field(deserializer)
    }
}

struct FieldVisitor<T>(PhantomData<T>);

impl<'de, T: FromJson<'de>> FieldVisitor<T> {
    fn text(text: Cow<'de, str>) -> Field<T> {
        T::from_text(text).map_or(Field::Wrong(JsonKind::Text), Field::Value)
    }
    fn count(count: u64) -> Field<T> {
        T::from_count(count).map_or(Field::Wrong(JsonKind::Count), Field::Value)
    }
}

impl<'de, T: FromJson<'de>> Visitor<'de> for FieldVisitor<T> {
    type Value = Field<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any value")
    }
    fn visit_unit<E: Error>(self) -> Result<Field<T>, E> {
        Ok(Field::Absent)
    }
    fn visit_bool<E: Error>(self, _: bool) -> Result<Field<T>, E> {
        Ok(Field::Wrong(JsonKind::Boolean))
    }
    fn visit_u64<E: Error>(self, number: u64) -> Result<Field<T>, E> {
        Ok(Self::count(number))
    }
    fn visit_i64<E: Error>(self, number: i64) -> Result<Field<T>, E> {
        Ok(u64::try_from(number).map_or(Field::Wrong(JsonKind::Negative), Self::count))
    }
    fn visit_f64<E: Error>(self, number: f64) -> Result<Field<T>, E> {
        Ok(if number < 0.0 {
            Field::Wrong(JsonKind::Negative)
        } else if number.fract() == 0.0 {
            // `12.0` and `1.2e1` are the integer 12, as in JSON Schema; the cast saturates.
            Self::count(number as u64)
        } else {
            Field::Wrong(JsonKind::Fraction)
        })
    }
    fn visit_newtype_struct<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<Field<T>, D::Error> {
        let raw = <&'de RawValue>::deserialize(deserializer)?.get();
        Ok(match raw.as_bytes().first() {
            Some(b'"') => {
                let text = Key.deserialize(&mut serde_json::Deserializer::from_str(raw));
                Self::text(text.map_err(D::Error::custom)?)
            }
            Some(b'n') => Field::Absent,
            Some(b't' | b'f') => Field::Wrong(JsonKind::Boolean),
            Some(b'[') => Field::Wrong(JsonKind::Array),
            Some(b'{') => Field::Wrong(JsonKind::Object),
            _ => T::from_digits(raw).map_or(Field::Wrong(JsonKind::Count), Field::Value),
        })
    }
    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Field<T>, E> {
        Ok(Self::text(Cow::Borrowed(text)))
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<Field<T>, E> {
        Ok(Self::text(Cow::Owned(text.to_owned())))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Field<T>, A::Error> {
        while array.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Field::Wrong(JsonKind::Array))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Field<T>, A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Field::Wrong(JsonKind::Object))
    }
}

/// Something that is filled member by member; the last of equal keys wins.
pub(super) trait Members<'de> {
    /// Takes the value of `key` from `object`, or skips it with [`ignore`].
    fn member<A: MapAccess<'de>>(
        &mut self,
        key: Cow<'de, str>,
        object: &mut A,
    ) -> Result<(), A::Error>;
}

/// Skips the value that comes next.
pub(super) fn ignore<'de, A: MapAccess<'de>>(object: &mut A) -> Result<(), A::Error> {
    object.next_value::<IgnoredAny>().map(|_| ())
}

/// The methods of a visitor that says of what kind a scalar is.
macro_rules! scalars_by_kind {
    () => {
        fn visit_unit<E: Error>(self) -> Result<JsonKind, E> {
            Ok(JsonKind::Null)
        }
        fn visit_bool<E: Error>(self, _: bool) -> Result<JsonKind, E> {
            Ok(JsonKind::Boolean)
        }
        fn visit_u64<E: Error>(self, _: u64) -> Result<JsonKind, E> {
            Ok(JsonKind::Count)
        }
        fn visit_i64<E: Error>(self, _: i64) -> Result<JsonKind, E> {
            Ok(JsonKind::Negative)
        }
        fn visit_f64<E: Error>(self, _: f64) -> Result<JsonKind, E> {
            Ok(JsonKind::Fraction)
        }
        fn visit_str<E: Error>(self, _: &str) -> Result<JsonKind, E> {
            Ok(JsonKind::Text)
        }
    };
}
pub(super) use scalars_by_kind;

/// Reads an object into `T` in place; says of what kind the value was.
pub(super) struct ObjectInto<'t, T>(pub(super) &'t mut T);

impl<'de, T: Members<'de>> DeserializeSeed<'de> for ObjectInto<'_, T> {
    type Value = JsonKind;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<JsonKind, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Members<'de>> Visitor<'de> for ObjectInto<'_, T> {
    type Value = JsonKind;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any value")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<JsonKind, A::Error> {
        while let Some(key) = object.next_key_seed(Key)? {
            self.0.member(key, &mut object)?;
        }
        Ok(JsonKind::Object)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<JsonKind, A::Error> {
        let mut kind = JsonKind::EmptyArray;
        while array.next_element::<IgnoredAny>()?.is_some() {
            kind = JsonKind::Array;
        }
        Ok(kind)
    }
    scalars_by_kind!();
}

/// A member's name. (`Cow<str>` itself would always be copied, see serde issue 1852.)
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;
    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a name")
    }
    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(text))
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}
