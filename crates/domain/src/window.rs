//! Windows: the concrete periods that budgets count in.
//!
//! A window is known by its start in UTC. No reset job exists: a new window is a new key.

use std::fmt;

use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use jiff::{ToSpan, Zoned};

use crate::scope::Dimension;
use crate::time::UnixMillis;

/// The kind of period that a budget counts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum WindowKind {
    Session,
    RootSession,
    Hour,
    Day,
    /// Monday to Sunday, as in ISO 8601.
    Week,
    Month,
    Quarter,
    Year,
    Lifetime,
}

impl WindowKind {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::Session,
        Self::RootSession,
        Self::Hour,
        Self::Day,
        Self::Week,
        Self::Month,
        Self::Quarter,
        Self::Year,
        Self::Lifetime,
    ];

    /// The name in budgets and window labels.
    pub fn name(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::RootSession => "root_session",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Quarter => "quarter",
            Self::Year => "year",
            Self::Lifetime => "lifetime",
        }
    }

    /// The kind with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether the window is a session's life; such budgets are counted by the meter.
    pub fn is_session(self) -> bool {
        self.session().is_some()
    }

    /// What such a session is called by, where the window is a session's life.
    pub fn session(self) -> Option<Dimension> {
        match self {
            Self::Session => Some(Dimension::Session),
            Self::RootSession => Some(Dimension::RootSession),
            _ => None,
        }
    }

    /// The label of the window of the session with this name: `session:s-1`.
    pub fn label(self, session: &str) -> String {
        format!("{}:{session}", self.name())
    }
}

/// One concrete window.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// Name for people: `day:2026-11-22`, `week:2026-W47`, `hour:2026-11-22T10`, `lifetime`.
    pub label: String,
    /// Its first millisecond; the epoch for `lifetime`.
    pub start: UnixMillis,
    /// Its end (exclusive); `None` for `lifetime`.
    pub end: Option<UnixMillis>,
}

impl Window {
    /// The window of `kind` in `zone` that contains `time`. A day starts at its first existing
    /// instant, where midnight is skipped by a change of clocks.
    ///
    /// # Panics
    /// For session windows, which have no calendar.
    pub fn containing(kind: WindowKind, zone: &TimeZone, time: UnixMillis) -> Self {
        let local = time.timestamp().to_zoned(zone.clone());
        let date = local.date();
        match kind {
            WindowKind::Hour => hour(&local),
            WindowKind::Day => days(
                kind,
                zone,
                date,
                date.saturating_add(1.day()),
                date.to_string(),
            ),
            WindowKind::Week => {
                let monday = date.iso_week_date();
                let first =
                    date.saturating_sub(i64::from(date.weekday().since(Weekday::Monday)).days());
                let label = format!("{}-W{:02}", monday.year(), monday.week());
                days(kind, zone, first, first.saturating_add(7.days()), label)
            }
            WindowKind::Month => {
                let first = date.first_of_month();
                let label = format!("{:04}-{:02}", date.year(), date.month());
                days(kind, zone, first, first.saturating_add(1.month()), label)
            }
            WindowKind::Quarter => {
                let quarter = (date.month() - 1) / 3;
                let first = jiff::civil::date(date.year(), quarter * 3 + 1, 1);
                let label = format!("{:04}-Q{}", date.year(), quarter + 1);
                days(kind, zone, first, first.saturating_add(3.months()), label)
            }
            WindowKind::Year => {
                let first = date.first_of_year();
                days(
                    kind,
                    zone,
                    first,
                    first.saturating_add(1.year()),
                    format!("{:04}", date.year()),
                )
            }
            WindowKind::Lifetime => Self {
                label: kind.name().to_owned(),
                start: UnixMillis(0),
                end: None,
            },
            WindowKind::Session | WindowKind::RootSession => {
                unreachable!("a session window is made from the session, not from the calendar")
            }
        }
    }

    /// Whether `time` lies in the window.
    pub fn contains(&self, time: UnixMillis) -> bool {
        let begun = self.end.is_none() || time >= self.start;
        begun && self.end.is_none_or(|end| time < end)
    }
}

impl fmt::Display for Window {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.label)
    }
}

