//! What a follower tells of its trouble: that it begins, and that it is over.
//!
//! A topic of settings may say nothing for weeks. Whoever waited for its next record to know that the
//! brokers are back would not know it for as long: so they are asked.

use std::time::{Duration, Instant};

/// The same trouble is told and logged this often.
const REPORT_EVERY: Duration = Duration::from_secs(10);
/// The brokers are asked this often whether it is over.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// Whether something has failed since the brokers were heard last.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    asks_at: Option<Instant>,
    reported_at: Option<Instant>,
}

impl Trouble {
    /// Something failed. Whether that is to be told: where all was well before, or now and then.
    pub(super) fn begins(&mut self) -> bool {
        let is_known = self.asks_at.is_some();
        self.asks_at.get_or_insert(Instant::now() + ASK_EVERY);
        let is_due = { self.reported_at }.is_none_or(|at| at.elapsed() >= REPORT_EVERY);
        if is_due {
            self.reported_at = Some(Instant::now());
        }
        is_due || !is_known
    }

    /// The brokers are heard. Whether something had failed before.
    pub(super) fn ends(&mut self) -> bool {
        self.asks_at.take().is_some()
    }

    /// Whether to ask now.
    pub(super) fn asks(&mut self) -> bool {
        let now = Instant::now();
        let is_due = self.asks_at.is_some_and(|at| now >= at);
        if is_due {
            self.asks_at = Some(now + ASK_EVERY);
        }
        is_due
    }
}
