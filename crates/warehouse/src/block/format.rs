//! How blocks are written.

/// In the old way until every program of an installation knows the new one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RowFormat {
    /// Blocks without an epoch, which is 0.
    #[default]
    Schema1,
    /// Blocks whose rows name their epoch.
    Schema2 {
        /// Which set of topics the writer belongs to.
        epoch: u32,
    },
}

impl RowFormat {
    /// The epoch of rows.
    pub fn epoch(self) -> u32 {
        match self {
            Self::Schema1 => 0,
            Self::Schema2 { epoch } => epoch,
        }
    }

    /// The version of blocks.
    pub(crate) fn version(self) -> u32 {
        match self {
            Self::Schema1 => 1,
            Self::Schema2 { .. } => 2,
        }
    }
}
