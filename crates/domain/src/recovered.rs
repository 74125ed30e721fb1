//! Records that bring back what the meters of earlier topics knew, as far as the warehouse has it.
//!
//! They lie in the corrections topic, which only people and the loader may write to: whoever says that
//! an identity was counted keeps it from being counted. They are written by `spendfuse recover` alone.

use serde::{Deserialize, Serialize};

use crate::correction::{CorrectionError, EntryPlace, StandingRecord};
use crate::identity::Identity;
use crate::time::UnixMillis;

/// Key of these records; corrections have the address of their entry.
pub const RECOVERED_KEY: &[u8] = b"recovered";

/// What is brought back of one partition, a part of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RecoveredRecord {
    /// Version of the format.
    pub v: u32,
    /// Number of the set of topics that it is for.
    pub epoch: u32,
    /// Calls of sessions that were live, those of a session in the order of counting.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<RecoveredCall>,
    /// Other events that were counted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<RecoveredId>,
}

/// A call that was counted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RecoveredCall {
    /// Where it was counted.
    pub entry: EntryPlace,
    /// When its event arrived.
    pub received_at: UnixMillis,
    /// What stands for it.
    pub stands: StandingRecord,
}

/// An event that was counted: its identity, 32 hex digits, and the minute in which it arrived, since
/// 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveredId(String, i64);

impl RecoveredRecord {
    /// Reads a record.
    ///
    /// # Errors
    /// [`CorrectionError`] says what is wrong.
    pub fn parse(value: &[u8]) -> Result<Self, CorrectionError> {
        let record: Self = serde_json::from_slice(value)
            .map_err(|error| CorrectionError::Malformed(error.to_string()))?;
        match record.v {
            1 => Ok(record),
            other => Err(CorrectionError::Version(other)),
        }
    }
}

impl RecoveredId {
    /// An event that arrived at `received_at`.
    pub fn new(identity: Identity, received_at: UnixMillis) -> Self {
        Self(format!("{:032x}", identity.0), received_at.minute())
    }

    /// Identity and arrival.
    ///
    /// # Errors
    /// [`CorrectionError::Malformed`].
    pub fn read(&self) -> Result<(Identity, UnixMillis), CorrectionError> {
        let number = match self.0.len() {
            32 => u128::from_str_radix(&self.0, 16).ok(),
            _ => None,
        };
        let number = number.ok_or_else(|| {
            CorrectionError::Malformed(format!("{} is no identity", crate::printable(&self.0)))
        })?;
        Ok((Identity(number), UnixMillis::from_minute(self.1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_written_and_read() {
        let identity = Identity::of("acme", "app", "r-1", "final");
        let arrival = UnixMillis::from_minute(29_000_000);
        let record = RecoveredRecord {
            v: 1,
            epoch: 2,
            calls: Vec::new(),
            ids: vec![RecoveredId::new(identity, arrival.plus(59_999))],
        };
        let text = serde_json::to_vec(&record).unwrap();
        let read = RecoveredRecord::parse(&text).unwrap();
        assert_eq!(read.ids[0].read(), Ok((identity, arrival)));
    }

    #[test]
    fn what_is_none_is_refused() {
        let newer = RecoveredRecord::parse(br#"{"v":2,"epoch":0}"#);
        assert!(matches!(newer, Err(CorrectionError::Version(2))));
        assert!(RecoveredRecord::parse(b"{}").is_err());
        for wrong in ["", "12", "-00000000000000000000000000000001", "zz"] {
            let id = RecoveredId(wrong.to_owned(), 7);
            assert!(id.read().is_err(), "{wrong}");
        }
    }
}
