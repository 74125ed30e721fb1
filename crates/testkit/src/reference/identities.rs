//! What must become of each event: counted, by the difference, duplicate, echo, conflict or late.

use std::collections::{BTreeMap, BTreeSet};

use spendfuse_domain::event::{Body, Call, Event, Flags};
use spendfuse_domain::{FixedDimension, Identity, UnixMillis};

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
    /// Less than what stands is told of, or the same.
    Echo {
        /// But whose it is, of which more is told.
        tells_more: bool,
    },
    /// The difference to the event at this place of the log is counted.
    Grown(usize),
    Late,
}

/// Every identity ever counted.
#[derive(Debug, Default)]
pub struct Identities {
    /// In the order in which they were: what stands for an identity is the last of it.
    counted: Vec<Known>,
    /// Places in the log of those that were corrected, and what stands for them, or stood before they
    /// were void: they do not grow.
    corrected: Vec<(usize, Event<'static>)>,
    /// Of events that a call has grown by, the place of its first one.
    firsts: BTreeMap<usize, usize>,
}

#[derive(Clone, Debug)]
struct Known {
    identity: Identity,
    content: u32,
    /// By engine time.
    counted_at: UnixMillis,
    /// Place in the log.
    index: usize,
    /// Names of what was told of whose it is.
    told: BTreeSet<String>,
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
            known.identity == event.identity && now.minute() - known.counted_at.minute() <= window
        });
        let expected = match known {
            None => Expected::Counted,
            Some(known) if known.content == event.content => Expected::Duplicate,
            Some(known) => {
                let mut corrected = self.corrected.iter().rev();
                match corrected.find(|(of, _)| *of == known.index) {
                    Some((of, stands)) => match told_again(stands, event, *of) {
                        Expected::Echo { .. } => ECHO,
                        _ => Expected::Conflict,
                    },
                    None => told_again(&log[known.index].event, event, known.index),
                }
            }
        };
        let now_told = told(event);
        let all_told = known.map_or_else(BTreeSet::new, |known| &known.told | &now_told);
        let (expected, index, told) = match (expected, known) {
            (Expected::Counted, _) => (Expected::Counted, index, now_told),
            (Expected::Grown(_), Some(_)) => (expected, index, all_told),
            (Expected::Echo { .. }, Some(known)) if !now_told.is_subset(&known.told) => {
                (Expected::Echo { tells_more: true }, known.index, all_told)
            }
            _ => return expected,
        };
        self.counted.push(Known {
            identity: event.identity,
            content: event.content,
            counted_at: now,
            index,
            told,
        });
        if let Expected::Grown(before) = expected {
            let first = self.first_of(before);
            self.firsts.insert(index, first);
        }
        expected
    }

    /// Place of the first event of the call that the one at `index` counts for.
    pub fn first_of(&self, index: usize) -> usize {
        self.firsts.get(&index).copied().unwrap_or(index)
    }

    /// The same of a correction, which stands at `index` of the log.
    pub fn judge_correction(
        &mut self,
        index: usize,
        made: &Made,
        now: UnixMillis,
        horizon_millis: i64,
    ) -> Expected {
        let window = horizon_millis / 60_000 + SLACK_MINUTES;
        if made.judged_at < UnixMillis::from_minute(now.minute() - window) {
            return Expected::Late;
        }
        let known = self.counted.iter().rev().find(|known| {
            known.identity == made.identity && now.minute() - known.counted_at.minute() <= window
        });
        match known {
            Some(known) if known.content == made.content => Expected::Duplicate,
            Some(_) => Expected::Conflict,
            None => {
                self.counted.push(Known {
                    identity: made.identity,
                    content: made.content,
                    counted_at: now,
                    index,
                    told: BTreeSet::new(),
                });
                let stands = made.after.as_ref().or(made.before.as_ref());
                if let Some(stands) = stands {
                    let mut counted = self.counted.iter().rev();
                    let entry = counted.find(|known| known.index == made.stands).cloned();
                    self.counted.extend(entry.map(|entry| Known {
                        told: told(&stands.event),
                        ..entry
                    }));
                    self.corrected.push((made.stands, stands.event.clone()));
                }
                Expected::Counted
            }
        }
    }
}

const ECHO: Expected = Expected::Echo { tells_more: false };

/// Names of what an event tells of whose its call is, so far as other instruments may tell it.
fn told(event: &Event<'_>) -> BTreeSet<String> {
    let who = &event.attribution;
    let dimensions = [
        ("customer", &who.customer),
        ("feature", &who.feature),
        ("project", &who.project),
        ("user", &who.user),
        ("agent", &who.agent),
        ("environment", &who.environment),
        ("plan", &who.plan),
    ];
    let dimensions = dimensions.into_iter();
    let named = dimensions.filter(|(_, value)| !value.is_empty());
    let named = named.map(|(name, _)| name.to_owned());
    let tags = who.tags.iter().map(|(name, _)| format!("tags.{name}"));
    named.chain(tags).collect()
}

/// What another event of a call is beside the one that stands for it.
fn told_again(before: &Event<'_>, now: &Event<'_>, index: usize) -> Expected {
    let (Body::Usage(then), Body::Usage(call)) = (&before.body, &now.body) else {
        return Expected::Conflict;
    };
    let (was, is) = (&before.attribution, &now.attribution);
    if (&was.provider, &was.model) != (&is.provider, &is.model) {
        return Expected::Conflict;
    }
    let is_estimate = |one: &Event<'_>| one.flags.contains(Flags::USAGE_ESTIMATED);
    match (is_estimate(before), is_estimate(now)) {
        (true, false) => return Expected::Grown(index),
        (false, true) => return ECHO,
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
        (true, false) => ECHO,
        (false, false) if !contradict(before, now) => ECHO,
        _ => Expected::Conflict,
    }
}

/// Whether two events name different ones where both name one.
fn contradict(before: &Event<'_>, now: &Event<'_>) -> bool {
    let placed = [
        FixedDimension::Workspace,
        FixedDimension::Session,
        FixedDimension::RootSession,
    ];
    let named = |event: &Event<'_>, dimension: FixedDimension| {
        event.attribution.texts()[dimension as usize].to_string()
    };
    let dimensions = FixedDimension::ALL.into_iter();
    let mut others = dimensions.filter(|dimension| !placed.contains(dimension));
    others.any(|dimension| {
        let (then, now) = (named(before, dimension), named(now, dimension));
        !then.is_empty() && !now.is_empty() && then != now
    })
}
