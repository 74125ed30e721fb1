//! What holds for every call, every model of the snapshot and every policy.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use proptest::prelude::*;
use spendfuse_domain::row::PriceBasis;
use spendfuse_domain::units::{Quantity, Units};
use spendfuse_domain::{Call, Flags, Nanos, TokenClass, TokenClasses, UnitKind, UnixMillis};
use spendfuse_pricing::book::ModelPrices;
use spendfuse_pricing::book::{Change, Patch};
use spendfuse_pricing::{Multiplier, PriceBook, Pricer, PricingError, PricingPolicy};

/// A Wednesday at two in the morning UTC, when nobody sells cheaper.
const AT: UnixMillis = UnixMillis(1_794_967_600_000);

fn any_tokens() -> impl Strategy<Value = TokenClasses> {
    let count = prop_oneof![Just(0_u64), 0..2_000_u64, 0..900_000_u64];
    proptest::collection::vec(count, TokenClass::COUNT).prop_map(|counts| {
        let mut tokens = TokenClasses::default();
        for (class, count) in TokenClass::ALL.into_iter().zip(counts) {
            tokens[class] = count;
        }
        tokens
    })
}

prop_compose! {
    fn any_call()(
        tokens in any_tokens(),
        tier in prop::sample::select(vec!["", "default", "batch", "flex", "priority", "standard"]),
        unit in prop::option::of((prop::sample::select(UnitKind::ALL.to_vec()), 1..5_000_000_000_u64)),
    ) -> Call<'static> {
        let mut units = Units::default();
        units.entries.extend(unit.map(|(kind, quantity)| (kind, Quantity(quantity))));
        Call { service_tier: tier.into(), tokens, units, ..Call::default() }
    }
}

/// A model of the snapshot, or a name that nobody has.
fn any_model() -> impl Strategy<Value = (String, String)> {
    let known = (0..PriceBook::snapshot().models().len()).prop_map(|place| {
        let book = PriceBook::snapshot();
        let prices = &book.models()[place];
        (prices.provider.clone(), prices.model.clone())
    });
    prop_oneof![8 => known, 1 => ("[a-z]{0,8}", "[a-zA-Z0-9@:/.-]{0,24}")]
}

fn pricer() -> Pricer {
    static PRICER: OnceLock<Pricer> = OnceLock::new();
    let make = || {
        let discount = Multiplier::parse("0.85").expect("a factor");
        let policy = PricingPolicy {
            price_multiplier: HashMap::from([("discounted".to_owned(), discount)]),
            ..PricingPolicy::default()
        };
        Pricer::new(PriceBook::snapshot(), Arc::new(policy))
    };
    PRICER.get_or_init(make).clone()
}

