//! Why a call cost what it did, in one line: columns `price_detail` and `priced_as`, and what
//! `spendfuse prices explain` prints.
//!
//! The line has no quantities and no amounts, which rows have beside it, so that calls of one kind
//! have one line: it is written once and remembered by its [`Grounds`]. Calls with anything unusual
//! (units, parts, words that change a price) have theirs written anew each time.

use std::fmt::Write as _;
use std::hash::{Hash, Hasher};

use spendfuse_domain::row::PriceBasis;
use spendfuse_domain::{Call, Flags, Nanos, TokenClass};

use crate::charge::{Line, TokenRates};
use crate::lookup::{Match, Variant};
use crate::policy::Multiplier;
use crate::pricer::Explained;
use crate::rate::{Billable, ServiceLevel, Tier};
use crate::resolved::AtCeiling;

/// Longest line, bytes: a call may have 256 parts.
const LONGEST: usize = 1024;

/// What a row says about its price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told<'a> {
    /// Version of the price book.
    pub version: &'a str,
    /// The entry of the price book that was used (`provider/model`); empty where it is the model
    /// itself.
    pub priced_as: &'a str,
    /// Why it cost what it did, in a line.
    pub detail: &'a str,
}

/// A line that was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) priced_as: String,
    pub(crate) detail: String,
}

/// All that the line of a usual call depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Grounds {
    /// Place among the names that the pricer remembers.
    pub(crate) name: usize,
    pub(crate) rates: TokenRates,
    pub(crate) at_ceiling: AtCeiling,
    pub(crate) basis: PriceBasis,
    pub(crate) is_guess: bool,
    /// Millionths.
    pub(crate) multiplier: u32,
    /// One bit for each token class that has tokens.
    pub(crate) classes: u16,
    /// The service tier that the call says.
    pub(crate) said: Tier,
}

// Of what there are many of: the rest is a handful for each, and this runs for every event.
impl Hash for Grounds {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64((self.name as u64) << 16 | u64::from(self.classes));
        state.write_u32(self.multiplier);
    }
}

impl Grounds {
    /// These with what `call` says itself: the classes that it has tokens of, its tier.
    #[inline]
    pub(crate) fn of_call(mut self, call: &Call<'_>) -> Self {
        if let ServiceLevel::Tier(said) = ServiceLevel::of_word(&call.service_tier) {
            self.said = said;
        }
        let counts = call.tokens.each().into_iter().enumerate();
        self.classes = counts.fold(0, |bits, (class, tokens)| {
            bits | (u16::from(tokens > 0) << class)
        });
        self
    }
}

/// Whether the line of `call` depends on its `grounds` alone.
#[inline]
pub(crate) fn is_usual(call: &Call<'_>, grounds: &Grounds) -> bool {
    let is_known = matches!(
        ServiceLevel::of_word(&call.service_tier),
        ServiceLevel::Tier(_)
    );
    // Most calls that name a region cost the same in all.
    !has_factor(grounds.rates.factor)
        && is_known
        && call.units.is_empty()
        && call.rare.sub_calls.is_empty()
        && call.rare.unread.is_none()
}

/// What the line says besides what is in [`Explained`].
pub(crate) struct Circumstances<'a> {
    pub(crate) call: &'a Call<'a>,
    pub(crate) variant: Variant,
    pub(crate) grounds: Grounds,
}

