//! Calendar and time zones, written again: what the year expects of windows must not come from the
//! library that the engine asks.
//!
//! Dates by Howard Hinnant's `days_from_civil`. Zones by their rules as of 2026: Berlin (EU
//! directive 2000/84/EC), New York (Energy Policy Act of 2005), Cairo (Egypt's law 24 of 2023, which
//! skips a midnight).

pub(crate) const MINUTE: i64 = 60_000;
pub(crate) const HOUR: i64 = 60 * MINUTE;
pub(crate) const DAY: i64 = 24 * HOUR;

/// Days since 1970.
pub(crate) fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year - era * 400;
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Year, month and day of a day since 1970.
pub(crate) fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted - era * 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_shifted + 2) / 5 + 1;
    let month = if month_shifted < 10 {
        month_shifted + 3
    } else {
        month_shifted - 9
    };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// 0 = Monday.
fn weekday(days: i64) -> i64 {
    (days + 3).rem_euclid(7)
}

/// The last `weekday` of a month of 31 or 30 days that ends on `last`.
fn last_before(last: i64, wanted: i64) -> i64 {
    last - (weekday(last) - wanted).rem_euclid(7)
}

fn first_after(first: i64, wanted: i64) -> i64 {
    first + (wanted - weekday(first)).rem_euclid(7)
}

const THURSDAY: i64 = 3;
const FRIDAY: i64 = 4;
const SUNDAY: i64 = 6;

/// What a local clock is ahead of UTC at `time`, milliseconds.
fn offset(zone: &str, time: i64) -> i64 {
    let (year, ..) = civil(time.div_euclid(DAY));
    let (standard, from, to) = match zone {
        "UTC" => return 0,
        "Europe/Berlin" => (
            HOUR,
            last_before(days(year, 3, 31), SUNDAY) * DAY + HOUR,
            last_before(days(year, 10, 31), SUNDAY) * DAY + HOUR,
        ),
        "America/New_York" => (
            -5 * HOUR,
            (first_after(days(year, 3, 1), SUNDAY) + 7) * DAY + 7 * HOUR,
            first_after(days(year, 11, 1), SUNDAY) * DAY + 6 * HOUR,
        ),
        "Africa/Cairo" => (
            2 * HOUR,
            last_before(days(year, 4, 30), FRIDAY) * DAY - 2 * HOUR,
            (last_before(days(year, 10, 31), THURSDAY) + 1) * DAY - 3 * HOUR,
        ),
        other => panic!("the year has no rules of zone {other}"),
    };
    standard + if (from..to).contains(&time) { HOUR } else { 0 }
}

/// The first instant of a local day.
fn begin_of_day(zone: &str, day: i64) -> i64 {
    let midnight = day * DAY;
    let (early, late) = (offset(zone, midnight - DAY), offset(zone, midnight + DAY));
    let possible = [midnight - early.max(late), midnight - early.min(late)];
    let exists = |time: &&i64| **time + offset(zone, **time) == midnight;
    // Where no clock ever showed midnight, the day begins with the change.
    *possible.iter().find(exists).unwrap_or(&possible[1])
}

/// Start and end of the window of `kind` that holds `time`; no end for a lifetime.
pub(crate) fn window(kind: &str, zone: &str, time: i64) -> (i64, Option<i64>) {
    let local = time + offset(zone, time);
    let day = local.div_euclid(DAY);
    let (year, month, _) = civil(day);
    let (first, end) = match kind {
        "lifetime" => return (0, None),
        "hour" => {
            let start = time - local.rem_euclid(HOUR);
            return (start, Some(start + HOUR));
        }
        "day" => (day, day + 1),
        "week" => (day - weekday(day), day - weekday(day) + 7),
        "month" => (days(year, month, 1), months_on(year, month, 1)),
        "quarter" => {
            let first = (month - 1) / 3 * 3 + 1;
            (days(year, first, 1), months_on(year, first, 3))
        }
        "year" => (days(year, 1, 1), days(year + 1, 1, 1)),
        other => panic!("the year knows no window {other}"),
    };
    (begin_of_day(zone, first), Some(begin_of_day(zone, end)))
}

fn months_on(year: i64, month: i64, more: i64) -> i64 {
    let after = month - 1 + more;
    days(year + after / 12, after % 12 + 1, 1)
}

/// `2027-03-28T01:00:00.000Z`
pub(crate) fn text(time: i64) -> String {
    let (year, month, day) = civil(time.div_euclid(DAY));
    let rest = time.rem_euclid(DAY);
    let (hour, minute) = (rest / HOUR, rest % HOUR / MINUTE);
    let (second, milli) = (rest % MINUTE / 1000, rest % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_of_a_change_of_clocks_are_an_hour_shorter_or_longer() {
        let length = |zone, year, month, day| {
            let noon = days(year, month, day) * DAY + 12 * HOUR;
            let (start, end) = window("day", zone, noon);
            (end.unwrap_or_default() - start) / HOUR
        };
        assert_eq!(length("Europe/Berlin", 2027, 3, 28), 23);
        assert_eq!(length("Europe/Berlin", 2027, 10, 31), 25);
        assert_eq!(length("America/New_York", 2027, 3, 14), 23);
        assert_eq!(length("America/New_York", 2027, 11, 7), 25);
        assert_eq!(length("Africa/Cairo", 2027, 4, 30), 23);
        assert_eq!(length("Africa/Cairo", 2027, 10, 28), 25);
        assert_eq!(length("UTC", 2027, 3, 28), 24);
    }

    #[test]
    fn dates_go_round() {
        assert_eq!(days(1970, 1, 1), 0);
        for day in -1000..30_000 {
            let (year, month, of_month) = civil(day);
            assert_eq!(days(year, month, of_month), day);
        }
        assert_eq!(text(1_795_348_800_000), "2026-11-22T12:00:00.000Z");
    }
}
