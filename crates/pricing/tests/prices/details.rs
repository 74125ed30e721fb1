//! Column `price_detail`: why a call cost what it did, in one line.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value, json};
use spendfuse_domain::UnixMillis;
use spendfuse_domain::event::{Body, Call, Event, Particulars, decode};
use spendfuse_pricing::{Multiplier, PriceBook, Pricer, PricingPolicy, has_parts};

const CALLS: &str = include_str!("../golden_usages.jsonl");

fn policy() -> Arc<PricingPolicy> {
    let multipliers = [("rebate".to_owned(), Multiplier::parse("0.85").unwrap())];
    Arc::new(PricingPolicy {
        price_multiplier: HashMap::from(multipliers),
        ..PricingPolicy::default()
    })
}

fn event_json(data: &Value) -> String {
    let mut data = data.clone();
    data["workspace"] = "w".into();
    // Off-peak hours where the call says when it was.
    let at = data["at"].as_str().unwrap_or("2026-11-22T10:00:00Z");
    json!({"specversion": "1.0", "type": "spendfuse.usage", "source": "s", "id": "i",
        "time": at, "data": data})
    .to_string()
}

fn event(json: &str) -> Event<'_> {
    decode(json.as_bytes(), &[], UnixMillis(i64::MAX)).unwrap()
}

/// The entry and the line that the row of this event has.
fn told(pricer: &mut Pricer, event: &Event<'_>) -> (String, String) {
    let Body::Usage(call) = &event.body else {
        panic!("the type says usage");
    };
    let who = &event.attribution;
    let (provider, account, model) = (&*who.provider, &*who.account, &*who.model);
    let price = pricer.price(provider, account, call, model, event.time);
    price.unwrap();
    let told = pricer.told(provider, account, call, model, event.time);
    (told.priced_as.to_owned(), told.detail.to_owned())
}

#[test]
fn a_row_says_why_its_call_cost_what_it_did() {
    let mut pricer = Pricer::new(PriceBook::snapshot(), policy());
    let usage = json!({"prompt_tokens": 1200, "completion_tokens": 380, "total_tokens": 1580,
        "prompt_tokens_details": {"cached_tokens": 800}});
    let gpt = |more: Value| {
        let mut data = json!({"provider": "openai", "model": "gpt-4o",
            "usage_format": "openai.chat", "usage": usage});
        data.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        data
    };
    let cases = [
        (
            gpt(json!({})),
            "",
            "openai/gpt-4o (exact name); input 2.50/M, cache_read 1.25/M, output 10.00/M",
        ),
        (
            gpt(json!({"provider": "", "service_tier": "batch", "account": "rebate"})),
            "openai/gpt-4o",
            "openai/gpt-4o (bare name at its maker); tier batch; input 1.25/M, \
             cache_read 1.25/M (from cache_read, tier default, context above 0), output 5.00/M; \
             account times 0.85",
        ),
        (
            gpt(json!({"units": {"web_search_calls": "2"}, "service_tier": "wow"})),
            "",
            "openai/gpt-4o (exact name); unknown service tier wow; input 2.50/M, \
             cache_read 1.25/M, output 10.00/M, web_search_calls 0.01 each; ambiguous",
        ),
        (
            json!({"provider": "acme", "model": "house", "usage_format": "spendfuse",
                "usage": {"input_tokens": 10, "output_tokens": 1, "smile_tokens": 4}}),
            "",
            "no price, configured ceiling; input 15.00/M (configured ceiling), \
             output 75.00/M (configured ceiling); not read: usage.smile_tokens",
        ),
    ];
    for (data, priced_as, detail) in cases {
        let json = event_json(&data);
        let told = told(&mut pricer, &event(&json));
        assert_eq!(told, (priced_as.to_owned(), detail.to_owned()), "{data}");
    }
}

/// What is remembered of one call is never said of another.
#[test]
fn a_remembered_line_is_the_line_that_is_written_anew() {
    let mut jsons = Vec::new();
    for line in CALLS.lines() {
        let data: Value = serde_json::from_str(line).unwrap();
        for (name, value) in [
            ("id", ""),
            ("service_tier", "priority"),
            ("service_tier", "batch"),
            ("account", "rebate"),
            ("region", "eu-west-1"),
            ("provider", "openrouter"),
            ("model", "deepseek-chat"),
        ] {
            let mut data = data.clone();
            data[name] = value.into();
            jsons.push(event_json(&data));
        }
    }
    let mut pricer = Pricer::new(PriceBook::snapshot(), policy());
    for _ in 0..2 {
        for json in &jsons {
            let event = event(json);
            let mut fresh = Pricer::new(PriceBook::snapshot(), policy());
            assert_eq!(
                told(&mut pricer, &event),
                told(&mut fresh, &event),
                "{json}"
            );
        }
    }
}

