//! What sound and images cost that are read from a cache.
//!
//! Their tokens are within `cache_read`, and are charged so; units say how many they are, and in the
//! book the rate of such a unit is what one of these tokens costs. What that is above a cached token of
//! text comes on top.

use spendfuse_domain::units::{Quantity, Units};
use spendfuse_domain::{Call, TokenClass, UnitKind};

use crate::charge::{Bill, LineSink};
use crate::factor;
use crate::rate::Tier;
use crate::sheet::{Era, Sheet};
use crate::unit_rate::unit_rate;

/// Rates of units are for one, those of tokens for a million.
const MILLION: u64 = 1_000_000;

/// Each kind, and the class of its tokens where they are not cached.
const KINDS: [(UnitKind, TokenClass, &str); 2] = [
    (
        UnitKind::CachedAudioTokens,
        TokenClass::AudioInput,
        "audio, on top",
    ),
    (
        UnitKind::CachedImageTokens,
        TokenClass::ImageInput,
        "images, on top",
    ),
];

impl Bill {
    /// Charges what the cached sound and images of `call` cost above its cached text. Whether their
    /// rates are guesses: the book has none, or those of another tier.
    pub(crate) fn charge_cached_media(
        &mut self,
        era: &Era,
        call: &Call<'_>,
        tier: Tier,
        factor: u64,
        lines: &mut impl LineSink,
    ) -> bool {
        let Some(sheet) = era.sheet(tier, call.tokens.context()) else {
            return false;
        };
        let text = cached_text(sheet);
        let mut is_guess = false;
        for (tokens, kind, uncached, note) in cached_media(call) {
            let own = own_rate(era, kind, &call.units, tier, text);
            let guessed = || in_proportion(sheet, uncached).map(|rate| (rate, true));
            let (rate, is_guessed) = own.or_else(guessed).unwrap_or((text, false));
            is_guess |= is_guessed;
            let above = factor::times(rate.saturating_sub(text), factor);
            if above > 0 {
                self.charge_more_for_cache(tokens, above, note, lines);
            }
        }
        is_guess
    }

    /// The same at a ceiling, `rate` in nano-dollars per million tokens: from a cache they cost no more
    /// than without one.
    pub(crate) fn charge_cached_media_at(
        &mut self,
        rate: impl Fn(TokenClass) -> u64,
        call: &Call<'_>,
        lines: &mut impl LineSink,
    ) {
        let text = rate(TokenClass::CacheRead);
        for (tokens, _, uncached, _) in cached_media(call) {
            let above = rate(uncached).saturating_sub(text);
            if above > 0 {
                self.charge_more_for_cache(tokens, above, "ceiling, on top", lines);
            }
        }
    }
}

/// How many tokens of each kind there are: together no more than were read from a cache.
fn cached_media(
    call: &Call<'_>,
) -> impl Iterator<Item = (u64, UnitKind, TokenClass, &'static str)> {
    let mut rest = call.tokens.cache_read;
    KINDS.into_iter().filter_map(move |(kind, uncached, note)| {
        let told = call.units.quantity(kind).0.div_ceil(Quantity::ONE);
        let tokens = told.min(rest);
        rest -= tokens;
        (tokens > 0).then_some((tokens, kind, uncached, note))
    })
}

/// Nano-dollars per million cached tokens of text.
fn cached_text(sheet: &Sheet) -> u64 {
    sheet.rates[TokenClass::CacheRead as usize].nanos
}

/// What the book says of `kind`, nano-dollars per million tokens, and whether that is a guess: it says
/// it of another tier or shorter contexts, of which the rate is as much cheaper or dearer as that of
/// cached text, `text` here.
fn own_rate(
    era: &Era,
    kind: UnitKind,
    units: &Units<'_>,
    tier: Tier,
    text: u64,
) -> Option<(u64, bool)> {
    let (rate, _) = unit_rate(era, kind, units, tier)?;
    let rate = rate.saturating_mul(MILLION);
    let mut own = era.units.iter();
    let of_tier = match own.any(|one| one.kind == kind && one.tier == tier) {
        true => tier,
        false => Tier::Default,
    };
    let text_there = era.sheet(of_tier, 0).map_or(0, cached_text);
    if text_there == text || text_there == 0 {
        return Some((rate, false));
    }
    Some((times(rate, text, text_there), true))
}

/// Nano-dollars per million cached tokens of the class `uncached`, if a cache is as much cheaper for
/// them as for text; `None` where they cost what text does.
fn in_proportion(sheet: &Sheet, uncached: TokenClass) -> Option<u64> {
    let rate = |class: TokenClass| sheet.rates[class as usize].nanos;
    let (text, media) = (rate(TokenClass::Input), rate(uncached));
    (media > text).then(|| times(media, cached_text(sheet), text))
}

/// `rate` × `numerator` / `denominator`, rounded up.
fn times(rate: u64, numerator: u64, denominator: u64) -> u64 {
    let product = u128::from(rate) * u128::from(numerator);
    let result = product.div_ceil(u128::from(denominator.max(1)));
    u64::try_from(result).unwrap_or(u64::MAX)
}
