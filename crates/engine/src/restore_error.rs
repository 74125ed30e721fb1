//! What can be wrong with a changelog from which a partition is restored.

use crate::codec::CodecError;

/// A changelog record that does not fit.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// It cannot be read.
    #[error("changelog record \"{key}\": {source}")]
    Record {
        /// The record's key.
        key: String,
        /// Why.
        source: CodecError,
    },
    /// The state belongs to another number of partitions.
    #[error(
        "the changelog was written for {stored} partitions, the topics have {configured}; follow \"growing the number of partitions\" in docs/operations.md"
    )]
    Partitions {
        /// In the changelog.
        stored: usize,
        /// In the configuration.
        configured: usize,
    },
}

impl RestoreError {
    /// # Errors
    /// [`RestoreError::Partitions`] unless both are the same.
    pub(crate) fn unless_same_partitions(stored: usize, configured: usize) -> Result<(), Self> {
        if stored == configured {
            return Ok(());
        }
        Err(Self::Partitions { stored, configured })
    }
}
