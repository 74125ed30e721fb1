//! Money as integers: [`Nanos`], one billionth of a US dollar.
//!
//! There is no conversion from or to floating point on purpose. In JSON money is a decimal string.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::read_text::read_text;

const NANOS_PER_DOLLAR: i128 = 1_000_000_000;
const FRACTION_DIGITS: usize = 9;
/// More digits than this before the point cannot be a sum of dollars; keeps parsing free of overflow.
const MAX_WHOLE_DIGITS: usize = 20;

/// An amount of money in nano-dollars (10⁻⁹ US dollars). May be negative (refunds, differences).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nanos(i128);

impl Nanos {
    /// No money.
    pub const ZERO: Self = Self(0);

    /// The amount of `nanos` nano-dollars.
    pub const fn new(nanos: i128) -> Self {
        Self(nanos)
    }

    /// The amount of `dollars` whole dollars.
    pub const fn from_dollars(dollars: i64) -> Self {
        Self(dollars as i128 * NANOS_PER_DOLLAR)
    }

    /// Nano-dollars.
    pub const fn get(self) -> i128 {
        self.0
    }

    /// This amount, or zero where it is negative.
    pub fn or_zero(self) -> Self {
        Self(self.0.max(0))
    }

    /// Reads a decimal number of dollars, such as `12`, `-0.5` or `0.000000001`.
    ///
    /// More than nine fraction digits are rounded half away from zero; [`ParsedUsd::rounded`] says
    /// so. Exponents, signs other than a leading `-` or `+`, and separators are errors.
    ///
    /// # Errors
    /// [`MoneyError`] when the text is not such a number or has more than 20 digits before the point.
    pub fn parse_usd(text: &str) -> Result<ParsedUsd, MoneyError> {
        let not_a_number = || MoneyError {
            text: text.chars().take(40).collect(),
        };
        let (negative, digits) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let only_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        let empty = whole.is_empty() && fraction.is_empty();
        if empty || !only_digits(whole) || !only_digits(fraction) || whole.len() > MAX_WHOLE_DIGITS
        {
            return Err(not_a_number());
        }
        let mut nanos: i128 = 0;
        for digit in whole.bytes() {
            nanos = nanos * 10 + i128::from(digit - b'0');
        }
        let kept = fraction.bytes().chain(std::iter::repeat(b'0'));
        for digit in kept.take(FRACTION_DIGITS) {
            nanos = nanos * 10 + i128::from(digit - b'0');
        }
        let dropped = fraction.as_bytes().get(FRACTION_DIGITS..).unwrap_or(&[]);
        if dropped.first().is_some_and(|digit| *digit >= b'5') {
            nanos += 1;
        }
        Ok(ParsedUsd {
            amount: Self(if negative { -nanos } else { nanos }),
            rounded: dropped.iter().any(|digit| *digit != b'0'),
        })
    }
}

/// What [`Nanos::parse_usd`] read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParsedUsd {
    /// The amount, to the nano-dollar.
    pub amount: Nanos,
    /// Whether digits beyond the ninth fraction digit were lost.
    pub rounded: bool,
}

/// A text that is not a decimal number of dollars.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is not an amount in dollars; write a decimal number such as \"12.50\"")]
pub struct MoneyError {
    text: String,
}

/// Sign, 39 digits and the point.
const LONGEST_TEXT: usize = 41;

impl Nanos {
    /// The amount's text, written into `room` from its end: every row, entry and answer has some.
    fn text(self, room: &mut [u8; LONGEST_TEXT]) -> &str {
        let magnitude = self.0.unsigned_abs();
        let mut whole = magnitude / NANOS_PER_DOLLAR as u128;
        let mut fraction = (magnitude - whole * NANOS_PER_DOLLAR as u128) as u64;
        let mut begin = LONGEST_TEXT;
        let mut put = |byte| {
            begin -= 1;
            room[begin] = byte;
        };
        let mut places = 9;
        while places > 2 && fraction.is_multiple_of(10) {
            fraction /= 10;
            places -= 1;
        }
        for _ in 0..places {
            put(b'0' + (fraction % 10) as u8);
            fraction /= 10;
        }
        put(b'.');
        // Divisions of 128 bits take many times as long as those of 64.
        while whole > u128::from(u64::MAX) {
            put(b'0' + (whole % 10) as u8);
            whole /= 10;
        }
        let mut whole = whole as u64;
        while whole >= 10 {
            put(b'0' + (whole % 10) as u8);
            whole /= 10;
        }
        put(b'0' + whole as u8);
        if self.0 < 0 {
            put(b'-');
        }
        std::str::from_utf8(&room[begin..]).unwrap_or_default()
    }
}

/// Dollars with at least two fraction digits and no trailing zeros beyond: `5.00`, `0.0182`.
impl fmt::Display for Nanos {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.text(&mut [0; LONGEST_TEXT]))
    }
}

impl Serialize for Nanos {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.text(&mut [0; LONGEST_TEXT]))
    }
}

impl<'de> Deserialize<'de> for Nanos {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let parse = |text: &str| Self::parse_usd(text).map(|parsed| parsed.amount);
        read_text(deserializer, parse)
    }
}

impl Add for Nanos {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}
impl AddAssign for Nanos {
    fn add_assign(&mut self, other: Self) {
        self.0 += other.0;
    }
}
impl Sub for Nanos {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }
}
impl SubAssign for Nanos {
    fn sub_assign(&mut self, other: Self) {
        self.0 -= other.0;
    }
}
impl Neg for Nanos {
    type Output = Self;
    fn neg(self) -> Self {
        Self(-self.0)
    }
}
impl Sum for Nanos {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dollars_are_read_and_written_to_the_nano_dollar() {
        for (text, nanos, written) in [
            ("12", 12_000_000_000, "12.00"),
            ("0.0123", 12_300_000, "0.0123"),
            ("-0.5", -500_000_000, "-0.50"),
            (".000000001", 1, "0.000000001"),
            ("5.000123", 5_000_123_000, "5.000123"),
        ] {
            let parsed = Nanos::parse_usd(text).unwrap();
            assert_eq!(parsed.amount.get(), nanos, "{text}");
            assert!(!parsed.rounded);
            assert_eq!(parsed.amount.to_string(), written);
        }
        for nanos in [i128::MIN, -1, 0, 1 << 64, 10_i128.pow(28) + 10, i128::MAX] {
            let text = Nanos::new(nanos).to_string();
            let (whole, fraction) = text.rsplit_once('.').unwrap();
            assert_eq!(
                format!("{whole}{fraction:0<9}").parse(),
                Ok(nanos),
                "{text}"
            );
        }
    }

    #[test]
    fn a_tenth_fraction_digit_is_rounded_and_reported() {
        let parsed = Nanos::parse_usd("0.0000000015").unwrap();
        assert_eq!((parsed.amount.get(), parsed.rounded), (2, true));
    }

    #[test]
    fn what_is_not_a_decimal_number_is_refused() {
        for text in [
            "",
            ".",
            "1e3",
            "1,5",
            "NaN",
            "--1",
            "$1",
            " 1",
            "123456789012345678901",
        ] {
            assert!(Nanos::parse_usd(text).is_err(), "{text}");
        }
    }
}
