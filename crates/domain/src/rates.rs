//! How fast something is spent, in its own unit an hour.
//!
//! As with [`Figures`](crate::Figures), JSON says the unit by the field's name: `rate_hour_usd`,
//! `rate_5m_tokens`.

use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use crate::amount::{Amount, Count, Unit};
use crate::money::Nanos;

/// What is spent an hour. In JSON fields of the object that it is a part of; what is absent has no
/// field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Fields")]
pub struct Rates {
    /// By the last hour.
    pub hour: Option<Amount>,
    /// By the last five minutes.
    pub five_minutes: Option<Amount>,
}

const HOUR: [&str; 3] = ["rate_hour_usd", "rate_hour_tokens", "rate_hour_calls"];
const FIVE_MINUTES: [&str; 3] = ["rate_5m_usd", "rate_5m_tokens", "rate_5m_calls"];

impl Rates {
    /// The higher one: spend that has just begun is seen by the last five minutes first, one that
    /// comes in bursts by the last hour.
    pub fn higher(&self) -> Option<Amount> {
        let both = [self.hour, self.five_minutes].into_iter().flatten();
        both.max_by_key(|rate| rate.number())
    }
}

impl Serialize for Rates {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (names, rate) in [(HOUR, self.hour), (FIVE_MINUTES, self.five_minutes)] {
            if let Some(rate) = rate {
                map.serialize_entry(names[rate.unit() as usize], &rate)?;
            }
        }
        map.end()
    }
}

/// The fields that [`Rates`] are read from.
#[derive(Deserialize)]
struct Fields {
    rate_hour_usd: Option<Nanos>,
    rate_hour_tokens: Option<Count>,
    rate_hour_calls: Option<Count>,
    rate_5m_usd: Option<Nanos>,
    rate_5m_tokens: Option<Count>,
    rate_5m_calls: Option<Count>,
}

/// Fields that no writer leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it has rates in two units, rate_hour_{} and rate_5m_{}", .0.name(), .1.name())]
pub struct TwoUnits(Unit, Unit);

impl TryFrom<Fields> for Rates {
    type Error = TwoUnits;

    fn try_from(fields: Fields) -> Result<Self, TwoUnits> {
        let rate = |usd: Option<Nanos>, tokens: Option<Count>, calls: Option<Count>| {
            let usd = usd.map(Amount::Usd);
            let tokens = tokens.map(|count| Amount::Tokens(count.0));
            usd.or(tokens).or(calls.map(|count| Amount::Calls(count.0)))
        };
        let hour = rate(
            fields.rate_hour_usd,
            fields.rate_hour_tokens,
            fields.rate_hour_calls,
        );
        let five_minutes = rate(
            fields.rate_5m_usd,
            fields.rate_5m_tokens,
            fields.rate_5m_calls,
        );
        match (hour, five_minutes) {
            (Some(one), Some(other)) if one.unit() != other.unit() => {
                Err(TwoUnits(one.unit(), other.unit()))
            }
            _ => Ok(Self { hour, five_minutes }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_and_written_by_their_fields() {
        for text in [
            r#"{"rate_hour_usd":"12.40","rate_5m_usd":"30.00"}"#,
            r#"{"rate_hour_tokens":1200,"rate_5m_tokens":0}"#,
            r#"{"rate_hour_calls":7}"#,
            "{}",
        ] {
            let rates: Rates = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&rates).unwrap(), text);
        }
        let mixed = r#"{"rate_hour_usd":"1","rate_5m_calls":1}"#;
        let error = serde_json::from_str::<Rates>(mixed).unwrap_err();
        assert!(error.to_string().contains("two units"), "{error}");
    }
}
