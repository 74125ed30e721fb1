//! Two rows with one source and id, as people are told of them.

use std::fmt;

/// Begin the keys of these alerts.
const COUNTED_TWICE: &str = "counted_twice|";
const SHARED_ID: &str = "shared_id|";

/// What makes a call another one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub struct CallName {
    pub workspace: String,
    pub source: String,
    pub id: String,
}

/// One of the two rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountedAt {
    /// Whose spend it is.
    pub workspace: String,
    /// The meter's: epoch, partition, commit and index in it.
    pub address: String,
    /// Where the event lies: topic, partition and offset.
    pub event: String,
    /// Empty where it had none.
    pub session: String,
    /// Dollars.
    pub cost: String,
}

impl fmt::Display for CountedAt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            workspace: _,
            address,
            event,
            session,
            cost,
        } = self;
        match &**session {
            "" => write!(formatter, "{event} without a session")?,
            session => write!(formatter, "{event} of session {session}")?,
        }
        write!(formatter, " (row {address}, ${cost})")
    }
}

/// Two rows of the warehouse with one source and id.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct SameId {
    pub source: String,
    pub id: String,
    /// By arrival.
    pub first: CountedAt,
    pub later: CountedAt,
    /// How many rows there are, these two among them.
    pub rows: u64,
}

impl SameId {
    /// Whether they are one identity, so that the later row is spend that did not happen. Rows of
    /// two workspaces are two identities, and both are counted.
    pub fn is_counted_twice(&self) -> bool {
        self.first.workspace == self.later.workspace
    }

    /// The call of the first row.
    pub fn call(&self) -> CallName {
        CallName {
            workspace: self.first.workspace.clone(),
            source: self.source.clone(),
            id: self.id.clone(),
        }
    }

    /// What makes it the same news.
    pub fn key(&self) -> String {
        let Self {
            source,
            id,
            first,
            later,
            rows: _,
        } = self;
        let workspace = &first.workspace;
        match self.is_counted_twice() {
            true => {
                // A third row may lie between these two.
                let more = match self.rows {
                    0..=2 => String::new(),
                    rows => format!("|{rows}"),
                };
                let later = &later.address;
                format!("{COUNTED_TWICE}{workspace}|{id}|{source}|{later}{more}")
            }
            false => format!("{SHARED_ID}{workspace}|{}|{id}|{source}", later.workspace),
        }
    }
}

/// Whether an alert of this key tells of such a pair.
pub(crate) fn is_key(key: &str) -> bool {
    key.starts_with(COUNTED_TWICE) || key.starts_with(SHARED_ID)
}
