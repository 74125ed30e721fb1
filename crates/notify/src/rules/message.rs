//! Messages and what becomes of them, as they are stored.

use serde::{Deserialize, Serialize};
use spendfuse_domain::UnixMillis;
use spendfuse_engine::alert::Alert;

use crate::letter::{Passed, What};

/// How far a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It gathers alerts until it is due.
    Pending,
    /// Its first place is tried.
    Sending,
    /// A later place is tried, because those before did not take it.
    FallenBack,
    /// A place has taken it.
    Delivered,
    /// No place has taken it, and none is tried any more.
    Failed,
}

impl State {
    /// Whether it is still to be told.
    pub fn is_open(self) -> bool {
        !matches!(self, Self::Delivered | Self::Failed)
    }

    /// Whether a place is tried.
    pub fn is_sending(self) -> bool {
        matches!(self, Self::Sending | Self::FallenBack)
    }

    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Sending => "sending",
            Self::FallenBack => "fallen_back",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
        }
    }
}

/// One message of one route. In the changelog under `message|`, its partition and its number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Version of the record, 1.
    pub v: u32,
    /// What the receiver tells a repeat by.
    pub id: String,
    /// Its number in its partition.
    pub number: u64,
    /// Why people are told.
    pub what: What,
    /// The route.
    pub route: String,
    /// The route's places when the message was made.
    pub to: Vec<String>,
    /// Which of them is tried, or has taken it.
    pub place: usize,
    /// Keys of the alerts that it is about.
    pub alerts: Vec<String>,
    /// Their scopes, each once.
    pub scopes: Vec<String>,
    /// How far it is.
    pub state: State,
    /// Its place in the order of what is sent; 0 while it is pending.
    #[serde(default)]
    pub queued: u64,
    /// Failed attempts at the place that is tried.
    #[serde(default)]
    pub attempts: u32,
    /// When it was made.
    pub created_at: UnixMillis,
    /// When it is sent, or tried again.
    pub due_at: UnixMillis,
    /// Since when the place is tried.
    pub since: UnixMillis,
    /// Places that were given up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passed: Vec<Passed>,
    /// What the place last said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// When it was taken or given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<UnixMillis>,
}

impl Message {
    /// The place that is tried; nothing where the route has none.
    pub fn to(&self) -> &str {
        self.to.get(self.place).map_or("", String::as_str)
    }

    /// Whether the route has a place after the one that is tried.
    pub fn has_next_place(&self) -> bool {
        self.place + 1 < self.to.len()
    }

    /// Adds an alert.
    pub fn add(&mut self, alert: &Alert) {
        self.alerts.push(alert.key.clone());
        if !self.scopes.contains(&alert.scope) {
            self.scopes.push(alert.scope.clone());
        }
    }
}

/// What is known of one alert. In the changelog under `alert|` and its key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Version of the record, 1.
    pub v: u32,
    /// The alert, as it came last.
    pub alert: Alert,
    /// When it came.
    pub seen_at: UnixMillis,
    /// Whether what it tells of goes on.
    pub is_open: bool,
    /// When it ended, or last changed.
    pub changed_at: UnixMillis,
    /// How often people were reminded.
    #[serde(default)]
    pub reminders: u32,
    /// When they are reminded next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remind_at: Option<UnixMillis>,
    /// Why nobody was told, where that is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub untold: Option<Untold>,
    /// Messages about it that are still to be told.
    #[serde(skip)]
    pub open_messages: u32,
}

/// Why nobody was told of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Untold {
    /// No route takes it.
    NoRoute,
    /// Somebody muted it.
    Muted,
    /// It was raised before there was a notifier.
    Old,
}

impl Untold {
    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoRoute => "no_route",
            Self::Muted => "muted",
            Self::Old => "old",
        }
    }
}
