//! What budgets count: dollars, tokens or calls. An [`Amount`] knows which, from the budget's line
//! to the answer of a check.
//!
//! JSON says the unit by the field's name (`spent_usd`, `limit_tokens`, `remaining_calls`). Those
//! names are read and written by [`Figures`](crate::Figures).

use std::cmp::Ordering;
use std::fmt;
use std::ops::Sub;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::money::Nanos;

/// What an amount is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// US dollars.
    Usd,
    /// All tokens, input and output.
    Tokens,
    /// Model calls.
    Calls,
}

impl Unit {
    /// The name in tables, and the end of the name of a field.
    pub fn name(self) -> &'static str {
        match self {
            Self::Usd => "usd",
            Self::Tokens => "tokens",
            Self::Calls => "calls",
        }
    }
}

/// An amount in its unit: a limit, what is spent of it, what remains. May be negative (corrections,
/// differences).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Amount {
    /// Money.
    Usd(Nanos),
    /// All tokens, input and output.
    Tokens(i128),
    /// Model calls.
    Calls(i128),
}

impl Amount {
    /// `number` nano-dollars, tokens or calls.
    pub fn new(unit: Unit, number: i128) -> Self {
        match unit {
            Unit::Usd => Self::Usd(Nanos::new(number)),
            Unit::Tokens => Self::Tokens(number),
            Unit::Calls => Self::Calls(number),
        }
    }

    /// What it is in.
    pub fn unit(self) -> Unit {
        match self {
            Self::Usd(_) => Unit::Usd,
            Self::Tokens(_) => Unit::Tokens,
            Self::Calls(_) => Unit::Calls,
        }
    }

    /// Nano-dollars, tokens or calls.
    pub fn number(self) -> i128 {
        match self {
            Self::Usd(nanos) => nanos.get(),
            Self::Tokens(count) | Self::Calls(count) => count,
        }
    }

    /// The amount of `number` in this one's unit.
    #[must_use]
    pub fn with(self, number: i128) -> Self {
        Self::new(self.unit(), number)
    }

    /// This amount, or none where it is negative.
    #[must_use]
    pub fn or_zero(self) -> Self {
        self.with(self.number().max(0))
    }

    /// The money, where it is money.
    pub fn usd(self) -> Option<Nanos> {
        match self {
            Self::Usd(nanos) => Some(nanos),
            Self::Tokens(_) | Self::Calls(_) => None,
        }
    }

    /// Billionths of a dollar, a token or a call: what a decimal column of either holds.
    pub fn billionths(self) -> i128 {
        match self {
            Self::Usd(nanos) => nanos.get(),
            Self::Tokens(count) | Self::Calls(count) => count * 1_000_000_000,
        }
    }

    /// The figure for people beside another one that names the unit: `$5.00`, `12000`; with `{:#}`
    /// `12,000`.
    pub fn figure(self) -> Figure {
        Figure(self)
    }
}

/// Amounts of different units have no order.
impl PartialOrd for Amount {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self.unit() == other.unit()).then(|| self.number().cmp(&other.number()))
    }
}

/// The difference of two amounts of the same unit.
impl Sub for Amount {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        debug_assert_eq!(self.unit(), other.unit());
        self.with(self.number() - other.number())
    }
}

/// For people: `$5.00`, `12000 tokens`; with `{:#}` `12,000 tokens`.
impl fmt::Display for Amount {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.figure().fmt(formatter)?;
        match self {
            Self::Usd(_) => Ok(()),
            Self::Tokens(_) | Self::Calls(_) => write!(formatter, " {}", self.unit().name()),
        }
    }
}

/// See [`Amount::figure`].
#[derive(Clone, Copy, Debug)]
pub struct Figure(Amount);

impl fmt::Display for Figure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0.number() < 0 { "-" } else { "" };
        match self.0 {
            Amount::Usd(nanos) => {
                let text = nanos.to_string();
                write!(formatter, "{sign}${}", text.trim_start_matches('-'))
            }
            Amount::Tokens(count) | Amount::Calls(count) if formatter.alternate() => {
                write!(formatter, "{sign}{}", grouped(count.unsigned_abs()))
            }
            Amount::Tokens(count) | Amount::Calls(count) => write!(formatter, "{count}"),
        }
    }
}

/// A whole number with separators: `1,234,567`.
pub fn grouped(number: impl Into<u128>) -> String {
    let digits = number.into().to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Money as a decimal string, tokens and calls as a whole number; the field's name says which.
impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Usd(nanos) => nanos.serialize(serializer),
            Self::Tokens(count) | Self::Calls(count) => Count(*count).serialize(serializer),
        }
    }
}

/// A number of tokens or calls as JSON writes it: a whole number that is not negative.
#[derive(Clone, Copy)]
pub(crate) struct Count(pub(crate) i128);

impl Serialize for Count {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (u64::try_from(self.0), i64::try_from(self.0)) {
            (Ok(count), _) => serializer.serialize_u64(count),
            (_, Ok(count)) => serializer.serialize_i64(count),
            _ => serializer.serialize_i128(self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u64::deserialize(deserializer).map(|count| Self(count.into()))
    }
}

/// The same of what is spent: negative where more was taken back than is counted.
#[derive(Clone, Copy)]
pub(crate) struct SpentCount(pub(crate) i128);

impl Serialize for SpentCount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Count(self.0).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SpentCount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Whole;
        impl Visitor<'_> for Whole {
            type Value = SpentCount;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a whole number")
            }
            fn visit_u64<E: Error>(self, count: u64) -> Result<SpentCount, E> {
                Ok(SpentCount(count.into()))
            }
            fn visit_i64<E: Error>(self, count: i64) -> Result<SpentCount, E> {
                Ok(SpentCount(count.into()))
            }
        }
        deserializer.deserialize_i64(Whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_shown_with_their_unit() {
        let cent = Amount::Usd(Nanos::new(10_000_000));
        assert_eq!(
            (cent.to_string(), format!("{cent:#}")),
            ("$0.01".into(), "$0.01".into())
        );
        assert_eq!(cent.with(-1_500_000_000).to_string(), "-$1.50");
        let tokens = Amount::Tokens(1_234_567);
        assert_eq!(tokens.to_string(), "1234567 tokens");
        assert_eq!(format!("{tokens:#}"), "1,234,567 tokens");
        assert_eq!(
            format!("{} {:#}", tokens.figure(), tokens.figure()),
            "1234567 1,234,567"
        );
        assert_eq!(format!("{:#}", Amount::Calls(-1_000)), "-1,000 calls");
        assert_eq!(format!("{:#}", Amount::Calls(999)), "999 calls");
    }

    #[test]
    fn amounts_of_different_units_are_not_compared() {
        let (tokens, calls) = (Amount::Tokens(5), Amount::Calls(4));
        assert_eq!(tokens.partial_cmp(&calls), None);
        assert!(tokens > tokens.with(4) && tokens - tokens.with(7) < tokens.with(0));
    }
}
