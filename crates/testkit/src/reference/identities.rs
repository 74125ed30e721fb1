//! What must become of each event: counted, duplicate, conflict or late.

use spendfuse_domain::{Identity, UnixMillis};

use crate::scenario::LogEvent;

/// Identities are remembered this much longer than the horizon, minutes: clocks of senders may be
/// five minutes ahead, and arrivals are kept by the minute.
const SLACK_MINUTES: i64 = 6;

/// What must become of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Expected {
    Counted,
    Duplicate,
    Conflict,
    Late,
}

/// Every identity ever counted.
#[derive(Debug, Default)]
pub struct Identities {
    counted: Vec<(Identity, u32, UnixMillis)>,
}

impl Identities {
    /// Judges an event; `now` is the engine time at which it is processed.
    pub fn judge(&mut self, one: &LogEvent, now: UnixMillis, horizon_millis: i64) -> Expected {
        let event = &one.event;
        let window = horizon_millis / 60_000 + SLACK_MINUTES;
        let is_late = match one.judged_at {
            Some(judged_at) => judged_at < UnixMillis::from_minute(now.minute() - window),
            None => now.since(event.time) > horizon_millis,
        };
        if is_late {
            return Expected::Late;
        }
        let known = self.counted.iter().rev().find(|(identity, _, arrival)| {
            *identity == event.identity && one.arrival.minute() - arrival.minute() <= window
        });
        match known {
            Some((_, content, _)) if *content == event.content => Expected::Duplicate,
            Some(_) => Expected::Conflict,
            None => {
                let entry = (event.identity, event.content, one.arrival);
                self.counted.push(entry);
                Expected::Counted
            }
        }
    }
}
