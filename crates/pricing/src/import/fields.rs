//! What each field of a LiteLLM entry means.

use spendfuse_domain::UnitKind;

use crate::rate::{Billable, RateKey, Tier, TokenClass};

/// What to do with a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Dollars per token or per unit.
    Rate(RateKey),
    /// Dollars per pixel of the image whose size the entry's name gives.
    PerPixel,
    /// Dollars per search by amount of context, an object.
    SearchContext,
    /// Token prices by size of the context, a list.
    TieredPricing,
    /// A factor on the token rates, by its name in the book.
    Factor(&'static str),
    /// Dollars per unit of a guardrail by policy, an object.
    GuardrailUnits,
    /// Other rates at some hours of the week, an object.
    OffPeak,
    /// Factors by the words of a call, among other things, an object.
    ProviderSpecific,
    /// Looks like a price, and is not taken over for this reason.
    Skip(&'static str),
    /// Not about prices.
    NotAPrice,
}

const NO_CLASS: &str = "usage events have no class or unit for it";
const NO_CONDITION: &str = "usage events do not say whether it applies; the base rate is charged";

/// Fields of token prices, longest names first, and what they price.
const TOKEN_FIELDS: &[(&str, TokenClass)] = &[
    (
        "cache_creation_input_token_cost_above_12hr",
        TokenClass::CacheWrite1h,
    ),
    (
        "cache_creation_input_token_cost_above_1hr",
        TokenClass::CacheWrite1h,
    ),
    ("cache_creation_input_token_cost", TokenClass::CacheWrite5m),
    ("cache_read_input_token_cost", TokenClass::CacheRead),
    ("input_cost_per_audio_token", TokenClass::AudioInput),
    ("input_cost_per_image_token", TokenClass::ImageInput),
    ("input_cost_per_video_token", TokenClass::VideoInput),
    ("input_cost_per_token_cache_hit", TokenClass::CacheRead),
    ("input_cost_per_token", TokenClass::Input),
    ("output_cost_per_reasoning_token", TokenClass::Reasoning),
    ("output_cost_per_audio_token", TokenClass::AudioOutput),
    ("output_cost_per_image_token", TokenClass::ImageOutput),
    ("output_cost_per_token", TokenClass::Output),
];

/// Prices of one token that the book has as those of units.
const CACHED_MEDIA_FIELDS: [(&str, UnitKind); 2] = [
    (
        "cache_read_input_audio_token_cost",
        UnitKind::CachedAudioTokens,
    ),
    (
        "cache_read_input_image_token_cost",
        UnitKind::CachedImageTokens,
    ),
];

/// Fields that look like prices and are not taken over.
const SKIPPED: &[(&str, &str)] = &[
    ("annotation_cost_per_page", NO_CLASS),
    ("cache_creation_input_audio_token_cost", NO_CLASS),
    ("citation_cost_per_token", NO_CLASS),
    ("code_interpreter_cost_per_session", NO_CLASS),
    ("computer_use_", NO_CLASS),
    ("explicit_cache_read_input_token_cost", NO_CONDITION),
    ("file_search_cost_", NO_CLASS),
    ("google_maps_grounding_cost_per_query", NO_CLASS),
    ("input_cost_per_text_message", NO_CLASS),
    ("input_cost_per_video_per_second_above_", NO_CONDITION),
    (
        "input_dbu_cost_per_token",
        "in another currency, for reference; the dollar fields are taken",
    ),
    ("ocr_cost_per_credit", NO_CLASS),
    ("output_cost_per_video_token", NO_CLASS),
    (
        "output_dbu_cost_per_token",
        "in another currency, for reference; the dollar fields are taken",
    ),
    ("regional_", NO_CONDITION),
    (
        "search_free_requests",
        "free allowances belong to an account, not to a call",
    ),
    ("vector_store_cost_per_gb_per_day", "not a price of a call"),
];

/// What `field` of an entry with this mode means.
pub(super) fn meaning(mode: &str, field: &str) -> Meaning {
    match field {
        "search_context_cost_per_query" => return Meaning::SearchContext,
        "tiered_pricing" => return Meaning::TieredPricing,
        "off_peak_pricing" => return Meaning::OffPeak,
        "guardrail_cost_per_unit" => return Meaning::GuardrailUnits,
        "regional_endpoint_uplift_multiplier" => return Meaning::Factor("region"),
        "regional_processing_uplift_multiplier_eu" => return Meaning::Factor("region=eu"),
        "regional_processing_uplift_multiplier_us" => return Meaning::Factor("region=us"),
        "provider_specific_entry" => return Meaning::ProviderSpecific,
        "input_cost_per_pixel" | "output_cost_per_pixel" => return Meaning::PerPixel,
        _ => {}
    }
    let skipped = SKIPPED.iter().find(|(start, _)| field.starts_with(start));
    if let Some((_, reason)) = skipped {
        return Meaning::Skip(reason);
    }
    let key = token_rate(field)
        .or_else(|| cached_media_rate(field))
        .or_else(|| unit_rate(mode, field));
    if let Some(key) = key {
        return Meaning::Rate(key);
    }
    if field == "cost_per_second" || (mode == "chat" && field == "input_cost_per_second") {
        return Meaning::Skip("reserved capacity, not a price of a call");
    }
    let looks_like_a_price = ["cost", "pric", "discount", "multiplier"]
        .iter()
        .any(|word| field.contains(word));
    if looks_like_a_price {
        return Meaning::Skip("unknown to this version of spendfuse");
    }
    Meaning::NotAPrice
}

/// Whether the field prices the same thing as another one and only counts where that is missing:
/// the twelve-hour cache where there is no one-hour cache, the older name of cache reads.
pub(super) fn is_second_choice(field: &str) -> bool {
    field.contains("_above_12hr") || field.starts_with("input_cost_per_token_cache_hit")
}

fn token_rate(field: &str) -> Option<RateKey> {
    let found = TOKEN_FIELDS
        .iter()
        .find_map(|(start, class)| Some((field.strip_prefix(start)?, *class)));
    let (endings, class) = found?;
    let (tier, above) = endings_of(endings)?;
    let key = RateKey::new(Billable::Tokens(class));
    Some(key.in_tier(tier).above(above))
}

fn cached_media_rate(field: &str) -> Option<RateKey> {
    let mut fields = CACHED_MEDIA_FIELDS.iter();
    let (endings, kind) =
        fields.find_map(|(start, kind)| Some((field.strip_prefix(start)?, *kind)))?;
    let (tier, above) = endings_of(endings)?;
    // Units have no rates by context.
    (above == 0).then(|| RateKey::new(Billable::Units(kind)).in_tier(tier))
}

/// Reads `_above_200k_tokens` and `_priority`, each at most once, in any order.
fn endings_of(endings: &str) -> Option<(Tier, u64)> {
    let mut rest = endings;
    let (mut tier, mut above) = (None, None);
    while !rest.is_empty() {
        if let Some((number, after)) = rest
            .strip_prefix("_above_")
            .and_then(|rest| rest.split_once("_tokens"))
        {
            let (digits, thousand) = match number.strip_suffix('k') {
                Some(digits) => (digits, 1_000),
                None => (number, 1),
            };
            let tokens = digits.parse::<u64>().ok()?.checked_mul(thousand)?;
            if above.replace(tokens).is_some() {
                return None;
            }
            rest = after;
            continue;
        }
        let named = |(name, tier): &(&str, Tier)| Some((rest.strip_prefix(name)?, *tier));
        let (after, named_tier) = TIER_ENDINGS.iter().find_map(named)?;
        if tier.replace(named_tier).is_some() {
            return None;
        }
        rest = after;
    }
    Some((tier.unwrap_or_default(), above.unwrap_or(0)))
}

const TIER_ENDINGS: &[(&str, Tier)] = &[
    ("_batches", Tier::Batch),
    ("_flex", Tier::Flex),
    ("_balanced", Tier::Balanced),
    ("_priority", Tier::Priority),
    ("_ultrafast", Tier::Ultrafast),
];

fn unit_rate(mode: &str, field: &str) -> Option<RateKey> {
    let key = |kind: UnitKind| Some(RateKey::new(Billable::Units(kind)));
    let is_audio = matches!(mode, "audio_transcription" | "audio_speech" | "realtime");
    let is_video = mode == "video_generation";
    match field {
        "output_cost_per_image" | "input_cost_per_image" if !is_video && !is_audio => {
            key(UnitKind::Images)
        }
        "input_cost_per_character" => key(UnitKind::Characters),
        "input_cost_per_second" | "output_cost_per_second" if is_audio => {
            key(UnitKind::AudioSeconds)
        }
        "input_cost_per_audio_per_second" => key(UnitKind::AudioSeconds),
        "output_cost_per_second" | "output_cost_per_video_per_second" if is_video => {
            key(UnitKind::VideoSeconds)
        }
        "input_cost_per_video_per_second" => key(UnitKind::VideoSeconds),
        "ocr_cost_per_page" => key(UnitKind::Pages),
        "ocr_cost_per_page_batches" => Some(key(UnitKind::Pages)?.in_tier(Tier::Batch)),
        "input_cost_per_query" => match mode {
            "rerank" => key(UnitKind::RerankUnits),
            "search" => key(UnitKind::WebSearchCalls),
            _ => key(UnitKind::Requests),
        },
        "input_cost_per_request" => key(UnitKind::Requests),
        _ => {
            let sized = |start: &str, kind: UnitKind| {
                let size = field.strip_prefix(start)?;
                Some(RateKey::new(Billable::Units(kind)).with_attributes("", size))
            };
            let image = sized("output_cost_per_image_", UnitKind::Images);
            let is_size = |key: &RateKey| {
                let first = key.size.as_bytes().first();
                first.is_some_and(u8::is_ascii_digit)
            };
            image
                .or_else(|| sized("output_cost_per_second_", UnitKind::VideoSeconds))
                .filter(is_size)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_names_become_rate_keys() {
        for (field, expected) in [
            ("input_cost_per_token", "input"),
            ("input_cost_per_token_batches", "input:batch"),
            (
                "cache_creation_input_token_cost_above_1hr",
                "cache_write_1h",
            ),
            (
                "cache_creation_input_token_cost_above_12hr_above_272k_tokens_flex",
                "cache_write_1h:flex>272000",
            ),
            (
                "input_cost_per_token_priority_above_200k_tokens",
                "input:priority>200000",
            ),
            (
                "input_cost_per_audio_token_priority",
                "audio_input:priority",
            ),
            ("output_cost_per_image_0.5K", "images[,0.5k]"),
            (
                "cache_read_input_audio_token_cost_priority",
                "cached_audio_tokens:priority",
            ),
        ] {
            let meaning = meaning("image_generation", field);
            let Meaning::Rate(key) = meaning else {
                panic!("{field}: {meaning:?}");
            };
            assert_eq!(key.to_string(), expected);
        }
    }

    #[test]
    fn what_looks_like_a_price_and_is_unknown_is_reported() {
        for field in [
            "input_cost_per_token_decisions",
            "cost_per_smile",
            "night_pricing",
        ] {
            assert!(
                matches!(meaning("chat", field), Meaning::Skip(_)),
                "{field}"
            );
        }
        assert_eq!(meaning("chat", "max_tokens"), Meaning::NotAPrice);
    }
}
