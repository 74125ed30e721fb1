//! Rates of one model worked out: every gap in the source is filled by a documented rule, so that
//! pricing a call is a look into a table.
//!
//! **Context.** A threshold applies when the call's whole context ([`TokenClasses::context`]: all
//! input, cached and written tokens) has *more* tokens than it, and then to every token of the call,
//! output included. So do Anthropic (above 200k), Google (above 200k) and OpenAI (above 272k) bill;
//! where a provider counts the threshold itself in, the import lowers it by one.
//!
//! **Gaps**, class by class, for a tier and a context:
//! 1. the rate itself;
//! 2. cache writes of Claude models: 1.25 × (5 minutes) and 2 × (1 hour) the input rate, which
//!    Anthropic publishes as a rule for all its models; those of Alibaba's own: 1.25 ×, and reads 0.2 ×
//!    (Model Studio, "Context Cache");
//! 3. above a threshold: the dearer of the tier's rate below it and the default tier's rate above it;
//!    else the default tier's rate;
//! 4. another class: `cache_read`, `audio_input`, `image_input`, `video_input` → `input`;
//!    `cache_write_5m` → `input`; `cache_write_1h` → `cache_write_5m`; `reasoning`, `audio_output`,
//!    `image_output` → `output`; `input` and `output` of a model that has only special classes → the
//!    dearest of those on their side, else the dearest of all;
//! 5. batches of a model without any rate for them at Anthropic, Gemini, Mistral and OpenAI: half of the
//!    default tier's, which each publishes as a rule for all its models, except that Gemini's cached
//!    tokens cost the same.
//!
//! No class is ever free because the source does not say what it costs.
//!
//! [`TokenClasses::context`]: spendfuse_domain::TokenClasses::context

mod era_rates;

use std::collections::BTreeMap;

use spendfuse_domain::{UnitKind, UnixMillis};

use crate::book::ModelPrices;
use crate::factor::Factors;
use crate::off_peak::OffPeak;
use crate::rate::{Billable, Tier, TokenClass};
use era_rates::EraRates;

/// One rate and which line of the book it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    /// Nano-dollars per million tokens.
    pub(crate) nanos: u64,
    /// The class whose rate it is.
    pub(crate) class: TokenClass,
    /// The tier whose rate it is.
    pub(crate) tier: Tier,
    /// The threshold whose rate it is.
    pub(crate) above: u64,
}

/// All token rates for one tier and context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sheet {
    /// For contexts of more tokens than this.
    pub(crate) above: u64,
    /// In the order of [`TokenClass::ALL`].
    pub(crate) rates: [Rate; TokenClass::COUNT],
}

/// A rate for units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UnitRate {
    pub(crate) kind: UnitKind,
    pub(crate) quality: String,
    pub(crate) size: String,
    pub(crate) tier: Tier,
    /// Nano-dollars per unit.
    pub(crate) nanos: u64,
}

/// The rates that are in force from a moment on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Era {
    pub(crate) from: UnixMillis,
    /// Whether it is in force at the model's cheaper hours only.
    pub(crate) is_off_peak: bool,
    /// Per tier (in the order of [`Tier::ALL`]) the sheets by rising threshold; empty where the
    /// model has no token rates.
    tiers: [Vec<Sheet>; Tier::COUNT],
    pub(crate) units: Vec<UnitRate>,
    /// Whether the model answers with sound alone, so that its rate for output is that of the sound.
    pub(crate) speaks: bool,
    /// Kinds of units that are another way to count tokens that have a rate, see
    /// [`Era::is_other_count`].
    other_counts: Vec<UnitKind>,
}

/// All rates of one model, ready to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CompiledModel {
    /// By rising start; never empty.
    pub(crate) eras: Vec<Era>,
    /// The same at some hours of the week, and when that is.
    off_peak: Option<(OffPeak, Vec<Era>)>,
    pub(crate) factors: Factors,
}

impl CompiledModel {
    pub(crate) fn new(prices: &ModelPrices) -> Self {
        let off_peak = prices.off_peak.as_ref().map(|off_peak| {
            let mut cheaper = prices.clone();
            cheaper.rates.extend(off_peak.rates.clone());
            (off_peak.clone(), eras(&cheaper, true))
        });
        Self {
            eras: eras(prices, false),
            off_peak,
            factors: Factors::new(prices),
        }
    }

    /// The rates in force at `at`; before the first ones, those.
    pub(crate) fn era(&self, at: UnixMillis) -> &Era {
        let eras = match &self.off_peak {
            Some((off_peak, eras)) if off_peak.contains(at) => eras,
            _ => &self.eras,
        };
        let begun = eras.partition_point(|era| era.from <= at);
        &eras[begun.saturating_sub(1)]
    }
}

