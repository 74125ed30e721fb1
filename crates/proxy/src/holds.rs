//! What is held for calls under way: it would run out while an answer is long in the making.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use spendfuse_sidecar::Sidecar;

/// How soon a hold is extended; it lasts for twice as long.
const EXTENDED_AFTER: Duration = Duration::from_secs(300);
/// How often such holds are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Reservations of calls under way, and since when each is held.
#[derive(Debug, Default)]
pub(crate) struct Holds(Mutex<HashMap<String, Instant>>);

impl Holds {
    /// Something is held for a call from now on.
    pub(crate) fn begin(&self, reservation: &str) {
        self.lock().insert(reservation.to_owned(), Instant::now());
    }

    /// The call is at its end: what is held lasts for no longer than its time.
    pub(crate) fn end(&self, reservation: &str) {
        self.lock().remove(reservation);
    }

    /// Extends what is held for long, until it is dropped.
    pub(crate) async fn extend(&self, sidecar: &Sidecar) {
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            look.tick().await;
            for reservation in self.due(Instant::now()) {
                sidecar.extend(&reservation);
            }
        }
    }

    /// Those that are to be extended at `now`; they count as held since then.
    fn due(&self, now: Instant) -> Vec<String> {
        let mut due = Vec::new();
        for (reservation, since) in &mut *self.lock() {
            if now.saturating_duration_since(*since) >= EXTENDED_AFTER {
                *since = now;
                due.push(reservation.clone());
            }
        }
        due
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_extended_until_its_call_is_at_its_end() {
        let holds = Holds::default();
        for reservation in ["long", "short"] {
            holds.begin(reservation);
        }
        let later = Instant::now() + EXTENDED_AFTER;
        holds.end("short");
        assert_eq!(holds.due(later - EXTENDED_AFTER), [""; 0]);
        assert_eq!(holds.due(later), ["long"]);
        // Held for as long again.
        assert_eq!(holds.due(later + LOOK_EVERY), [""; 0]);
        assert_eq!(holds.due(later + EXTENDED_AFTER), ["long"]);
        holds.end("long");
        assert_eq!(holds.due(later + 3 * EXTENDED_AFTER), [""; 0]);
    }
}
