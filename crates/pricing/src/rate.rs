//! The words of rates: what is measured ([`Billable`]), at which service level ([`Tier`]), and the key
//! that one rate of a model has ([`RateKey`]).

use std::fmt;
use std::str::FromStr;

use spendfuse_domain::{UnitKind, UnixMillis};

pub use spendfuse_domain::TokenClass;

/// What a rate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Billable {
    /// Tokens of a class; rates are nano-dollars per million tokens.
    Tokens(TokenClass),
    /// Units of a kind; rates are nano-dollars per unit.
    Units(UnitKind),
}

impl Billable {
    /// The name in price books and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tokens(class) => class.name(),
            Self::Units(kind) => kind.name(),
        }
    }

    /// The one with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        TokenClass::from_name(name)
            .map(Self::Tokens)
            .or_else(|| UnitKind::from_name(name).map(Self::Units))
    }
}

/// The service level that a provider sells a call at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Standard processing.
    #[default]
    Default,
    /// Asynchronous batches.
    Batch,
    /// Slower and cheaper.
    Flex,
    /// Between flex and standard.
    Balanced,
    /// Faster and dearer.
    Priority,
    /// Fastest and dearest.
    Ultrafast,
}

impl Tier {
    /// How many there are.
    pub const COUNT: usize = 6;
    /// All, in the order of their position in compiled prices.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Default,
        Self::Batch,
        Self::Flex,
        Self::Balanced,
        Self::Priority,
        Self::Ultrafast,
    ];

    /// The name in price books and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Batch => "batch",
            Self::Flex => "flex",
            Self::Balanced => "balanced",
            Self::Priority => "priority",
            Self::Ultrafast => "ultrafast",
        }
    }

    /// The tier with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tier| tier.name() == name)
    }
}

/// The service level of a call, from its provider's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceLevel {
    /// Sold by the call.
    Tier(Tier),
    /// Paid by reserved throughput (Vertex' provisioned throughput, Bedrock's reserved tier), not by
    /// the call.
    Provisioned,
    /// Nothing is known of the word.
    Unknown,
}

impl ServiceLevel {
    /// Of the word of any provider, in any case, with or without `ON_DEMAND_` in front (Vertex).
    #[inline]
    pub fn of_word(word: &str) -> Self {
        match word {
            "" | "default" | "standard" => Self::Tier(Tier::Default),
            word => Self::of_other_word(&word.trim().to_ascii_lowercase()),
        }
    }

    #[cold]
    fn of_other_word(lower: &str) -> Self {
        let lower = lower.replace('-', "_");
        // Python's text form of Vertex's words: `TrafficType.ON_DEMAND_PRIORITY`.
        let word = lower.rsplit('.').next().unwrap_or(&lower);
        let word = word
            .strip_prefix("on_demand_")
            .or_else(|| word.strip_prefix("service_tier_"))
            .unwrap_or(word);
        Self::Tier(match word {
            "default"
            | "standard"
            | "auto"
            | "on_demand"
            | "scale"
            | "standard_only"
            | "unspecified"
            | "traffic_type_unspecified"
            | "not_available" => Tier::Default,
            "batch" | "batches" => Tier::Batch,
            "flex" => Tier::Flex,
            "balanced" => Tier::Balanced,
            "priority" | "fast" => Tier::Priority,
            "ultrafast" => Tier::Ultrafast,
            "provisioned_throughput" | "reserved" => return Self::Provisioned,
            _ => return Self::Unknown,
        })
    }
}

/// Which rate of a model: billable, attributes, tier, context size, first day.
///
/// As text: `input`, `input:batch`, `cache_read:priority>200000`, `images[hd,1024x1024]`,
/// `output@2026-01-01T00:00:00Z`, in this order of parts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RateKey {
    /// What is counted.
    pub billable: Billable,
    /// Quality that the rate is for, lower case; empty = any.
    pub quality: String,
    /// Size that the rate is for, lower case, as in `1024x1024`; empty = any.
    pub size: String,
    /// Service tier.
    pub tier: Tier,
    /// The rate is for calls whose whole context has more tokens than this; 0 = any context.
    pub above: u64,
    /// When the rate comes into force; 0 = always.
    pub from: UnixMillis,
}

