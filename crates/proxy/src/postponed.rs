//! Responses that are made in the background, until somebody asks what they have cost: what is held for
//! them, and whom they count against.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::attribution::Who;

/// Responses that are waited for at once.
const MOST: usize = 10_000;
/// Bytes of a response's name; OpenAI's have some sixty.
const LONGEST_NAME: usize = 256;
/// Bytes of whom a response counts against.
const LONGEST_WHO: usize = 4096;
/// How long a hold lasts.
const LASTS: Duration = Duration::from_secs(600);

/// By upstream and response.
#[derive(Debug, Default)]
pub(crate) struct Postponed(Mutex<HashMap<(String, String), Held>>);

#[derive(Debug)]
struct Held {
    /// `None` where nothing could be held.
    reservation: Option<String>,
    who: Who,
    /// When its call was made, seconds since 1970.
    begun: i64,
    since: Instant,
    /// Whether the response has said what it cost.
    is_told: bool,
}

impl Postponed {
    /// Keeps the hold of a response of `who`, where there is room for it and a name to find it by.
    pub(crate) fn keep(
        &self,
        upstream: &str,
        response: &str,
        reservation: Option<String>,
        who: &Who,
        begun: i64,
    ) {
        let of_who = |(name, value): (&String, &String)| name.len() + value.len();
        let is_long =
            response.len() > LONGEST_NAME || who.iter().map(of_who).sum::<usize>() > LONGEST_WHO;
        if response.is_empty() || is_long {
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
            who: who.clone(),
            begun,
            since: Instant::now(),
            is_told: false,
        };
        all.insert((upstream.to_owned(), response.to_owned()), held);
    }

    /// When the call of a response was made, seconds since 1970; `None` where it is not kept here.
    pub(crate) fn begun(&self, upstream: &str, response: &str) -> Option<i64> {
        let key = (upstream.to_owned(), response.to_owned());
        self.lock().get(&key).map(|held| held.begun)
    }

    /// The reservation of a response that is still made: it is kept for as long again.
    pub(crate) fn still(&self, upstream: &str, response: &str) -> Option<String> {
        let key = (upstream.to_owned(), response.to_owned());
        let mut all = self.lock();
        let held = all.get_mut(&key)?;
        held.since = Instant::now();
        held.reservation.clone()
    }

    /// The reservation of a response that has said what it cost, and whose it is: while there is room, the
    /// same however often it is asked.
    pub(crate) fn told(&self, upstream: &str, response: &str) -> Option<(Option<String>, Who)> {
        let key = (upstream.to_owned(), response.to_owned());
        let mut all = self.lock();
        let held = all.get_mut(&key)?;
        held.is_told = true;
        Some((held.reservation.clone(), held.who.clone()))
    }

    /// The reservation of a response that costs nothing.
    pub(crate) fn take(&self, upstream: &str, response: &str) -> Option<String> {
        let key = (upstream.to_owned(), response.to_owned());
        self.lock().remove(&key)?.reservation
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
        let keep = |response: &str| {
            let who = [("customer".to_owned(), "c-42".to_owned())].into();
            postponed.keep("openai", response, Some("r-1".to_owned()), &who, 7);
        };
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
        assert_eq!(postponed.begun("other", "resp_1"), None);
        assert_eq!(postponed.begun("openai", "resp_1"), Some(7));
        assert_eq!(postponed.still("openai", "resp_1").as_deref(), Some("r-1"));
        for _ in 0..2 {
            let (held, who) = postponed.told("openai", "resp_1").unwrap();
            assert_eq!((held.as_deref(), &*who["customer"]), (Some("r-1"), "c-42"));
        }
        keep("resp_more");
        assert_eq!(postponed.told("openai", "resp_1"), None);
        assert_eq!(
            postponed.take("openai", "resp_more").as_deref(),
            Some("r-1")
        );
    }
}
