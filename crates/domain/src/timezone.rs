//! Time zones by their names: what is a [`Timezone`] is known here.

use std::fmt;

use jiff::tz::TimeZone;

/// A time zone of the IANA database that this binary carries, under the name it was given by.
#[derive(Clone)]
pub struct Timezone {
    name: String,
    zone: TimeZone,
}

impl Timezone {
    /// The zone with this name, `None` where the database has none.
    pub fn named(name: &str) -> Option<Self> {
        let zone = TimeZone::get(name).ok()?;
        Some(Self {
            name: name.to_owned(),
            zone,
        })
    }

    /// The name it was given by: part of what a count stands on.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// The name that the database prefers.
    pub fn iana_name(&self) -> &str {
        self.zone.iana_name().unwrap_or(&self.name)
    }

    /// The zone itself.
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }
}

impl Default for Timezone {
    fn default() -> Self {
        Self {
            name: "UTC".to_owned(),
            zone: TimeZone::UTC,
        }
    }
}

impl PartialEq for Timezone {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Timezone {}

impl fmt::Debug for Timezone {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.name, formatter)
    }
}

impl fmt::Display for Timezone {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_that_is_not_known_is_none_and_never_another_one() {
        assert_eq!(Timezone::named("Mars/Olympus"), None);
        let berlin = Timezone::named("europe/berlin").unwrap();
        assert_eq!(
            (berlin.as_str(), berlin.iana_name()),
            ("europe/berlin", "Europe/Berlin")
        );
        assert_eq!(Timezone::default(), Timezone::named("UTC").unwrap());
    }
}
