//! The ways to people: each turns a letter into what its receiver expects, and its answer into an
//! [`Outcome`].
//!
//! A request has an end (`timeout`), follows no redirect, and of an answer no more is read than a
//! reason is long. Addresses and secrets stand in no error text.

mod alertmanager;
mod http;
mod mail;
mod pagerduty;
mod slack;
mod teams;
mod webhook;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use spendfuse_domain::{AlertPlace, UnixMillis};

use crate::letter::Letter;
use crate::rules::Outcome;
use http::{Client, Post};
use mail::Mail;

pub use mail::{Security, Smtp};

/// One channel of the settings.
#[derive(Clone, PartialEq, Eq)]
pub struct Channel {
    /// What its receiver understands.
    pub kind: ChannelKind,
    /// Where to; a secret for Slack and Teams.
    pub url: String,
    /// What a webhook is signed with, PagerDuty's routing key, Alertmanager's bearer token.
    pub secret: String,
}

/// What receivers understand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelKind {
    /// JSON, signed as Standard Webhooks say.
    Webhook,
    /// Slack's incoming webhooks.
    Slack,
    /// Teams' workflows that post a card.
    Teams,
    /// PagerDuty's events API, version 2.
    PagerDuty,
    /// Prometheus' Alertmanager, API version 2.
    Alertmanager,
}

/// Why a channel cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// An address or a secret that is none.
    #[error("channel {name}: {reason}")]
    Channel {
        /// Its name.
        name: String,
        /// What is wrong, and what to write.
        reason: String,
    },
    /// Certificates that cannot be read.
    #[error("cannot read the certificates in {path}: {reason}")]
    BadCa {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A mail server that cannot be one.
    #[error("mail: {0}")]
    Mail(String),
}

impl ChannelKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [
        Self::Webhook,
        Self::Slack,
        Self::Teams,
        Self::PagerDuty,
        Self::Alertmanager,
    ];

    /// The name in settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Slack => "slack",
            Self::Teams => "teams",
            Self::PagerDuty => "pagerduty",
            Self::Alertmanager => "alertmanager",
        }
    }

    /// The kind of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// Neither address nor secret is shown.
impl std::fmt::Debug for Channel {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Channel").field(&self.kind).finish()
    }
}

/// All channels, ready to be used.
pub struct Channels {
    named: BTreeMap<String, Channel>,
    client: Client,
    mail: Option<Mail>,
}

impl Channels {
    /// Channels by name, a mail server where there is one, and how long an attempt may take.
    ///
    /// # Errors
    /// [`ChannelError`] for settings that can never work.
    pub fn new(
        named: BTreeMap<String, Channel>,
        smtp: Option<Smtp>,
        ca_file: Option<PathBuf>,
        timeout: Duration,
    ) -> Result<Self, ChannelError> {
        for (name, channel) in &named {
            channel.check().map_err(|reason| ChannelError::Channel {
                name: name.clone(),
                reason,
            })?;
        }
        Ok(Self {
            client: Client::new(ca_file.as_deref(), timeout)?,
            mail: smtp
                .map(|smtp| Mail::new(smtp, ca_file.as_deref(), timeout))
                .transpose()?,
            named,
        })
    }

    /// The channel whose attempts count together: all mail goes to one server.
    pub fn of_place<'p>(&self, to: &'p str) -> &'p str {
        match AlertPlace::parse(to) {
            Some(AlertPlace::Mail(_)) => "mail",
            _ => to,
        }
    }

    /// Brings a letter to its place.
    pub async fn send(&self, letter: &Letter) -> Outcome {
        let refused = |reason: &str| Outcome::Refused {
            reason: reason.to_owned(),
        };
        match AlertPlace::parse(&letter.to) {
            Some(AlertPlace::Mail(address)) => match &self.mail {
                Some(mail) => mail.send(address, letter).await,
                None => refused("no mail server is set (notifier.smtp_host)"),
            },
            Some(AlertPlace::Channel(name)) => match self.named.get(name) {
                Some(channel) => self.client.post(channel.post(letter)).await,
                None => refused("the settings have no channel of that name"),
            },
            None => refused("it is neither a channel nor a mail address"),
        }
    }
}

impl Channel {
    fn check(&self) -> Result<(), String> {
        http::check_address(&self.address())?;
        if self.kind == ChannelKind::PagerDuty && self.secret.is_empty() {
            return Err("PagerDuty needs its routing key as `secret`".to_owned());
        }
        webhook::key(&self.secret).map(drop)
    }

    fn address(&self) -> String {
        match self.kind {
            ChannelKind::PagerDuty if self.url.is_empty() => pagerduty::ADDRESS.to_owned(),
            ChannelKind::Alertmanager => alertmanager::address(&self.url),
            _ => self.url.clone(),
        }
    }

    /// The request that brings this letter.
    fn post(&self, letter: &Letter) -> Post {
        let mut headers = vec![("idempotency-key", letter.id.clone())];
        let body = match self.kind {
            ChannelKind::Webhook => webhook::body(letter),
            ChannelKind::Slack => slack::body(letter),
            ChannelKind::Teams => teams::body(letter),
            ChannelKind::PagerDuty => pagerduty::body(letter, &self.secret),
            ChannelKind::Alertmanager => alertmanager::body(letter, now()),
        };
        let body = body.to_string();
        match self.kind {
            ChannelKind::Webhook => {
                headers.extend(webhook::signed(&letter.id, now(), &body, &self.secret));
            }
            ChannelKind::Alertmanager if !self.secret.is_empty() => {
                headers.push(("authorization", format!("Bearer {}", self.secret)));
            }
            _ => {}
        }
        Post {
            address: self.address(),
            headers,
            body,
        }
    }
}

fn now() -> UnixMillis {
    Timestamp::now().into()
}

/// The beginning of a text, at most `most` characters.
fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some(_) => {
            let kept: String = text.chars().take(most.saturating_sub(1)).collect();
            format!("{kept}…")
        }
    }
}

/// An object of names and values.
fn object(pairs: impl IntoIterator<Item = (&'static str, String)>) -> Value {
    let pairs = pairs.into_iter();
    pairs
        .map(|(name, value)| (name.to_owned(), Value::from(value)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}