fn doubled(call: &Call<'static>) -> Call<'static> {
    let mut twice = call.clone();
    for class in TokenClass::ALL {
        twice.tokens[class] *= 2;
    }
    for (_, quantity) in &mut twice.units.entries {
        quantity.0 *= 2;
    }
    twice
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn parts_are_never_negative_and_lines_add_up_to_the_total(
        (provider, model) in any_model(),
        call in any_call(),
    ) {
        let mut pricer = pricer();
        let explained = pricer.explain(&provider, "", &call, &model, AT).unwrap();
        let parts = explained.priced.parts;
        for part in [parts.input, parts.cache_read, parts.cache_write, parts.output, parts.units] {
            prop_assert!(part >= Nanos::ZERO);
        }
        // Each line is rounded up on its own: the sum is at most one nano-dollar a line above.
        let lines: Nanos = explained.lines.iter().map(|line| line.amount()).sum();
        let slack = i128::try_from(explained.lines.len()).unwrap();
        let above = (lines - parts.total()).get();
        prop_assert!((0..=slack).contains(&above), "{above}");
        prop_assert_eq!(pricer.price(&provider, "", &call, &model, AT).unwrap(), explained.priced);
    }

    #[test]
    fn twice_as_much_never_costs_less((provider, model) in any_model(), call in any_call()) {
        let mut pricer = pricer();
        let once = pricer.price(&provider, "", &call, &model, AT).unwrap().parts.total();
        let twice = pricer.price(&provider, "", &doubled(&call), &model, AT).unwrap().parts.total();
        prop_assert!(twice >= once, "{once} then {twice}");
    }

    #[test]
    fn a_multiplier_scales_the_exact_cost((provider, model) in any_model(), call in any_call()) {
        let mut pricer = pricer();
        let list = pricer.price(&provider, "", &call, &model, AT).unwrap().parts.total().get();
        let paid = pricer.price(&provider, "discounted", &call, &model, AT).unwrap();
        let paid = paid.parts.total().get();
        // `list` is rounded up already, so what is paid is at most its 85 % rounded up.
        let most = (list * 85 + 99) / 100;
        prop_assert!(paid <= most && paid >= most - 1, "{paid} of {list}");
    }
}

#[test]
fn every_model_that_talks_costs_something() {
    let book = PriceBook::snapshot();
    let mut pricer = pricer();
    // Local models, and those that their providers publish as free.
    let may_be_free = |prices: &ModelPrices| match prices.provider.as_str() {
        "ollama" | "lemonade" => true,
        "gemini" => prices.model.starts_with("gemma-"),
        "zai" => matches!(&*prices.model, "glm-4.5-flash" | "glm-4.7-flash"),
        _ => false,
    };
    let talking = book.models().iter().filter(|prices| prices.is_chat());
    let mut checked = 0;
    for prices in talking.filter(|prices| !may_be_free(prices)) {
        let tokens = TokenClasses {
            input: 1,
            output: 1,
            ..TokenClasses::default()
        };
        let call = Call {
            tokens,
            ..Call::default()
        };
        let priced = pricer
            .price(&prices.provider, "", &call, &prices.model, AT)
            .unwrap();
        assert!(priced.parts.total() > Nanos::ZERO, "{}", prices.model);
        assert_eq!(
            priced.basis,
            PriceBasis::Book,
            "{}/{}",
            prices.provider,
            prices.model
        );
        checked += 1;
    }
    assert!(checked > 3_000 && book.models().len() >= 4_000, "{checked}");
}

/// Random calls seldom meet a threshold, so every model's are tried.
#[test]
fn no_threshold_makes_a_larger_call_cheaper() {
    let book = PriceBook::snapshot();
    let mut pricer = pricer();
    let classes = [
        TokenClass::Input,
        TokenClass::CacheRead,
        TokenClass::CacheWrite5m,
        TokenClass::CacheWrite1h,
        TokenClass::AudioInput,
    ];
    for prices in book.models() {
        for tier in ["default", "batch", "flex", "priority"] {
            for class in classes {
                let mut last = Nanos::ZERO;
                for context in [
                    16_000, 64_000, 130_000, 199_999, 200_001, 256_001, 272_001, 600_000,
                ] {
                    let mut call = Call {
                        service_tier: tier.into(),
                        ..Call::default()
                    };
                    call.tokens[class] = context;
                    call.tokens.output = 1_000;
                    let (provider, model) = (&prices.provider, &prices.model);
                    let priced = pricer.price(provider, "", &call, model, AT).unwrap();
                    let total = priced.parts.total();
                    assert!(
                        total >= last,
                        "{provider}/{model} {tier} at {context}: {call:?}"
                    );
                    last = total;
                }
            }
        }
    }
}

/// What an analyst's join over table `prices` would compute is what was charged.
#[test]
fn rows_for_sql_charge_tokens_as_the_pricer_does() {
    /// Class, threshold, day from which it holds, rate.
    type Lines<'a> = Vec<(&'a str, u64, UnixMillis, u64)>;
    let book = PriceBook::snapshot();
    let mut pricer = pricer();
    let mut rates: HashMap<(&str, &str, &str), Lines<'_>> = HashMap::new();
    for row in book.rows().filter(|row| row.per_million_tokens) {
        let of_tier = rates
            .entry((row.provider, row.model, row.tier))
            .or_default();
        let (above, from) = (row.context_above, row.effective_from);
        of_tier.push((row.class_or_unit, above, from, row.nanos));
    }
    for ((provider, model, tier), lines) in rates {
        for cache_read in [1_001, 123_457, 300_001] {
            let tokens = TokenClasses {
                cache_read,
                reasoning: 333,
                ..TokenClasses::default()
            };
            let call = Call {
                service_tier: tier.into(),
                tokens,
                ..Call::default()
            };
            let rate = |class: &str| {
                let in_force = lines.iter().filter(|(name, above, from, _)| {
                    *name == class && (*above == 0 || cache_read > *above) && *from <= AT
                });
                let newest = in_force.max_by_key(|(_, above, from, _)| (*from, *above));
                let (_, _, _, nanos) = newest.unwrap();
                i128::from(*nanos)
            };
            let numerator = i128::from(cache_read) * rate("cache_read") + 333 * rate("reasoning");
            let parts = pricer.price(provider, "", &call, model, AT).unwrap().parts;
            let charged = (parts.total() - parts.units).get();
            // A fee per request shares the rounding of the whole.
            let slack = i128::from(parts.units > Nanos::ZERO);
            let expected = (numerator + 999_999) / 1_000_000;
            assert!(
                (expected - slack..=expected).contains(&charged),
                "{provider}/{model} {tier}"
            );
        }
    }
}

