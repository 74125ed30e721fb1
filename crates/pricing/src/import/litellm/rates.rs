//! The rates in a model's entry.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use spendfuse_domain::UnitKind;

use super::{Entry, Fields};
use crate::import::Imported;
use crate::import::decimal;
use crate::import::fields::{self, Meaning};
use crate::import::variants::Variant;
use crate::off_peak::{OffPeak, Window};
use crate::rate::{Billable, RateKey};

/// xAI bills the higher rates from the threshold on, all others above it.
const XAI: &str = "xai";
const OPENAI: &str = "openai";
/// Nano-dollars for each call of a tool that a provider runs, which models of the file do not have:
/// xAI's (docs.x.ai/developers/pricing: $5, $2.50 and $10 per 1,000), OpenAI's file search
/// (developers.openai.com/api/docs/pricing: $2.50 per 1,000) and its containers of a gigabyte, which
/// the file has as `openai/container`.
const TOOL_CALLS: [(&str, UnitKind, u64); 6] = [
    (XAI, UnitKind::WebSearchCalls, 5_000_000),
    (XAI, UnitKind::CodeInterpreterCalls, 5_000_000),
    (XAI, UnitKind::FileSearchCalls, 2_500_000),
    (XAI, UnitKind::DocumentSearchCalls, 10_000_000),
    (OPENAI, UnitKind::CodeInterpreterCalls, 30_000_000),
    (OPENAI, UnitKind::FileSearchCalls, 2_500_000),
];
/// Units of Bedrock's guardrails as the file has them.
const GUARDRAIL_UNITS: [(&str, UnitKind); 6] = [
    ("contentPolicyUnits", UnitKind::GuardrailContentUnits),
    ("contentPolicyImageUnits", UnitKind::GuardrailImageUnits),
    ("topicPolicyUnits", UnitKind::GuardrailTopicUnits),
    (
        "sensitiveInformationPolicyUnits",
        UnitKind::GuardrailSensitiveUnits,
    ),
    (
        "contextualGroundingPolicyUnits",
        UnitKind::GuardrailGroundingUnits,
    ),
    (
        "automatedReasoningPolicyUnits",
        UnitKind::GuardrailReasoningUnits,
    ),
];

/// Factors are millionths.
const FACTOR_DIGITS: i32 = 6;

#[derive(Deserialize)]
struct SearchContext<'a> {
    #[serde(borrow)]
    search_context_size_low: Option<&'a RawValue>,
    #[serde(borrow)]
    search_context_size_medium: Option<&'a RawValue>,
    #[serde(borrow)]
    search_context_size_high: Option<&'a RawValue>,
}

const OFF_PEAK_FIELD: &str = "off_peak_pricing";
/// Zones in which weekdays are counted, and by how many minutes their days begin earlier.
const WEEKDAY_ZONES: [(&str, u16); 3] = [("", 0), ("UTC", 0), ("Asia/Shanghai", 8 * 60)];
const WHOLE_WEEK: [u8; 7] = [1, 2, 3, 4, 5, 6, 7];

