//! The highest token rates of some models, and what a call of a model like them costs at most.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use super::super::index::Dearness;
use super::super::{family, name};
use crate::book::ModelPrices;
use crate::factor;
use crate::rate::{Tier, TokenClass};
use crate::sheet::CompiledModel;

/// Fewer names are no family: the next one may cost anything.
const SMALLEST_FAMILY: usize = 5;
/// With what is added to rates of a family, in percent: a new model's provider may be a reseller, and
/// the dearest of those in the book (Kyma) takes so much of the maker's price.
const MARGIN_PERCENT: u64 = 135;
/// The most that a tier costs of the default rates, in percent, among all models that have it.
const MOST_OF_PRIORITY_PERCENT: u64 = 250;
const MOST_OF_ULTRAFAST_PERCENT: u64 = 600;
/// The same of rates for long contexts.
const MOST_OF_LONG_PERCENT: u64 = 200;
/// The least that a fast mode costs of the usual rates, in millionths.
const FAST: u32 = 2 * factor::ONE;
/// Words for fast modes in names.
const FAST_WORDS: [&str; 3] = ["fast", "lightning", "ultraspeed"];
/// Longer contexts are charged by the rates for long ones, whatever their threshold.
const LONG_CONTEXT: u64 = 128_000;

/// Nano-dollars per million tokens: for usual and for long contexts, in the orders of [`Tier::ALL`]
/// and [`TokenClass::ALL`].
type Rates = [[[u64; TokenClass::COUNT]; Tier::COUNT]; 2];

/// The highest rates of some models.
#[derive(Clone, Debug, Default)]
pub(super) struct Highest {
    rates: Rates,
    /// The dearest of the models.
    model: usize,
    factors: factor::Highest,
    /// The rates of those that are named for being fast, which say nothing of the others.
    of_fast: Option<Box<Rates>>,
}

impl Highest {
    fn of_model(index: usize, prices: &ModelPrices) -> Self {
        let compiled = CompiledModel::new(prices);
        let mut highest = Self {
            model: index,
            factors: compiled.factors.highest(),
            ..Self::default()
        };
        for era in &compiled.eras {
            for tier in Tier::ALL {
                for sheet in era.sheets(tier) {
                    let is_for_usual_ones = sheet.above < LONG_CONTEXT;
                    for rates in &mut highest.rates[usize::from(!is_for_usual_ones)..] {
                        for (rate, own) in rates[tier as usize].iter_mut().zip(&sheet.rates) {
                            *rate = (*rate).max(own.nanos);
                        }
                    }
                }
            }
        }
        highest
    }

    fn raise(&mut self, other: &Self, dearness: &[Dearness]) {
        raise(&mut self.rates, &other.rates);
        // Of equally dear ones the first, so that the choice depends on nothing else.
        if dearness[other.model] > dearness[self.model] {
            self.model = other.model;
        }
        self.factors.raise(&other.factors);
    }

    /// What calls of models like these cost at most.
    pub(super) fn ceilings(&self) -> TokenCeilings {
        TokenCeilings {
            usual: Arc::new(self.ceiling(false)),
            fast: Arc::new(self.ceiling(true)),
        }
    }

    fn ceiling(&self, is_fast: bool) -> TokenCeiling {
        let mut factors = self.factors;
        factors.fast = factors.fast.max(FAST);
        let of_name = u64::from(if is_fast { factors.fast } else { factor::ONE });
        let [usual, long] = &self.rates;
        let of_fast = self.of_fast.as_ref().filter(|_| is_fast);
        let contexts = [(usual, 100), (long, MOST_OF_LONG_PERCENT)];
        let mut rates = contexts.map(|(of_context, longer)| {
            Tier::ALL.map(|tier| {
                let least_percent = match tier {
                    Tier::Priority => MOST_OF_PRIORITY_PERCENT,
                    Tier::Ultrafast => MOST_OF_ULTRAFAST_PERCENT,
                    // A ceiling knows no discount.
                    Tier::Default | Tier::Batch | Tier::Flex | Tier::Balanced => 100,
                };
                TokenClass::ALL.map(|class| {
                    let class = class as usize;
                    let default = of_context[Tier::Default as usize][class];
                    let default =
                        default.max(percent(usual[Tier::Default as usize][class], longer));
                    let least = percent(default, least_percent);
                    let rate = of_context[tier as usize][class].max(least);
                    factor::times(percent(rate, MARGIN_PERCENT), of_name)
                })
            })
        });
        if let Some(of_fast) = of_fast {
            let dearer = of_fast.map(|tiers| {
                tiers.map(|classes| classes.map(|rate| percent(rate, MARGIN_PERCENT)))
            });
            raise(&mut rates, &dearer);
        }
        TokenCeiling {
            model: self.model,
            rates,
            factors,
        }
    }
}

