//! Requests that are answered when something has changed. A waiting one is a task and no thread.

use std::time::Duration;

use metrics::gauge;
use spendfuse_domain::budget::parse_duration;
use spendfuse_guard::{Guard, Mark};
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::{Instant, sleep, timeout_at};

use super::{ApiError, TOO_MANY_WAITING};
use crate::metrics::BLOCKLIST_WAITING;

/// The longest wait; whoever asks for more is answered after this.
const LONGEST: Duration = Duration::from_secs(30);
/// Under load a waiting request looks this often at most.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Wakes those who wait.
pub(crate) struct Waiting {
    now: watch::Sender<Seen>,
    places: Semaphore,
    most: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    mark: Mark,
    is_ending: bool,
}

/// One request that may wait.
pub(super) struct Wait<'a> {
    seen: watch::Receiver<Seen>,
    place: Option<SemaphorePermit<'a>>,
    began: Instant,
    ends: Instant,
}

impl Waiting {
    /// For so many requests at once that wait for what `guard` publishes.
    pub(crate) fn new(guard: &Guard, most: usize) -> Self {
        let now = watch::Sender::new(Seen::default());
        let told = now.clone();
        guard.on_publication(move |mark| {
            // Heartbeats are published, too, and change nothing for most.
            told.send_if_modified(|seen| std::mem::replace(&mut seen.mark, mark) != mark);
        });
        Self {
            now,
            places: Semaphore::new(most),
            most,
        }
    }

    /// Nobody waits any more.
    pub(crate) fn end(&self) {
        self.now.send_modify(|seen| seen.is_ending = true);
    }

    /// Begins to wait for as long as a query says: `30s`, `500ms`.
    pub(super) fn begin(&self, wait: Option<&str>) -> Result<Wait<'_>, ApiError> {
        let wait = wait.map(read).transpose()?.unwrap_or_default();
        let place = match wait.is_zero() {
            true => None,
            false => Some(self.places.try_acquire().map_err(|_| self.full())?),
        };
        if place.is_some() {
            gauge!(BLOCKLIST_WAITING).increment(1);
        }
        let began = Instant::now();
        Ok(Wait {
            // What changes from now on is noticed, whether or not the first look shows it.
            seen: self.now.subscribe(),
            place,
            began,
            ends: began + wait.min(LONGEST),
        })
    }

    fn full(&self) -> ApiError {
        let most = self.most;
        let message = format!(
            "{most} requests wait for the blocklist already (half of sidecar.max_connections); ask without `wait`, or another sidecar"
        );
        ApiError::new(TOO_MANY_WAITING, message)
    }
}

impl Wait<'_> {
    /// For how long it has waited.
    pub(super) fn waited(&self) -> Duration {
        self.began.elapsed()
    }

    /// Whether there is still time to wait.
    pub(super) fn may_wait(&mut self) -> bool {
        let is_ending = self.seen.borrow_and_update().is_ending;
        self.place.is_some() && !is_ending && Instant::now() < self.ends
    }

    /// Waits for a change, or to the end.
    pub(super) async fn wait(&mut self) {
        let changed = timeout_at(self.ends, self.seen.changed()).await;
        if changed.is_ok() {
            sleep(LOOK_EVERY).await;
        }
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if self.place.is_some() {
            gauge!(BLOCKLIST_WAITING).decrement(1);
        }
    }
}

fn read(text: &str) -> Result<Duration, ApiError> {
    let millis = parse_duration(text).and_then(|millis| u64::try_from(millis).ok());
    let read = millis.map(Duration::from_millis);
    read.ok_or_else(|| ApiError::bad_request("wait is no duration; write it like 5s or 500ms"))
}
