//! A scope's standing in one word: enough to decide nearly every check, and to know when it is not.
//!
//! A full entry lies behind four misses of the processor's caches, and a million of them take half
//! a gigabyte. Eight bytes a scope stay in the cache ten times longer. What does not fit is rounded
//! in a way that a reader notices: the amount is given by an upper bound, the end of the window by
//! the second that it lies in. Whoever is not far from every step by that asks the full entry
//! ([`Glimpse::Ask`], and [`crate::decision`]). So a digest is never wrong.
//!
//! ```text
//! 63      48 47  45 44        26 25   20 19       0
//! ┌─────────┬──────┬────────────┬───────┬──────────┐
//! │   tag   │ kind │ window end │ shift │ mantissa │
//! └─────────┴──────┴────────────┴───────┴──────────┘
//! ```

use spendfuse_domain::budget::Spend;
use spendfuse_domain::{Figures, Unit, UnixMillis};

use crate::entry::Entry;
use crate::hash::EntryHash;

const MANTISSA_BITS: u32 = 20;
const AMOUNT_BITS: u32 = 26;
const END_BITS: u32 = 19;
const END_SHIFT: u32 = AMOUNT_BITS;
const KIND_SHIFT: u32 = END_SHIFT + END_BITS;
const TAG_SHIFT: u32 = KIND_SHIFT + 3;

/// Milliseconds in one unit of a window's end, as a power of two.
const TICK_SHIFT: u32 = 10;
/// Further away than can be said, or never.
const FAR_END: u64 = (1 << END_BITS) - 1;

/// What an amount is in, or why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nano-dollars.
    Usd,
    /// Tokens.
    Tokens,
    /// Calls.
    Calls,
    /// What is known does not fit.
    Ask,
    /// Two scopes have the same place and tag; stays until the table is filled anew.
    Shared,
    /// Was there, and is no longer.
    Removed,
}

impl Kind {
    pub(crate) fn of(unit: Unit) -> Self {
        match unit {
            Unit::Usd => Self::Usd,
            Unit::Tokens => Self::Tokens,
            Unit::Calls => Self::Calls,
        }
    }

    /// The part of `spend` that counts in this unit.
    #[inline]
    pub(crate) fn counted(self, spend: &Spend) -> i128 {
        match self {
            Self::Tokens => i128::from(spend.tokens),
            Self::Calls => i128::from(spend.calls),
            _ => spend.cost.get(),
        }
    }
}

const KINDS: [Kind; 8] = [
    Kind::Usd,
    Kind::Tokens,
    Kind::Calls,
    Kind::Ask,
    Kind::Shared,
    Kind::Removed,
    Kind::Ask,
    Kind::Ask,
];

/// Which scope a slot belongs to, as far as its place does not say. Never 0, the tag of a slot that
/// was never used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag(u64);

impl Tag {
    #[inline]
    pub(crate) fn of(key: EntryHash) -> Self {
        Self((key as u64 >> TAG_SHIFT).max(1))
    }

    /// Whether `word` is a slot of this tag.
    #[inline]
    pub(crate) fn marks(self, word: u64) -> bool {
        word >> TAG_SHIFT == self.0
    }
}

/// The word of a slot, without its tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Digest(u64);

/// What a digest says at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Glimpse {
    /// Nothing is spent in the current window.
    Nothing,
    /// At most this much of [`Kind::Usd`], [`Kind::Tokens`] or [`Kind::Calls`].
    AtMost(Kind, i64),
    /// The full entry knows.
    Ask,
}

/// The time from which a table counts the ends of windows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Epoch(UnixMillis);

impl Epoch {
    pub(crate) fn new(now: UnixMillis) -> Self {
        Self(now)
    }

    /// Whether so much time has passed that ends become hard to tell from "far away".
    pub(crate) fn is_worn(self, now: UnixMillis) -> bool {
        self.tick(now) > FAR_END / 2
    }

    /// The number of the second that `time` lies in; 0 for earlier times.
    fn tick(self, time: UnixMillis) -> u64 {
        let since = time.0.saturating_sub(self.0.0).max(0);
        (since as u64 >> TICK_SHIFT).min(FAR_END)
    }
}

impl Digest {
    /// Says that the full entry is to be asked, whatever it says.
    pub(crate) const ASK: Self = Self::of_kind(Kind::Ask);
    /// Says that two scopes share the slot.
    pub(crate) const SHARED: Self = Self::of_kind(Kind::Shared);
    /// Says that the slot is free.
    pub(crate) const REMOVED: Self = Self::of_kind(Kind::Removed);

    const fn of_kind(kind: Kind) -> Self {
        Self((kind as u64) << KIND_SHIFT | FAR_END << END_SHIFT)
    }