/// The times from which on other rates are in force, and those; never empty.
fn eras(prices: &ModelPrices, is_off_peak: bool) -> Vec<Era> {
    let mut starts: Vec<UnixMillis> = prices.rates.keys().map(|key| key.from).collect();
    starts.sort_unstable();
    starts.dedup();
    let starts = starts.into_iter();
    starts
        .map(|start| Era::new(prices, start, is_off_peak))
        .collect()
}

impl Era {
    fn new(prices: &ModelPrices, start: UnixMillis, is_off_peak: bool) -> Self {
        // Keys are sorted with `from` last, so that of one line the newest that has begun stays.
        let begun = prices.rates.iter().filter(|(key, _)| key.from <= start);
        let mut rates = BTreeMap::new();
        let mut units: BTreeMap<(UnitKind, &str, &str, Tier), u64> = BTreeMap::new();
        for (key, nanos) in begun {
            match key.billable {
                Billable::Tokens(class) => {
                    rates.insert((class, key.tier, key.above), *nanos);
                }
                Billable::Units(kind) => {
                    units.insert((kind, &key.quality, &key.size, key.tier), *nanos);
                }
            }
        }
        let mut thresholds: Vec<u64> = rates.keys().map(|(_, _, above)| *above).collect();
        thresholds.push(0);
        thresholds.sort_unstable();
        thresholds.dedup();
        let lines = EraRates {
            rates,
            thresholds,
            provider: &prices.provider,
            model: &prices.model,
        };
        let units = units.into_iter();
        Self {
            from: start,
            is_off_peak,
            tiers: Tier::ALL.map(|tier| lines.sheets(tier)),
            units: units
                .map(|((kind, quality, size, tier), nanos)| UnitRate {
                    kind,
                    quality: quality.to_owned(),
                    size: size.to_owned(),
                    tier,
                    nanos,
                })
                .collect(),
            speaks: prices.mode == "audio_speech" || prices.model.contains("-tts"),
            other_counts: lines.other_counts(),
        }
    }

    /// The token rates in `tier` for a context of `context` tokens; `None` where the model has none.
    pub(crate) fn sheet(&self, tier: Tier, context: u64) -> Option<&Sheet> {
        let sheets = &self.tiers[tier as usize];
        sheets
            .iter()
            .rev()
            .find(|sheet| context > sheet.above || sheet.above == 0)
    }

    /// The sheets of `tier`, by rising threshold.
    pub(crate) fn sheets(&self, tier: Tier) -> &[Sheet] {
        &self.tiers[tier as usize]
    }

    /// Whether the model has token rates.
    pub(crate) fn has_token_rates(&self) -> bool {
        !self.tiers[Tier::Default as usize].is_empty()
    }

