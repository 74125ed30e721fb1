//! The caller whom the attack must not reach.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::client::Client;
use crate::admin::Address;
use crate::wait::pause;

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(5);
/// So often a new connection is made.
const FRESH_EVERY: usize = 10;

/// What it saw.
#[derive(Default)]
pub(super) struct Honest {
    /// In order of size, once asking has ended.
    pub(super) times: Vec<Duration>,
    pub(super) failures: usize,
}

impl Honest {
    pub(super) fn ask_until(address: Address, done: &AtomicBool) -> Self {
        let body = r#"{"workspace": "acme", "customer": "honest", "model": "gpt-4o-mini"}"#;
        let question = format!(
            "POST /v1/check HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut honest = Self::default();
        let mut client = Client::new(address);
        for number in 0.. {
            if done.load(Ordering::SeqCst) {
                break;
            }
            if number % FRESH_EVERY == 0 {
                client = Client::new(address);
            }
            let began = Instant::now();
            let answered = client.ask(question.as_bytes());
            // A connection that was cut while it was idle is no failure, as for every HTTP client.
            let answered = answered.or_else(|_| client.ask(question.as_bytes()));
            match answered {
                Ok(200) => honest.times.push(began.elapsed()),
                _ => honest.failures += 1,
            }
            pause(PAUSE);
        }
        honest.times.sort_unstable();
        honest
    }

    pub(super) fn percentile(&self, percent: usize) -> Duration {
        let at = self.times.len() * percent / 100;
        let last = self.times.len().saturating_sub(1);
        self.times.get(at.min(last)).copied().unwrap_or_default()
    }
}
