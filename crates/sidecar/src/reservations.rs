//! Names of reservations, as callers know them: `<holder>.<incarnation>-<n>`.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use spendfuse_domain::{ReservationId, UnixMillis};
use spendfuse_guard::{Guard, Hold, Now};

use crate::in_flight::InFlight;
use crate::metrics::RESERVATIONS;

/// How long a reservation lasts where its caller does not say.
pub(crate) const USUAL_TIMEOUT: Duration = Duration::from_secs(600);
/// The longest time that a caller may ask for at once, seconds; it can be extended.
pub(crate) const LONGEST_TIMEOUT_SECONDS: u64 = 24 * 60 * 60;

/// Tokens of an answer, and of an input, whose length nobody says.
pub(crate) const USUAL_TOKENS: u64 = 4_096;

/// The reservations that this process has given.
#[derive(Debug)]
pub struct Reservations {
    /// This sidecar, and 64 random bits of this start.
    holder: (String, String),
}

impl Reservations {
    /// Reservations of the sidecar with this name, since this start: another start knows none of
    /// them, and gives others the same numbers.
    pub(crate) fn new(instance: &str) -> Self {
        // Each `RandomState` has keys of its own, which nobody else guesses or repeats.
        let incarnation = RandomState::new().build_hasher().finish();
        let holder = ReservationId::holder_name(instance);
        Self {
            holder: (holder, format!("{incarnation:016x}")),
        }
    }

    /// The name of this sidecar in them, and the random bits of this start.
    pub(crate) fn holder(&self) -> (&str, &str) {
        (&self.holder.0, &self.holder.1)
    }

    /// The name of the reservation with this number.
    pub(crate) fn name(&self, number: u64) -> String {
        let (holder, incarnation) = self.holder();
        let id = ReservationId {
            holder,
            incarnation,
            number,
        };
        id.to_string()
    }

    /// The number of the reservation with this name; `None` where it is not of this process.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        let id = ReservationId::parse(name)?;
        ((id.holder, id.incarnation) == self.holder()).then_some(id.number)
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
        let own = Reservations::new("host-1");
        let other = Reservations::new("host-1");
        let name = own.name(17);
        assert_eq!(own.number(&name), Some(17));
        assert_eq!(other.number(&name), None);
        assert_eq!(own.number(&name.replace("host-1", "host-2")), None);
        assert_eq!(own.number(&format!("{name}x")), None);
    }
}