    /// Whether `kind` is another way to count tokens that have a rate of their own (images of a
    /// model with image token rates, seconds of one with audio token rates): charged only where the
    /// call gives no tokens, never twice.
    pub(crate) fn is_other_count(&self, kind: UnitKind) -> bool {
        self.other_counts.contains(&kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rate::RateKey;

    fn model(name: &str, rates: &[(&str, u64)]) -> CompiledModel {
        model_of("p", name, rates)
    }

    fn model_of(provider: &str, name: &str, rates: &[(&str, u64)]) -> CompiledModel {
        let rates = rates
            .iter()
            .map(|(key, nanos)| (key.parse::<RateKey>().unwrap(), *nanos));
        CompiledModel::new(&ModelPrices {
            provider: provider.into(),
            model: name.into(),
            mode: "chat".into(),
            rates: rates.collect(),
            factors: Default::default(),
            off_peak: None,
            origins: Default::default(),
        })
    }

    fn rate(model: &CompiledModel, class: TokenClass, tier: Tier, context: u64) -> u64 {
        let era = model.era(UnixMillis(1));
        era.sheet(tier, context).unwrap().rates[class as usize].nanos
    }

    #[test]
    fn missing_classes_cost_what_their_kind_costs() {
        let model = model("m", &[("input", 10), ("output", 50)]);
        for class in TokenClass::ALL {
            let expected = if class.is_input() { 10 } else { 50 };
            assert_eq!(
                rate(&model, class, Tier::Priority, 1),
                expected,
                "{class:?}"
            );
        }
    }

    #[test]
    fn a_threshold_applies_above_itself_and_to_all_tokens() {
        let model = model(
            "m",
            &[
                ("input", 10),
                ("input>200000", 20),
                ("output", 50),
                ("output>200000", 75),
            ],
        );
        assert_eq!(rate(&model, TokenClass::Output, Tier::Default, 200_000), 50);
        assert_eq!(rate(&model, TokenClass::Output, Tier::Default, 200_001), 75);
        assert_eq!(
            rate(&model, TokenClass::CacheRead, Tier::Default, 200_001),
            20
        );
    }

    #[test]
    fn a_tier_without_long_context_rates_takes_the_dearer_neighbour() {
        let rates = [
            ("input", 10),
            ("input>200000", 20),
            ("input:flex", 5),
            ("input:priority", 30),
            ("output", 50),
        ];
        let model = model("m", &rates);
        assert_eq!(rate(&model, TokenClass::Input, Tier::Flex, 1), 5);
        assert_eq!(rate(&model, TokenClass::Input, Tier::Flex, 200_001), 20);
        assert_eq!(rate(&model, TokenClass::Input, Tier::Priority, 200_001), 30);
        assert_eq!(rate(&model, TokenClass::Input, Tier::Batch, 1), 10);
    }

    #[test]
    fn batches_cost_half_where_the_provider_says_so_for_all_its_models() {
        let rates = [("input", 1001), ("cache_read", 100), ("output", 5000)];
        let batch = |provider, rates: &[_], class| {
            let model = model_of(provider, "m", rates);
            rate(&model, class, Tier::Batch, 1)
        };
        for provider in ["anthropic", "gemini", "mistral", "openai"] {
            assert_eq!(batch(provider, &rates, TokenClass::Input), 501);
            assert_eq!(batch(provider, &rates, TokenClass::Reasoning), 2500);
        }
        assert_eq!(batch("openai", &rates, TokenClass::CacheRead), 50);
        assert_eq!(batch("gemini", &rates, TokenClass::CacheRead), 100);
        assert_eq!(batch("groq", &rates, TokenClass::Input), 1001);
        let told = [("input", 1000), ("input:batch", 700), ("output", 5000)];
        assert_eq!(batch("openai", &told, TokenClass::Output), 5000);
    }

    #[test]
    fn cache_writes_of_claude_follow_its_rule_where_the_source_is_silent() {
        let rates = [
            ("input", 1000),
            ("input:batch", 500),
            ("cache_write_5m", 1251),
            ("output", 5000),
        ];
        let claude = model("claude-x", &rates);
        assert_eq!(
            rate(&claude, TokenClass::CacheWrite5m, Tier::Default, 1),
            1251
        );
        assert_eq!(
            rate(&claude, TokenClass::CacheWrite1h, Tier::Default, 1),
            2000
        );
        assert_eq!(rate(&claude, TokenClass::CacheWrite5m, Tier::Batch, 1), 625);
        let other = model("x", &rates);
        assert_eq!(
            rate(&other, TokenClass::CacheWrite1h, Tier::Default, 1),
            1251
        );
    }

    #[test]
    fn cheaper_hours_have_their_rates_and_all_others_of_the_model() {
        let mut prices = ModelPrices {
            provider: "p".into(),
            model: "m".into(),
            mode: "chat".into(),
            rates: [("input", 10), ("output", 50)]
                .map(|(key, nanos)| (key.parse().unwrap(), nanos))
                .into(),
            factors: Default::default(),
            off_peak: None,
            origins: Default::default(),
        };
        prices.off_peak = Some(OffPeak {
            windows: vec!["6 00:00-24:00".parse().unwrap()],
            rates: [("input".parse().unwrap(), 4)].into(),
        });
        let model = CompiledModel::new(&prices);
        let rates = |at: &str| {
            let era = model.era(UnixMillis::parse_rfc3339(at).unwrap());
            let sheet = era.sheet(Tier::Default, 1).unwrap();
            [TokenClass::Input, TokenClass::CacheRead, TokenClass::Output]
                .map(|class| sheet.rates[class as usize].nanos)
        };
        assert_eq!(rates("2026-11-21T12:00:00Z"), [4, 4, 50], "a Saturday");
        assert_eq!(rates("2026-11-22T12:00:00Z"), [10, 10, 50]);
    }

    #[test]
    fn the_newest_rate_that_has_begun_is_in_force() {
        let rates = [
            ("input", 10),
            ("input@2026-01-01T00:00:00Z", 7),
            ("output", 50),
        ];
        let model = model("m", &rates);
        let new_year = UnixMillis::parse_rfc3339("2026-01-01T00:00:00Z").unwrap();
        let input = |at: UnixMillis| model.era(at).sheet(Tier::Default, 1).unwrap().rates[0].nanos;
        assert_eq!((input(new_year.plus(-1)), input(new_year)), (10, 7));
        let output = model.era(new_year).sheet(Tier::Default, 1).unwrap();
        assert_eq!(output.rates[TokenClass::Output as usize].nanos, 50);
    }
}
