//! From rates to money: which lines a call is charged, and their exact sum.
//!
//! Amounts are summed over a common denominator and divided once, rounded up to the nano-dollar.

use spendfuse_domain::row::CostParts;
use spendfuse_domain::units::Quantity;
use spendfuse_domain::{Call, Nanos, UnitKind, UnixMillis};

use crate::detail::millionths;
use crate::factor;
use crate::policy::Multiplier;
use crate::rate::{Billable, Tier, TokenClass};
use crate::sheet::{Era, Rate, Sheet};

/// Numerators are billionths of a nano-dollar: nanos per million tokens × tokens × 1,000, or nanos
/// per unit × billionths of units.
const BILLIONTHS: i128 = 1_000_000_000;
const BILLIONTHS_PER_TOKEN_RATE: i128 = 1_000;
/// One call costs less than a million dollars.
const TOO_DEAR: i128 = 1_000_000 * BILLIONTHS;

/// The five parts of a cost, in the order of [`CostParts`].
#[derive(Clone, Copy)]
enum Part {
    Input,
    CacheRead,
    CacheWrite,
    Output,
    Units,
}

/// One line of a bill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// What is charged.
    pub billable: Billable,
    /// How much of it: tokens, or billionths of units.
    pub quantity: u64,
    /// Nano-dollars per million tokens or per unit.
    pub rate: u64,
    /// Which rate was taken where it is not its own, or why; empty = its own.
    pub note: String,
}

impl Line {
    /// The line's share before the division, rounded up to the nano-dollar, without multiplier.
    pub fn amount(&self) -> Nanos {
        let numerator = match self.billable {
            Billable::Tokens(_) => {
                i128::from(self.quantity) * i128::from(self.rate) * BILLIONTHS_PER_TOKEN_RATE
            }
            Billable::Units(_) => i128::from(self.quantity) * i128::from(self.rate),
        };
        Nanos::new(ceil_div(numerator, BILLIONTHS))
    }
}

/// Takes the lines of a bill as they are charged. The hot path passes [`NoLines`].
pub(crate) trait LineSink {
    fn line(&mut self, line: impl FnOnce() -> Line);

    /// Takes the lines of a part of the call, which `model` was charged as.
    fn take_over(&mut self, lines: Self, model: &str);
}

/// Nobody wants to see the lines.
#[derive(Default)]
pub(crate) struct NoLines;

impl LineSink for NoLines {
    #[inline]
    fn line(&mut self, _: impl FnOnce() -> Line) {}

    fn take_over(&mut self, _: Self, _: &str) {}
}

impl LineSink for Vec<Line> {
    fn line(&mut self, line: impl FnOnce() -> Line) {
        self.push(line());
    }

    fn take_over(&mut self, lines: Self, model: &str) {
        self.extend(lines.into_iter().map(|line| Line {
            note: match line.note.is_empty() {
                true => format!("part of {model}"),
                false => format!("part of {model}, {}", line.note),
            },
            ..line
        }));
    }
}

/// Which of a model's token rates were charged: all that a line says besides its class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct TokenRates {
    pub(crate) tier: Tier,
    /// Millionths.
    pub(crate) factor: u64,
    /// The context's threshold.
    pub(crate) above: u64,
    pub(crate) from: UnixMillis,
    pub(crate) is_off_peak: bool,
    /// Whether a rate may be too low: sound or images that the model made are charged as if they were
    /// text, which costs less wherever both have a price, or a dearer tier at the usual one's rates.
    pub(crate) is_guess: bool,
}

/// The sum of a bill by part, undivided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bill {
    numerators: [i128; 5],
}

