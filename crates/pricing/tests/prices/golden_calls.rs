//! Calls whose cost was worked out by hand (`golden_calls.txt`), priced with the snapshot.

use std::sync::Arc;

use spendfuse_domain::units::Quantity;
use spendfuse_domain::{Call, Nanos, TokenClass, UnitKind, UnixMillis};
use spendfuse_pricing::{PriceBook, Pricer, PricingPolicy};

const TABLE: &str = include_str!("../golden_calls.txt");
const COLUMNS: usize = 7;

fn or_empty(text: &str) -> &str {
    if text == "-" { "" } else { text }
}

fn quantity(text: &str) -> Quantity {
    let parsed = Nanos::parse_usd(text).expect("a decimal number");
    Quantity(u64::try_from(parsed.amount.get()).expect("small and positive"))
}

fn call<'a>(tier: &'a str, counts: &'a str) -> Call<'a> {
    let mut call = Call {
        service_tier: tier.into(),
        ..Call::default()
    };
    for count in or_empty(counts).split_whitespace() {
        let (name, value) = count.split_once('=').expect("name=value");
        if let Some(class) = TokenClass::from_name(name) {
            call.tokens[class] = value.parse().expect("a number of tokens");
            continue;
        }
        match name {
            "quality" => call.units.quality = value.into(),
            "size" => call.units.size = value.into(),
            unit => {
                let kind = UnitKind::from_name(unit).expect("a unit's name");
                call.units.entries.push((kind, quantity(value)));
            }
        }
    }
    call
}

#[test]
fn calls_cost_what_the_published_rates_say() {
    let policy = Arc::new(PricingPolicy::default());
    let mut pricer = Pricer::new(PriceBook::snapshot(), policy);
    let mut wrong = Vec::new();
    let mut calls = 0;
    for row in TABLE.lines().filter(|line| !line.starts_with('#')) {
        let columns: Vec<&str> = row.split(" | ").map(str::trim).collect();
        assert_eq!(columns.len(), COLUMNS, "{row}");
        let [provider, model, tier, counts, cost, flags, _] = columns[..] else {
            unreachable!("counted above");
        };
        calls += 1;
        let call = call(tier, counts);
        let at = UnixMillis::parse_rfc3339("2026-11-22T10:00:00Z").unwrap();
        let explained = pricer
            .explain(or_empty(provider), "", &call, model, at)
            .unwrap();
        let expected = Nanos::parse_usd(cost).unwrap().amount;
        let found: Vec<&str> = explained.priced.flags.names().collect();
        let total = explained.priced.parts.total();
        if total != expected || found.join(",") != or_empty(flags) {
            wrong.push(format!("{row}\n  is {total} {found:?}: {explained:?}"));
        }
    }
    assert!(calls >= 60);
    assert!(
        wrong.is_empty(),
        "{} of {calls} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
