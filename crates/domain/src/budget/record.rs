//! The JSON record of topic `spendfuse.budgets`.

/// A record that is not a budget.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("budget record \"{key}\": {detail}")]
pub struct RecordError {
    /// The record's key.
    pub key: String,
    /// What was wrong.
    pub detail: String,
}
