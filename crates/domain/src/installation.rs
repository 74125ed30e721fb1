//! What the compacted topic `installation` says: which set of topics this is, and how records may be
//! stored.
//!
//! A set of topics has a number, the *epoch*, which is the first part of every address: partitions
//! and commits of topics that are made anew begin at the same numbers again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Key of the record of the epoch.
pub const EPOCH_KEY: &str = "epoch";
/// Key of the record of the format.
pub const FORMAT_KEY: &str = "format";
/// The newest format that this program writes once it is recorded.
pub const NEWEST_FORMAT: u32 = 2;

/// What every program of an installation goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// The set of topics in use; `None` where nothing is recorded, which is epoch 0.
    pub topics: Option<EpochRecord>,
    /// How records may be stored: 1 where nothing is recorded.
    pub format: u32,
}

/// Which topics an epoch has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// Version of this record.
    pub v: u32,
    /// The epoch.
    pub epoch: u32,
    /// Partitions of the stage topics.
    pub partitions: u32,
    /// Kafka's id of each topic, by its whole name.
    pub topics: BTreeMap<String, String>,
}

/// What `spendfuse finalize` wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormatRecord {
    /// Version of this record.
    pub v: u32,
    /// Records may be stored in formats up to this one.
    pub format: u32,
}

/// A record that this program cannot use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InstallationError {
    /// Not JSON of this kind.
    #[error("record \"{key}\" of the installation topic cannot be read: {detail}")]
    Unreadable {
        /// Its key.
        key: String,
        /// Why.
        detail: String,
    },
    /// Finalized by a newer program.
    #[error(
        "the installation stores records in format {found}, this program knows up to {NEWEST_FORMAT}; run the newer program"
    )]
    TooNew {
        /// The format.
        found: u32,
    },
}

impl Default for Installation {
    fn default() -> Self {
        Self {
            topics: None,
            format: 1,
        }
    }
}

impl Installation {
    /// What the records of the topic say, by their keys.
    ///
    /// # Errors
    /// [`InstallationError`]: nothing may be written then.
    pub fn of(records: &BTreeMap<String, Vec<u8>>) -> Result<Self, InstallationError> {
        let mut installation = Self::default();
        if let Some(value) = records.get(EPOCH_KEY) {
            installation.topics = Some(parsed(EPOCH_KEY, value)?);
        }
        if let Some(value) = records.get(FORMAT_KEY) {
            let record: FormatRecord = parsed(FORMAT_KEY, value)?;
            installation.format = record.format;
        }
        match installation.format {
            found if found > NEWEST_FORMAT => Err(InstallationError::TooNew { found }),
            _ => Ok(installation),
        }
    }

    /// The number of the set of topics.
    pub fn epoch(&self) -> u32 {
        self.topics.as_ref().map_or(0, |topics| topics.epoch)
    }

    /// Whether records of the second format may be written.
    pub fn is_finalized(&self) -> bool {
        self.format >= 2
    }

    /// Topics that are not those of the epoch: made anew, or gone. `found` are the ids of the topics
    /// that exist. Topics that the record does not name came with a later release.
    pub fn strangers(&self, found: &BTreeMap<String, String>) -> Vec<String> {
        let recorded = self.topics.iter().flat_map(|record| &record.topics);
        recorded
            .filter(|(name, id)| found.get(*name) != Some(id))
            .map(|(name, _)| name.clone())
            .collect()
    }
}

fn parsed<'a, T: Deserialize<'a>>(key: &str, value: &'a [u8]) -> Result<T, InstallationError> {
    serde_json::from_slice(value).map_err(|error| InstallationError::Unreadable {
        key: key.to_owned(),
        detail: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(records: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
        let records = records.iter();
        records
            .map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec()))
            .collect()
    }

    #[test]
    fn without_records_it_is_the_first_set_of_topics_in_the_first_format() {
        let installation = Installation::of(&records(&[])).unwrap();
        assert_eq!((installation.epoch(), installation.format), (0, 1));
        assert!(installation.strangers(&BTreeMap::new()).is_empty());
        assert!(!installation.is_finalized());
    }

    #[test]
    fn topics_made_anew_are_strangers_and_added_ones_are_not() {
        let epoch = r#"{"v":1,"epoch":3,"partitions":4,"topics":{"a":"1","b":"2","c":"3"}}"#;
        let format = r#"{"v":1,"format":2}"#;
        let installation = Installation::of(&records(&[("epoch", epoch), ("format", format)]));
        let installation = installation.unwrap();
        assert_eq!(
            (installation.epoch(), installation.is_finalized()),
            (3, true)
        );
        let found = [("a", "1"), ("b", "9"), ("new", "7")];
        let found = found.map(|(name, id)| (name.to_owned(), id.to_owned()));
        assert_eq!(installation.strangers(&found.into()), ["b", "c"]);
    }

    #[test]
    fn what_a_newer_program_finalized_is_refused() {
        let newer = records(&[("format", r#"{"v":1,"format":9}"#)]);
        assert_eq!(
            Installation::of(&newer),
            Err(InstallationError::TooNew { found: 9 })
        );
        assert!(Installation::of(&records(&[("epoch", "{}")])).is_err());
    }
}