impl Bill {
    /// Charges the tokens of `call` at the rates of `era`; nothing where it has none. Returns which
    /// rates they are.
    pub(crate) fn charge_tokens(
        &mut self,
        era: &Era,
        call: &Call<'_>,
        tier: Tier,
        factor: u64,
        lines: &mut impl LineSink,
    ) -> TokenRates {
        let Some(sheet) = era.sheet(tier, call.tokens.context()) else {
            return TokenRates::default();
        };
        let mut is_guess = false;
        let is_dearer_tier = matches!(tier, Tier::Priority | Tier::Ultrafast);
        for class in TokenClass::ALL {
            // Most are, and their rates need not be worked out.
            if call.tokens[class] == 0 {
                continue;
            }
            let rate = match class {
                TokenClass::Output => answer_rate(sheet, call),
                class => sheet.rates[class as usize],
            };
            let is_made = match class {
                TokenClass::AudioOutput => !era.speaks,
                class => class == TokenClass::ImageOutput,
            };
            is_guess |= is_made && rate.class == TokenClass::Output;
            is_guess |= is_dearer_tier && rate.tier != tier;
            let nanos = factor::times(rate.nanos, factor);
            self.add_tokens(class, call, nanos, lines, || {
                let own = (rate.class, rate.tier) == (class, tier);
                let note = match (own, rate.above) {
                    (true, 0) => String::new(),
                    (true, above) => format!("context above {above}"),
                    (false, above) => {
                        let (class, tier) = (rate.class.name(), rate.tier.name());
                        format!("from {class}, tier {tier}, context above {above}")
                    }
                };
                with_factor(with_hours(note, era.is_off_peak), factor)
            });
        }
        TokenRates {
            tier,
            factor,
            above: sheet.above,
            from: era.from,
            is_off_peak: era.is_off_peak,
            is_guess,
        }
    }

    /// Charges the tokens of `call` at a ceiling: nano-dollars per million tokens, by class.
    pub(crate) fn charge_tokens_at(
        &mut self,
        rate: impl Fn(TokenClass) -> u64,
        note: &str,
        call: &Call<'_>,
        lines: &mut impl LineSink,
    ) {
        for class in TokenClass::ALL {
            self.add_tokens(class, call, rate(class), lines, || note.into());
        }
    }

    #[inline]
    fn add_tokens(
        &mut self,
        class: TokenClass,
        call: &Call<'_>,
        rate: u64,
        lines: &mut impl LineSink,
        note: impl FnOnce() -> String,
    ) {
        let tokens = call.tokens[class];
        if tokens == 0 {
            return;
        }
        let part = match class {
            TokenClass::CacheRead => Part::CacheRead,
            TokenClass::CacheWrite5m | TokenClass::CacheWrite1h => Part::CacheWrite,
            class if class.is_input() => Part::Input,
            _ => Part::Output,
        };
        let amount = i128::from(tokens) * i128::from(rate) * BILLIONTHS_PER_TOKEN_RATE;
        self.numerators[part as usize] += amount;
        lines.line(|| Line {
            billable: Billable::Tokens(class),
            quantity: tokens,
            rate,
            note: note(),
        });
    }

    /// Charges `tokens` of what was read from a cache at `rate` more, nano-dollars per million tokens.
    pub(crate) fn charge_more_for_cache(
        &mut self,
        tokens: u64,
        rate: u64,
        note: &str,
        lines: &mut impl LineSink,
    ) {
        let amount = i128::from(tokens) * i128::from(rate) * BILLIONTHS_PER_TOKEN_RATE;
        self.numerators[Part::CacheRead as usize] += amount;
        lines.line(|| Line {
            billable: Billable::Tokens(TokenClass::CacheRead),
            quantity: tokens,
            rate,
            note: note.into(),
        });
    }

    /// Adds another bill.
    pub(crate) fn add(&mut self, other: &Self) {
        for (sum, numerator) in self.numerators.iter_mut().zip(other.numerators) {
            *sum += numerator;
        }
    }

    /// Charges `quantity` of `kind` at `rate` nano-dollars per unit.
    pub(crate) fn charge_units(
        &mut self,
        kind: UnitKind,
        quantity: Quantity,
        rate: u64,
        note: &str,
        lines: &mut impl LineSink,
    ) {
        self.numerators[Part::Units as usize] += i128::from(quantity.0) * i128::from(rate);
        lines.line(|| Line {
            billable: Billable::Units(kind),
            quantity: quantity.0,
            rate,
            note: note.into(),
        });
    }