/// The memory of names is emptied when it is full, which may be between a call's price and its line.
#[test]
fn a_line_that_is_written_while_names_are_forgotten_is_no_other_models() {
    const REMEMBERED: usize = 16_384;
    let mut pricer = Pricer::new(PriceBook::snapshot(), policy());
    let json = |model: &str| {
        event_json(
            &json!({"provider": "openai", "model": model, "usage_format": "spendfuse",
            "usage": {"input_tokens": 10}}),
        )
    };
    for last in ["gpt-4o", "gpt-4.1"] {
        let usual = json(last);
        let usual = event(&usual);
        let Body::Usage(call) = &usual.body else {
            panic!("the type says usage");
        };
        // So many that `last` is the one that fills it, in both rounds.
        let known = usize::from(last == "gpt-4.1");
        for number in known + 1..REMEMBERED {
            let provider = format!("{last}-{number}");
            let price = pricer.price(&provider, "", call, "gpt-4o", usual.time);
            price.unwrap();
        }
        let (_, detail) = told(&mut pricer, &usual);
        let begins = format!("openai/{last} (exact name)");
        assert!(detail.starts_with(&begins), "{detail}");
    }
}

/// Whoever prices it again has the row alone.
#[test]
fn a_row_has_all_that_prices_its_call_again_or_says_that_it_has_parts() {
    let mut pricer = Pricer::new(PriceBook::snapshot(), policy());
    let (mut with_parts, mut all) = (0, 0);
    for line in CALLS.lines() {
        let mut data: Value = serde_json::from_str(line).unwrap();
        data["model"] = match &data["model"] {
            Value::Null => continue,
            model => model.clone(),
        };
        let json = event_json(&data);
        let Ok(event) = decode(json.as_bytes(), &[], UnixMillis(i64::MAX)) else {
            continue;
        };
        let (_, detail) = told(&mut pricer, &event);
        let Body::Usage(call) = &event.body else {
            panic!("the type says usage");
        };
        let row = Call {
            tokens: call.tokens,
            units: call.units.clone(),
            service_tier: call.service_tier.clone(),
            region: call.region.clone(),
            reported_cost: call.reported_cost,
            rare: Particulars {
                speed: call.rare.speed.clone(),
                inference_geo: call.rare.inference_geo.clone(),
                ..Particulars::default()
            }
            .into(),
            ..Call::default()
        };
        let who = &event.attribution;
        let mut price = |call: &Call<'_>| {
            let (provider, account, model) = (&*who.provider, &*who.account, &*who.model);
            let priced = pricer.price(provider, account, call, model, event.time);
            priced.unwrap()
        };
        let (first, again) = (price(call), price(&row));
        match has_parts(&detail) {
            true => with_parts += 1,
            false => assert_eq!(first, again, "{line}\n{detail}"),
        }
        all += 1;
    }
    assert!(with_parts > 1 && all > 100, "{with_parts} of {all}");
}

/// A region with prices of its own is an entry of its own, also in the memory of lines; others, and
/// calls that say none, have the prices of the model.
#[test]
fn a_call_in_a_region_with_its_own_prices_says_so() {
    let mut pricer = Pricer::new(PriceBook::snapshot(), policy());
    let model = "meta.llama3-8b-instruct-v1:0";
    for region in ["", "sa-east-1", "eu-south-9", "SA-EAST-1", "", "sa-east-1"] {
        let json = event_json(
            &json!({"provider": "bedrock", "model": model, "region": region,
            "usage": {"input_tokens": 1000}}),
        );
        let expected = match region.eq_ignore_ascii_case("sa-east-1") {
            true => (
                format!("bedrock/sa-east-1/{model}"),
                format!("bedrock/sa-east-1/{model} (prices of the region); input 0.50/M"),
            ),
            false => (
                String::new(),
                format!("bedrock/{model} (exact name); input 0.30/M"),
            ),
        };
        assert_eq!(told(&mut pricer, &event(&json)), expected, "{region}");
    }
}