/// The line for a call.
pub(crate) fn write(explained: &Explained, circumstances: &Circumstances<'_>) -> String {
    let Circumstances {
        call,
        variant,
        grounds,
    } = circumstances;
    let mut parts = vec![found(explained)];
    parts.extend(level(call, *variant, grounds));
    if has_factor(grounds.rates.factor) {
        let words = [
            ("speed", &call.rare.speed),
            ("geography", &call.rare.inference_geo),
            ("region", &call.region),
        ];
        let said = words.iter().filter(|(_, word)| !word.is_empty());
        parts.extend(said.map(|(kind, word)| format!("{kind} {word}")));
    }
    if !explained.lines.is_empty() {
        let has_parts = !call.rare.sub_calls.is_empty();
        let lines = explained
            .lines
            .iter()
            .map(|line| line_text(line, has_parts));
        parts.push(lines.collect::<Vec<_>>().join(", "));
    } else {
        parts.push("nothing charged".to_owned());
    }
    if explained.priced.basis != PriceBasis::Reported
        && grounds.multiplier != Multiplier::ONE.millionths()
    {
        let times = millionths(u64::from(grounds.multiplier));
        parts.push(format!("account times {times}"));
    }
    if explained.priced.flags.contains(Flags::AMBIGUOUS_PRICE) {
        parts.push("ambiguous".to_owned());
    }
    if let Some(path) = &call.rare.unread {
        parts.push(format!("not read: usage.{path}"));
    }
    let mut text = parts.join("; ");
    if text.len() > LONGEST {
        let end = (0..=LONGEST - 4)
            .rev()
            .find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
        text.push_str(" ...");
    }
    text
}

/// Whether a row's line tells of parts at other rates: their tokens stand in the line alone, so that
/// the row's columns do not say what the call costs.
pub fn has_parts(detail: &str) -> bool {
    detail.contains("(part of ")
}

/// Whether the rates were multiplied by anything; 0 where there were none.
fn has_factor(factor: u64) -> bool {
    factor != 0 && factor != u64::from(Multiplier::ONE.millionths())
}

/// Whose rates, and how they were found.
fn found(explained: &Explained) -> String {
    let entry = explained.charged_as.as_ref();
    let entry = entry.map(|(provider, model)| format!("{provider}/{model}"));
    if explained.priced.basis == PriceBasis::Reported {
        return match entry {
            Some(entry) => format!("as reported; the book's {entry} would be"),
            None => "as reported; the book has no price".to_owned(),
        };
    }
    match (entry, explained.how) {
        (Some(entry), Some(how)) => format!("{entry} ({})", how.name()),
        (Some(entry), None) => format!("no price, ceiling of {entry}"),
        (None, _) => "no price, configured ceiling".to_owned(),
    }
}

/// What is said of the service level, where it is not the usual one.
fn level(call: &Call<'_>, variant: Variant, grounds: &Grounds) -> Option<String> {
    let charged = grounds.rates.tier;
    match ServiceLevel::of_word(&call.service_tier) {
        _ if variant == Variant::Free => Some("free".to_owned()),
        ServiceLevel::Provisioned => {
            Some("reserved throughput, not charged by the call".to_owned())
        }
        ServiceLevel::Unknown => Some(format!("unknown service tier {}", call.service_tier)),
        ServiceLevel::Tier(_) if charged != Tier::Default => {
            Some(format!("tier {}", charged.name()))
        }
        // A ceiling knows no discount.
        ServiceLevel::Tier(said) if grounds.said != Tier::Default => {
            Some(match grounds.at_ceiling {
                AtCeiling::Everything => format!("tier {} at the default one's rates", said.name()),
                _ => format!("tier {}", said.name()),
            })
        }
        ServiceLevel::Tier(_) => None,
    }
}

fn line_text(line: &Line, with_quantity: bool) -> String {
    let rate = Nanos::new(i128::from(line.rate));
    let mut text = line.billable.name().to_owned();
    if with_quantity && matches!(line.billable, Billable::Tokens(_)) {
        let _ = write!(text, " {}", line.quantity);
    }
    let _ = match line.billable {
        Billable::Tokens(_) => write!(text, " {rate}/M"),
        Billable::Units(_) => write!(text, " {rate} each"),
    };
    if !line.note.is_empty() {
        let _ = write!(text, " ({})", line.note);
    }
    text
}

/// The entry that was used, where it is not the model itself.
pub(crate) fn priced_as(explained: &Explained) -> String {
    match &explained.charged_as {
        Some((provider, model)) if explained.how != Some(Match::Exact) => {
            format!("{provider}/{model}")
        }
        _ => String::new(),
    }
}

/// A factor as a decimal number: `1.1`.
pub(crate) fn millionths(factor: u64) -> String {
    let text = format!("{}.{:06}", factor / 1_000_000, factor % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

const _: () = assert!(TokenClass::COUNT <= 16, "Grounds has a bit for each class");
