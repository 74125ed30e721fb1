//! What a stage tells those who watch it.

use std::time::Duration;

/// A change in the life of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StageEvent {
    /// The worker connects, for the first time or again.
    Starting,
    /// It was assigned these partitions and reads their changelogs.
    Restoring {
        /// Partitions in order.
        partitions: Vec<u32>,
    },
    /// It processes these partitions.
    Running {
        /// Partitions in order; may be none.
        partitions: Vec<u32>,
        /// How long restoring them took.
        restore: Duration,
    },
    /// It lost its partitions to a rebalance.
    Revoked,
    /// It gave up its clients and state and will start again.
    Restarting {
        /// One word, as in the metric.
        reason: &'static str,
        /// The error.
        error: String,
    },
}

/// Watches a worker; called on the worker's thread, so it must return quickly.
pub trait StageObserver {
    /// Something changed.
    fn stage_event(&self, event: StageEvent);
}

/// Watches nothing.
impl StageObserver for () {
    fn stage_event(&self, _event: StageEvent) {}
}

impl<F: Fn(StageEvent)> StageObserver for F {
    fn stage_event(&self, event: StageEvent) {
        self(event);
    }
}
