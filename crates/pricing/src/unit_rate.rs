//! Which rate a unit has, by the quality and size that a call says: images, seconds of video.

use spendfuse_domain::UnitKind;
use spendfuse_domain::units::Units;

use crate::rate::Tier;
use crate::sheet::{Era, UnitRate};

/// The rate for `kind` with the attributes that `units` gives, and whether it is a guess: the call
/// does not say a quality or size that the price depends on, or says one that has no price. Then it
/// is the dearest that fits what the call says, else the dearest of all.
pub(crate) fn unit_rate(
    era: &Era,
    kind: UnitKind,
    units: &Units<'_>,
    tier: Tier,
) -> Option<(u64, bool)> {
    let of_kind = |tier: Tier| {
        let rates = era.units.iter();
        rates.filter(move |rate| rate.kind == kind && rate.tier == tier)
    };
    let tier = if of_kind(tier).next().is_some() {
        tier
    } else {
        Tier::Default
    };
    let same = |rates: &str, calls: &str| rates.is_empty() || rates.eq_ignore_ascii_case(calls);
    // `1024x1536`, `1024-x-1536` and `1024 × 1536` are one size.
    let size: String = { units.size.chars() }
        .filter(|one| !matches!(one, ' ' | '-' | '*'))
        .map(|one| if one == '×' { 'x' } else { one })
        .collect();
    let same_size = |rates: &str, calls: &str| same(rates, calls) || same_resolution(rates, calls);
    let fits =
        |rate: &&UnitRate| same(&rate.quality, &units.quality) && same_size(&rate.size, &size);
    let given_attributes =
        |rate: &&UnitRate| u8::from(!rate.quality.is_empty()) + u8::from(!rate.size.is_empty());
    let best = of_kind(tier)
        .filter(fits)
        .max_by_key(|rate| (given_attributes(rate), rate.nanos));
    // The rate without a size is that of the sizes below those that have one.
    let is_below = |rate: &UnitRate| match (lines(&size), sizes_begin(of_kind(tier))) {
        (Some(calls), Some(first)) => rate.size.is_empty() && calls >= first,
        _ => false,
    };
    if let Some(rate) = best.filter(|rate| !is_below(rate)) {
        return Some((rate.nanos, false));
    }
    let unsaid = |rates: &str, calls: &str| calls.is_empty() || same(rates, calls);
    let may_fit = |rate: &&UnitRate| {
        unsaid(&rate.quality, &units.quality) && unsaid(&rate.size, &size) && !is_below(rate)
    };
    let dearest = of_kind(tier)
        .filter(may_fit)
        .max_by_key(|rate| rate.nanos)
        .or_else(|| of_kind(tier).max_by_key(|rate| rate.nanos))?;
    Some((dearest.nanos, true))
}

/// Whether one of the two says in pixels what the other says in lines: `1920x1080` is `1080p`.
fn same_resolution(one: &str, other: &str) -> bool {
    let is_in_pixels = |size: &str| size.contains(['x', 'X']);
    is_in_pixels(one) != is_in_pixels(other) && lines(one).is_some() && lines(one) == lines(other)
}

/// The lines of a picture: of `1080p`, `4k`, and of width and height the smaller one.
fn lines(size: &str) -> Option<u32> {
    let size = size.to_ascii_lowercase();
    match (&*size, size.split_once('x')) {
        ("2k", _) => Some(1440),
        ("4k", _) => Some(2160),
        (_, Some((width, height))) => Some(width.parse::<u32>().ok()?.min(height.parse().ok()?)),
        (named, None) => named.strip_suffix('p')?.parse().ok(),
    }
}

/// The lines of the smallest size that has a rate of its own, where all that have one say lines;
/// those of films do so in pixels, too.
fn sizes_begin<'a>(rates: impl Iterator<Item = &'a UnitRate>) -> Option<u32> {
    let sized = rates.filter(|rate| !rate.size.is_empty());
    let says_lines =
        |rate: &UnitRate| rate.kind == UnitKind::VideoSeconds || !rate.size.contains('x');
    let lines: Option<Vec<u32>> = sized
        .map(|rate| says_lines(rate).then(|| lines(&rate.size))?)
        .collect();
    lines?.into_iter().min()
}