fn raise(rates: &mut Rates, others: &Rates) {
    let rates = rates.as_flattened_mut().as_flattened_mut();
    let others = others.as_flattened().as_flattened();
    for (rate, other) in rates.iter_mut().zip(others) {
        *rate = (*rate).max(*other);
    }
}

fn percent(rate: u64, percent: u64) -> u64 {
    rate.saturating_mul(percent).div_ceil(100)
}

/// Models whose rates may be a ceiling, by family and by provider.
#[derive(Debug, Default)]
pub(super) struct Members {
    /// By place in the book; the default for those that are none.
    highest: Vec<Highest>,
    /// Bare names, by place in the book.
    names: Vec<String>,
    pub(super) families: HashMap<String, Vec<usize>>,
    /// Provider → its models that talk, cheapest first.
    pub(super) talking: HashMap<String, Vec<usize>>,
}

impl Members {
    pub(super) fn new(models: &[ModelPrices], dearness: &[Dearness]) -> Self {
        let mut members = Self::default();
        for (model, prices) in models.iter().enumerate() {
            let bare = name::bare(&prices.model);
            // Zero is no ceiling.
            let is_one = prices.has_token_rates() && !prices.is_free();
            members.highest.push(match is_one {
                true => Highest::of_model(model, prices),
                false => Highest::default(),
            });
            if is_one {
                for family in family::families(&bare) {
                    members.families.entry(family).or_default().push(model);
                }
                if prices.is_chat() {
                    let of_provider = members.talking.entry_ref(prices.provider.as_str());
                    of_provider.or_default().push(model);
                }
            }
            members.names.push(bare);
        }
        for indexes in members.talking.values_mut() {
            indexes.sort_by_key(|index| (dearness[*index], *index));
        }
        members
    }

    /// The highest rates of `models`; `None` where they have too few names to be a family.
    pub(super) fn of_family(
        &self,
        models: impl Iterator<Item = usize> + Clone,
        dearness: &[Dearness],
    ) -> Option<Highest> {
        let names: HashSet<&str> = models.clone().map(|model| &*self.names[model]).collect();
        if names.len() < SMALLEST_FAMILY {
            return None;
        }
        let (fast, usual): (Vec<usize>, Vec<usize>) =
            models.partition(|model| is_named_fast(&self.names[*model]));
        let highest_of = |models: &[usize]| {
            let mut models = models.iter().map(|model| &self.highest[*model]);
            let mut highest = models.next()?.clone();
            models.for_each(|other| highest.raise(other, dearness));
            Some(highest)
        };
        let of_fast = highest_of(&fast);
        let Some(mut highest) = highest_of(&usual) else {
            return of_fast;
        };
        highest.of_fast = of_fast.map(|fast| Box::new(fast.rates));
        Some(highest)
    }

    /// The 90th percentile of rising `models`.
    pub(super) fn usual(&self, models: &[usize]) -> Option<&Highest> {
        super::percentile_90(models).map(|model| &self.highest[model])
    }

    #[cfg(test)]
    pub(super) fn name(&self, model: usize) -> &str {
        &self.names[model]
    }

    /// What a call of this model costs at most, by tier and class.
    #[cfg(test)]
    pub(super) fn own(&self, model: usize) -> &Rates {
        &self.highest[model].rates
    }
}

fn is_named_fast(model: &str) -> bool {
    FAST_WORDS.iter().any(|word| family::has_word(model, word))
}

/// Ceilings of a family, which all names of it share: they may come from outside.
#[derive(Clone, Debug)]
pub(super) struct TokenCeilings {
    usual: Arc<TokenCeiling>,
    fast: Arc<TokenCeiling>,
}

impl TokenCeilings {
    /// What a call of a model named `model` costs at most.
    pub(super) fn of(&self, model: &str) -> &Arc<TokenCeiling> {
        match is_named_fast(model) {
            true => &self.fast,
            false => &self.usual,
        }
    }
}

/// The highest rates for names of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenCeiling {
    /// The dearest model of those whose rates they are.
    pub(crate) model: usize,
    rates: Rates,
    /// What calls that are served in a special way cost of them.
    pub(crate) factors: factor::Highest,
}

impl TokenCeiling {
    /// Nano-dollars per million tokens of `class`, for a call with so much `context`.
    pub(crate) fn rate(&self, context: u64, tier: Tier, class: TokenClass) -> u64 {
        self.rates[usize::from(context > LONG_CONTEXT)][tier as usize][class as usize]
    }
}
