//! Durations as people write them in the budgets file: `15m`.

const UNITS: [(&str, i64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

/// Reads a whole number with a unit (`ms`, `s`, `m`, `h`, `d`) in milliseconds.
pub fn parse_duration(text: &str) -> Option<i64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, millis) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
    number.parse::<i64>().ok()?.checked_mul(millis)
}

/// Writes milliseconds in the largest unit that needs no fraction: 900 000 is `15m`.
pub(super) fn duration_text(millis: i64) -> String {
    let (name, unit) = UNITS
        .into_iter()
        .find(|(_, unit)| millis % unit == 0 && millis != 0)
        .unwrap_or(("s", 1000));
    format!("{}{name}", millis / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_round_trip_in_their_largest_unit() {
        for (text, millis) in [("15m", 900_000), ("90s", 90_000), ("250ms", 250), ("0s", 0)] {
            assert_eq!(parse_duration(text), Some(millis));
            assert_eq!(duration_text(millis), text);
        }
        assert_eq!(parse_duration("48h"), Some(2 * 86_400_000));
        for text in [
            "",
            "15",
            "m",
            "1.5h",
            "-1m",
            "15 m",
            "15min",
            "999999999999999999d",
        ] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
