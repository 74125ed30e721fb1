//! Whether a call may still grow. What is corrected does not: what is told of it later is a conflict, and
//! is never counted. So whoever corrects waits until a call is at rest.

use spendfuse_domain::UnixMillis;

use super::entry::Entry;

/// A call is at rest once it was not heard of for so long.
const AT_REST_MILLIS: i64 = 5_000;
/// The same of one that has grown already.
const GROWN_AT_REST_MILLIS: i64 = 20_000;

impl Entry {
    /// For how long it must not have been heard of, milliseconds.
    pub fn rest_millis(&self) -> i64 {
        match self.has_grown() {
            true => GROWN_AT_REST_MILLIS,
            false => AT_REST_MILLIS,
        }
    }

    /// Whether it does not grow any more, as known at `now` by the brokers' clock: it was not heard of
    /// for long enough, or was corrected before.
    pub fn is_at_rest(&self, now: UnixMillis) -> bool {
        let silent_millis = now.since(self.last_received_at());
        !self.corrections.is_empty() || silent_millis >= self.rest_millis()
    }
}
