//! How much a check with a reservation holds for its call.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::money::Nanos;

/// The most that a fixed amount can be: a million dollars, the bound of a call's price.
const MOST: Nanos = Nanos::new(1_000_000_000_000_000);

/// By which rule the amount is found that a call holds: `learned`, `given`, `max`, or dollars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ReserveRule {
    /// What calls of the same model and feature really cost in the last hour, once enough are known;
    /// before, the caller's estimate.
    #[default]
    Learned,
    /// The caller's estimate as it is.
    Given,
    /// What the call costs with the longest answer that its model can give.
    Max,
    /// So many dollars, whatever the call is.
    Fixed(Nanos),
}

impl ReserveRule {
    /// The names of those that have one.
    pub const NAMES: [&str; 3] = ["learned", "given", "max"];

    /// The rule with this name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "learned" => Some(Self::Learned),
            "given" => Some(Self::Given),
            "max" => Some(Self::Max),
            _ => None,
        }
    }

    /// A hold of so many dollars; `None` where that is nothing, or more than any call costs.
    pub fn fixed(amount: Nanos) -> Option<Self> {
        let is_possible = (Nanos::new(1)..=MOST).contains(&amount);
        is_possible.then_some(Self::Fixed(amount))
    }
}

impl FromStr for ReserveRule {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let dollars = || Self::fixed(Nanos::parse_usd(text).ok()?.amount);
        Self::named(text)
            .or_else(dollars)
            .ok_or("write learned, given, max, or dollars up to a million such as \"0.05\"")
    }
}

impl fmt::Display for ReserveRule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Learned => formatter.pad("learned"),
            Self::Given => formatter.pad("given"),
            Self::Max => formatter.pad("max"),
            Self::Fixed(amount) => amount.fmt(formatter),
        }
    }
}

impl Serialize for ReserveRule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ReserveRule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_written_as_it_is_read() {
        for text in ["learned", "given", "max", "0.05", "1000000.00"] {
            let rule: ReserveRule = text.parse().unwrap();
            assert_eq!(rule.to_string(), text);
            let json = serde_json::to_string(&rule).unwrap();
            assert_eq!(serde_json::from_str::<ReserveRule>(&json).unwrap(), rule);
        }
        for wrong in ["", "p99", "0", "-1", "1000000.01", "Learned"] {
            assert!(wrong.parse::<ReserveRule>().is_err(), "{wrong}");
        }
    }
}
