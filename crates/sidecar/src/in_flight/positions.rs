//! How far the blocklist is read, and how far readers of the guard see it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use spendfuse_guard::inflight::{Seen, is_behind};
use tokio::sync::Notify;

/// By partition, the offset of the last record.
#[derive(Debug, Default)]
pub(crate) struct Positions {
    both: Mutex<Both>,
    is_awaited: AtomicBool,
    news: Notify,
}

#[derive(Debug, Default)]
struct Both {
    read: Seen,
    shown: Seen,
    has_moved: bool,
}

impl Positions {
    fn lock(&self) -> MutexGuard<'_, Both> {
        self.both.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A record was read.
    pub(crate) fn has_read(&self, partition: u32, offset: i64) {
        let mut both = self.lock();
        both.read.insert(partition, offset);
        both.has_moved = true;
    }

    /// Readers see all that was read.
    pub(crate) fn are_shown(&self) {
        let both = &mut *self.lock();
        if std::mem::take(&mut both.has_moved) {
            both.shown.clone_from(&both.read);
            if self.is_awaited.load(Ordering::Relaxed) {
                self.news.notify_one();
            }
        }
    }

    /// Whether somebody waits, for readers to see more or for time to pass: who gives turns is told
    /// when that begins, and of everything that readers see meanwhile.
    pub(crate) fn are_awaited(&self, is_awaited: bool) {
        let was_awaited = self.is_awaited.swap(is_awaited, Ordering::Relaxed);
        if is_awaited && !was_awaited {
            self.news.notify_one();
        }
    }

    /// Returns when there is news for somebody who waits.
    pub(crate) async fn news(&self) {
        self.news.notified().await;
    }

    pub(crate) fn read(&self) -> Seen {
        self.lock().read.clone()
    }

    pub(crate) fn shown(&self) -> Seen {
        self.lock().shown.clone()
    }

    /// Whether readers see everything that is in `seen`.
    pub(crate) fn shows(&self, seen: &Seen) -> bool {
        is_behind(seen, &self.lock().shown)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn who_waits_hears_when_it_begins_and_of_all_that_readers_see_meanwhile() {
        let positions = Positions::default();
        let is_news = || timeout(Duration::from_millis(1), positions.news());
        positions.has_read(0, 7);
        positions.are_shown();
        assert!(is_news().await.is_err(), "nobody waits");
        positions.are_awaited(true);
        assert!(is_news().await.is_ok());
        positions.are_awaited(true);
        assert!(is_news().await.is_err(), "that is known");
        positions.are_shown();
        assert!(is_news().await.is_err(), "nothing new");
        positions.has_read(0, 8);
        assert!(is_news().await.is_err(), "not seen yet");
        positions.are_shown();
        assert!(is_news().await.is_ok());
    }
}
