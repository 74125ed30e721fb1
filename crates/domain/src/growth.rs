//! Counts that grow under one id: what a later event of a call is beside the one before.
//!
//! Streams that are reported in pieces, and the logs of agents, tell of one call several times, each
//! time with more. The call's first event is counted whole, each larger one by the difference, so
//! that in sum the largest stands.

use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64;

use crate::event::{Body, Event, Flags};
use crate::tokens::{TokenClass, TokenClasses};
use crate::units::{Quantity, UnitKind};

/// What another event of a call that was counted is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Growth {
    /// It says more, or what was estimated exactly: the difference is counted.
    More,
    /// It says less, or estimates what is known: a late echo, nothing is counted.
    Echo,
    /// It says something else.
    Conflict,
}

/// What an event tells of its call, as far as it may grow or must stay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToldCall {
    /// A hash of provider and model.
    pub model: u32,
    /// Whether its counts are somebody's estimate.
    pub is_estimate: bool,
    /// All tokens.
    pub tokens: TokenClasses,
    /// Kinds and their quantities, ascending, without zeros.
    pub units: SmallVec<[(UnitKind, Quantity); 2]>,
    /// Tools that the model asked for.
    pub tool_calls: u32,
}

impl ToldCall {
    /// What `event` tells, `None` where it is no call.
    pub fn of(event: &Event<'_>) -> Option<Self> {
        let Body::Usage(call) = &event.body else {
            return None;
        };
        let who = &event.attribution;
        let provider = xxh3_64(who.provider.as_bytes());
        let model = xxh3_64(who.model.as_bytes());
        Some(Self {
            model: (provider.rotate_left(32) ^ model) as u32,
            is_estimate: event.flags.contains(Flags::USAGE_ESTIMATED),
            tokens: call.tokens,
            units: call.units.entries.clone(),
            tool_calls: call.tool_calls,
        })
    }

    /// What `later`, of the same identity and with other content, is beside this one.
    pub fn growth(&self, later: &Self) -> Growth {
        if self.model != later.model {
            return Growth::Conflict;
        }
        match (self.is_estimate, later.is_estimate) {
            (true, false) => return Growth::More,
            (false, true) => return Growth::Echo,
            _ => {}
        }
        let (mut grows, mut shrinks) = (false, false);
        self.compare(later, |before, now| {
            grows |= now > before;
            shrinks |= now < before;
        });
        match (grows, shrinks) {
            (true, false) => Growth::More,
            (false, true) => Growth::Echo,
            _ => Growth::Conflict,
        }
    }

    /// Every count before and now.
    fn compare(&self, later: &Self, mut each: impl FnMut(u64, u64)) {
        let tokens = as_told(&self.tokens)
            .into_iter()
            .zip(as_told(&later.tokens));
        tokens.for_each(|(before, now)| each(before, now));
        each(self.tool_calls.into(), later.tool_calls.into());
        for (kind, _) in self.units.iter().chain(&later.units) {
            each(self.quantity(*kind), later.quantity(*kind));
        }
    }

    fn quantity(&self, kind: UnitKind) -> u64 {
        let found = self.units.iter().find(|(other, _)| *other == kind);
        found.map_or(0, |(_, quantity)| quantity.0)
    }
}

/// Tokens as providers tell them, parts within their total: which part of it was cached, or thought,
/// may be said later than the total itself.
fn as_told(tokens: &TokenClasses) -> [u64; TokenClass::COUNT] {
    [
        tokens.context(),
        tokens.cache_read,
        tokens.cache_write_5m + tokens.cache_write_1h,
        tokens.cache_write_1h,
        tokens.audio_input,
        tokens.image_input,
        tokens.video_input,
        tokens.generated(),
        tokens.reasoning,
        tokens.audio_output,
        tokens.image_output,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(input: u64, cached: u64, output: u64, reasoning: u64) -> ToldCall {
        ToldCall {
            model: 1,
            tokens: TokenClasses {
                input,
                cache_read: cached,
                output,
                reasoning,
                ..TokenClasses::default()
            },
            ..ToldCall::default()
        }
    }

    #[test]
    fn more_of_any_count_and_less_of_none_is_growth() {
        let first = call(1_200, 0, 120, 0);
        let kinds = [
            (call(1_200, 0, 380, 0), Growth::More),
            (call(1_200, 0, 5, 0), Growth::Echo),
            (call(1_200, 0, 120, 0), Growth::Conflict),
            (call(1_300, 0, 5, 0), Growth::Conflict),
            // Of what it told before it says now which part was cached, and which was thought.
            (call(400, 800, 252, 128), Growth::More),
            (call(1_200, 0, 20, 100), Growth::More),
            (call(1_200, 0, 10, 100), Growth::Conflict),
        ];
        for (later, expected) in kinds {
            assert_eq!(first.growth(&later), expected, "{:?}", later.tokens);
        }
    }

    #[test]
    fn what_was_estimated_gives_way_and_nothing_gives_way_to_an_estimate() {
        let exact = call(100, 0, 10, 0);
        let estimate = ToldCall {
            is_estimate: true,
            ..call(900, 0, 400, 0)
        };
        assert_eq!(estimate.growth(&exact), Growth::More);
        assert_eq!(exact.growth(&estimate), Growth::Echo);
        let other = ToldCall {
            model: 2,
            ..exact.clone()
        };
        assert_eq!(estimate.growth(&other), Growth::Conflict);
        let larger = ToldCall {
            is_estimate: true,
            ..call(900, 0, 401, 0)
        };
        assert_eq!(estimate.growth(&larger), Growth::More);
    }

    #[test]
    fn units_and_tool_calls_are_counts_too() {
        let first = call(100, 0, 10, 0);
        let mut searched = first.clone();
        let searches = (UnitKind::WebSearchCalls, Quantity::whole(1));
        searched.units.push(searches);
        assert_eq!(first.growth(&searched), Growth::More);
        assert_eq!(searched.growth(&first), Growth::Echo);
        let mut tools = first.clone();
        tools.tool_calls = 1;
        assert_eq!(first.growth(&tools), Growth::More);
        assert_eq!(searched.growth(&tools), Growth::Conflict);
    }
}
