//! What must become of each event: counted, by the difference, duplicate, echo, conflict or late.

use spendfuse_domain::event::{Body, Call, Flags};
use spendfuse_domain::{Identity, UnixMillis};

use crate::corrections::Made;
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
    /// Less than what stands is told of.
    Echo,
    /// The difference to the event at this place of the log is counted.
    Grown(usize),
    Late,
}

/// Every identity ever counted.
#[derive(Debug, Default)]
pub struct Identities {
    /// In the order in which they were: what stands for an identity is the last of it.
    counted: Vec<Known>,
    /// Places in the log of those that were corrected: they do not grow.
    corrected: Vec<usize>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    identity: Identity,
    content: u32,
    arrival: UnixMillis,
    /// Place in the log.
    index: usize,
}

impl Identities {
    /// Judges an event; `now` is the engine time at which it is processed.
    pub fn judge(
        &mut self,
        log: &[LogEvent],
        index: usize,
        now: UnixMillis,
        horizon_millis: i64,
    ) -> Expected {
        let one = &log[index];
        let event = &one.event;
        let window = horizon_millis / 60_000 + SLACK_MINUTES;
        let is_late = match one.judged_at {
            Some(judged_at) => judged_at < UnixMillis::from_minute(now.minute() - window),
            None => now.since(event.time) > horizon_millis,
        };
        if is_late {
            return Expected::Late;
        }
        let known = self.counted.iter().rev().find(|known| {
            known.identity == event.identity
                && one.arrival.minute() - known.arrival.minute() <= window
        });
        let expected = match known {
            None => Expected::Counted,
            Some(known) if known.content == event.content => Expected::Duplicate,
            Some(known) if self.corrected.contains(&known.index) => Expected::Conflict,
            Some(known) => told_again(&log[known.index], one, known.index),
        };
        if matches!(expected, Expected::Counted | Expected::Grown(_)) {
            self.counted.push(Known {
                identity: event.identity,
                content: event.content,
                arrival: one.arrival,
                index,
            });
        }
        expected
    }

    /// The same of a correction, which stands at `index` of the log.
    pub fn judge_correction(
        &mut self,
        log: &[LogEvent],
        index: usize,
        made: &Made,
        now: UnixMillis,
        horizon_millis: i64,
    ) -> Expected {
        let window = horizon_millis / 60_000 + SLACK_MINUTES;
        if made.judged_at < UnixMillis::from_minute(now.minute() - window) {
            return Expected::Late;
        }
        let arrival = log[index].arrival;
        let known = self.counted.iter().rev().find(|known| {
            known.identity == made.identity && arrival.minute() - known.arrival.minute() <= window
        });
        match known {
            Some(known) if known.content == made.content => Expected::Duplicate,
            Some(_) => Expected::Conflict,
            None => {
                self.counted.push(Known {
                    identity: made.identity,
                    content: made.content,
                    arrival,
                    index,
                });
                self.corrected.push(made.stands);
                Expected::Counted
            }
        }
    }
}

/// What another event of a call is beside the one that stands for it.
fn told_again(before: &LogEvent, now: &LogEvent, index: usize) -> Expected {
    let (Body::Usage(then), Body::Usage(call)) = (&before.event.body, &now.event.body) else {
        return Expected::Conflict;
    };
    let (was, is) = (&before.event.attribution, &now.event.attribution);
    if (&was.provider, &was.model) != (&is.provider, &is.model) {
        return Expected::Conflict;
    }
    let is_estimate = |one: &LogEvent| one.event.flags.contains(Flags::USAGE_ESTIMATED);
    match (is_estimate(before), is_estimate(now)) {
        (true, false) => return Expected::Grown(index),
        (false, true) => return Expected::Echo,
        _ => {}
    }
    // As providers write them: totals, and parts of them.
    let counts = |call: &Call<'_>| {
        let tokens = &call.tokens;
        let read = tokens.input + tokens.cache_read;
        let written = tokens.output + tokens.reasoning;
        let parts = [tokens.cache_read, tokens.reasoning];
        [read, written, parts[0], parts[1], call.tool_calls.into()]
    };
    let pairs = counts(then).into_iter().zip(counts(call));
    let (less, more) = pairs.fold((false, false), |(less, more), (then, now)| {
        (less || now < then, more || now > then)
    });
    match (less, more) {
        (false, true) => Expected::Grown(index),
        (true, false) => Expected::Echo,
        _ => Expected::Conflict,
    }
}
