//! Carries attempts to the channels and outcomes back. Each attempt is a task of its own, and each
//! channel has its own places for them: one that is slow or dead holds up no other.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use metrics::{counter, histogram};
use spendfuse_bus::Condition;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::channel::Channels;
use crate::metrics::{ATTEMPT_SECONDS, ATTEMPTS_TOTAL};
use crate::rules::{Attempt, Outcome};

/// Attempts at one channel that are under way in one process.
const AT_ONCE: usize = 32;
/// The log says of a channel that it fails once in this time.
const LOG_AGAIN: Duration = Duration::from_secs(60);

/// An attempt that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) number: u64,
    pub(crate) place: usize,
    pub(crate) outcome: Outcome,
}

/// A channel that does not take messages.
struct Failing {
    /// What it last said.
    reason: String,
    /// Whether the log says so.
    is_logged: bool,
}

/// The way from a process's partitions to its channels and back.
pub(crate) struct Dispatch {
    channels: Channels,
    runtime: Handle,
    places: Mutex<HashMap<String, Arc<Semaphore>>>,
    ended: Mutex<HashMap<u32, Vec<Ended>>>,
    /// The channels that did not take what they were sent last.
    failing: Mutex<BTreeMap<String, Failing>>,
    /// When the log last said of a channel that it fails.
    logged: Mutex<HashMap<String, Instant>>,
}

impl Dispatch {
    pub(crate) fn new(channels: Channels, runtime: Handle) -> Self {
        Self {
            channels,
            runtime,
            places: Mutex::default(),
            ended: Mutex::default(),
            failing: Mutex::default(),
            logged: Mutex::default(),
        }
    }

    /// Begins an attempt of a partition.
    pub(crate) fn begin(self: &Arc<Self>, partition: u32, attempt: Attempt) {
        let channel = self.channels.of_place(&attempt.letter.to).to_owned();
        let places = Arc::clone(
            locked(&self.places)
                .entry(channel.clone())
                .or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE))),
        );
        let (number, place) = (attempt.number, attempt.place);
        let dispatch = Arc::clone(self);
        let sending = self.runtime.spawn(async move {
            let _permit = places.acquire().await;
            dispatch.send(&channel, &attempt).await
        });
        let dispatch = Arc::clone(self);
        self.runtime.spawn(async move {
            let outcome = sending.await.unwrap_or_else(|error| Outcome::Later {
                reason: format!("the attempt broke off: {error}"),
                after: None,
            });
            let ended = Ended {
                number,
                place,
                outcome,
            };
            locked(&dispatch.ended)
                .entry(partition)
                .or_default()
                .push(ended);
        });
    }

    async fn send(&self, channel: &str, attempt: &Attempt) -> Outcome {
        let began = Instant::now();
        let outcome = self.channels.send(&attempt.letter).await;
        let (name, reason) = match &outcome {
            Outcome::Delivered => ("delivered", None),
            Outcome::Later { reason, .. } => ("later", Some(reason)),
            Outcome::Refused { reason } => ("refused", Some(reason)),
        };
        let channel = channel.to_owned();
        counter!(ATTEMPTS_TOTAL, "channel" => channel.clone(), "outcome" => name).increment(1);
        histogram!(ATTEMPT_SECONDS, "channel" => channel.clone())
            .record(began.elapsed().as_secs_f64());
        self.note(channel, &attempt.letter.id, reason);
        outcome
    }

    /// Logs when a channel begins to fail, and when it works again: at most once in [`LOG_AGAIN`], since
    /// one that takes every second message would flood the log.
    fn note(&self, channel: String, id: &str, reason: Option<&String>) {
        let mut failing = locked(&self.failing);
        let Some(reason) = reason else {
            match failing.remove(&channel).is_some_and(|was| was.is_logged) {
                true => tracing::info!(channel, id, "takes messages again"),
                false => tracing::debug!(channel, id, "delivered"),
            }
            return;
        };
        let was_logged = failing.get(&channel).is_some_and(|was| was.is_logged);
        let is_news = !was_logged && self.may_log(&channel);
        match is_news {
            true => {
                tracing::warn!(channel, id, error = %reason, "does not take messages, trying again");
            }
            false => tracing::debug!(channel, id, error = %reason, "not delivered"),
        }
        let now = Failing {
            reason: reason.clone(),
            is_logged: was_logged || is_news,
        };
        failing.insert(channel, now);
    }

    fn may_log(&self, channel: &str) -> bool {
        let mut logged = locked(&self.logged);
        let may = logged
            .get(channel)
            .is_none_or(|last| last.elapsed() >= LOG_AGAIN);
        if may {
            logged.insert(channel.to_owned(), Instant::now());
        }
        may
    }

    /// The attempts of a partition that have ended since the last call.
    pub(crate) fn take_ended(&self, partition: u32) -> Vec<Ended> {
        locked(&self.ended).remove(&partition).unwrap_or_default()
    }

    /// Channels that do not take messages are worth knowing, and no reason to restart anything.
    pub(crate) fn condition(&self) -> Condition {
        let failing = locked(&self.failing);
        let sentences = failing.iter().map(|(channel, failing)| {
            format!("{channel} does not take messages: {}", failing.reason)
        });
        match failing.is_empty() {
            true => Condition::Ready,
            false => Condition::ReadyBut(sentences.collect::<Vec<_>>().join("; ")),
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
