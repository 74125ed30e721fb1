//! Which rate a class of tokens has in a tier and above a threshold, where the book may be silent.

use std::collections::BTreeMap;

use spendfuse_domain::UnitKind;

use super::{Rate, Sheet};
use crate::rate::{Tier, TokenClass};

const ALIBABA: &str = "dashscope";
const GEMINI: &str = "gemini";

/// Who publishes for all its models that batches cost half: Anthropic ("Batch processing"), Google
/// ("Batch API"), Mistral ("Batch inference") and OpenAI ("Batch API").
const HALF_FOR_BATCHES: [&str; 4] = ["anthropic", GEMINI, "mistral", "openai"];

/// The rates of one era as the book has them.
pub(super) struct EraRates<'a> {
    pub(super) rates: BTreeMap<(TokenClass, Tier, u64), u64>,
    pub(super) thresholds: Vec<u64>,
    pub(super) provider: &'a str,
    pub(super) model: &'a str,
}

impl EraRates<'_> {
    pub(super) fn sheets(&self, tier: Tier) -> Vec<Sheet> {
        if self.rates.is_empty() {
            return Vec::new();
        }
        let rate = |class, above| match tier {
            Tier::Batch if self.has_half_for_batches() => self.half(class, above),
            _ => self.rate(class, tier, above),
        };
        let at = |above: &u64| Sheet {
            above: *above,
            rates: TokenClass::ALL.map(|class| rate(class, *above)),
        };
        let mut sheets: Vec<Sheet> = self.thresholds.iter().map(at).collect();
        // A threshold at which nothing of this tier changes is none.
        sheets.dedup_by(|later, earlier| later.rates == earlier.rates);
        sheets
    }

    fn direct(&self, class: TokenClass, tier: Tier, above: u64) -> Option<Rate> {
        let nanos = *self.rates.get(&(class, tier, above))?;
        Some(Rate {
            nanos,
            class,
            tier,
            above,
        })
    }

    /// Rules 1 and 3: the class's own rate.
    fn own(&self, class: TokenClass, tier: Tier, above: u64) -> Option<Rate> {
        let direct = self.direct(class, tier, above);
        if direct.is_some() {
            return direct;
        }
        let in_default = || {
            let other_tier = tier != Tier::Default;
            other_tier
                .then(|| self.own(class, Tier::Default, above))
                .flatten()
        };
        let lower = self.thresholds.iter().rev().find(|lower| **lower < above);
        let Some(lower) = lower else {
            return in_default();
        };
        let below = self.own(class, tier, *lower);
        let dearer = |one: Rate, other: Rate| if other.nanos > one.nanos { other } else { one };
        match (below, in_default()) {
            (Some(below), Some(default)) => Some(dearer(below, default)),
            (below, default) => below.or(default),
        }
    }

    /// Rule 2: what is published for caches as a share of the input rate, by Anthropic for writes to
    /// its models' and by Alibaba for its own.
    fn by_published_rule(&self, class: TokenClass, tier: Tier, above: u64) -> Option<Rate> {
        let is_claude = self.model.contains("claude");
        let is_alibabas = self.provider == ALIBABA && self.model.starts_with("qwen");
        let twentieths = match class {
            TokenClass::CacheWrite5m if is_claude || is_alibabas => 25,
            TokenClass::CacheWrite1h if is_claude => 40,
            // Half of that where the app has asked for the cache: which one it was is not said.
            TokenClass::CacheRead if is_alibabas => 4,
            _ => return None,
        };
        let input = self.own(TokenClass::Input, tier, above)?;
        Some(Rate {
            nanos: (input.nanos * twentieths).div_ceil(20),
            ..input
        })
    }

    /// Rule 5: the book has no rate for batches, and the provider a rule.
    fn has_half_for_batches(&self) -> bool {
        let has_rates = || self.rates.keys().any(|(_, tier, _)| *tier == Tier::Batch);
        HALF_FOR_BATCHES.contains(&self.provider) && !has_rates()
    }

    /// Half of the default tier's rate; of Google's cached tokens, which cost in batches what they
    /// always do, the whole.
    fn half(&self, class: TokenClass, above: u64) -> Rate {
        let rate = self.rate(class, Tier::Default, above);
        if class == TokenClass::CacheRead && self.provider == GEMINI {
            return rate;
        }
        Rate {
            nanos: rate.nanos.div_ceil(2),
            ..rate
        }
    }

    /// All rules.
    fn rate(&self, class: TokenClass, tier: Tier, above: u64) -> Rate {
        let found = self
            .direct(class, tier, above)
            .or_else(|| self.by_published_rule(class, tier, above))
            .or_else(|| self.own(class, tier, above));
        if let Some(rate) = found {
            return rate;
        }
        match class {
            TokenClass::Input | TokenClass::Output => self.dearest(class, tier, above),
            TokenClass::CacheWrite1h => self.rate(TokenClass::CacheWrite5m, tier, above),
            part if part.is_input() => self.rate(TokenClass::Input, tier, above),
            _ => self.rate(TokenClass::Output, tier, above),
        }
    }

    /// The last of rule 4: the model has no rate for plain input or output.
    fn dearest(&self, class: TokenClass, tier: Tier, above: u64) -> Rate {
        let own = |other: &TokenClass| self.own(*other, tier, above);
        let same_side = TokenClass::ALL
            .iter()
            .filter(|other| other.is_input() == class.is_input())
            .filter_map(own);
        same_side
            .max_by_key(|rate| rate.nanos)
            .or_else(|| {
                TokenClass::ALL
                    .iter()
                    .filter_map(own)
                    .max_by_key(|rate| rate.nanos)
            })
            .or_else(|| {
                let dearest = self.rates.iter().max_by_key(|(_, nanos)| **nanos);
                dearest.and_then(|((class, tier, above), _)| self.direct(*class, *tier, *above))
            })
            .expect("only called for models with token rates")
    }

    pub(super) fn other_counts(&self) -> Vec<UnitKind> {
        let has = |class: TokenClass| self.rates.keys().any(|(other, _, _)| *other == class);
        let counts = [
            (
                UnitKind::Images,
                has(TokenClass::ImageInput) || has(TokenClass::ImageOutput),
            ),
            (
                UnitKind::AudioSeconds,
                has(TokenClass::AudioInput) || has(TokenClass::AudioOutput),
            ),
            (UnitKind::VideoSeconds, has(TokenClass::VideoInput)),
            (UnitKind::Characters, has(TokenClass::Input)),
            (UnitKind::RerankUnits, has(TokenClass::Input)),
        ];
        let counted = counts.into_iter().filter(|(_, counted)| *counted);
        counted.map(|(kind, _)| kind).collect()
    }
}
