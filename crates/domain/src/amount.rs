//! What budgets count: dollars, tokens or calls. An [`Amount`] knows which, from the budget's line
//! to the answer of a check.
//!
//! JSON says the unit by the field's name (`spent_usd`, `limit_tokens`, `remaining_calls`). Those
//! names are read and written by [`Figures`].

use std::cmp::Ordering;
use std::fmt;
use std::ops::Sub;

use serde::ser::SerializeMap;
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
        match u64::try_from(self.0) {
            Ok(count) => serializer.serialize_u64(count),
            Err(_) => serializer.serialize_i128(self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u64::deserialize(deserializer).map(|count| Self(count.into()))
    }
}

/// What is spent and of how much. In JSON fields of the object that it is a part of: `spent_usd`
/// and `limit_usd`, or those of another unit; what is absent has no field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Fields")]
pub struct Figures {
    /// What is spent, in the limit's unit.
    pub spent: Option<Amount>,
    /// `None` where nothing limits it: a session that a detector has stopped.
    pub limit: Option<Amount>,
}

impl Figures {
    /// `spent` of `limit`.
    pub fn new(spent: Amount, limit: Amount) -> Self {
        debug_assert_eq!(spent.unit(), limit.unit());
        Self {
            spent: Some(spent),
            limit: Some(limit),
        }
    }
}

/// The figures of a line in a check's answer: beside what is counted what stands between a check and
/// its count. In JSON with what remains, and with `spent_usd` and `limit_usd` as null where the
/// limit is in another unit or there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineFigures {
    /// As in [`Figures`].
    pub spent: Option<Amount>,
    /// As in [`Figures`].
    pub limit: Option<Amount>,
    /// Calls that were told of and are not in `spent` yet.
    pub pending: Option<Amount>,
    /// What calls under way may still cost.
    pub reserved: Option<Amount>,
}

impl LineFigures {
    /// `spent` of `limit`; what is held is in the limit's unit too.
    pub fn new(spent: Amount, limit: Amount, pending: i128, reserved: i128) -> Self {
        debug_assert_eq!(spent.unit(), limit.unit());
        Self {
            spent: Some(spent),
            limit: Some(limit),
            pending: Some(limit.with(pending)),
            reserved: Some(limit.with(reserved)),
        }
    }

    /// What is counted of it.
    pub fn counted(&self) -> Figures {
        Figures {
            spent: self.spent,
            limit: self.limit,
        }
    }

    /// What may be spent until the limit; none where it is passed.
    pub fn remaining(&self) -> Option<Amount> {
        let limit = self.limit?;
        let nothing = limit.with(0);
        let held = [
            self.spent?,
            self.pending.unwrap_or(nothing),
            self.reserved.unwrap_or(nothing),
        ];
        let left = held.into_iter().fold(limit, |left, amount| left - amount);
        Some(left.or_zero())
    }
}

impl Serialize for LineFigures {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if self.limit.is_none_or(|limit| limit.unit() != Unit::Usd) {
            map.serialize_entry(SPENT[Unit::Usd as usize], &())?;
            map.serialize_entry(LIMIT[Unit::Usd as usize], &())?;
        }
        if let Some(limit) = self.limit {
            match self.spent {
                Some(_) => write(&mut map, SPENT, self.spent)?,
                None => map.serialize_entry(SPENT[limit.unit() as usize], &())?,
            }
            write(&mut map, LIMIT, self.limit)?;
            write(&mut map, PENDING, self.pending)?;
            write(&mut map, RESERVED, self.reserved)?;
            write(&mut map, REMAINING, self.remaining())?;
        }
        map.end()
    }
}

const SPENT: [&str; 3] = ["spent_usd", "spent_tokens", "spent_calls"];
const LIMIT: [&str; 3] = ["limit_usd", "limit_tokens", "limit_calls"];
const PENDING: [&str; 3] = ["pending_usd", "pending_tokens", "pending_calls"];
const RESERVED: [&str; 3] = ["reserved_usd", "reserved_tokens", "reserved_calls"];
const REMAINING: [&str; 3] = ["remaining_usd", "remaining_tokens", "remaining_calls"];