#[test]
fn a_million_dollars_a_call_is_refused() {
    let tokens = TokenClasses {
        output: 1_000_000_000,
        ..TokenClasses::default()
    };
    let call = Call {
        tokens,
        ..Call::default()
    };
    let set = Change::SetRate {
        provider: "openai".into(),
        model: "gpt-4o".into(),
        key: "output".parse().unwrap(),
        nanos: 1_000_000_000_000,
    };
    let patch = Patch {
        label: String::new(),
        changes: vec![set],
    };
    let book = PriceBook::snapshot().patched(&patch).unwrap();
    let mut dear = Pricer::new(Arc::new(book), Arc::default());
    let error = dear.price("openai", "", &call, "gpt-4o", AT).unwrap_err();
    let PricingError::TooDear { cost, .. } = error;
    assert_eq!(cost, Nanos::from_dollars(1_000_000));
    let usual = pricer().price("openai", "", &call, "gpt-4o", AT).unwrap();
    assert_eq!(usual.parts.total(), Nanos::from_dollars(10_000));
}

#[test]
fn a_trusted_report_takes_the_place_of_the_price() {
    let policy = PricingPolicy {
        trust_reported_cost: ["aws.bedrock".to_owned()].into(),
        ..PricingPolicy::default()
    };
    let mut pricer = Pricer::new(PriceBook::snapshot(), Arc::new(policy));
    let tokens = TokenClasses {
        input: 1_000,
        output: 1_000,
        ..TokenClasses::default()
    };
    let mut call = Call {
        tokens,
        reported_cost: Some(Nanos::new(7)),
        ..Call::default()
    };
    let model = "anthropic.claude-haiku-4-5-20251001-v1:0";
    let reported = pricer.price("bedrock", "", &call, model, AT).unwrap();
    assert_eq!(reported.basis, PriceBasis::Reported);
    assert_eq!(reported.parts.total(), Nanos::new(7));
    assert_eq!(
        (reported.parts.input, reported.parts.output),
        (Nanos::new(1), Nanos::new(6))
    );
    let elsewhere = pricer
        .price("anthropic", "", &call, "claude-haiku-4-5", AT)
        .unwrap();
    assert_eq!(elsewhere.basis, PriceBasis::Book);
    call.reported_cost = None;
    let unreported = pricer.price("bedrock", "", &call, model, AT).unwrap();
    assert_eq!(
        (unreported.basis, unreported.flags),
        (PriceBasis::Book, Flags::default())
    );
}
