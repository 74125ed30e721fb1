//! Members of usage objects that are no plain counts.

use std::borrow::Cow;

use super::MAX_COUNT;
use crate::event::redact::members;
use crate::money::Nanos;
use crate::units::Quantity;

/// The text in `json`, or the one in the member `type` of the object in it.
pub(super) fn word_or_type(json: &str) -> Option<String> {
    match serde_json::from_str(json).ok()? {
        serde_json::Value::String(text) => Some(text),
        serde_json::Value::Object(mut members) => match members.remove("type")? {
            serde_json::Value::String(text) => Some(text),
            _ => None,
        },
        _ => None,
    }
}

/// Seconds, which may have a fraction; `None` where it is no such number.
pub(super) fn seconds(json: &str) -> Option<Quantity> {
    // Seconds and dollars have the same scale, billionths.
    let parsed = Nanos::parse_usd(json).ok()?;
    let billionths = u64::try_from(parsed.amount.get()).ok()?;
    (billionths <= MAX_COUNT * Quantity::ONE).then_some(Quantity(billionths))
}

/// Dollars, as a number or as an object with a total (Perplexity). What cannot be read as such
/// is not charged anyway, unless an operator trusts it.
pub(super) fn charge(json: &str) -> Option<Nanos> {
    let total: Cow<'_, str> = match serde_json::from_str::<serde_json::Value>(json) {
        Ok(serde_json::Value::Object(cost)) => Cow::Owned(cost.get("total_cost")?.to_string()),
        _ => Cow::Borrowed(json),
    };
    dollars(&total)
}

/// What the provider behind a gateway charges, of OpenRouter's `cost_details`.
pub(super) fn charge_behind(json: &str) -> Option<Nanos> {
    let details = members(json)?;
    let mut details = details.iter();
    let (_, charge) = details.find(|(name, _)| name == "upstream_inference_cost")?;
    dollars(charge)
}

fn dollars(text: &str) -> Option<Nanos> {
    let parsed = Nanos::parse_usd(text.trim_matches('"')).ok()?;
    Some(parsed.amount).filter(|amount| *amount >= Nanos::ZERO)
}
