//! Points in time as UTC milliseconds.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Milliseconds since 1970-01-01T00:00:00Z. In JSON an RFC 3339 text with `Z`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMillis(pub i64);

impl UnixMillis {
    /// Reads an RFC 3339 time with any offset; digits below the millisecond are cut.
    ///
    /// # Errors
    /// The reason why the text is not such a time.
    pub fn parse_rfc3339(text: &str) -> Result<Self, jiff::Error> {
        text.parse::<Timestamp>()
            .map(|time| Self(time.as_millisecond()))
    }

    /// This time `millis` milliseconds later (earlier where negative), saturating.
    pub fn plus(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Milliseconds from `earlier` to this time; negative where `earlier` is later.
    pub fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Whole UTC minutes since 1970, rounded down.
    pub fn minute(self) -> i64 {
        self.0.div_euclid(60_000)
    }

    /// The first millisecond of UTC minute `minute` (minutes since 1970).
    pub fn from_minute(minute: i64) -> Self {
        Self(minute.saturating_mul(60_000))
    }

    /// The same time as a `jiff` timestamp, clamped to the years that `jiff` knows (−9999 to 9999).
    pub fn timestamp(self) -> Timestamp {
        let clamped = self.0.clamp(
            Timestamp::MIN.as_millisecond() + 1,
            Timestamp::MAX.as_millisecond(),
        );
        Timestamp::from_millisecond(clamped).expect("clamped to the range of Timestamp")
    }
}

impl From<Timestamp> for UnixMillis {
    fn from(time: Timestamp) -> Self {
        Self(time.as_millisecond())
    }
}

/// RFC 3339 in UTC, with milliseconds only where they are not zero.
impl fmt::Display for UnixMillis {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = self.timestamp();
        if self.0.rem_euclid(1000) == 0 {
            write!(formatter, "{time:.0}")
        } else {
            write!(formatter, "{time:.3}")
        }
    }
}

impl Serialize for UnixMillis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for UnixMillis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::parse_rfc3339(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_any_offset_and_written_in_utc() {
        let time = UnixMillis::parse_rfc3339("2026-11-22T10:15:30.123+02:00").unwrap();
        assert_eq!(time.to_string(), "2026-11-22T08:15:30.123Z");
        assert_eq!(time.plus(-123).to_string(), "2026-11-22T08:15:30Z");
        assert_eq!(UnixMillis::from_minute(time.minute()).0 % 60_000, 0);
    }
}
