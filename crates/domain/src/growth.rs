//! Counts that grow under one id: what a later event of a call is beside the one before.
//!
//! Streams that are reported in pieces, and the logs of agents, tell of one call several times, each
//! time with more. The call's first event is counted whole, each larger one by the difference, so
//! that in sum the largest stands. Several instruments tell of it as well, each with what it knows of
//! whose call it is.

use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64;

use crate::dimensions::{Attribution, FixedDimension};
use crate::event::{Body, Call, Event, Flags};
use crate::money::Nanos;
use crate::tokens::{TokenClass, TokenClasses};
use crate::units::{Quantity, UnitKind};

/// What another event of a call that was counted is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Growth {
    /// It says more, or what was estimated exactly: the difference is counted.
    More,
    /// It says less, or the same, or estimates what is known: a late echo, nothing is counted.
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
    /// What somebody says that it costs; zero where nobody does.
    pub reported_cost: Nanos,
    /// Whose call it is.
    pub who: Who,
}

/// What an event tells of whose call it is: a byte of each value's hash, 0 where it is absent, and a bit
/// for each tag's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Who(pub [u8; Who::BYTES]);

impl Who {
    /// Dimensions that may be told by one instrument alone, and are then known of the call. They neither
    /// decide where it is counted nor what it costs.
    pub const TAKEN_OVER: [FixedDimension; 7] = [
        FixedDimension::Customer,
        FixedDimension::Feature,
        FixedDimension::Project,
        FixedDimension::User,
        FixedDimension::Agent,
        FixedDimension::Environment,
        FixedDimension::Plan,
    ];
    /// Those, the account, and the tags.
    pub const BYTES: usize = Self::TAGS + 4;
    const ACCOUNT: usize = Self::TAKEN_OVER.len();
    const TAGS: usize = Self::ACCOUNT + 1;

    /// What is told of a call beside its tags.
    fn named() -> impl Iterator<Item = FixedDimension> {
        Self::TAKEN_OVER
            .into_iter()
            .chain([FixedDimension::Account])
    }

    /// Whether of what both tell one is wrong, by the names themselves; tags aside, each of which may
    /// have its own.
    pub fn disagree(one: &Attribution<'_>, other: &Attribution<'_>) -> bool {
        let (one, other) = (one.texts(), other.texts());
        Self::named().any(|dimension| {
            let (one, other) = (one[dimension as usize], other[dimension as usize]);
            !one.is_empty() && !other.is_empty() && one != other
        })
    }

    /// What `attribution` tells.
    pub fn of(attribution: &Attribution<'_>) -> Self {
        let mut who = Self::default();
        let texts = attribution.texts();
        for (byte, dimension) in who.0.iter_mut().zip(Self::named()) {
            *byte = byte_of(texts[dimension as usize].as_bytes());
        }
        for (name, _) in &attribution.tags {
            let bit = xxh3_64(name.as_bytes()) as usize % 32;
            who.0[Self::TAGS + bit / 8] |= 1 << (bit % 8);
        }
        who
    }

    /// Whether one of both is wrong: tags aside, each of which may have its own.
    fn contradicts(&self, later: &Self) -> bool {
        let mut pairs = self.0.iter().zip(&later.0).take(Self::TAGS);
        pairs.any(|(before, now)| *before != 0 && *now != 0 && before != now)
    }

    /// Whether `later` tells what is not known.
    pub fn lacks(&self, later: &Self) -> bool {
        let mut pairs = self.0.iter().zip(&later.0).enumerate();
        pairs.any(|(place, (before, now))| match place {
            Self::ACCOUNT => false,
            Self::TAGS.. => now & !before != 0,
            _ => *before == 0 && *now != 0,
        })
    }

    /// What both tell.
    #[must_use]
    pub fn with(mut self, later: &Self) -> Self {
        for (place, now) in later.0.into_iter().enumerate() {
            match place {
                Self::TAGS.. => self.0[place] |= now,
                _ if self.0[place] == 0 => self.0[place] = now,
                _ => {}
            }
        }
        self
    }
}

