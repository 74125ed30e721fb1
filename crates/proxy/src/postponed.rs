//! Holds of responses that are made in the background, until somebody asks what they have cost.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Responses that are waited for at once.
const MOST: usize = 10_000;
/// Bytes of a response's name; OpenAI's have some sixty.
const LONGEST_NAME: usize = 256;
/// How long a hold lasts.
const LASTS: Duration = Duration::from_secs(600);

/// Reservations by upstream and response.
#[derive(Debug, Default)]
pub(crate) struct Postponed(Mutex<HashMap<(String, String), Held>>);

#[derive(Debug)]
struct Held {
    reservation: String,
    since: Instant,
    /// Whether the response has said what it cost.
    is_told: bool,
}

impl Postponed {
    /// Keeps the hold of a response, where there is room for it and a name to find it by.
    pub(crate) fn keep(&self, upstream: &str, response: &str, reservation: String) {
        if response.is_empty() || response.len() > LONGEST_NAME {
            return;
        }
        let mut all = self.lock();
        if all.len() >= MOST {
            all.retain(|_, held| !held.is_told && held.since.elapsed() < LASTS);
        }
        if all.len() >= MOST {
            return;
        }
        let held = Held {
            reservation,
            since: Instant::now(),
            is_told: false,
        };
        all.insert((upstream.to_owned(), response.to_owned()), held);
    }

    /// The reservation of a response that is still made: it is kept for as long again.
    pub(crate) fn still(&self, upstream: &str, response: &str) -> Option<String> {
        let key = (upstream.to_owned(), response.to_owned());
        let mut all = self.lock();
        let held = all.get_mut(&key)?;
        held.since = Instant::now();
        Some(held.reservation.clone())
    }

    /// The reservation of a response that has said what it cost: while there is room, the same however
    /// often it is asked.
    pub(crate) fn told(&self, upstream: &str, response: &str) -> Option<String> {
        let key = (upstream.to_owned(), response.to_owned());
        let mut all = self.lock();
        let held = all.get_mut(&key)?;
        held.is_told = true;
        Some(held.reservation.clone())
    }

    /// The reservation of a response that costs nothing.
    pub(crate) fn take(&self, upstream: &str, response: &str) -> Option<String> {
        let key = (upstream.to_owned(), response.to_owned());
        self.lock().remove(&key).map(|held| held.reservation)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(String, String), Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_is_kept_until_its_response_is_told_and_not_without_bound() {
        let postponed = Postponed::default();
        let keep = |response: &str| postponed.keep("openai", response, "r-1".to_owned());
        let long = "x".repeat(LONGEST_NAME + 1);
        for nameless in ["", long.as_str()] {
            keep(nameless);
            assert_eq!(postponed.take("openai", nameless), None);
        }
        for number in 0..MOST {
            keep(&format!("resp_{number}"));
        }
        keep("resp_more");
        assert_eq!(postponed.take("openai", "resp_more"), None);
        assert_eq!(postponed.take("other", "resp_1"), None);
        assert_eq!(postponed.still("other", "resp_1"), None);
        assert_eq!(postponed.still("openai", "resp_1").as_deref(), Some("r-1"));
        for _ in 0..2 {
            assert_eq!(postponed.told("openai", "resp_1").as_deref(), Some("r-1"));
        }
        keep("resp_more");
        assert_eq!(postponed.told("openai", "resp_1"), None);
        assert_eq!(
            postponed.take("openai", "resp_more").as_deref(),
            Some("r-1")
        );
    }
}
