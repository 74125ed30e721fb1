//! A book as rows of ClickHouse table `prices`, with every gap already filled, so that SQL can join
//! it to token counts without knowing the rules of fallback.

use spendfuse_domain::UnixMillis;

use super::{ModelPrices, PriceBook};
use crate::rate::{Tier, TokenClass};
use crate::sheet::{CompiledModel, Era, Sheet};

/// One rate in force: of one model, billable, tier, context size and time.
///
/// A call is charged by the rows of its tier (those of `default` where the model has none of its
/// tier) with the largest `context_above` below its context and the latest `effective_from` not
/// after its time. Where `reasoning` costs more than `output`, all output of a call that reasoned
/// costs what `reasoning` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PriceRow<'a> {
    /// Version of the book.
    pub version: &'a str,
    /// Provider.
    pub provider: &'a str,
    /// Model.
    pub model: &'a str,
    /// Token class or unit.
    pub class_or_unit: &'static str,
    /// Whether the rate is per million tokens; else per unit.
    pub per_million_tokens: bool,
    /// Quality that a unit's rate is for; empty = any.
    pub quality: &'a str,
    /// Size that a unit's rate is for; empty = any.
    pub size: &'a str,
    /// Service tier.
    pub tier: &'static str,
    /// For contexts of more tokens than this.
    pub context_above: u64,
    /// Nano-dollars per million tokens or per unit.
    pub nanos: u64,
    /// In force from here on; 1970 = always.
    pub effective_from: UnixMillis,
    /// The book's label, or `fallback` where a rule filled a gap.
    pub source: &'a str,
}

impl PriceBook {
    /// The rows of table `prices`, model by model: some tens of thousands.
    pub fn rows(&self) -> impl Iterator<Item = PriceRow<'_>> {
        let models = self.models();
        models.iter().enumerate().flat_map(move |(index, prices)| {
            let charged = self.index().in_region_of_bedrock(models, index);
            self.rows_of(prices, &models[charged])
        })
    }

    /// The rows of the model `prices`, whose calls are charged as those of `charged`.
    fn rows_of<'a>(
        &'a self,
        prices: &'a ModelPrices,
        charged: &'a ModelPrices,
    ) -> Vec<PriceRow<'a>> {
        let compiled = CompiledModel::new(charged);
        let mut rows = Vec::new();
        let has_own = |tier: Tier| charged.rates.keys().any(|key| key.tier == tier);
        for era in &compiled.eras {
            let tiers = Tier::ALL.into_iter();
            for tier in tiers.filter(|tier| *tier == Tier::Default || has_own(*tier)) {
                for sheet in era.sheets(tier) {
                    self.push_token_rows(&mut rows, prices, era, tier, sheet);
                }
            }
        }
        // Units keep their attributes, which only the book's own lines have.
        for (key, nanos) in &charged.rates {
            if let crate::rate::Billable::Units(kind) = key.billable {
                rows.push(PriceRow {
                    version: self.version(),
                    provider: &prices.provider,
                    model: &prices.model,
                    class_or_unit: kind.name(),
                    per_million_tokens: false,
                    quality: &key.quality,
                    size: &key.size,
                    tier: key.tier.name(),
                    context_above: key.above,
                    nanos: *nanos,
                    effective_from: key.from,
                    source: self.label(),
                });
            }
        }
        rows
    }

    fn push_token_rows<'a>(
        &'a self,
        rows: &mut Vec<PriceRow<'a>>,
        prices: &'a ModelPrices,
        era: &Era,
        tier: Tier,
        sheet: &Sheet,
    ) {
        for class in TokenClass::ALL {
            let rate = sheet.rates[class as usize];
            let is_own = (rate.class, rate.tier, rate.above) == (class, tier, sheet.above);
            rows.push(PriceRow {
                version: self.version(),
                provider: &prices.provider,
                model: &prices.model,
                class_or_unit: class.name(),
                per_million_tokens: true,
                quality: "",
                size: "",
                tier: tier.name(),
                context_above: sheet.above,
                nanos: rate.nanos,
                effective_from: era.from,
                source: if is_own { self.label() } else { "fallback" },
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_say_what_every_class_costs() {
        let book = PriceBook::snapshot();
        let rows: Vec<PriceRow<'_>> = book
            .rows()
            .filter(|row| (row.provider, row.model) == ("openai", "gpt-4o"))
            .collect();
        let nanos = |class: &str, tier: &str| {
            let row = rows
                .iter()
                .find(|row| (row.class_or_unit, row.tier) == (class, tier));
            row.map(|row| (row.nanos, row.source != "fallback"))
        };
        assert_eq!(nanos("input", "default"), Some((2_500_000_000, true)));
        assert_eq!(nanos("reasoning", "batch"), Some((5_000_000_000, false)));
        assert_eq!(nanos("input", "flex"), None);
    }
}
