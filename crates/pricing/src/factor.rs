//! Factors on token rates: what a provider adds for a speed, a geography or a region.
//!
//! Names in the book: `speed=fast`; `geo=us` for inference that stays in a country; `region` for any
//! endpoint but the global one; `region=eu` for one endpoint.

use spendfuse_domain::Call;

use crate::book::ModelPrices;

/// A factor of one, in millionths.
pub(crate) const ONE: u32 = 1_000_000;
/// Of a model that is served fast at a price that the book does not have: the most that Anthropic asks,
/// 30 dollars for 5 (claude-opus-4-6 and 4-7, as OpenRouter sells them under names with `-fast`).
const DEAREST_FAST: u32 = 6 * ONE;

/// Whether `speed` is no fast mode.
pub(crate) fn is_usual_speed(speed: &str) -> bool {
    is_any(speed, &["standard", "normal", "default"])
}

fn is_usual_geography(geography: &str) -> bool {
    is_any(geography, &["global", "not_available", "default"])
}

fn is_usual_region(region: &str) -> bool {
    is_any(region, &["global"])
}

fn is_any(word: &str, usual: &[&str]) -> bool {
    word.is_empty() || usual.iter().any(|usual| word.eq_ignore_ascii_case(usual))
}

/// `rate` times `factor` millionths, rounded up.
#[inline]
pub(crate) fn times(rate: u64, factor: u64) -> u64 {
    if factor == u64::from(ONE) {
        return rate;
    }
    let product = (u128::from(rate) * u128::from(factor)).div_ceil(u128::from(ONE));
    u64::try_from(product).unwrap_or(u64::MAX)
}

/// The factors of one model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Factors(Vec<(String, u32)>);

/// The highest factors of some models, millionths: what a call of a model like them costs at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Highest {
    /// Of a fast mode; 0 = none has one.
    pub(crate) fast: u32,
    geography: u32,
    region: u32,
}

impl Highest {
    pub(crate) fn raise(&mut self, other: &Self) {
        self.fast = self.fast.max(other.fast);
        self.geography = self.geography.max(other.geography);
        self.region = self.region.max(other.region);
    }

    /// The factor of a call that is served as `call` says, in `region` (empty = not said), whatever
    /// words it has for it.
    pub(crate) fn of_call(&self, call: &Call<'_>, region: &str) -> u64 {
        let rare = &call.rare;
        let each = [
            (self.fast, is_usual_speed(&rare.speed)),
            (self.geography, is_usual_geography(&rare.inference_geo)),
            (self.region, is_usual_region(region)),
        ];
        let unusual = each.into_iter().filter(|(_, is_usual)| !is_usual);
        unusual.fold(u64::from(ONE), |product, (factor, _)| {
            times(product, u64::from(factor.max(ONE)))
        })
    }
}

/// What applies to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Applied {
    /// Millionths.
    pub(crate) factor: u64,
    /// The call says a word that nothing is known of: the factor may be another.
    pub(crate) unknown_word: bool,
}

impl Factors {
    pub(crate) fn new(prices: &ModelPrices) -> Self {
        let factors = prices.factors.iter();
        Self(
            factors
                .map(|(name, factor)| (name.clone(), *factor))
                .collect(),
        )
    }

    fn get(&self, kind: &str, word: &str) -> Option<u32> {
        let is_it = |name: &str| {
            let named = name
                .strip_prefix(kind)
                .and_then(|rest| rest.strip_prefix('='));
            named.is_some_and(|named| named.eq_ignore_ascii_case(word))
        };
        let found = self.0.iter().find(|(name, _)| is_it(name))?;
        Some(found.1)
    }

    /// The highest of each kind.
    pub(crate) fn highest(&self) -> Highest {
        let of_kind = |kind: &str| {
            let named = |name: &str| name.split('=').next() == Some(kind);
            let factors = self.0.iter().filter(|(name, _)| named(name));
            factors.map(|(_, factor)| *factor).max().unwrap_or(0)
        };
        Highest {
            fast: self.get("speed", "fast").unwrap_or(0),
            geography: of_kind("geo"),
            region: of_kind("region"),
        }
    }

    #[inline]
    pub(crate) fn of_call(&self, call: &Call<'_>, region: &str) -> Applied {
        let rare = &call.rare;
        if rare.speed.is_empty() && rare.inference_geo.is_empty() && region.is_empty() {
            return Applied {
                factor: ONE.into(),
                unknown_word: false,
            };
        }
        self.of_words(&rare.speed, &rare.inference_geo, region)
    }

    #[cold]
    fn of_words(&self, speed: &str, geography: &str, region: &str) -> Applied {
        let known_speed = match self.get("speed", speed) {
            _ if is_usual_speed(speed) => Some(ONE),
            factor => factor,
        };
        let unknown_speed = match speed.eq_ignore_ascii_case("fast") {
            true => DEAREST_FAST,
            false => ONE,
        };
        // Older models are served in a country at no more than elsewhere.
        let by_geography = match self.get("geo", geography) {
            _ if is_usual_geography(geography) => Some(ONE),
            None if geography.eq_ignore_ascii_case("us") => Some(ONE),
            factor => factor,
        };
        let any_region = || {
            let named = self.0.iter().find(|(name, _)| name == "region");
            named.map(|(_, factor)| *factor)
        };
        let by_region = match is_usual_region(region) {
            true => ONE,
            // Regions of other providers' models are in their names, or cost the same.
            false => self
                .get("region", region)
                .or_else(any_region)
                .unwrap_or(ONE),
        };
        let speed = known_speed.unwrap_or(unknown_speed);
        let geography = by_geography.unwrap_or(ONE);
        let one = u128::from(ONE);
        let factor = u128::from(speed) * u128::from(geography) / one * u128::from(by_region) / one;
        Applied {
            factor: u64::try_from(factor).unwrap_or(u64::MAX),
            unknown_word: known_speed.is_none() || by_geography.is_none(),
        }
    }
}