#[derive(Deserialize)]
struct OffPeakWindow<'a> {
    #[serde(borrow)]
    hours_utc: Hours<'a>,
    #[serde(default)]
    weekdays: Vec<u8>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Hours<'a> {
    One(#[serde(borrow)] Cow<'a, str>),
    Several(#[serde(borrow)] Vec<Cow<'a, str>>),
}

/// The windows of the object in which a file describes cheaper hours.
fn off_peak_windows(pricing: &Fields<'_>) -> Option<Vec<Window>> {
    let zone = super::text(pricing, "weekday_timezone");
    let (_, ahead) = WEEKDAY_ZONES.iter().find(|(known, _)| *known == zone)?;
    let given: Vec<OffPeakWindow<'_>> = serde_json::from_str(pricing.get("windows")?.get()).ok()?;
    let mut windows = Vec::new();
    for window in &given {
        let days = match window.weekdays.is_empty() {
            true => &WHOLE_WEEK[..],
            false => &window.weekdays,
        };
        let hours = match &window.hours_utc {
            Hours::One(hours) => std::slice::from_ref(hours),
            Hours::Several(hours) => hours,
        };
        for hours in hours {
            windows.extend(Window::of_days(days, hours, *ahead)?);
        }
    }
    windows.sort_unstable();
    windows.dedup();
    (!windows.is_empty()).then_some(windows)
}

impl Imported {
    pub(super) fn rates(
        &mut self,
        entry: &Entry<'_>,
        fields: &Fields<'_>,
        variant: Option<&Variant>,
    ) -> BTreeMap<RateKey, u64> {
        let mut rates = BTreeMap::new();
        let mut second_choices = Vec::new();
        for (field, raw) in fields {
            if raw.get() == "null" {
                continue;
            }
            match fields::meaning(entry.mode, field) {
                Meaning::NotAPrice => {}
                Meaning::Skip(reason) => self.report.skip(field, reason, entry.name),
                Meaning::Rate(key) => match decimal::scaled(raw.get(), scale_of(&key)) {
                    Some(nanos) if fields::is_second_choice(field) => {
                        second_choices.push((key, nanos));
                    }
                    Some(nanos) => keep_dearer(&mut rates, key, nanos),
                    None => self.report.skip(field, "not a number", entry.name),
                },
                Meaning::PerPixel => self.per_pixel(entry, field, raw, variant, &mut rates),
                Meaning::SearchContext => self.search_context(entry, field, raw, &mut rates),
                Meaning::Factor(_) | Meaning::ProviderSpecific | Meaning::OffPeak => {}
                Meaning::TieredPricing => self.tiered_pricing(entry, field, raw, &mut rates),
                Meaning::GuardrailUnits => {
                    let units: Fields<'_> = serde_json::from_str(raw.get()).unwrap_or_default();
                    for (name, kind) in GUARDRAIL_UNITS {
                        let raw = units.get(name);
                        let nanos =
                            raw.and_then(|raw| decimal::scaled(raw.get(), decimal::PER_UNIT));
                        let key = RateKey::new(Billable::Units(kind));
                        rates.extend(nanos.map(|nanos| (key, nanos)));
                    }
                }
            }
        }
        for (key, nanos) in second_choices {
            rates.entry(key).or_insert(nanos);
        }
        if entry.mode == "search" {
            // A search engine is called once per search; apps count it either way.
            let searches = RateKey::new(Billable::Units(UnitKind::WebSearchCalls));
            if let Some(nanos) = rates.get(&searches).copied() {
                rates.insert(RateKey::new(Billable::Units(UnitKind::Requests)), nanos);
            }
        }
        let is_token_price = |(key, nanos): (&RateKey, &u64)| {
            matches!(key.billable, Billable::Tokens(_)) && *nanos > 0
        };
        if matches!(entry.mode, "chat" | "responses") && rates.iter().any(is_token_price) {
            for (_, kind, nanos) in TOOL_CALLS.iter().filter(|(of, ..)| entry.provider == *of) {
                let calls = RateKey::new(Billable::Units(*kind));
                rates.entry(calls).or_insert(*nanos);
            }
        }
        if entry.provider == XAI {
            rates = rates
                .into_iter()
                .map(|(key, nanos)| {
                    (
                        RateKey {
                            above: key.above.saturating_sub(1),
                            ..key
                        },
                        nanos,
                    )
                })
                .collect();
        }
        rates
    }

    /// Factors for calls that are served in a special way.
    pub(super) fn factors(
        &mut self,
        entry: &Entry<'_>,
        fields: &Fields<'_>,
    ) -> BTreeMap<String, u32> {
        let mut factors = BTreeMap::new();
        let mut take = |name: &str, raw: &RawValue| {
            let millionths = decimal::scaled(raw.get(), FACTOR_DIGITS);
            let millionths = millionths.and_then(|factor| u32::try_from(factor).ok());
            factors.extend(millionths.map(|factor| (name.to_owned(), factor)));
        };
        for (field, raw) in fields {
            match fields::meaning(entry.mode, field) {
                Meaning::Factor(name) => take(name, raw),
                // Bedrock's geographies are in its names, with rates of their own.
                Meaning::ProviderSpecific if entry.provider == "anthropic" => {
                    let words: Fields<'_> = serde_json::from_str(raw.get()).unwrap_or_default();
                    for (word, name) in [("us", "geo=us"), ("fast", "speed=fast")] {
                        if let Some(raw) = words.get(word) {
                            take(name, raw);
                        }
                    }
                }
                _ => {}
            }
        }
        factors
    }

    /// Rates of the provider's cheaper hours, where the file says when they are in a way that is
    /// understood: else the usual rates stand, which are the dearer ones.
    pub(super) fn off_peak(&mut self, entry: &Entry<'_>, fields: &Fields<'_>) -> Option<OffPeak> {
        let raw = fields.get(OFF_PEAK_FIELD)?;
        let pricing: Fields<'_> = serde_json::from_str(raw.get()).unwrap_or_default();
        let Some(windows) = off_peak_windows(&pricing) else {
            let reason = "hours or zone that are not understood; the usual rates are charged";
            self.report.skip(OFF_PEAK_FIELD, reason, entry.name);
            return None;
        };
        let mut rates = BTreeMap::new();
        for (field, raw) in &pricing {
            if let Meaning::Rate(key) = fields::meaning(entry.mode, field)
                && let Some(nanos) = decimal::scaled(raw.get(), scale_of(&key))
            {
                rates.insert(key, nanos);
            }
        }
        (!rates.is_empty()).then_some(OffPeak { windows, rates })
    }

    fn per_pixel(
        &mut self,
        entry: &Entry<'_>,
        field: &str,
        raw: &RawValue,
        variant: Option<&Variant>,
        rates: &mut BTreeMap<RateKey, u64>,
    ) {
        let images = RateKey::new(Billable::Units(UnitKind::Images));
        let Some(pixels) = variant.and_then(Variant::pixels) else {
            self.report
                .skip(field, "the name gives no size in pixels", entry.name);
            return;
        };
        match decimal::times(raw.get(), pixels, decimal::PER_UNIT) {
            // Where there is a price per image, it is the published one.
            Some(nanos) if nanos > 0 => {
                rates.entry(images).or_insert(nanos);
            }
            Some(_) => {}
            None => self.report.skip(field, "not a number", entry.name),
        }
    }

    /// Three levels where they differ, with the medium one as the default; one where they do not.
    fn search_context(
        &mut self,
        entry: &Entry<'_>,
        field: &str,
        raw: &RawValue,
        rates: &mut BTreeMap<RateKey, u64>,
    ) {
        let Ok(levels) = serde_json::from_str::<SearchContext<'_>>(raw.get()) else {
            self.report
                .skip(field, "not an object of three levels", entry.name);
            return;
        };
        let nanos = |level: Option<&RawValue>| {
            level.and_then(|raw| decimal::scaled(raw.get(), decimal::PER_UNIT))
        };
        let low = nanos(levels.search_context_size_low);
        let medium = nanos(levels.search_context_size_medium);
        let high = nanos(levels.search_context_size_high);
        let searches = RateKey::new(Billable::Units(UnitKind::WebSearchCalls));
        if let Some(default) = medium.or(high).or(low) {
            rates.insert(searches.clone(), default);
        }
        if low != medium || medium != high {
            for (level, nanos) in [("low", low), ("medium", medium), ("high", high)] {
                if let Some(nanos) = nanos {
                    rates.insert(searches.clone().with_attributes(level, ""), nanos);
                }
            }
        }
    }

    /// A list of objects with `range: [above, to]` and token prices for contexts in it. All tokens
    /// of a call cost the rates of the range that its input falls in (Alibaba's rule).
    fn tiered_pricing(
        &mut self,
        entry: &Entry<'_>,
        field: &str,
        raw: &RawValue,
        rates: &mut BTreeMap<RateKey, u64>,
    ) {
        let ranges: Vec<Fields<'_>> = serde_json::from_str(raw.get()).unwrap_or_default();
        for range in &ranges {
            let bounds = range.get("range").map_or("", |raw| raw.get());
            let start = bounds
                .trim_start_matches('[')
                .split(',')
                .next()
                .unwrap_or("");
            let Some(above) = decimal::scaled(start.trim(), 0) else {
                self.report.skip(
                    field,
                    "a range that is not one of context tokens",
                    entry.name,
                );
                continue;
            };
            for (inner, raw) in range {
                let Meaning::Rate(key) = fields::meaning(entry.mode, inner) else {
                    continue;
                };
                match decimal::scaled(raw.get(), scale_of(&key)) {
                    Some(nanos) => keep_dearer(rates, key.above(above), nanos),
                    None => self.report.skip(field, "not a number", entry.name),
                }
            }
        }
    }
}

fn scale_of(key: &RateKey) -> i32 {
    match key.billable {
        Billable::Tokens(_) => decimal::PER_MILLION_TOKENS,
        Billable::Units(_) => decimal::PER_UNIT,
    }
}

/// Input and output prices of one unit (seconds of a recording) are two names of one price.
fn keep_dearer(rates: &mut BTreeMap<RateKey, u64>, key: RateKey, nanos: u64) {
    let rate = rates.entry(key).or_insert(nanos);
    *rate = nanos.max(*rate);
}
