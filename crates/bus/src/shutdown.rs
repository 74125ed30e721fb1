//! A flag that asks every thread of the process to stop in order.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A request to stop, shared by its clones.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    requested: AtomicBool,
    /// Held while the flag changes, so that nobody who waits misses it.
    waiting: Mutex<()>,
    changed: Condvar,
}

impl Shutdown {
    /// A flag that nobody has set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks to stop. There is no way back.
    pub fn request(&self) {
        let _guard = self
            .inner
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        self.inner.requested.store(true, Ordering::SeqCst);
        self.inner.changed.notify_all();
    }

    /// Whether a stop was asked for; cheap enough to ask for each record.
    pub fn is_requested(&self) -> bool {
        self.inner.requested.load(Ordering::Relaxed)
    }

    /// Waits until a stop is asked for, at most `timeout`; returns whether it was.
    pub fn wait(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut guard = self
            .inner
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        while !self.inner.requested.load(Ordering::SeqCst) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            guard = self
                .inner
                .changed
                .wait_timeout(guard, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        true
    }
}
