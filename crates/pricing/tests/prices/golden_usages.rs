//! Usage objects that were wrongly counted somewhere, as public reports and the providers' pages have
//! them (`golden_usages.jsonl`, each with its source), from the event to the cost with the snapshot.

use std::sync::Arc;

use serde_json::{Value, json};
use spendfuse_domain::event::{Body, decode};
use spendfuse_domain::{Nanos, UnixMillis};
use spendfuse_pricing::{PriceBook, Pricer, PricingPolicy};

const CALLS: &str = include_str!("../golden_usages.jsonl");
const USUAL_TIME: &str = "2026-11-22T10:00:00Z";

/// Cost and flags of the event with these data.
fn charged(pricer: &mut Pricer, at: &str, data: &Value) -> (Nanos, Vec<&'static str>) {
    let event = json!({"specversion": "1.0", "type": "spendfuse.usage", "source": "s", "id": "i",
        "time": at, "data": data})
    .to_string();
    let event = decode(event.as_bytes(), &[], UnixMillis(i64::MAX)).unwrap();
    let Body::Usage(call) = &event.body else {
        panic!("the type says usage");
    };
    let who = &event.attribution;
    let priced = pricer
        .price(&who.provider, "", call, &who.model, event.time)
        .unwrap();
    let mut flags = event.flags;
    flags.insert(priced.flags);
    (priced.parts.total(), flags.names().collect())
}

