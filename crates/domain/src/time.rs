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
        if let Some(usual) = parse_usual(text.as_bytes()) {
            return Ok(usual);
        }
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

/// The form in which nearly every time comes: `2026-11-22T10:15:30Z`, or with three digits of
/// milliseconds, from 1970 to 2199. Everything else, mistakes too, is for `jiff`, which takes
/// several times as long.
fn parse_usual(text: &[u8]) -> Option<UnixMillis> {
    let millis = match text.len() {
        20 => 0,
        24 if text[19] == b'.' => digits(&text[20..23])?,
        _ => return None,
    };
    let has_form = text[text.len() - 1] == b'Z'
        && [text[4], text[7], text[10], text[13], text[16]] == *b"--T::";
    let year = digits(&text[..4])?;
    let month = digits(&text[5..7])?;
    let day = digits(&text[8..10])?;
    let hour = digits(&text[11..13])?;
    let minute = digits(&text[14..16])?;
    let second = digits(&text[17..19])?;
    let is_leap = year % 4 == 0 && year != 2100;
    let days_before = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365];
    let months = usize::try_from(month).ok()?.checked_sub(1)?;
    let of_month = days_before.get(months + 1)? - days_before[months];
    let is_valid = has_form
        && (1970..2200).contains(&year)
        && (1..=of_month + i64::from(is_leap && month == 2)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !is_valid {
        return None;
    }
    let leap_days = (year - 1969) / 4 - i64::from(year > 2100);
    let in_year = days_before[months] + i64::from(is_leap && month > 2) + day - 1;
    let days = (year - 1970) * 365 + leap_days + in_year;
    Some(UnixMillis(
        (((days * 24 + hour) * 60 + minute) * 60 + second) * 1000 + millis,
    ))
}

fn digits(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0, |number, byte| {
        let digit = byte.wrapping_sub(b'0');
        (digit < 10).then(|| number * 10 + i64::from(digit))
    })
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
    fn the_usual_form_is_read_as_jiff_reads_it() {
        let mut texts = Vec::new();
        for day in 0..84_006 {
            // Every day to the end of 2199, at ever other times.
            let time = UnixMillis(day * 86_400_000 + day * 7_919_123 % 86_400_000);
            texts.push(time.to_string());
        }
        for year in [1969, 1970, 1972, 2000, 2026, 2096, 2100, 2104, 2199, 2200] {
            for month in 0..=13 {
                for day in 0..=32 {
                    texts.push(format!("{year}-{month:02}-{day:02}T23:59:59Z"));
                }
            }
        }
        let odd = [
            "2026-11-22T24:00:00Z",
            "2026-11-22T10:60:00Z",
            "2026-11-22T10:15:60Z",
            "2026-11-22t10:15:30z",
            "2026-11-22T10:15:30,123Z",
            "2026-11-22T10:15:30.12:Z",
            "2026-11-22T10:15:+1.123Z",
            "2026-11-22T10:15:30.123z",
        ];
        texts.extend(odd.map(str::to_owned));
        for text in texts {
            let jiff = text.parse::<Timestamp>().map(UnixMillis::from).ok();
            assert_eq!(UnixMillis::parse_rfc3339(&text).ok(), jiff, "{text}");
            if text.len() == 24 && text.ends_with('Z') && jiff.is_some() && text[19..20] == *"." {
                assert_eq!(parse_usual(text.as_bytes()), jiff, "{text}");
            }
        }
    }

    #[test]
    fn times_are_read_with_any_offset_and_written_in_utc() {
        let time = UnixMillis::parse_rfc3339("2026-11-22T10:15:30.123+02:00").unwrap();
        assert_eq!(time.to_string(), "2026-11-22T08:15:30.123Z");
        assert_eq!(time.plus(-123).to_string(), "2026-11-22T08:15:30Z");
        assert_eq!(UnixMillis::from_minute(time.minute()).0 % 60_000, 0);
    }
}
