//! What can be wrong with the records that a replica follows.

use spendfuse_domain::budget::RecordError;

/// A record that the replica could not take. What was known of its key stays as it was, and the
/// next record is applied as usual: the caller counts and logs it.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// A key of the blocklist topic in no known form.
    #[error("blocklist key \"{key}\" is neither a budget's, a finding's nor a heartbeat's")]
    Key {
        /// The record's key.
        key: String,
    },
    /// A blocklist value that is not an entry.
    #[error("blocklist entry \"{key}\": {detail}")]
    Entry {
        /// The record's key.
        key: String,
        /// What was wrong.
        detail: String,
    },
    /// A heartbeat that cannot be used.
    #[error("heartbeat \"{key}\": {detail}")]
    Heartbeat {
        /// The record's key.
        key: String,
        /// What was wrong.
        detail: String,
    },
    /// A record of the budgets topic that is not a budget.
    #[error(transparent)]
    Budget(#[from] RecordError),
    /// A value of the findings topic that is not a finding.
    #[error("finding \"{key}\": {detail}")]
    Finding {
        /// The record's key.
        key: String,
        /// What was wrong.
        detail: String,
    },
}