#[test]
fn real_usage_objects_cost_what_the_provider_bills() {
    let mut pricer = Pricer::new(PriceBook::snapshot(), Arc::new(PricingPolicy::default()));
    let mut wrong = Vec::new();
    let mut calls = 0;
    for line in CALLS.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let mut data = row.clone();
        data["workspace"] = "w".into();
        let at = row["at"].as_str().unwrap_or(USUAL_TIME);
        let (cost, flags) = charged(&mut pricer, at, &data);
        let expected = Nanos::parse_usd(row["cost_usd"].as_str().unwrap()).unwrap();
        calls += 1;
        if cost != expected.amount || json!(flags) != row["flags"] {
            wrong.push(format!("{}: is {cost} {flags:?}\n  {line}", row["says"]));
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

/// The provider's own charge counts where an operator trusts it, and the event's before it.
#[test]
fn a_trusted_provider_s_charge_is_the_reported_cost() {
    let policy = PricingPolicy {
        trust_reported_cost: ["openrouter".to_owned()].into(),
        ..PricingPolicy::default()
    };
    let mut pricer = Pricer::new(PriceBook::snapshot(), Arc::new(policy));
    let mut data = json!({"workspace": "w", "provider": "openrouter", "model": "q/unknown",
        "usage_format": "openai.chat",
        "usage": {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500, "cost": 0.0123}});
    let cost = |pricer: &mut Pricer, data: &Value| charged(pricer, USUAL_TIME, data).0.to_string();
    assert_eq!(cost(&mut pricer, &data), "0.0123");
    data["usage"]["estimated_cost"] = Value::Null;
    assert_eq!(cost(&mut pricer, &data), "0.0123");
    data["reported_cost_usd"] = "0.02".into();
    assert_eq!(cost(&mut pricer, &data), "0.02");

    // With a key of one's own the gateway asks nothing, and the provider what it says.
    let own_key = |details: Value| {
        json!({"workspace": "w", "provider": "openrouter", "model": "anthropic/claude-sonnet-4.5",
            "usage_format": "openai.chat",
            "usage": {"prompt_tokens": 9171, "completion_tokens": 113, "total_tokens": 9284,
                "cost": 0, "is_byok": true, "cost_details": details}})
    };
    let told = own_key(json!({"upstream_inference_cost": 0.036_079_5}));
    assert_eq!(cost(&mut pricer, &told), "0.0360795");
    for details in [json!({"upstream_inference_cost": null}), json!(null)] {
        assert_ne!(cost(&mut pricer, &own_key(details)), "0.00");
    }
}

/// Nothing is free by a zero in a price file: an operator says so, for a provider or one model.
#[test]
fn what_an_operator_calls_free_costs_nothing_and_nothing_else_does() {
    let policy = PricingPolicy {
        free: ["Our-GPUs".to_owned(), "groq/gpt-oss-120b".to_owned()].into(),
        ..PricingPolicy::default()
    };
    let mut pricer = Pricer::new(PriceBook::snapshot(), Arc::new(policy));
    for (provider, model, is_free) in [
        ("our_gpus", "anything", true),
        ("our-gpus", "gpt-4o", true),
        ("groq", "GPT-OSS-120B", true),
        ("groq", "gpt-oss-20b", false),
        ("openai", "gpt-oss-120b", false),
        ("", "anything", false),
    ] {
        let data = json!({"workspace": "w", "provider": provider, "model": model,
            "usage": {"input_tokens": 1000, "output_tokens": 100}, "units": {"images": "1"}});
        let (cost, flags) = charged(&mut pricer, USUAL_TIME, &data);
        assert_eq!(cost == Nanos::ZERO, is_free, "{provider}/{model}: {cost}");
        assert!(
            !is_free || flags.is_empty(),
            "{provider}/{model}: {flags:?}"
        );
    }
}

/// What is said of the tokens that were cached makes no call cheaper, whatever is known of its model: a
/// price for them, none, or one of seconds alone.
#[test]
fn cached_sound_makes_no_call_cheaper() {
    let mut pricer = Pricer::new(PriceBook::snapshot(), Arc::new(PricingPolicy::default()));
    for (model, is_dearer) in [
        ("gpt-realtime-mini", true),
        ("gpt-realtime-99", true),
        ("whisper-1", false),
    ] {
        let mut cost = |units: Value| {
            let data = json!({"workspace": "w", "provider": "openai", "model": model, "units": units,
                "usage": {"input_tokens": 1000, "cache_read_tokens": 600, "output_tokens": 100}});
            charged(&mut pricer, USUAL_TIME, &data).0
        };
        let (text, sound) = (cost(json!({})), cost(json!({"cached_audio_tokens": "500"})));
        assert!(sound >= text, "{model}: {sound}, and {text} of text");
        assert!(sound > text || !is_dearer, "{model}: {sound}");
    }
}

/// A number that nothing reads and that looks billed is never passed over.
#[test]
fn what_no_rule_reads_is_flagged() {
    let mut pricer = Pricer::new(PriceBook::snapshot(), Arc::new(PricingPolicy::default()));
    for (format, usage, expected) in [
        (
            "openai.chat",
            json!({"prompt_tokens": 5, "completion_tokens": 1, "hologram_tokens": 7}),
            true,
        ),
        (
            "openai.chat",
            json!({"prompt_tokens": 5, "completion_tokens": 1, "hologram_tokens": 0}),
            false,
        ),
        (
            "gemini",
            json!({"promptTokenCount": 5, "new": {"groundingQueries": 2}}),
            true,
        ),
        (
            "anthropic.messages",
            json!({"input_tokens": 5, "output_tokens": 1,
            "server_tool_use": {"code_execution_seconds": 3}}),
            true,
        ),
        (
            "openai.chat",
            json!({"prompt_tokens": 5, "completion_tokens": 1, "queue_time": 0.3}),
            false,
        ),
    ] {
        let data = json!({"workspace": "w", "provider": "openai", "model": "gpt-4o",
            "usage_format": format, "usage": usage});
        let (_, flags) = charged(&mut pricer, USUAL_TIME, &data);
        assert_eq!(flags.contains(&"partly_read"), expected, "{usage}");
    }
}

/// The memory of names is emptied when it is full, also between a call and its parts: here a call and
/// its two parts are three names, so that one call is the last name of a full memory.
#[test]
fn parts_with_new_models_are_priced_when_the_memory_of_names_is_full() {
    let mut pricer = Pricer::new(PriceBook::snapshot(), Arc::new(PricingPolicy::default()));
    for round in 0..6_000 {
        let part = |number| {
            json!({"type": "advisor_message", "model": format!("part-{round}-{number}"),
                "output_tokens": 1})
        };
        let data = json!({"workspace": "w", "provider": "anthropic", "model": format!("m-{round}"),
            "usage_format": "anthropic.messages",
            "usage": {"input_tokens": 5, "output_tokens": 1, "iterations": [part(1), part(2)]}});
        let (_, flags) = charged(&mut pricer, USUAL_TIME, &data);
        assert!(flags.contains(&"unpriced"), "{round}");
    }
}
