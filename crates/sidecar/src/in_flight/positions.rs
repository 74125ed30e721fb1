//! How far the blocklist is read, and how far readers of the guard see it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use spendfuse_guard::inflight::Seen;

/// By partition, the offset of the last record.
#[derive(Debug, Default)]
pub(crate) struct Positions(Mutex<Both>);

#[derive(Debug, Default)]
struct Both {
    read: Seen,
    shown: Seen,
    has_moved: bool,
}

impl Positions {
    fn lock(&self) -> MutexGuard<'_, Both> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
        }
    }

    pub(crate) fn read(&self) -> Seen {
        self.lock().read.clone()
    }

    pub(crate) fn shown(&self) -> Seen {
        self.lock().shown.clone()
    }
}
