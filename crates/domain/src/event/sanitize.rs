//! What is sanitized instead of rejected: over-long texts, wrong types in optional fields, too many
//! tags, money and units with too many digits. Every change leaves its flag.

use std::borrow::Cow;
use std::mem::take;

use serde_json::value::RawValue;
use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64;

use super::envelope::{RawUnits, Tags};
use super::json::{Field, JsonKind, TextField, Written, WrittenField};
use super::reject::{RejectReason, Rejection};
use super::{Attribution, Flags, MAX_TAGS, MAX_TEXT_BYTES};
use crate::budget::session_limit;
use crate::dimensions::FixedDimension;
use crate::money::Nanos;
use crate::units::{Quantity, UnitKind, Units};

/// Money of one call must be below this, either way.
pub(super) const MAX_CALL_MONEY: Nanos = Nanos::from_dollars(1_000_000);
/// Units of one call, in billionths, must not exceed this: 10⁹ units.
const MAX_QUANTITY: i128 = 1_000_000_000 * Quantity::ONE as i128;
/// `~` and 16 hex digits.
pub(super) const HASH_SUFFIX_BYTES: usize = 17;

/// What a text of more than 256 bytes is cut to; `None` where it stays whole.
pub(super) fn shortened(text: &str) -> Option<String> {
    (text.len() > MAX_TEXT_BYTES).then(|| prefix_and_hash(text))
}

/// Whether `text` is what [`shortened`] makes: a prefix that ends with a whole character, `~` and 16
/// hex digits.
fn was_shortened(text: &str) -> bool {
    let suffix = &text.as_bytes()[text.len() - HASH_SUFFIX_BYTES..];
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    suffix[0] == b'~' && suffix[1..].iter().all(is_digit)
}

#[cold]
fn prefix_and_hash(text: &str) -> String {
    let prefix = &text[..text.floor_char_boundary(MAX_TEXT_BYTES - HASH_SUFFIX_BYTES)];
    format!("{prefix}~{:016x}", xxh3_64(text.as_bytes()))
}

impl Attribution<'_> {
    /// The same with texts and tags bounded as those of decoded events are, so that who asks before
    /// a call and who reports it afterwards mean the same scopes.
    #[must_use]
    pub fn sanitized(mut self) -> Self {
        let mut sanitizer = Sanitizer::default();
        let mut shorten = |text: &mut _| *text = sanitizer.shorten(take(text));
        for text in self.texts_mut() {
            shorten(text);
        }
        let tags = &mut self.tags;
        tags.retain(|(name, value)| !name.is_empty() && !value.is_empty());
        for (name, value) in tags.iter_mut() {
            shorten(name);
            shorten(value);
        }
        tags.sort();
        tags.dedup_by(|(later, _), (kept, _)| later == kept);
        tags.truncate(MAX_TAGS);
        self
    }
}

/// Mends fields one after the other and remembers what it did.
#[derive(Debug, Default)]
pub(super) struct Sanitizer {
    pub flags: Flags,
}