impl RateKey {
    /// The default rate of `billable`: any attributes, default tier, any context, always.
    pub fn new(billable: Billable) -> Self {
        Self {
            billable,
            quality: String::new(),
            size: String::new(),
            tier: Tier::Default,
            above: 0,
            from: UnixMillis(0),
        }
    }

    /// The same key in `tier`.
    #[must_use]
    pub fn in_tier(mut self, tier: Tier) -> Self {
        self.tier = tier;
        self
    }

    /// The same key for contexts of more than `tokens`.
    #[must_use]
    pub fn above(mut self, tokens: u64) -> Self {
        self.above = tokens;
        self
    }

    /// The same key at any time.
    #[must_use]
    pub fn without_day(&self) -> Self {
        Self {
            from: UnixMillis(0),
            ..self.clone()
        }
    }

    /// The same key for a quality and a size; empty = any.
    #[must_use]
    pub fn with_attributes(mut self, quality: &str, size: &str) -> Self {
        self.quality = quality.to_ascii_lowercase();
        self.size = size.to_ascii_lowercase();
        self
    }
}

impl fmt::Display for RateKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.billable.name())?;
        if !self.quality.is_empty() || !self.size.is_empty() {
            write!(formatter, "[{},{}]", self.quality, self.size)?;
        }
        if self.tier != Tier::Default {
            write!(formatter, ":{}", self.tier.name())?;
        }
        if self.above > 0 {
            write!(formatter, ">{}", self.above)?;
        }
        if self.from.0 != 0 {
            write!(formatter, "@{}", self.from)?;
        }
        Ok(())
    }
}

impl FromStr for RateKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (rest, from) = match text.split_once('@') {
            Some((rest, from)) => {
                let time = UnixMillis::parse_rfc3339(from)
                    .map_err(|error| format!("\"{from}\" in rate \"{text}\": {error}"))?;
                (rest, time)
            }
            None => (text, UnixMillis(0)),
        };
        let (rest, above) = match rest.split_once('>') {
            Some((rest, above)) => {
                let tokens = above.parse().map_err(|_| {
                    format!("\"{above}\" in rate \"{text}\" is not a number of tokens")
                })?;
                (rest, tokens)
            }
            None => (rest, 0),
        };
        let (rest, tier) = match rest.split_once(':') {
            Some((rest, tier)) => {
                let known = Tier::from_name(tier).ok_or_else(|| {
                    format!("\"{tier}\" in rate \"{text}\" is not a service tier")
                })?;
                (rest, known)
            }
            None => (rest, Tier::Default),
        };
        let attributes = rest
            .split_once('[')
            .map(|(rest, inside)| (rest, inside.trim_end_matches(']').split_once(',')));
        let (name, quality, size) = match attributes {
            None => (rest, "", ""),
            Some((name, Some((quality, size)))) => (name, quality, size),
            Some((_, None)) => {
                return Err(format!("rate \"{text}\" needs [quality,size]"));
            }
        };
        let billable = Billable::from_name(name)
            .ok_or_else(|| format!("\"{name}\" in rate \"{text}\" is no token class or unit"))?;
        let attributed_tokens = matches!(billable, Billable::Tokens(_)) && attributes.is_some();
        if attributed_tokens {
            return Err(format!(
                "rate \"{text}\": only units have a quality and a size"
            ));
        }
        let key = Self {
            tier,
            above,
            from,
            ..Self::new(billable)
        };
        Ok(key.with_attributes(quality, size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_keys_are_written_as_they_are_read() {
        for text in [
            "input",
            "input:batch",
            "cache_read:priority>200000",
            "cache_write_1h>272000",
            "images[hd,1024x1024]",
            "web_search_calls[low,]:flex",
            "output@2026-01-01T00:00:00Z",
        ] {
            assert_eq!(text.parse::<RateKey>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn keys_that_mean_nothing_are_refused() {
        for text in [
            "tokens",
            "input:cheap",
            "input>many",
            "input[hd,]",
            "images[hd]",
            "input@soon",
        ] {
            assert!(text.parse::<RateKey>().is_err(), "{text}");
        }
    }
}
