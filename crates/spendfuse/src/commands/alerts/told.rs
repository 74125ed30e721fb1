//! Alerts as they were raised, and what the notifier's changelog says became of them.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use spendfuse_engine::alert::Alert;
use spendfuse_notify::rules::message::{Entry, Message, State};
use spendfuse_notify::rules::{ALERT_PREFIX, MESSAGE_PREFIX};

use super::super::{Failure, kafka, output};
use crate::settings::Settings;

/// An alert and what became of it.
pub(super) struct Told {
    pub(super) alert: Alert,
    /// `None` where no notifier has seen it.
    pub(super) entry: Option<Entry>,
    /// Messages about it, in order.
    pub(super) messages: Vec<Message>,
}

/// Every alert that the topic holds, the latest first.
pub(super) fn read(settings: &Settings) -> Result<Vec<Told>, Failure> {
    let topics = settings.topics();
    let mut alerts = BTreeMap::new();
    kafka::read_topic(settings, &topics.alerts, |record| {
        match serde_json::from_slice::<Alert>(record.value.unwrap_or_default()) {
            // Of those with one key the last one holds.
            Ok(alert) => drop(alerts.insert(alert.key.clone(), alert)),
            Err(error) => output::warning(format!(
                "alert at partition {} offset {}: {error}; left out",
                record.partition, record.offset
            )),
        }
    })?;
    let (mut entries, mut messages) = stored(settings)?;
    let mut all: Vec<Told> = alerts
        .into_values()
        .map(|alert| Told {
            entry: entries.remove(&alert.key),
            messages: messages.remove(&alert.key).unwrap_or_default(),
            alert,
        })
        .collect();
    all.sort_by_key(|told| std::cmp::Reverse(told.alert.at));
    Ok(all)
}

type Stored = (BTreeMap<String, Entry>, BTreeMap<String, Vec<Message>>);

/// What the notifier stored, by the alert's key.
fn stored(settings: &Settings) -> Result<Stored, Failure> {
    let table = kafka::read_table(settings, &settings.topics().notifier_changelog)?;
    let mut entries = BTreeMap::new();
    let mut messages: BTreeMap<String, Vec<Message>> = BTreeMap::new();
    for (key, value) in table {
        let read = if let Some(alert) = key.strip_prefix(ALERT_PREFIX) {
            serde_json::from_slice(&value)
                .map(|entry: Entry| drop(entries.insert(alert.to_owned(), entry)))
        } else if key.starts_with(MESSAGE_PREFIX) {
            serde_json::from_slice(&value).map(|message: Message| {
                for alert in &message.alerts {
                    let of_alert = messages.entry(alert.clone()).or_default();
                    of_alert.push(message.clone());
                }
            })
        } else {
            continue;
        };
        if let Err(error) = read {
            output::warning(format!("{key}: {error}; left out"));
        }
    }
    Ok((entries, messages))
}

impl Told {
    /// Whether somebody was told.
    pub(super) fn is_told(&self) -> bool {
        let mut messages = self.messages.iter();
        messages.any(|message| message.state == State::Delivered)
    }

    /// What became of it, in a few words.
    pub(super) fn outcome(&self) -> String {
        if let Some(message) = self.messages.last() {
            let (state, to) = (message.state.name(), message.to());
            return match message.state {
                State::Pending => format!("gathered until {}", message.due_at),
                _ => format!("{state} {to}"),
            };
        }
        let untold = self.entry.as_ref().map(|entry| entry.untold);
        match untold {
            None => "not seen by a notifier".to_owned(),
            Some(Some(reason)) => reason.name().to_owned(),
            Some(None) => "no message kept".to_owned(),
        }
    }

    pub(super) fn to_json(&self) -> Value {
        let mut value: Value = serde_json::from_slice(&self.alert.to_record()).unwrap_or_default();
        let entry = self.entry.as_ref();
        value["open"] = json!(entry.map(|entry| entry.is_open));
        value["untold"] = json!(entry.and_then(|entry| entry.untold));
        let messages = self.messages.iter();
        value["messages"] = messages.map(|message| json!(message)).collect();
        value
    }
}