    /// What is to be known of a budget's entry.
    pub(crate) fn of(entry: &Entry, epoch: Epoch) -> Self {
        let Figures {
            spent: Some(spent),
            limit: Some(_),
        } = entry.figures
        else {
            return Self::ASK;
        };
        // Negative and enormous amounts have no bounds here.
        let amount = i64::try_from(spent.number()).ok();
        let amount = amount.and_then(|amount| u64::try_from(amount).ok());
        let Some(amount) = amount else {
            return Self::ASK;
        };
        let end = entry.expires_at().map_or(FAR_END, |at| epoch.tick(at));
        Self((Kind::of(spent.unit()) as u64) << KIND_SHIFT | end << END_SHIFT | rounded(amount))
    }

    /// The word of a slot with this tag.
    pub(crate) fn word(self, tag: Tag) -> u64 {
        tag.0 << TAG_SHIFT | self.0
    }

    pub(crate) fn kind_of(word: u64) -> Kind {
        KINDS[(word >> KIND_SHIFT & 7) as usize]
    }

    /// What the word of a slot says at `now`.
    #[inline]
    pub(crate) fn read(word: u64, epoch: Epoch, now: UnixMillis) -> Glimpse {
        let kind = Self::kind_of(word);
        match kind {
            Kind::Ask | Kind::Shared => return Glimpse::Ask,
            Kind::Removed => return Glimpse::Nothing,
            Kind::Usd | Kind::Tokens | Kind::Calls => {}
        }
        let end = word >> END_SHIFT & FAR_END;
        let present = epoch.tick(now);
        if present > end {
            return Glimpse::Nothing;
        }
        if present == end {
            return Glimpse::Ask;
        }
        let shift = word >> MANTISSA_BITS & 63;
        let low = (word & MANTISSA) << shift;
        Glimpse::AtMost(kind, (low | ((1 << shift) - 1)) as i64)
    }
}

const MANTISSA: u64 = (1 << MANTISSA_BITS) - 1;

/// `amount` rounded down to 20 significant bits, with the number of bits that are missing.
fn rounded(amount: u64) -> u64 {
    debug_assert!(i64::try_from(amount).is_ok());
    let significant = u64::BITS - amount.leading_zeros();
    let shift = significant.saturating_sub(MANTISSA_BITS);
    u64::from(shift) << MANTISSA_BITS | amount >> shift
}

#[cfg(test)]
mod tests {
    use super::*;
    use spendfuse_domain::Verdict;

    fn glimpse(spent: &str, expires_at: Option<i64>, now: i64) -> Glimpse {
        let entry = Entry::of_spend(spent, Verdict::Warn, expires_at.map(UnixMillis));
        let epoch = Epoch::new(UnixMillis(1_000_000));
        let word = Digest::of(&entry, epoch).word(Tag::of(u128::MAX));
        assert!(Tag::of(u128::MAX).marks(word));
        Digest::read(word, epoch, UnixMillis(now))
    }

    #[test]
    fn an_amount_is_hardly_less_than_its_bound() {
        for nanos in [0, 1, 1_048_575, 1_048_576, 5_000_000_000, i64::MAX] {
            let text = spendfuse_domain::Nanos::new(nanos.into()).to_string();
            let Glimpse::AtMost(Kind::Usd, most) = glimpse(&text, None, 1_000_000) else {
                panic!("{nanos}");
            };
            assert!(
                nanos <= most && most - nanos <= nanos / 524_288,
                "{nanos} {most}"
            );
        }
        for other in ["-0.01", "99999999999.00"] {
            assert_eq!(glimpse(other, None, 1_000_000), Glimpse::Ask);
        }
    }

    #[test]
    fn a_window_is_over_or_not_or_the_full_entry_is_asked() {
        let week = 7 * 86_400_000;
        for (end, now, over) in [
            (Some(1_100_000), 1_080_000, Some(false)),
            (Some(1_100_000), 1_099_999, None),
            (Some(1_100_000), 1_100_000, None),
            (Some(1_100_000), 1_110_000, Some(true)),
            // A table that was filled after the window's end, and a clock that went back.
            (Some(999_999), 1_000_001, None),
            (Some(999_999), 999_000, None),
            (Some(1_100_000), 0, Some(false)),
            (Some(1_000_000 + week), 1_000_000, Some(false)),
            (Some(1_000_000 + week), 1_000_000 + week, None),
            (None, 1_000_000, Some(false)),
            (None, i64::MAX, None),
        ] {
            let expected = match glimpse("1.00", end, now) {
                Glimpse::Nothing => Some(true),
                Glimpse::AtMost(..) => Some(false),
                Glimpse::Ask => None,
            };
            assert_eq!(expected, over, "end {end:?} now {now}");
        }
    }
}
