//! A flag that asks every thread of the process to stop in order.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// A request to stop, shared by its clones.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    requested: AtomicBool,
    /// Held while the flag changes, so that nobody who waits misses it. Flags that are set with
    /// this one.
    waiting: Mutex<Vec<Weak<Inner>>>,
    changed: Condvar,
}

impl Shutdown {
    /// A flag that nobody has set.
    pub fn new() -> Self {
        Self::default()
    }

    /// A flag that is set with this one, and may be set alone: for a part that can stop by itself.
    pub fn child(&self) -> Self {
        let child = Self::new();
        let mut children = self.inner.lock();
        children.retain(|child| child.strong_count() > 0);
        children.push(Arc::downgrade(&child.inner));
        if self.is_requested() {
            child.request();
        }
        drop(children);
        child
    }

    /// Asks to stop. There is no way back.
    pub fn request(&self) {
        self.inner.request();
    }

    /// Whether a stop was asked for; cheap enough to ask for each record.
    pub fn is_requested(&self) -> bool {
        self.inner.requested.load(Ordering::Relaxed)
    }

    /// Waits until a stop is asked for, at most `timeout`; returns whether it was.
    pub fn wait(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut guard = self.inner.lock();
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

impl Inner {
    fn request(&self) {
        let children = self.lock();
        self.requested.store(true, Ordering::SeqCst);
        self.changed.notify_all();
        for child in children.iter().filter_map(Weak::upgrade) {
            child.request();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Self>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_stops_with_the_whole_and_may_stop_alone() {
        let whole = Shutdown::new();
        let (one, other) = (whole.child(), whole.child());
        one.request();
        assert!(one.is_requested() && !whole.is_requested() && !other.is_requested());
        whole.request();
        assert!(other.wait(Duration::ZERO) && whole.child().is_requested());
    }
}
