//! A call that waits to be settled, and for how long.

use std::time::Instant;

use spendfuse_loader::SameId;

use super::{AGAIN, GIVEN_UP_AFTER};

/// A call that has several entries, or of which more was told.
pub(super) struct Waiting {
    /// What people are told of where nobody settles it.
    pub(super) pair: Option<Box<SameId>>,
    pub(super) found_at: Instant,
    /// Since when it could be looked at.
    pub(super) since: Instant,
    pub(super) due: Instant,
    /// Whether corrections were sent.
    pub(super) is_corrected: bool,
}

impl Waiting {
    /// One that was found at this time.
    pub(super) fn found(found_at: Instant) -> Self {
        Self {
            pair: None,
            found_at,
            since: found_at,
            due: found_at,
            is_corrected: false,
        }
    }

    /// Nobody could look at it. The time to settle it in begins anew; returns what people are to be told
    /// where that takes long.
    pub(super) fn postpone(&mut self, now: Instant) -> Option<Box<SameId>> {
        (self.due, self.since) = (now + AGAIN, now);
        let is_long = now.duration_since(self.found_at) >= GIVEN_UP_AFTER;
        self.pair.take_if(|_| is_long)
    }
}

#[cfg(test)]
mod tests {
    use spendfuse_loader::CountedAt;

    use super::*;

    #[test]
    fn an_outage_takes_nothing_of_the_time_to_settle_a_call_and_is_told_once() {
        let counted = CountedAt {
            workspace: "acme".to_owned(),
            address: "1/0/7/0".to_owned(),
            event: "usage 0@7".to_owned(),
            session: String::new(),
            cost: "0.01".to_owned(),
        };
        let pair = SameId {
            source: "app".to_owned(),
            id: "r-1".to_owned(),
            first: counted.clone(),
            later: counted,
            rows: 2,
        };
        let found_at = Instant::now();
        let mut waiting = Waiting {
            pair: Some(Box::new(pair)),
            ..Waiting::found(found_at)
        };
        assert_eq!(waiting.postpone(found_at + GIVEN_UP_AFTER / 2), None);
        let long = found_at + GIVEN_UP_AFTER;
        assert!(waiting.postpone(long).is_some());
        assert_eq!((waiting.since, waiting.due), (long, long + AGAIN));
        assert_eq!(waiting.postpone(long + GIVEN_UP_AFTER), None);
    }
}
