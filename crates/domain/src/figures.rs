//! What is spent of a limit, as the fields of an entry or an answer say it.

use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use crate::amount::{Amount, Count, SpentCount, Unit};
use crate::money::Nanos;

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

    /// What may be spent until the limit; negative where it is passed.
    pub fn remaining(&self) -> Option<Amount> {
        let limit = self.limit?;
        let nothing = limit.with(0);
        let held = [
            self.spent?,
            self.pending.unwrap_or(nothing),
            self.reserved.unwrap_or(nothing),
        ];
        Some(held.into_iter().fold(limit, |left, amount| left - amount))
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
    pub(crate) spent_tokens: Option<SpentCount>,
    pub(crate) limit_tokens: Option<Count>,
    pub(crate) spent_calls: Option<SpentCount>,
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
            fields.spent_tokens.map(|count| Amount::Tokens(count.0)),
            fields.spent_calls.map(|count| Amount::Calls(count.0)),
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
    fn what_was_taken_back_beyond_what_is_counted_is_read_again() {
        let text = r#"{"spent_tokens":-500,"limit_tokens":2000}"#;
        let figures: Figures = serde_json::from_str(text).unwrap();
        let (spent, limit) = (Amount::Tokens(-500), Amount::Tokens(2000));
        assert_eq!(figures, Figures::new(spent, limit));
        assert_eq!(serde_json::to_string(&spent).unwrap(), "-500");
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
                r#"{"spent_usd":"5.000123","limit_usd":"5.00","pending_usd":"0.00","reserved_usd":"0.00","remaining_usd":"-0.000123"}"#,
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
            (r#"{"spent_tokens":1,"limit_tokens":-1}"#, "-1"),
        ] {
            let error = serde_json::from_str::<Figures>(text).unwrap_err();
            assert!(error.to_string().contains(detail), "{error}");
        }
    }
}