impl Sanitizer {
    /// An optional text; empty where absent or of another type.
    pub fn text<'a>(&mut self, field: TextField<'a>) -> Cow<'a, str> {
        match field {
            Field::Value(text) => self.shorten(text),
            Field::Absent => Cow::Borrowed(""),
            Field::Wrong(_) => {
                self.flags.insert(Flags::FIELD_DROPPED);
                Cow::Borrowed("")
            }
        }
    }

    /// Cuts a text of more than 256 bytes to a prefix, `~` and the xxh3 hash of the whole in 16 hex
    /// digits, so that different texts stay different and equal ones equal.
    #[inline]
    pub fn shorten<'a>(&mut self, text: Cow<'a, str>) -> Cow<'a, str> {
        // A prefix that ends with a whole character may be three bytes shorter than it might be.
        if text.len() + 3 < MAX_TEXT_BYTES {
            return text;
        }
        self.shorten_long(text)
    }

    #[cold]
    fn shorten_long<'a>(&mut self, text: Cow<'a, str>) -> Cow<'a, str> {
        let short = shortened(&text);
        // Where the sidecar cut it before it stored the event, that is to be seen in its row too.
        if short.is_some() || was_shortened(&text) {
            self.flags.insert(Flags::FIELD_TRUNCATED);
        }
        short.map_or(text, Cow::Owned)
    }

    /// An optional count; `None` where absent, of another type or above 2³² − 1.
    pub fn count(&mut self, field: Field<u64>) -> Option<u32> {
        let count = match field {
            Field::Value(count) => u32::try_from(count).ok(),
            Field::Absent => return None,
            Field::Wrong(_) => None,
        };
        if count.is_none() {
            self.flags.insert(Flags::FIELD_DROPPED);
        }
        count
    }

    /// An optional fingerprint: exactly 16 hex digits.
    pub fn fingerprint(&mut self, field: WrittenField<'_>) -> Option<u64> {
        let number = match field {
            Field::Value(Written(text)) if text.is_empty() => return None,
            Field::Value(Written(text)) => crate::fingerprint::parse_hex(&text),
            Field::Absent => return None,
            Field::Wrong(_) => None,
        };
        if number.is_none() {
            self.flags.insert(Flags::FIELD_DROPPED);
        }
        number
    }

    /// The app's own figure, `None` where absent, negative or no decimal string.
    pub fn reported_cost(&mut self, field: WrittenField<'_>) -> Result<Option<Nanos>, Rejection> {
        let parsed = match field {
            Field::Absent => return Ok(None),
            Field::Value(Written(text)) => Nanos::parse_usd(&text).ok(),
            Field::Wrong(_) => None,
        };
        let Some(parsed) = parsed else {
            self.flags.insert(Flags::FIELD_DROPPED);
            return Ok(None);
        };
        let amount = self.bounded_money(parsed, "data.reported_cost_usd")?;
        if amount < Nanos::ZERO {
            self.flags.insert(Flags::FIELD_DROPPED);
            return Ok(None);
        }
        Ok(Some(amount))
    }

    /// What a session may spend, `None` where absent, negative or no decimal string: an event is
    /// counted whatever its app says about limits.
    pub fn session_limit(&mut self, field: WrittenField<'_>) -> Option<Nanos> {
        let parsed = match field {
            Field::Absent => return None,
            Field::Value(Written(text)) if text.is_empty() => return None,
            Field::Value(Written(text)) => Nanos::parse_usd(&text).ok(),
            Field::Wrong(_) => None,
        };
        let usable = parsed.and_then(|parsed| {
            let limit = session_limit(parsed.amount)?;
            if parsed.rounded {
                self.flags.insert(Flags::MONEY_ROUNDED);
            }
            Some(limit)
        });
        if usable.is_none() {
            self.flags.insert(Flags::FIELD_DROPPED);
        }
        usable
    }

    /// Takes over the flags that senders tell; what else stands in the list says nothing.
    pub fn told_flags(&mut self, list: Option<&RawValue>) {
        let Some(list) = list.map(RawValue::get).filter(|list| *list != "null") else {
            return;
        };
        let Ok(names) = serde_json::from_str::<Vec<&RawValue>>(list) else {
            self.flags.insert(Flags::FIELD_DROPPED);
            return;
        };
        for flag in names.into_iter().filter_map(|name| Flags::told(name.get())) {
            self.flags.insert(flag);
        }
    }

    /// `data.revenue_usd`, which a revenue event is about.
    pub fn revenue(&mut self, field: WrittenField<'_>) -> Result<Nanos, Rejection> {
        let wrong = |what: &str| {
            let detail = format!(
                "data.revenue_usd is {what}; write dollars as a decimal string, such as \"12.50\""
            );
            Rejection::new(RejectReason::BadMoney, detail)
        };
        match field {
            Field::Value(Written(text)) if !text.is_empty() => {
                let parsed = Nanos::parse_usd(&text)
                    .map_err(|_| wrong("a text that is not a decimal number"))?;
                self.bounded_money(parsed, "data.revenue_usd")
            }
            Field::Wrong(kind) => Err(wrong(kind.words())),
            Field::Absent | Field::Value(_) => Err(Rejection::new(
                RejectReason::MissingField,
                "data.revenue_usd is missing; add the dollars as a decimal string, such as \"12.50\"",
            )),
        }
    }

    fn bounded_money(
        &mut self,
        parsed: crate::money::ParsedUsd,
        path: &str,
    ) -> Result<Nanos, Rejection> {
        if parsed.amount >= MAX_CALL_MONEY || parsed.amount <= -MAX_CALL_MONEY {
            let detail = format!(
                "{path} is 1,000,000 dollars or more; check its unit, the field is in dollars"
            );
            return Err(Rejection::new(RejectReason::BadMoney, detail));
        }
        if parsed.rounded {
            self.flags.insert(Flags::MONEY_ROUNDED);
        }
        Ok(parsed.amount)
    }

    /// Tags sorted by name, each name once (the last one stands), at most 16: the first by name, so
    /// that the same set always gives the same result. Tags without name or value are absent.
    pub fn tags<'a>(
        &mut self,
        tags: Tags<'a>,
        kind: JsonKind,
    ) -> Vec<(Cow<'a, str>, Cow<'a, str>)> {
        self.object_expected(kind);
        let mut sanitized = Vec::with_capacity(tags.0.len());
        for (name, value) in tags.0 {
            let value = self.text(value);
            if !name.is_empty() && !value.is_empty() {
                sanitized.push((self.shorten(name), value));
            }
        }
        sanitized.reverse();
        // Stable: of equal names the last written is now the first, and the one that is kept.
        sanitized.sort_by(|(left, _), (right, _)| left.cmp(right));
        sanitized.dedup_by(|(later, _), (kept, _)| later == kept);
        if sanitized.len() > MAX_TAGS {
            sanitized.truncate(MAX_TAGS);
            self.flags.insert(Flags::FIELD_TRUNCATED);
        }
        sanitized
    }

    /// Units sorted by kind, without zeros.
    pub fn units<'a>(&mut self, raw: RawUnits<'a>, kind: JsonKind) -> Result<Units<'a>, Rejection> {
        self.object_expected(kind);
        let mut entries: SmallVec<[(UnitKind, Quantity); 2]> = SmallVec::new();
        for (name, value) in raw.quantities {
            let literal = value.get();
            if literal == "null" {
                continue;
            }
            // An unknown unit cannot be priced here, whatever its number is; the flag says that
            // something was not charged. Its name may be any text, and is told to nobody.
            let quantity = match UnitKind::from_name(&name) {
                Some(unit) => self.quantity(&name, literal)?.map(|number| (unit, number)),
                None => None,
            };
            let Some((unit, quantity)) = quantity else {
                self.flags.insert(Flags::FIELD_DROPPED);
                continue;
            };
            entries.retain(|(other, _)| *other != unit);
            if quantity != Quantity(0) {
                entries.push((unit, quantity));
            }
        }
        entries.sort();
        Ok(Units {
            entries,
            quality: self.text(raw.quality),
            size: self.text(raw.size),
        })
    }

    /// A decimal number, as a string or as a JSON number, read from its digits; `None` where the
    /// value is something else.
    fn quantity(&mut self, name: &str, literal: &str) -> Result<Option<Quantity>, Rejection> {
        let text: Cow<'_, str> = if literal.starts_with('"') {
            match serde_json::from_str::<String>(literal) {
                Ok(text) => Cow::Owned(text),
                Err(_) => return Ok(None),
            }
        } else {
            Cow::Borrowed(literal)
        };
        // Dollars and units have the same scale, billionths.
        let Ok(parsed) = Nanos::parse_usd(&text) else {
            return Ok(None);
        };
        let billionths = parsed.amount.get();
        if !(0..=MAX_QUANTITY).contains(&billionths) {
            let detail = format!("data.units.{name} must lie between 0 and 1,000,000,000");
            return Err(Rejection::new(RejectReason::BadUsage, detail));
        }
        if parsed.rounded {
            self.flags.insert(Flags::MONEY_ROUNDED);
        }
        let billionths = u64::try_from(billionths).expect("checked against its range above");
        Ok(Some(Quantity(billionths)))
    }

    fn object_expected(&mut self, kind: JsonKind) {
        if !matches!(kind, JsonKind::Absent | JsonKind::Null | JsonKind::Object) {
            self.flags.insert(Flags::FIELD_DROPPED);
        }
    }

    /// Who spent; `workspace` has been checked by the caller.
    pub fn attribution<'a>(
        &mut self,
        mut workspace: Cow<'a, str>,
        mut model: Cow<'a, str>,
        data: &mut super::envelope::Data<'a>,
    ) -> Attribution<'a> {
        let tags = self.tags(take(&mut data.tags), data.tags_kind);
        Attribution::of(tags, |dimension| match dimension {
            FixedDimension::Workspace => take(&mut workspace),
            FixedDimension::Model => take(&mut model),
            other => self.text(take(data.dimension(other))),
        })
    }
}
