//! What is spent as a percentage of its limit, for display.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::amount::Amount;

/// A percentage with one fraction digit, rounded down: 99.99 % of a limit never reads as 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent {
    tenths: u64,
}

impl Percent {
    /// How much of `limit` is spent: none where `spent` is negative. `None` for limit 0, of which
    /// everything is spent and nothing.
    pub fn of(spent: Amount, limit: Amount) -> Option<Self> {
        let (spent, limit) = (spent.number(), limit.number());
        if limit <= 0 {
            return None;
        }
        let tenths = spent.max(0).saturating_mul(1000) / limit;
        Some(Self {
            tenths: u64::try_from(tenths).unwrap_or(u64::MAX),
        })
    }

    /// The number, for formats that have no other.
    pub fn as_f64(self) -> f64 {
        self.tenths as f64 / 10.0
    }
}

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.as_f64())
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let percent = f64::deserialize(deserializer)?;
        Ok(Self {
            tenths: (percent * 10.0).round() as u64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::Nanos;

    #[test]
    fn a_percentage_is_rounded_down_and_never_negative() {
        let of = |spent, limit| {
            let limit = Amount::Usd(Nanos::new(limit));
            Percent::of(limit.with(spent), limit)
        };
        for (spent, limit, text) in [
            (2, 3, "66.6"),
            (9_999, 10_000, "99.9"),
            (5, 5, "100.0"),
            (0, 7, "0.0"),
            // Credits that were taken back: the ledger wrote -0.1 of it, and readers showed 0.
            (-1, 7_000, "0.0"),
            (i128::MAX, 1_000_000_000, "1.8446744073709553e+18"),
        ] {
            let percent = of(spent, limit).unwrap();
            let json = serde_json::to_string(&percent).unwrap();
            assert_eq!(json, text);
            assert_eq!(serde_json::from_str::<Percent>(&json).unwrap(), percent);
        }
        assert_eq!((of(5, 0), of(5, -1)), (None, None));
        let whole: Percent = serde_json::from_str("80").unwrap();
        assert_eq!(Some(whole), of(8, 10));
    }
}
