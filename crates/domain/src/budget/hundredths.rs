//! Decimal numbers with at most two fraction digits as integers: percentages and factors.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::BasisPoints;

/// Reads a number such as `80`, `33.3` or `6.25` in hundredths; `None` for anything else, signs and
/// a third fraction digit included.
pub(crate) fn parse_hundredths(text: &str) -> Option<u32> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let only_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let lengths_fit = (1..=7).contains(&whole.len()) && (1..=2).contains(&fraction.len());
    if !lengths_fit || !only_digits(whole) || !only_digits(fraction) {
        return None;
    }
    let whole: u32 = whole.parse().ok()?;
    let hundredths: u32 = format!("{fraction:0<2}").parse().ok()?;
    Some(whole * 100 + hundredths)
}

/// Writes hundredths without needless zeros: 8000 is `80`, 3330 is `33.3`.
pub(crate) fn hundredths_text(hundredths: u32) -> String {
    let (whole, fraction) = (hundredths / 100, hundredths % 100);
    if fraction == 0 {
        return whole.to_string();
    }
    let text = format!("{whole}.{fraction:02}");
    text.trim_end_matches('0').to_owned()
}

/// A number in hundredths that is a plain JSON number: 640 is `6.4`.
///
/// It passes through the shortest decimal text of a JSON number, which is exact for two fraction
/// digits. Money never takes this way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hundredths(pub u32);

impl Serialize for Hundredths {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_multiple_of(100) {
            return serializer.serialize_u32(self.0 / 100);
        }
        let number: serde_json::Number = hundredths_text(self.0)
            .parse()
            .map_err(serde::ser::Error::custom)?;
        number.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Hundredths {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = serde_json::Number::deserialize(deserializer)?.to_string();
        // A whole number that was written as a float (`80.0`) ends in `.0`, which is fine here.
        parse_hundredths(&text).map(Self).ok_or_else(|| {
            serde::de::Error::custom(format!(
                "{text} is not a number from 0 on with at most two fraction digits"
            ))
        })
    }
}

impl Serialize for BasisPoints {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Hundredths(self.0).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for BasisPoints {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Hundredths::deserialize(deserializer).map(|percent| Self(percent.0))
    }
}

/// In percent: `80`, `33.3`.
impl std::fmt::Display for BasisPoints {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.pad(&hundredths_text(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_two_fraction_digits_are_read_exactly() {
        for (text, hundredths) in [("80", 8000), ("33.3", 3330), ("6.05", 605), ("0.0", 0)] {
            assert_eq!(parse_hundredths(text), Some(hundredths), "{text}");
        }
        for text in ["", ".5", "1.", "1.234", "-1", "1e2", "80%", "99999999"] {
            assert_eq!(parse_hundredths(text), None, "{text}");
        }
        for hundredths in [0, 1, 10, 605, 3330, 8000, 12_345] {
            assert_eq!(
                parse_hundredths(&hundredths_text(hundredths)),
                Some(hundredths)
            );
            let json = serde_json::to_string(&Hundredths(hundredths)).unwrap();
            assert_eq!(
                serde_json::from_str::<Hundredths>(&json).unwrap().0,
                hundredths
            );
        }
    }
}
