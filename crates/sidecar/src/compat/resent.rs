//! Batches whose answer their sender never saw, so that it sends them again.
//!
//! Margint's events have no identity, and two calls may be alike to the last byte. Only one thing
//! tells a repetition: its client puts what it could not deliver *in front of* the next batch. So
//! the next batch that begins with exactly those events, after a connection that ended before the
//! answer, has them for the second time.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// For how long a client is expected to try again.
const REMEMBERED: Duration = Duration::from_secs(15 * 60);
/// Events of all batches that are remembered, 8 bytes each.
const MOST_EVENTS: usize = 200_000;

/// Batches without an answer.
#[derive(Debug, Default)]
pub(super) struct Resent(Mutex<Vec<Batch>>);

#[derive(Debug)]
struct Batch {
    key: u64,
    events: Vec<u64>,
    since: Instant,
    /// How many of its events are safe, from the first on; none while that is not known.
    safe: watch::Receiver<Option<usize>>,
}

/// A batch that is being taken. Dropped before [`Taking::answered`], it is remembered.
pub(super) struct Taking<'r> {
    resent: &'r Resent,
    batch: Option<Batch>,
}

/// Tells how many of a batch's events are safe, however its sender's connection ended.
pub(super) struct Outcome(watch::Sender<Option<usize>>);

impl Outcome {
    pub(super) fn tell(&self, safe: usize) {
        self.0.send_replace(Some(safe));
    }
}

impl Resent {
    /// How many of `events` were taken before, and are the repetition that a client makes of them.
    pub(super) async fn repeated(&self, key: u64, events: &[u64]) -> usize {
        let Some(mut batch) = self.find(key, events) else {
            return 0;
        };
        // It may still be under way to the broker.
        let known = batch.safe.wait_for(Option::is_some).await;
        known.map_or(0, |safe| safe.unwrap_or(0))
    }

    /// Takes the longest batch that `events` begin with.
    fn find(&self, key: u64, events: &[u64]) -> Option<Batch> {
        let mut batches = self.lock();
        batches.retain(|batch| batch.since.elapsed() < REMEMBERED);
        let begins = |batch: &Batch| batch.key == key && events.starts_with(&batch.events);
        let found = batches
            .iter()
            .enumerate()
            .filter(|(_, batch)| begins(batch));
        let (at, _) = found.max_by_key(|(_, batch)| batch.events.len())?;
        Some(batches.swap_remove(at))
    }

    /// Begins to take a batch.
    pub(super) fn take(&self, key: u64, events: Vec<u64>) -> (Taking<'_>, Outcome) {
        let (tell, safe) = watch::channel(None);
        let batch = Batch {
            key,
            events,
            since: Instant::now(),
            safe,
        };
        let taking = Taking {
            resent: self,
            batch: Some(batch),
        };
        (taking, Outcome(tell))
    }

    fn remember(&self, batch: Batch) {
        let mut batches = self.lock();
        batches.push(batch);
        let events = |batches: &Vec<Batch>| -> usize {
            batches.iter().map(|batch| batch.events.len()).sum()
        };
        while events(&batches) > MOST_EVENTS {
            batches.remove(0);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Batch>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taking<'_> {
    /// The sender gets an answer, so it will not send these events again.
    pub(super) fn answered(mut self) {
        self.batch = None;
    }
}

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        if let Some(batch) = self.batch.take().filter(|batch| !batch.events.is_empty()) {
            self.resent.remember(batch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: u64 = 1;

    #[tokio::test]
    async fn what_was_safe_without_an_answer_is_not_taken_again_and_only_once() {
        let resent = Resent::default();
        let (taking, outcome) = resent.take(KEY, vec![7, 8]);
        drop(taking);
        outcome.tell(2);
        assert_eq!(resent.repeated(KEY, &[7, 9]).await, 0, "another batch");
        assert_eq!(resent.repeated(KEY + 1, &[7, 8]).await, 0, "another sender");
        assert_eq!(resent.repeated(KEY, &[7, 8, 9]).await, 2);
        assert_eq!(resent.repeated(KEY, &[7, 8, 9]).await, 0, "two like calls");
    }

    #[tokio::test]
    async fn what_was_answered_or_lost_is_taken() {
        let resent = Resent::default();
        let (taking, outcome) = resent.take(KEY, vec![7]);
        outcome.tell(1);
        taking.answered();
        assert_eq!(resent.repeated(KEY, &[7]).await, 0, "two calls alike");
        let (taking, outcome) = resent.take(KEY, vec![7]);
        drop(taking);
        outcome.tell(0);
        assert_eq!(resent.repeated(KEY, &[7]).await, 0, "it was not safe");
        let (taking, outcome) = resent.take(KEY, vec![7, 8, 9]);
        drop(taking);
        outcome.tell(1);
        assert_eq!(
            resent.repeated(KEY, &[7, 8, 9]).await,
            1,
            "the rest was not"
        );
        let (taking, outcome) = resent.take(KEY, vec![7]);
        drop((taking, outcome));
        assert_eq!(resent.repeated(KEY, &[7]).await, 0, "it was given up");
    }
}