    /// The parts after `multiplier`. Each part is rounded down; what the rounded-up total has more
    /// is added to the largest part, of equal ones the first.
    ///
    /// `Err` with the total where it is a million dollars or more.
    pub(crate) fn parts(&self, multiplier: Multiplier) -> Result<CostParts, Nanos> {
        if let Some(parts) = self.small_parts().filter(|_| multiplier == Multiplier::ONE) {
            return Ok(parts);
        }
        let factor = i128::from(multiplier.millionths());
        let denominator = BILLIONTHS * i128::from(Multiplier::DENOMINATOR);
        let scaled = self
            .numerators
            .map(|numerator| numerator.saturating_mul(factor));
        let sum = scaled
            .iter()
            .fold(0_i128, |sum, part| sum.saturating_add(*part));
        let total = ceil_div(sum, denominator);
        if total >= TOO_DEAR {
            return Err(Nanos::new(total));
        }
        Ok(split(scaled.map(|part| part / denominator), total))
    }

    /// The parts of a bill at list prices below about 18 dollars, which is nearly every call: the
    /// same sums in 64 bits, because a division of 128 bits costs more than all the rest.
    fn small_parts(&self) -> Option<CostParts> {
        const BILLIONTHS: u64 = 1_000_000_000;
        let mut parts = [0; 5];
        let mut sum: u64 = 0;
        for (part, numerator) in parts.iter_mut().zip(self.numerators) {
            let numerator = u64::try_from(numerator).ok()?;
            sum = sum.checked_add(numerator)?;
            *part = i128::from(numerator / BILLIONTHS);
        }
        Some(split(parts, i128::from(sum.div_ceil(BILLIONTHS))))
    }

    /// `total` split in proportion to this bill; all of it input where the bill is empty. Same
    /// rounding as [`Bill::parts`].
    pub(crate) fn proportions_of(&self, total: Nanos) -> CostParts {
        let sum: i128 = self.numerators.iter().sum();
        if sum == 0 {
            return split([0; 5], total.get());
        }
        // Shares in 2⁻⁴⁰ths keep the products inside `i128` whatever the bill.
        const ONE: i128 = 1 << 40;
        let divisor = sum / ONE + 1;
        let shares = self.numerators.map(|numerator| numerator / divisor);
        let shares_sum: i128 = shares.iter().sum::<i128>().max(1);
        split(
            shares.map(|share| total.get() * share / shares_sum),
            total.get(),
        )
    }
}

/// What an answer costs. Where thoughts cost more than answers do, that is the price of a call that
/// thinks, its answer included (Alibaba: "chain of thought and answer").
fn answer_rate(sheet: &Sheet, call: &Call<'_>) -> Rate {
    let answer = sheet.rates[TokenClass::Output as usize];
    let thoughts = sheet.rates[TokenClass::Reasoning as usize];
    match call.tokens.reasoning > 0 && thoughts.nanos > answer.nanos {
        true => thoughts,
        false => answer,
    }
}

fn with_hours(note: String, is_off_peak: bool) -> String {
    match (is_off_peak, note.is_empty()) {
        (false, _) => note,
        (true, true) => "off-peak".to_owned(),
        (true, false) => format!("{note}, off-peak"),
    }
}

fn with_factor(note: String, factor: u64) -> String {
    if factor == u64::from(factor::ONE) {
        return note;
    }
    let times = format!("times {}", millionths(factor));
    match note.is_empty() {
        true => times,
        false => format!("{note}, {times}"),
    }
}

fn split(mut parts: [i128; 5], total: i128) -> CostParts {
    let rest = total - parts.iter().sum::<i128>();
    debug_assert!(rest >= 0, "parts are rounded down, the total up");
    let first_largest = (0..parts.len())
        .reduce(|best, index| {
            if parts[index] > parts[best] {
                index
            } else {
                best
            }
        })
        .unwrap_or(0);
    parts[first_largest] += rest;
    let [input, cache_read, cache_write, output, units] = parts.map(Nanos::new);
    CostParts {
        input,
        cache_read,
        cache_write,
        output,
        units,
    }
}

fn ceil_div(numerator: i128, denominator: i128) -> i128 {
    let rest = numerator % denominator;
    numerator / denominator + i128::from(rest > 0)
}
