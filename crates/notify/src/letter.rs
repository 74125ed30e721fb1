//! What is sent: everything that a channel needs to know of one message.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use spendfuse_domain::{Severity, UnixMillis};
use spendfuse_engine::alert::Alert;

/// Why people are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// It has happened.
    New,
    /// It goes on.
    Reminder,
    /// It is over.
    Resolved,
    /// Somebody asked for it once more.
    Again,
    /// Several at once, because there were many.
    Digest,
    /// Several at once, because it was quiet.
    Summary,
    /// Somebody tries out a channel.
    Test,
}

impl What {
    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Reminder => "reminder",
            Self::Resolved => "resolved",
            Self::Again => "again",
            Self::Digest => "digest",
            Self::Summary => "summary",
            Self::Test => "test",
        }
    }
}

/// A place that was given up for a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passed {
    /// Channel or address.
    pub to: String,
    /// What it last said.
    pub reason: String,
}

/// A message for one place.
#[derive(Clone, Debug, PartialEq)]
pub struct Letter {
    /// The same for every attempt: the receiver can tell a repeat by it.
    pub id: String,
    /// Why.
    pub what: What,
    /// By which route.
    pub route: String,
    /// Channel or address.
    pub to: String,
    /// What it is about, at least one.
    pub alerts: Vec<Alert>,
    /// Of a digest or summary, the keys of those that are over by now.
    pub over: BTreeSet<String>,
    /// Places before this one that did not take it.
    pub passed: Vec<Passed>,
    /// When the message was made.
    pub created_at: UnixMillis,
}

impl Letter {
    /// Whether an alert of it is over.
    pub fn is_over(&self, alert: &Alert) -> bool {
        self.what == What::Resolved || self.over.contains(&alert.key)
    }

    /// Whether nothing goes on of what it is about.
    pub fn is_all_over(&self) -> bool {
        let mut all = self.alerts.iter();
        match self.alerts.is_empty() {
            true => self.what == What::Resolved,
            false => all.all(|alert| self.is_over(alert)),
        }
    }

    /// The most urgent of its alerts; of a digest or summary, of those that are not over.
    pub fn severity(&self) -> Severity {
        let all = self.alerts.iter();
        let counted = all.filter(|alert| !self.over.contains(&alert.key));
        counted
            .map(|alert| alert.severity)
            .max()
            .unwrap_or_default()
    }
}
