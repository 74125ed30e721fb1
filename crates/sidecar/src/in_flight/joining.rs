//! A sidecar that has just started knows neither what is spent nor what others hold.

use std::time::Duration;

use spendfuse_broken::{Break, is_broken};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// From a sidecar's start until it knows, for the first time, what it admits by.
pub(super) struct Joining {
    has_joined: watch::Sender<bool>,
    deadline: Instant,
}

impl Joining {
    /// Lets nobody wait for longer than `within` from now on.
    pub(super) fn begin(within: Duration) -> Self {
        Self {
            has_joined: watch::Sender::new(false),
            deadline: Instant::now() + within,
        }
    }

    pub(super) fn ends(&self) {
        self.has_joined
            .send_if_modified(|has_joined| !std::mem::replace(has_joined, true));
    }

    /// Returns at once, but for a sidecar that has just begun and does not know yet.
    pub(super) async fn wait(&self) {
        if *self.has_joined.borrow() || is_broken(Break::NewcomerAdmitsAlone) {
            return;
        }
        let mut joined = self.has_joined.subscribe();
        // The sender lives as long as this; in time or not, the call is judged.
        let _ = timeout_at(self.deadline, joined.wait_for(|has_joined| *has_joined)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn who_asks_too_early_waits_until_it_ends_or_as_long_as_may_be() {
        let joining = Joining::begin(LONG);
        let began = Instant::now();
        let end = async {
            tokio::time::sleep(SHORT).await;
            joining.ends();
        };
        tokio::join!(joining.wait(), end);
        assert!((SHORT..LONG).contains(&began.elapsed()));
        joining.wait().await;

        let alone = Joining::begin(SHORT);
        let began = Instant::now();
        alone.wait().await;
        assert!((SHORT..LONG).contains(&began.elapsed()));
        let began = Instant::now();
        alone.wait().await;
        assert!(began.elapsed() < SHORT);
    }
}
