//! What an operator decides about prices: negotiated discounts, whose own figure to trust, and
//! what an unknown model costs in the worst case.

use std::collections::{HashMap, HashSet};

use crate::error::PolicyError;
use crate::provider;

/// A factor on book prices in millionths, so that `0.85` is exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Multiplier(u32);

impl Multiplier {
    /// No discount.
    pub const ONE: Self = Self(Self::DENOMINATOR);
    /// Millionths in one.
    pub(crate) const DENOMINATOR: u32 = 1_000_000;
    /// Ten times the list price; keeps the arithmetic of one call inside `i128`.
    const LARGEST: u32 = 10 * Self::DENOMINATOR;

    /// Reads a decimal factor such as `0.85` or `1.1`, with at most six fraction digits, from 0 to 10.
    ///
    /// # Errors
    /// [`PolicyError::Multiplier`] for anything else.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let refused = || PolicyError::Multiplier { text: text.into() };
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        let wrong_form = whole.is_empty() || whole.len() > 2 || fraction.len() > 6;
        if wrong_form || !digits(whole) || !digits(fraction) {
            return Err(refused());
        }
        let millionths: u32 = format!("{whole}{fraction:0<6}")
            .parse()
            .map_err(|_| refused())?;
        if millionths > Self::LARGEST {
            return Err(refused());
        }
        Ok(Self(millionths))
    }

    /// Millionths: 850,000 for `0.85`.
    pub const fn millionths(self) -> u32 {
        self.0
    }
}

/// Rates for a model of which nothing at all is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CeilingRates {
    /// Nano-dollars per million tokens of any input class.
    pub input: u64,
    /// Nano-dollars per million tokens of any output class.
    pub output: u64,
    /// Nano-dollars per unit, for kinds that no model in the book has a rate for.
    pub unit: u64,
}

impl Default for CeilingRates {
    /// $15 and $75 per million tokens, the rates of the largest models of general providers, and
    /// $0.01 a unit.
    fn default() -> Self {
        Self {
            input: 15_000_000_000,
            output: 75_000_000_000,
            unit: 10_000_000,
        }
    }
}

/// What an operator decides about prices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PricingPolicy {
    /// Providers whose calls cost what the app reports, where it reports anything. Compared after
    /// [`crate::provider::canonical`].
    pub trust_reported_cost: HashSet<String>,
    /// What costs nothing here, as `provider` or `provider/model`: a price of zero is never assumed,
    /// somebody must say so.
    pub free: HashSet<String>,
    /// Factor on the book's prices per account; an account that is not here pays list prices.
    pub price_multiplier: HashMap<String, Multiplier>,
    /// The last resort for unknown models.
    pub ceiling: CeilingRates,
}

impl PricingPolicy {
    /// Whether the operator has said that `model` costs nothing at `provider`.
    pub(crate) fn is_free(&self, provider: &str, model: &str) -> bool {
        let canonical = provider::canonical(provider.trim());
        let provider = provider::same_separators(&canonical);
        self.free.iter().any(|free| {
            let (of, named) = match free.split_once('/') {
                Some((of, named)) => (of, Some(named.trim())),
                None => (free.as_str(), None),
            };
            let is_it = named.is_none_or(|named| named.eq_ignore_ascii_case(model.trim()));
            is_it && provider::same_separators(&provider::canonical(of.trim())) == provider
        })
    }

    /// The factor for `account`.
    pub fn multiplier(&self, account: &str) -> Multiplier {
        if self.price_multiplier.is_empty() {
            return Multiplier::ONE;
        }
        self.price_multiplier
            .get(account)
            .copied()
            .unwrap_or(Multiplier::ONE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn multipliers_are_exact_decimals_within_bounds() {
        for (text, millionths) in [("0.85", 850_000), ("1", 1_000_000), ("10", 10_000_000)] {
            assert_eq!(Multiplier::parse(text).unwrap().millionths(), millionths);
        }
        for text in ["", "-1", "10.000001", "0.1234567", "1e3", ".5"] {
            assert!(Multiplier::parse(text).is_err(), "{text}");
        }
    }
}
