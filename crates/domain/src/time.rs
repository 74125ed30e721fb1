//! Points in time as UTC milliseconds.

use std::fmt;
use std::ops::Range;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::read_text::read_text;

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

    /// Whole UTC hours since 1970, rounded down.
    pub fn hour(self) -> i64 {
        self.0.div_euclid(3_600_000)
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

/// The form that [`parse_usual`] reads, written into `room`; `None` before 1970 and from 2200 on,
/// which is for `jiff`.
fn usual_text(time: UnixMillis, room: &mut [u8; 24]) -> Option<&str> {
    let millis = u64::try_from(time.0).ok()?;
    let (days, in_day) = (millis / 86_400_000, millis % 86_400_000);
    let (year, month, day) = civil_date(days);
    if year >= 2200 {
        return None;
    }
    *room = *b"0000-00-00T00:00:00.000Z";
    let mut put = |range: Range<usize>, mut number: u64| {
        for digit in room[range].iter_mut().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
    };
    put(0..4, year);
    put(5..7, month);
    put(8..10, day);
    put(11..13, in_day / 3_600_000);
    put(14..16, in_day / 60_000 % 60);
    put(17..19, in_day / 1000 % 60);
    put(20..23, in_day % 1000);
    let mut length = room.len();
    if in_day.is_multiple_of(1000) {
        length = 20;
        room[19] = b'Z';
    }
    std::str::from_utf8(&room[..length]).ok()
}

/// Year, month and day of a number of days since 1970 (Howard Hinnant, "chrono-compatible low-level
/// date algorithms": years that begin in March have their leap day at the end).
fn civil_date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

/// RFC 3339 in UTC, with milliseconds only where they are not zero.
impl fmt::Display for UnixMillis {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(usual) = usual_text(*self, &mut [0; 24]) {
            return formatter.write_str(usual);
        }
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
        match usual_text(*self, &mut [0; 24]) {
            Some(usual) => serializer.serialize_str(usual),
            None => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for UnixMillis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read_text(deserializer, Self::parse_rfc3339)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_form_is_read_and_written_as_jiff_does() {
        let mut texts = Vec::new();
        for day in 0..84_006 {
            // Every day to the end of 2199, at ever other times.
            let time = UnixMillis(day * 86_400_000 + day * 7_919_123 % 86_400_000);
            let text = time.to_string();
            let jiff = time.timestamp();
            let jiff = match time.0 % 1000 {
                0 => format!("{jiff:.0}"),
                _ => format!("{jiff:.3}"),
            };
            assert_eq!(text, jiff);
            texts.push(text);
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
        assert_eq!(UnixMillis(-1).to_string(), "1969-12-31T23:59:59.999Z");
        let end = UnixMillis(7_258_118_400_000);
        assert_eq!(end.plus(-1).to_string(), "2199-12-31T23:59:59.999Z");
        assert_eq!(end.to_string(), "2200-01-01T00:00:00Z");
    }
}