/// Hours are counted in elapsed time, so that the repeated hour of a clock change is two windows.
fn hour(local: &Zoned) -> Window {
    const HOUR_MILLIS: i64 = 3_600_000;
    let time = UnixMillis::from(local.timestamp());
    let offset_millis = i64::from(local.offset().seconds()) * 1000;
    let into_hour = (time.0 + offset_millis).rem_euclid(HOUR_MILLIS);
    let start = time.plus(-into_hour);
    Window {
        label: format!("hour:{}T{:02}", local.date(), local.hour()),
        start,
        end: Some(start.plus(HOUR_MILLIS)),
    }
}

fn days(kind: WindowKind, zone: &TimeZone, first: Date, end: Date, label: String) -> Window {
    let start_of = |date: Date| {
        // `to_zoned` moves a time inside a gap forward by the gap: the first existing instant
        // is what `start_of_day` finds.
        let noon = date.at(12, 0, 0, 0).to_zoned(zone.clone());
        let start = noon.and_then(|noon| noon.start_of_day());
        start.map_or(UnixMillis(i64::MAX), |start| {
            UnixMillis::from(start.timestamp())
        })
    };
    Window {
        label: format!("{}:{label}", kind.name()),
        start: start_of(first),
        end: Some(start_of(end)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(kind: WindowKind, zone: &str, time: &str) -> (String, String, String) {
        let zone = TimeZone::get(zone).unwrap();
        let time = UnixMillis::parse_rfc3339(time).unwrap();
        let window = Window::containing(kind, &zone, time);
        assert!(window.contains(time));
        let end = window.end.map_or(String::new(), |end| end.to_string());
        (window.label, window.start.to_string(), end)
    }

    #[test]
    fn windows_start_and_end_at_local_boundaries() {
        for (kind, zone, time, label, start, end) in [
            (
                WindowKind::Day,
                "America/New_York",
                "2026-11-22T10:15:30Z",
                "day:2026-11-22",
                "2026-11-22T05:00:00Z",
                "2026-11-23T05:00:00Z",
            ),
            // 25 hours: the clocks go back.
            (
                WindowKind::Day,
                "America/New_York",
                "2026-11-01T12:00:00Z",
                "day:2026-11-01",
                "2026-11-01T04:00:00Z",
                "2026-11-02T05:00:00Z",
            ),
            // Midnight does not exist in Beirut on this day.
            (
                WindowKind::Day,
                "Asia/Beirut",
                "2026-03-29T12:00:00Z",
                "day:2026-03-29",
                "2026-03-28T22:00:00Z",
                "2026-03-29T21:00:00Z",
            ),
            (
                WindowKind::Week,
                "UTC",
                "2026-11-22T10:00:00Z",
                "week:2026-W47",
                "2026-11-16T00:00:00Z",
                "2026-11-23T00:00:00Z",
            ),
            (
                WindowKind::Week,
                "UTC",
                "2027-01-01T10:00:00Z",
                "week:2026-W53",
                "2026-12-28T00:00:00Z",
                "2027-01-04T00:00:00Z",
            ),
            (
                WindowKind::Month,
                "America/New_York",
                "2026-11-22T10:00:00Z",
                "month:2026-11",
                "2026-11-01T04:00:00Z",
                "2026-12-01T05:00:00Z",
            ),
            (
                WindowKind::Quarter,
                "UTC",
                "2026-11-22T10:00:00Z",
                "quarter:2026-Q4",
                "2026-10-01T00:00:00Z",
                "2027-01-01T00:00:00Z",
            ),
            (
                WindowKind::Year,
                "UTC",
                "2026-11-22T10:00:00Z",
                "year:2026",
                "2026-01-01T00:00:00Z",
                "2027-01-01T00:00:00Z",
            ),
            // A zone whose offset is not a whole hour.
            (
                WindowKind::Hour,
                "Asia/Kolkata",
                "2026-11-22T10:15:30Z",
                "hour:2026-11-22T15",
                "2026-11-22T09:30:00Z",
                "2026-11-22T10:30:00Z",
            ),
        ] {
            let expected = (label.to_owned(), start.to_owned(), end.to_owned());
            assert_eq!(window(kind, zone, time), expected);
        }
    }

    #[test]
    fn the_repeated_hour_of_a_clock_change_is_two_windows() {
        let first = window(WindowKind::Hour, "America/New_York", "2026-11-01T05:30:00Z");
        let second = window(WindowKind::Hour, "America/New_York", "2026-11-01T06:30:00Z");
        assert_eq!(first.0, second.0);
        assert_ne!(first.1, second.1);
    }
}