/// 0 for nothing, and for nothing else.
fn byte_of(text: &[u8]) -> u8 {
    match text {
        [] => 0,
        text => (xxh3_64(text) % 255) as u8 + 1,
    }
}

impl ToldCall {
    /// What `event` tells, `None` where it is no call.
    pub fn of(event: &Event<'_>) -> Option<Self> {
        match &event.body {
            Body::Usage(call) => Some(Self::of_call(event, call)),
            Body::Revenue(_) | Body::SessionEnd => None,
        }
    }

    /// What `event`, which is about `call`, tells.
    pub fn of_call(event: &Event<'_>, call: &Call<'_>) -> Self {
        let who = &event.attribution;
        let provider = xxh3_64(who.provider.as_bytes());
        let model = xxh3_64(who.model.as_bytes());
        Self {
            model: (provider.rotate_left(32) ^ model) as u32,
            is_estimate: event.flags.contains(Flags::USAGE_ESTIMATED),
            tokens: call.tokens,
            units: call.units.entries.clone(),
            tool_calls: call.tool_calls,
            reported_cost: call.reported_cost.unwrap_or_default(),
            who: Who::of(who),
        }
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
            (false, false) if !self.contradicts(later) => Growth::Echo,
            _ => Growth::Conflict,
        }
    }

    /// Whether two events of the same counts cannot both be right.
    fn contradicts(&self, later: &Self) -> bool {
        let costs = [self.reported_cost, later.reported_cost];
        let differ = costs[0] != costs[1] && !costs.contains(&Nanos::ZERO);
        differ || self.who.contradicts(&later.who)
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

/// What an event says, to tell another one of its identity from it.
#[derive(Clone, Debug)]
pub struct Content {
    hash: u32,
    /// What it tells of its call, where it is one.
    call: Option<Box<ToldCall>>,
}

/// What another event of an identity is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// The same event.
    Same,
    /// One with other content.
    Other(Growth),
}

impl Content {
    /// What `event` says.
    pub fn of(event: &Event<'_>) -> Self {
        Self {
            hash: event.content,
            call: ToldCall::of(event).map(Box::new),
        }
    }

    /// Content of which nothing but its hash is known.
    pub fn of_hash(hash: u32) -> Self {
        Self { hash, call: None }
    }

    /// What `later` is to this one.
    pub fn compared(&self, later: &Self) -> Again {
        if self.hash == later.hash {
            return Again::Same;
        }
        let calls = self.call.as_ref().zip(later.call.as_ref());
        Again::Other(calls.map_or(Growth::Conflict, |(first, later)| first.growth(later)))
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
            (call(1_200, 0, 120, 0), Growth::Echo),
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
    fn who_is_told_by_several_and_contradicted_by_others() {
        let tells = |customer: &str, feature: &str, tags: &[(&'static str, &'static str)]| {
            let tags = tags
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into()));
            Who::of(&Attribution {
                customer: customer.to_owned().into(),
                feature: feature.to_owned().into(),
                session: "s-1".into(),
                tags: tags.collect(),
                ..Attribution::default()
            })
        };
        let (first, later) = (tells("c-1", "", &[]), tells("", "search", &[("team", "a")]));
        assert!(first.lacks(&later) && later.lacks(&first));
        let both = first.with(&later);
        assert_eq!(both, tells("c-1", "search", &[("team", "a")]));
        assert!(!both.lacks(&first) && !both.lacks(&later));
        assert!(both.lacks(&tells("c-1", "", &[("tier", "b")])));
        assert_eq!(tells("", "", &[]), Who::default());

        let told = |who| ToldCall {
            who,
            ..call(1_200, 0, 120, 0)
        };
        assert_eq!(told(first).growth(&told(later)), Growth::Echo);
        let other = told(tells("c-2", "", &[]));
        assert_eq!(told(first).growth(&other), Growth::Conflict);
        let costs = |nanos| ToldCall {
            reported_cost: Nanos::new(nanos),
            ..told(first)
        };
        assert_eq!(costs(5).growth(&costs(0)), Growth::Echo);
        assert_eq!(costs(5).growth(&costs(6)), Growth::Conflict);
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
