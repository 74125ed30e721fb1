//! Ceilings over all models of two catalogues, as if the book did not know the model.

use std::collections::BTreeSet;

use spendfuse_domain::Call;
use spendfuse_domain::event::Particulars;

use super::*;
use crate::rate::{Tier, TokenClass};

/// Models that cost more than their ceiling, each with why: `provider/model: reason`.
const EXCEPTIONS: &str = include_str!("exceptions.txt");
/// Provider, model, and nano-dollars per million tokens of input and output, for short and for the
/// longest contexts; see its head.
const GENAI_PRICES: &str = include_str!("genai_prices.csv");
const FEWEST_HELD_PERCENT: usize = 99;

/// What so many tokens of input as of output cost, and as many again of input.
fn cost(rate: impl Fn(TokenClass) -> u64) -> u64 {
    2 * rate(TokenClass::Input) + rate(TokenClass::Output)
}

struct Catalogue {
    members: Members,
    dearness: Vec<Dearness>,
}

impl Catalogue {
    /// The ceiling of `model` at `provider` where the book had `known` models only.
    fn ceiling(
        &self,
        provider: &str,
        model: &str,
        known: impl Fn(&usize) -> bool + Copy,
    ) -> impl Fn(u64, Tier) -> u64 {
        let families = family::families(&name::bare(model));
        let of_family = families.iter().find_map(|family| {
            let models = self.members.families.get(family)?.iter().copied();
            self.members.of_family(models.filter(known), &self.dearness)
        });
        let usual = || {
            let talking = self.members.talking.get(provider)?.iter().copied();
            self.members
                .usual(&talking.filter(known).collect::<Vec<_>>())
                .cloned()
        };
        let highest = of_family.or_else(usual);
        let tokens = highest.map(|highest| Arc::clone(highest.ceilings().of(model)));
        move |context, tier| match &tokens {
            Some(tokens) => cost(|class| tokens.rate(context, tier, class)),
            None => {
                let configured = CeilingRates::default();
                2 * configured.input + configured.output
            }
        }
    }
}

/// Fails where too few models are held, or one that is not has no reason.
fn judge(too_low: &BTreeSet<String>, all: usize) {
    let held = 100 * (all - too_low.len());
    assert!(held >= FEWEST_HELD_PERCENT * all, "{too_low:#?} of {all}");
    let is_excepted = |name: &&String| {
        let line = EXCEPTIONS
            .lines()
            .find_map(|line| line.strip_prefix(name.as_str()));
        line.is_some_and(|rest| rest.starts_with(": "))
    };
    let unlisted: Vec<&String> = too_low.iter().filter(|name| !is_excepted(name)).collect();
    assert!(
        unlisted.is_empty(),
        "write into exceptions.txt why: {unlisted:#?}"
    );
}

#[test]
fn a_ceiling_is_at_least_the_price_that_the_book_does_not_know() {
    let book = PriceBook::snapshot();
    let (models, dearness) = (book.models(), book.index().dearness().to_vec());
    let members = Members::new(models, &dearness);
    let catalogue = Catalogue { members, dearness };

    // The book's own models, each taken out.
    let (mut all, mut too_low) = (0, BTreeSet::new());
    for (model, prices) in models.iter().enumerate() {
        let own = catalogue.members.own(model);
        let (provider, name) = (&prices.provider, &prices.model);
        let ceiling = catalogue.ceiling(provider, name, |other| *other != model);
        all += usize::from(prices.has_token_rates());
        for (context, own) in [1_000, 500_000].into_iter().zip(own) {
            for tier in [Tier::Default, Tier::Priority, Tier::Batch] {
                let price = cost(|class| own[tier as usize][class as usize]);
                if ceiling(context, tier) < price {
                    too_low.insert(format!("{provider}/{name}"));
                }
            }
        }
    }
    judge(&too_low, all);

    // Another catalogue's models, none of whose names the book has at any provider.
    let (mut all, mut too_low) = (0, BTreeSet::new());
    for line in GENAI_PRICES.lines().filter(|line| !line.starts_with('#')) {
        let [provider, model, rates @ ..] = &line.split(',').collect::<Vec<_>>()[..] else {
            panic!("provider, model and rates: {line}");
        };
        let bare = name::bare(model);
        let known = |other: &usize| catalogue.members.name(*other) != bare;
        let provider_there = book.index().provider(provider).into_owned();
        let ceiling = catalogue.ceiling(&provider_there, model, known);
        all += 1;
        for (context, rates) in [1_000, 500_000].into_iter().zip(rates.chunks(2)) {
            let [input, output] = [rates[0], rates[1]].map(|rate| rate.parse::<u64>().unwrap());
            if ceiling(context, Tier::Default) < 2 * input + output {
                too_low.insert(format!("{provider}/{model}"));
            }
        }
    }
    judge(&too_low, all);
}

#[test]
fn what_nobody_knows_costs_what_the_operator_says() {
    let book = PriceBook::snapshot();
    let ceiling = Ceiling::of(&book, &CeilingRates::default(), "nobody", "zebrafish-7");
    assert_eq!(ceiling.tokens, None);
    let known = Ceiling::of(
        &book,
        &CeilingRates::default(),
        "nobody",
        "claude-opus-99-fast",
    );
    let usual = Ceiling::of(&book, &CeilingRates::default(), "nobody", "claude-opus-99");
    let rate = |ceiling: &Ceiling, tier| {
        let tokens = ceiling.tokens.as_ref().unwrap();
        tokens.rate(1, tier, TokenClass::Output)
    };
    let [fast, slow] = [&known, &usual].map(|ceiling| rate(ceiling, Tier::Default));
    assert!(fast >= 2 * slow && rate(&usual, Tier::Priority) > slow);
    assert_eq!(
        rate(&usual, Tier::Batch),
        slow,
        "a ceiling knows no discount"
    );
}

#[test]
fn a_ceiling_knows_what_a_region_costs_in_its_family() {
    let book = PriceBook::snapshot();
    let rates = CeilingRates::default();
    let ceiling = Ceiling::of(&book, &rates, "vertex_ai", "claude-opus-99").tokens;
    let factors = ceiling.unwrap().factors;
    let factor = |region: &str, geography: &str| {
        let call = Call {
            rare: Particulars {
                inference_geo: geography.into(),
                ..Particulars::default()
            }
            .into(),
            ..Call::default()
        };
        factors.of_call(&call, region)
    };
    assert_eq!(factor("", ""), 1_000_000);
    assert_eq!(factor("global", "global"), 1_000_000);
    assert_eq!(factor("us-east5", ""), 1_100_000);
    assert_eq!(factor("us-east5", "us"), 1_210_000);
}
