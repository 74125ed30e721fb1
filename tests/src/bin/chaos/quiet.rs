//! Phases in which nothing is sent: to one partition, or at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// No partition is quiet.
const NONE: u32 = u32::MAX;
const ALL: u32 = u32::MAX - 1;

/// Who may send what now. Clones tell each other.
#[derive(Clone, Debug)]
pub struct Quiet(Arc<AtomicU32>);

impl Default for Quiet {
    fn default() -> Self {
        Self(Arc::new(AtomicU32::new(NONE)))
    }
}

impl Quiet {
    /// Everybody may send.
    pub fn end(&self) {
        self.0.store(NONE, Ordering::Relaxed);
    }

    /// Nothing goes to this partition any more; with `None` to none.
    pub fn begin(&self, partition: Option<u32>) {
        self.0.store(partition.unwrap_or(ALL), Ordering::Relaxed);
    }

    /// Whether nobody may send.
    pub fn is_total(&self) -> bool {
        self.0.load(Ordering::Relaxed) == ALL
    }

    /// Whether nothing may go to this partition.
    pub fn holds(&self, partition: u32) -> bool {
        self.0.load(Ordering::Relaxed) == partition
    }
}
