//! What must become of each event: counted, by the difference, duplicate, echo, conflict or late.

use std::collections::{BTreeMap, BTreeSet};

use spendfuse_domain::event::{Body, Call, Event, Flags};
use spendfuse_domain::{FixedDimension, Identity, UnixMillis};

use super::spend::Tally;
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
    /// The difference is counted.
    Grown {
        /// To the event at this place of the log.
        before: usize,
        /// As the estimate at this place names and dates it: it takes a part of itself back, or grows.
        like: Option<usize>,
        /// More is told of whose it is than the estimate did.
        tells_more: bool,
    },
    Late,
}

/// Place of what stood for a call before it grew, and of the estimate that names and dates the difference.
pub type Before = (usize, Option<usize>);

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
    /// Place of the estimate that stands, where all of it is counted.
    estimate: Option<usize>,
    /// Parts of the estimate are several customers' or the like: nobody knows where less is taken back.
    is_scattered: bool,
}

impl Known {
    /// What the event at `index` is, which grows from this one.
    fn grown(&self, log: &[LogEvent], index: usize) -> Expected {
        let (before, now) = (self.index, &log[index]);
        let mut more = Tally::default();
        more.add(now);
        more.take_back(&log[before]);
        let is_less = more.cost < 0 || more.tokens < 0 || more.unpriced < 0;
        let stays = self.estimate.filter(|_| is_less || is_estimate(&now.event));
        let like = stays.filter(|like| !contradict(&log[*like].event, &now.event));
        if is_less && (like != stays || self.is_scattered) {
            return Expected::Conflict;
        }
        Expected::Grown {
            before,
            like,
            tells_more: like.is_some() && !told(&now.event).is_subset(&self.told),
        }
    }

    /// Whether parts of what stands after `event` are estimates of several.
    fn is_scattered_by(&self, expected: Expected, event: &Event<'_>) -> bool {
        match expected {
            Expected::Grown { like, .. } if is_estimate(event) => {
                self.is_scattered || (self.estimate.is_some() && like.is_none())
            }
            Expected::Echo { .. } => self.is_scattered,
            _ => false,
        }
    }
}

/// `one` as it is counted where an estimate was: in its time, and by its names.
pub fn placed(one: &LogEvent, estimate: &LogEvent) -> LogEvent {
    let mut placed = one.clone();
    placed.event.time = estimate.event.time;
    placed.event.attribution = estimate.event.attribution.clone();
    placed
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
                    Some((_, stands)) => match told_again(stands, event) {
                        Expected::Echo { .. } => ECHO,
                        _ => Expected::Conflict,
                    },
                    None => match told_again(&log[known.index].event, event) {
                        Expected::Grown { .. } => known.grown(log, index),
                        other => other,
                    },
                }
            }
        };
        let now_told = told(event);
        let all_told = known.map_or_else(BTreeSet::new, |known| &known.told | &now_told);
        let own = is_estimate(event).then_some(index);
        let is_scattered = known.is_some_and(|known| known.is_scattered_by(expected, event));
        let (expected, index, told, estimate) = match (expected, known) {
            (Expected::Counted, _) => (Expected::Counted, index, now_told, own),
            (Expected::Grown { like, .. }, Some(_)) => (
                expected,
                index,
                all_told,
                like.filter(|_| is_estimate(event)),
            ),
            (Expected::Echo { .. }, Some(known)) if !now_told.is_subset(&known.told) => {
                let echo = Expected::Echo { tells_more: true };
                (echo, known.index, all_told, known.estimate)
            }
            _ => return expected,
        };
        self.counted.push(Known {
            identity: event.identity,
            content: event.content,
            counted_at: now,
            index,
            told,
            estimate,
            is_scattered,
        });
        if let Expected::Grown { before, .. } = expected {
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
                    estimate: None,
                    is_scattered: false,
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
/// The difference, wherever it is counted.
const GROWN: Expected = Expected::Grown {
    before: 0,
    like: None,
    tells_more: false,
};
/// What other instruments may tell of a call, tags aside.
const TOLD: [FixedDimension; 7] = [
    FixedDimension::Customer,
    FixedDimension::Feature,
    FixedDimension::Project,
    FixedDimension::User,
    FixedDimension::Agent,
    FixedDimension::Environment,
    FixedDimension::Plan,
];

fn is_estimate(event: &Event<'_>) -> bool {
    event.flags.contains(Flags::USAGE_ESTIMATED)
}

/// Names of what an event tells of whose its call is, so far as other instruments may tell it.
fn told(event: &Event<'_>) -> BTreeSet<String> {
    let who = &event.attribution;
    let named = TOLD.into_iter();
    let named = named.filter(|dimension| !who.texts()[*dimension as usize].is_empty());
    let named = named.map(|dimension| dimension.name().to_owned());
    let tags = who.tags.iter().map(|(name, _)| format!("tags.{name}"));
    named.chain(tags).collect()
}

/// What another event of a call is beside the one that stands for it.
fn told_again(before: &Event<'_>, now: &Event<'_>) -> Expected {
    let (Body::Usage(then), Body::Usage(call)) = (&before.body, &now.body) else {
        return Expected::Conflict;
    };
    let (was, is) = (&before.attribution, &now.attribution);
    if (&was.provider, &was.model) != (&is.provider, &is.model) {
        return Expected::Conflict;
    }
    match (is_estimate(before), is_estimate(now)) {
        (true, false) => return GROWN,
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
        (false, true) => GROWN,
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
