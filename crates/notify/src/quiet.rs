//! Quiet hours: when people sleep, by their own clock.

use jiff::civil::Time;
use jiff::tz::TimeZone;
use spendfuse_domain::UnixMillis;

/// A span of each day, which may pass midnight: `22:00-07:00 Europe/Berlin`.
#[derive(Clone, Debug, PartialEq)]
pub struct QuietHours {
    from: Time,
    to: Time,
    zone: TimeZone,
}

impl QuietHours {
    /// Reads `HH:MM-HH:MM` and an IANA time zone, UTC where none is given.
    ///
    /// ```
    /// use spendfuse_notify::QuietHours;
    /// assert!(QuietHours::parse("22:00-07:00 Europe/Berlin").is_some());
    /// assert!(QuietHours::parse("22-7").is_none());
    /// ```
    pub fn parse(text: &str) -> Option<Self> {
        let (span, zone) = text.trim().split_once(' ').unwrap_or((text.trim(), "UTC"));
        let (from, to) = span.split_once('-')?;
        let read = |text: &str| Time::strptime("%H:%M", text).ok();
        let (from, to) = (read(from)?, read(to)?);
        let zone = TimeZone::get(zone.trim()).ok()?;
        (from != to).then_some(Self { from, to, zone })
    }

    /// When they end, where it is quiet at `now`.
    pub fn until(&self, now: UnixMillis) -> Option<UnixMillis> {
        let local = now.timestamp().to_zoned(self.zone.clone());
        let time = local.time();
        let passes_midnight = self.from > self.to;
        let is_quiet = match passes_midnight {
            true => time >= self.from || time < self.to,
            false => self.from <= time && time < self.to,
        };
        if !is_quiet {
            return None;
        }
        let day = match passes_midnight && time >= self.from {
            true => local.date().tomorrow().ok()?,
            false => local.date(),
        };
        // Where the clocks jump over the end, this is the first moment after the gap; where they show
        // it twice, the second one: the first may have passed.
        let end = self.zone.to_ambiguous_zoned(day.to_datetime(self.to));
        let end = end.later().ok()?;
        Some(end.timestamp().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> UnixMillis {
        UnixMillis::parse_rfc3339(text).unwrap()
    }

    #[test]
    fn a_night_ends_in_the_morning_of_its_own_time_zone() {
        let night = QuietHours::parse("22:00-07:00 Europe/Berlin").unwrap();
        let until = |text| night.until(at(text));
        assert_eq!(until("2026-11-22T20:59:00Z"), None);
        let morning = Some(at("2026-11-23T06:00:00Z"));
        assert_eq!(until("2026-11-22T21:00:00Z"), morning);
        assert_eq!(until("2026-11-23T05:59:59Z"), morning);
        assert_eq!(until("2026-11-23T06:00:00Z"), None);
        let lunch = QuietHours::parse("12:00-13:00").unwrap();
        assert_eq!(
            lunch.until(at("2026-11-22T12:30:00Z")),
            Some(at("2026-11-22T13:00:00Z"))
        );
        assert_eq!(lunch.until(at("2026-11-22T13:30:00Z")), None);
        // Clocks go back from three to two.
        let short = QuietHours::parse("22:00-02:30 Europe/Berlin").unwrap();
        let again = at("2026-10-25T01:10:00Z");
        assert_eq!(short.until(again), Some(at("2026-10-25T01:30:00Z")));
    }
}
