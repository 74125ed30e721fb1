//! Names of reservations, as callers know them: `<holder>.<incarnation>-<n>`.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use spendfuse_domain::UnixMillis;
use spendfuse_guard::{Guard, Hold, Now};

use crate::in_flight::InFlight;
use crate::metrics::RESERVATIONS;

/// How long a reservation lasts where its caller does not say.
pub(crate) const USUAL_TIMEOUT: Duration = Duration::from_secs(600);
/// The longest time that a caller may ask for at once, seconds; it can be extended.
pub(crate) const LONGEST_TIMEOUT_SECONDS: u64 = 24 * 60 * 60;

/// Tokens of an answer, and of an input, whose length nobody says.
pub(crate) const USUAL_TOKENS: u64 = 4_096;

/// Longer names of instances are cut.
const LONGEST_HOLDER: usize = 64;

/// The reservations that this process has given.
#[derive(Debug)]
pub struct Reservations {
    /// What their names begin with.
    prefix: String,
    /// This sidecar, and 64 random bits of this start.
    holder: (String, String),
}

impl Reservations {
    /// Reservations of the sidecar with this name, since this start: another start knows none of
    /// them, and gives others the same numbers.
    pub(crate) fn new(instance: &str) -> Self {
        let plain = |character: char| match character {
            'A'..='Z' | 'a'..='z' | '0'..='9' | '-' | '_' | '.' => character,
            _ => '-',
        };
        let mut holder: String = instance.chars().map(plain).take(LONGEST_HOLDER).collect();
        if holder.is_empty() {
            holder.push_str("sidecar");
        }
        // Each `RandomState` has keys of its own, which nobody else guesses or repeats.
        let incarnation = RandomState::new().build_hasher().finish();
        let incarnation = format!("{incarnation:016x}");
        Self {
            prefix: format!("{holder}.{incarnation}-"),
            holder: (holder, incarnation),
        }
    }

    /// The name of this sidecar in them, and the random bits of this start.
    pub(crate) fn holder(&self) -> (&str, &str) {
        (&self.holder.0, &self.holder.1)
    }

    /// The name of the reservation with this number.
    pub(crate) fn name(&self, number: u64) -> String {
        format!("{}{number}", self.prefix)
    }

    /// The number of the reservation with this name; `None` where it is not of this process.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        let number = name.strip_prefix(&*self.prefix)?;
        let parsed = number.parse().ok()?;
        // A number has one way to be written.
        (self.name(parsed) == name).then_some(parsed)
    }
}

/// What reserving needs.
pub struct Reserver {
    /// Names of what is reserved.
    pub(crate) reservations: Reservations,
    /// What holds for other sidecars too; `None` where there is no broker.
    pub(crate) in_flight: Option<Arc<InFlight>>,
}

/// When a hold ends that was looked at just now.
pub(crate) fn ends_at(hold: &Hold, now: Now) -> UnixMillis {
    now.wall.plus(hold.lasts_millis)
}

/// Gives back what was reserved for a call that is not made. Returns whether it was known.
pub(crate) fn release(guard: &Guard, number: u64) -> bool {
    let is_known = guard.release(number);
    if is_known {
        count("released");
    }
    is_known
}

/// Counts what a reservation has come to.
pub(crate) fn count(outcome: &'static str) {
    counter!(RESERVATIONS, "outcome" => outcome).increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_start_have_numbers() {
        let own = Reservations::new("host 1.example/\u{1f}");
        let other = Reservations::new("host 1.example/\u{1f}");
        let name = own.name(17);
        assert!(name.starts_with("host-1.example--."), "{name}");
        assert_eq!(own.number(&name), Some(17));
        assert_eq!(other.number(&name), None);
        for wrong in [
            "",
            "17",
            &name[..name.len() - 2],
            &format!("{name}x"),
            &name.replace("-17", "-017"),
        ] {
            assert_eq!(own.number(wrong), None, "{wrong}");
        }
        let long = Reservations::new(&"x".repeat(500)).name(u64::MAX);
        assert!(long.len() < 128 && Reservations::new("").name(1).starts_with("sidecar."));
    }
}
