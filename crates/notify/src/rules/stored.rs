//! The state of a partition as records of its changelog.

use serde::{Deserialize, Serialize};
use spendfuse_domain::UnixMillis;

use super::message::{Entry, Message, State};
use super::{Due, Notifier};

/// Begins the key of an alert's record.
pub const ALERT_PREFIX: &str = "alert|";
/// Begins the key of a message's record.
pub const MESSAGE_PREFIX: &str = "message|";
const MUTE_PREFIX: &str = "mute|";
const BEGINNING: &str = "beginning";

/// A record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stored {
    /// An alert, by its key.
    Alert(String),
    /// A message, by its number.
    Message(u64),
    /// A muted scope.
    Mute(String),
    /// Since when alerts are told.
    Beginning,
}

/// A record that this program cannot use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("record \"{key}\" of the notifier's changelog cannot be read: {detail}")]
pub struct StoredError {
    /// Its key.
    pub key: String,
    /// Why.
    pub detail: String,
}

#[derive(Serialize, Deserialize)]
struct Time {
    v: u32,
    at: UnixMillis,
}

/// The scope that a record of the changelog mutes, and until when; `None` for other records.
pub fn muted<'k>(key: &'k str, value: &[u8]) -> Option<(&'k str, UnixMillis)> {
    let scope = key.strip_prefix(MUTE_PREFIX)?;
    let until: Time = serde_json::from_slice(value).ok()?;
    Some((scope, until.at))
}

impl Stored {
    /// Different in each partition, or the same in all: whoever reads all of them has one table.
    fn key(&self, partition: u32) -> String {
        match self {
            Self::Alert(key) => format!("{ALERT_PREFIX}{key}"),
            Self::Message(number) => format!("{MESSAGE_PREFIX}{partition}|{number}"),
            Self::Mute(scope) => format!("{MUTE_PREFIX}{scope}"),
            Self::Beginning => BEGINNING.to_owned(),
        }
    }
}

impl Notifier {
    /// Whether something has changed that is not written.
    pub fn has_changes(&self) -> bool {
        !self.changed.is_empty()
    }

    /// What has changed since the last call: keys with values, `None` where one is gone.
    pub fn take_changes(&mut self) -> Vec<(String, Option<Vec<u8>>)> {
        let changed = std::mem::take(&mut self.changed);
        changed
            .iter()
            .map(|stored| (stored.key(self.partition), self.value_of(stored)))
            .collect()
    }

    fn value_of(&self, stored: &Stored) -> Option<Vec<u8>> {
        let time = |at: &UnixMillis| json(&Time { v: 1, at: *at });
        match stored {
            Stored::Alert(key) => self.alerts.get(key).map(json),
            Stored::Message(number) => self.messages.get(number).map(json),
            Stored::Mute(scope) => self.mutes.get(scope).map(time),
            Stored::Beginning => self.tells_from.as_ref().map(time),
        }
    }

    /// Takes a record of the changelog; records of one key come in order.
    ///
    /// # Errors
    /// [`StoredError`] for what this version cannot read.
    pub fn restore(&mut self, key: &str, value: Option<&[u8]>) -> Result<(), StoredError> {
        if let Some(alert) = key.strip_prefix(ALERT_PREFIX) {
            match read::<Entry>(key, value)? {
                Some(entry) => drop(self.alerts.insert(alert.to_owned(), entry)),
                None => drop(self.alerts.remove(alert)),
            }
        } else if let Some(number) = key.strip_prefix(MESSAGE_PREFIX) {
            let wrong = |_| StoredError {
                key: key.to_owned(),
                detail: "its key holds no number".to_owned(),
            };
            let number = number.rsplit('|').next().unwrap_or_default();
            let number: u64 = number.parse().map_err(wrong)?;
            match read::<Message>(key, value)? {
                Some(message) => drop(self.messages.insert(number, message)),
                None => drop(self.messages.remove(&number)),
            }
            // Numbers of messages that are forgotten are not given again.
            self.next_number = self.next_number.max(number + 1);
        } else if let Some(scope) = key.strip_prefix(MUTE_PREFIX) {
            match read::<Time>(key, value)? {
                Some(time) => drop(self.mutes.insert(scope.to_owned(), time.at)),
                None => drop(self.mutes.remove(scope)),
            }
        } else if key == BEGINNING {
            self.tells_from = read::<Time>(key, value)?.map(|time| time.at);
        }
        Ok(())
    }

    /// Everything is restored: what follows from it is set up. Attempts that were under way are made
    /// again, with the same id.
    pub fn restored(&mut self) {
        let keys: Vec<String> = self.alerts.keys().cloned().collect();
        for (key, entry) in &self.alerts {
            self.by_age.insert((entry.seen_at, key.clone()));
        }
        for key in keys {
            self.plan(&key);
        }
        let mut sending: Vec<(u64, u64)> = Vec::new();
        let mut open_alerts = Vec::new();
        for message in self.messages.values() {
            self.next_queued = self.next_queued.max(message.queued + 1);
            let recent = self.recent.entry(message.route.clone()).or_default();
            recent.push_back(message.created_at);
            if !message.state.is_open() {
                let time = message.ended_at.unwrap_or(message.created_at);
                let due = time.plus(super::lasting::KEPT);
                self.timers.insert((due, Due::Message(message.number)));
                continue;
            }
            *self.backlog.entry(message.route.clone()).or_default() += 1;
            open_alerts.extend(message.alerts.clone());
            if message.state == State::Pending {
                let due = message.due_at;
                self.timers.insert((due, Due::Message(message.number)));
                let gathers = (message.route.clone(), message.what);
                self.gathering.insert(gathers, message.number);
            } else {
                sending.push((message.queued, message.number));
            }
        }
        for key in open_alerts {
            self.count_open(&key, 1);
        }
        sending.sort_unstable();
        for (_, number) in sending {
            if let Some(message) = self.messages.get(&number) {
                self.queues.push(message);
            }
            self.plan_fall_back(number);
        }
    }
}

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("texts and whole numbers always become JSON")
}

fn read<'v, T: Deserialize<'v>>(
    key: &str,
    value: Option<&'v [u8]>,
) -> Result<Option<T>, StoredError> {
    let read = value.map(serde_json::from_slice).transpose();
    read.map_err(|error: serde_json::Error| StoredError {
        key: key.to_owned(),
        detail: error.to_string(),
    })
}
