//! Hours in which a provider sells cheaper: windows of the week, and the rates in them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use spendfuse_domain::UnixMillis;

use crate::rate::RateKey;

const MINUTES_OF_DAY: u16 = 24 * 60;
const MINUTES_OF_WEEK: u16 = 7 * MINUTES_OF_DAY;
/// The first of January 1970 was a Thursday: minutes from the Monday before it.
const MINUTES_BEFORE_1970: i64 = 3 * MINUTES_OF_DAY as i64;
const MILLIS_OF_MINUTE: i64 = 60_000;

/// Cheaper rates, and when they are in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OffPeak {
    /// Sorted, in UTC.
    pub windows: Vec<Window>,
    /// What differs from the model's usual rates then.
    pub rates: BTreeMap<RateKey, u64>,
}

impl OffPeak {
    /// Whether `at` lies in one of the windows.
    pub(crate) fn contains(&self, at: UnixMillis) -> bool {
        let minutes = at.0.div_euclid(MILLIS_OF_MINUTE) + MINUTES_BEFORE_1970;
        let minute = minutes.rem_euclid(i64::from(MINUTES_OF_WEEK));
        let holds = |window: &Window| {
            (i64::from(window.from)..i64::from(window.from + window.minutes)).contains(&minute)
        };
        self.windows.iter().any(holds)
    }
}

/// A part of one day of every week, in UTC. In texts `5 10:00-24:00`: Friday from ten in the morning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Window {
    /// Minutes since Monday 00:00.
    from: u16,
    /// At most to the end of its day.
    minutes: u16,
}

impl Window {
    /// The windows of the `weekdays` (1 = Monday) whose hours are `hours` in UTC, such as
    /// `10:00-00:00`; `weekdays_ahead` is by how many minutes the days begin before those of UTC.
    /// `None` where they cannot be read.
    ///
    /// Hours that end at or before their beginning go on until the next day's.
    pub fn of_days(weekdays: &[u8], hours: &str, weekdays_ahead: u16) -> Option<Vec<Self>> {
        let (from, to) = hours.split_once('-')?;
        let (from, to) = (minute_of_day(from)?, minute_of_day(to)?);
        let end = if to <= from { to + MINUTES_OF_DAY } else { to };
        let mut windows = Vec::new();
        for day in weekdays {
            let day = day.checked_sub(1).filter(|day| *day < 7)?;
            // What lies after the start of the next day over there is still the day before in UTC.
            let next_day_begins = MINUTES_OF_DAY.saturating_sub(weekdays_ahead);
            let is_of_day_before = weekdays_ahead > 0 && from >= next_day_begins;
            let back = if is_of_day_before { MINUTES_OF_DAY } else { 0 };
            let start = u16::from(day) * MINUTES_OF_DAY + MINUTES_OF_WEEK - back;
            let mut at = start + from;
            while at < start + end {
                let end_of_day = (at / MINUTES_OF_DAY + 1) * MINUTES_OF_DAY;
                let stop = end_of_day.min(start + end);
                windows.push(Self {
                    from: at % MINUTES_OF_WEEK,
                    minutes: stop - at,
                });
                at = stop;
            }
        }
        Some(windows)
    }
}

fn minute_of_day(text: &str) -> Option<u16> {
    let (hours, minutes) = text.trim().split_once(':')?;
    let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
    let minute = hours.checked_mul(60)?.checked_add(minutes)?;
    (minutes < 60 && minute <= MINUTES_OF_DAY).then_some(minute)
}

impl fmt::Display for Window {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (day, from) = (self.from / MINUTES_OF_DAY + 1, self.from % MINUTES_OF_DAY);
        let to = from + self.minutes;
        let [from, to] = [from, to].map(|minute| (minute / 60, minute % 60));
        write!(
            formatter,
            "{day} {:02}:{:02}-{:02}:{:02}",
            from.0, from.1, to.0, to.1
        )
    }
}

impl FromStr for Window {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("window \"{text}\"; write a day and hours such as 5 10:00-24:00");
        let (day, hours) = text.split_once(' ').ok_or_else(wrong)?;
        let day: u8 = day.parse().map_err(|_| wrong())?;
        match Self::of_days(&[day], hours, 0).as_deref() {
            Some([window]) => Ok(*window),
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn off_peak(windows: Vec<Window>) -> impl Fn(&str) -> bool {
        let off_peak = OffPeak {
            windows,
            rates: BTreeMap::new(),
        };
        move |time| off_peak.contains(UnixMillis::parse_rfc3339(time).unwrap())
    }

    #[test]
    fn windows_hold_their_beginning_and_not_their_end() {
        let is_quiet = off_peak(Window::of_days(&[1, 2], "10:00-00:00", 0).unwrap());
        for (time, expected) in [
            ("2026-11-23T09:59:59Z", false), // a Monday
            ("2026-11-23T10:00:00Z", true),
            ("2026-11-23T23:59:59Z", true),
            ("2026-11-24T00:00:00Z", false),
            ("2026-11-24T12:00:00+05:00", false),
            ("2026-11-25T12:00:00Z", false),
        ] {
            assert_eq!(is_quiet(time), expected, "{time}");
        }
    }

    #[test]
    fn hours_over_midnight_go_on_in_the_next_day_and_the_week_is_a_ring() {
        let is_quiet = off_peak(Window::of_days(&[7], "22:00-06:00", 0).unwrap());
        assert!(is_quiet("2026-11-22T22:00:00Z") && is_quiet("2026-11-23T05:59:00Z"));
        assert!(!is_quiet("2026-11-22T05:00:00Z") && !is_quiet("2026-11-23T06:00:00Z"));
    }

    /// Shanghai's Saturday begins on Friday at 16:00 UTC.
    #[test]
    fn days_of_a_zone_ahead_begin_earlier() {
        let of_saturday = Window::of_days(&[6], "00:00-16:00", 480).unwrap();
        let before_midnight = Window::of_days(&[6], "16:00-24:00", 480).unwrap();
        let is_quiet = off_peak([of_saturday, before_midnight].concat());
        assert!(is_quiet("2026-11-20T16:00:00Z") && is_quiet("2026-11-21T15:59:00Z"));
        assert!(!is_quiet("2026-11-20T15:59:00Z") && !is_quiet("2026-11-21T16:00:00Z"));
    }

    #[test]
    fn a_window_is_read_as_it_is_written() {
        for text in ["5 10:00-24:00", "1 00:00-24:00", "7 00:00-01:30"] {
            assert_eq!(text.parse::<Window>().unwrap().to_string(), text);
        }
        for text in [
            "8 10:00-24:00",
            "0 10:00-24:00",
            "5 10:00-25:00",
            "5 22:00-06:00",
            "5",
            "",
        ] {
            assert!(text.parse::<Window>().is_err(), "{text}");
        }
    }
}
