//! Long work gives way: a check must not wait for thousands of events.

use std::time::{Duration, Instant};

const LONGEST: Duration = Duration::from_micros(100);

/// What one request may do before others get their turn on this thread.
#[derive(Debug)]
pub(crate) struct Turn(Instant);

impl Turn {
    pub(crate) fn begin() -> Self {
        Self(Instant::now())
    }

    /// To be called between small pieces of work.
    pub(crate) async fn give_way(&mut self) {
        if self.0.elapsed() >= LONGEST {
            tokio::task::yield_now().await;
            self.0 = Instant::now();
        }
    }
}