fn write<M: SerializeMap>(
    map: &mut M,
    names: [&'static str; 3],
    amount: Option<Amount>,
) -> Result<(), M::Error> {
    match amount {
        Some(amount) => map.serialize_entry(names[amount.unit() as usize], &amount),
        None => Ok(()),
    }
}

impl Serialize for Figures {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        write(&mut map, SPENT, self.spent)?;
        write(&mut map, LIMIT, self.limit)?;
        map.end()
    }
}

/// The fields that [`Figures`] are read from.
#[derive(Deserialize)]
pub(crate) struct Fields {
    pub(crate) spent_usd: Option<Nanos>,
    pub(crate) limit_usd: Option<Nanos>,
    pub(crate) spent_tokens: Option<Count>,
    pub(crate) limit_tokens: Option<Count>,
    pub(crate) spent_calls: Option<Count>,
    pub(crate) limit_calls: Option<Count>,
}

/// Fields that no writer leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum FiguresError {
    #[error("it has limits in two units, such as limit_usd and limit_tokens; one is needed")]
    TwoLimits,
    #[error("it has limit_{unit}, but not spent_{unit}", unit = .0.name())]
    NothingSpent(Unit),
}

impl TryFrom<Fields> for Figures {
    type Error = FiguresError;

    fn try_from(fields: Fields) -> Result<Self, FiguresError> {
        let usd = |nanos: Option<Nanos>| nanos.map(Amount::Usd);
        let tokens = |count: Option<Count>| count.map(|count| Amount::Tokens(count.0));
        let calls = |count: Option<Count>| count.map(|count| Amount::Calls(count.0));
        let spent = [
            usd(fields.spent_usd),
            tokens(fields.spent_tokens),
            calls(fields.spent_calls),
        ];
        let limits = [
            usd(fields.limit_usd),
            tokens(fields.limit_tokens),
            calls(fields.limit_calls),
        ];
        let mut limits = limits.into_iter().flatten();
        let limit = limits.next();
        if limits.next().is_some() {
            return Err(FiguresError::TwoLimits);
        }
        let Some(limit) = limit else {
            let spent = spent.into_iter().flatten().next();
            return Ok(Self { spent, limit: None });
        };
        let unit = limit.unit();
        let spent = spent[unit as usize].ok_or(FiguresError::NothingSpent(unit))?;
        Ok(Self::new(spent, limit))
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

    #[test]
    fn figures_are_read_and_written_by_their_fields() {
        for text in [
            r#"{"spent_usd":"5.000123","limit_usd":"5.00"}"#,
            r#"{"spent_tokens":12,"limit_tokens":18446744073709551615}"#,
            r#"{"spent_calls":0,"limit_calls":0}"#,
            r#"{"spent_usd":"-0.01"}"#,
            "{}",
        ] {
            let figures: Figures = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&figures).unwrap(), text);
        }
    }

    #[test]
    fn a_line_says_what_remains_and_names_dollars_always() {
        #[derive(Serialize)]
        struct Line {
            #[serde(flatten)]
            figures: LineFigures,
        }
        let usd = |nanos| Amount::Usd(Nanos::new(nanos));
        for (figures, text) in [
            (
                LineFigures::new(usd(5_000_123_000), usd(5_000_000_000), 0, 0),
                r#"{"spent_usd":"5.000123","limit_usd":"5.00","pending_usd":"0.00","reserved_usd":"0.00","remaining_usd":"0.00"}"#,
            ),
            (
                LineFigures::new(Amount::Tokens(4), Amount::Tokens(10), 2, 1),
                r#"{"spent_usd":null,"limit_usd":null,"spent_tokens":4,"limit_tokens":10,"pending_tokens":2,"reserved_tokens":1,"remaining_tokens":3}"#,
            ),
            (
                LineFigures::default(),
                r#"{"spent_usd":null,"limit_usd":null}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&Line { figures }).unwrap(), text);
        }
    }

    #[test]
    fn figures_that_contradict_themselves_are_refused() {
        for (text, detail) in [
            (
                r#"{"spent_usd":"1","limit_usd":"1","limit_calls":1}"#,
                "two units",
            ),
            (r#"{"spent_usd":"1","limit_tokens":1}"#, "not spent_tokens"),
            (r#"{"spent_usd":"much","limit_usd":"1"}"#, "much"),
            (r#"{"spent_tokens":-1,"limit_tokens":1}"#, "-1"),
        ] {
            let error = serde_json::from_str::<Figures>(text).unwrap_err();
            assert!(error.to_string().contains(detail), "{error}");
        }
    }
}
