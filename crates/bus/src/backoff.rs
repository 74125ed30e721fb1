//! Pauses between attempts at what may work later.

use std::time::Duration;

/// Pauses that double, from a first one up to a longest one.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// The first [`Self::pause`] is `first`; none is longer than `longest`.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            next: first,
        }
    }

    /// How long to wait now, before the next attempt.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.longest);
        pause
    }

    /// Waits that long, where nobody asks to stop but by a signal.
    #[allow(
        clippy::disallowed_methods,
        reason = "the pause is the point: nothing tells that a server is back"
    )]
    pub fn wait(&mut self) {
        std::thread::sleep(self.pause());
    }

    /// After success: the next failure is a first one.
    pub fn reset(&mut self) {
        self.next = self.first;
    }

    /// After an attempt that failed in the end: one that went well for long was a success.
    pub fn reset_after(&mut self, lasted: Duration) {
        if lasted > self.longest * 2 {
            self.reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_again_after_success() {
        let millis = Duration::from_millis;
        let mut backoff = Backoff::new(millis(100), millis(350));
        let pauses: Vec<_> = (0..4).map(|_| backoff.pause()).collect();
        assert_eq!(pauses, [100, 200, 350, 350].map(millis));
        backoff.reset_after(millis(700));
        assert_eq!(backoff.pause(), millis(350), "it did not go well for long");
        backoff.reset_after(millis(701));
        assert_eq!(backoff.pause(), millis(100));
        backoff.reset();
        assert_eq!(backoff.pause(), millis(100));
    }
}
