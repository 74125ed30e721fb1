//! Carries attempts to the channels and outcomes back. Each attempt is a task of its own, and each
//! channel has its own places for them: one that is slow or dead holds up no other.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use metrics::{counter, histogram};
use spendfuse_bus::Condition;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::channel::Channels;
use crate::metrics::{ATTEMPT_SECONDS, ATTEMPTS_TOTAL};
use crate::rules::{Attempt, Outcome};

/// Attempts at one channel that are under way in one process.
const AT_ONCE: usize = 32;

/// An attempt that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) number: u64,
    pub(crate) place: usize,
    pub(crate) outcome: Outcome,
}

/// The way from a process's partitions to its channels and back.
pub(crate) struct Dispatch {
    channels: Channels,
    runtime: Handle,
    places: Mutex<HashMap<String, Arc<Semaphore>>>,
    ended: Mutex<HashMap<u32, Vec<Ended>>>,
    /// What each channel last said, where it was no yes.
    failing: Mutex<BTreeMap<String, String>>,
}

impl Dispatch {
    pub(crate) fn new(channels: Channels, runtime: Handle) -> Self {
        Self {
            channels,
            runtime,
            places: Mutex::default(),
            ended: Mutex::default(),
            failing: Mutex::default(),
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

    /// Logs when a channel begins to fail, and when it works again; each attempt would be a flood.
    fn note(&self, channel: String, id: &str, reason: Option<&String>) {
        let mut failing = locked(&self.failing);
        let was_failing = failing.contains_key(&channel);
        match (reason, was_failing) {
            (None, true) => tracing::info!(channel, id, "takes messages again"),
            (None, false) => tracing::debug!(channel, id, "delivered"),
            (Some(reason), false) => {
                tracing::warn!(channel, id, error = %reason, "does not take messages, trying again");
            }
            (Some(reason), true) => tracing::debug!(channel, id, error = %reason, "not delivered"),
        }
        match reason {
            None => drop(failing.remove(&channel)),
            Some(reason) => drop(failing.insert(channel, reason.clone())),
        }
    }

    /// The attempts of a partition that have ended since the last call.
    pub(crate) fn take_ended(&self, partition: u32) -> Vec<Ended> {
        locked(&self.ended).remove(&partition).unwrap_or_default()
    }

    /// Channels that do not take messages are worth knowing, and no reason to restart anything.
    pub(crate) fn condition(&self) -> Condition {
        let failing = locked(&self.failing);
        let sentences = failing
            .iter()
            .map(|(channel, reason)| format!("{channel} does not take messages: {reason}"));
        match failing.is_empty() {
            true => Condition::Ready,
            false => Condition::ReadyBut(sentences.collect::<Vec<_>>().join("; ")),
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
