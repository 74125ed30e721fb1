//! What other products' clients are answered, in the words of their own servers.

use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};
use spendfuse_sidecar::keys::{Key, KeyHash, Keyring, Place, Right};
use spendfuse_sidecar::{CompatConfig, MargintDowngrade, SidecarConfig, Token};

use crate::support::{Bench, bench, config, steps};

const MARGINT: &str = "/api/budgets/check";
const MARGINT_EVENTS: &str = "/compat/margint/api/ingest/events";
const MARGINDASH: &str = "/compat/margindash/api/v1";

fn bench_with(config: SidecarConfig) -> Bench {
    bench(config, None)
}

/// The events that went to the broker.
fn sent(bench: &Bench) -> Vec<Value> {
    let taken = bench.sink.taken.lock().unwrap();
    let event = |event: &spendfuse_sidecar::spool::SpooledEvent| {
        serde_json::from_slice(&event.value).unwrap()
    };
    taken.iter().map(event).collect()
}

/// The source under which all of spendfuse tells of a product's calls.
fn source_of(product: &str) -> Value {
    let text = include_str!("../../../../schemas/source-vectors.json");
    let vectors: Value = serde_json::from_str(text).unwrap();
    vectors["sources"][product].clone()
}

#[tokio::test]
async fn margint_is_refused_in_whole_cents_and_always_with_200() {
    let mut bench = Bench::with_a_blocked_customer(config());
    let answer = bench
        .get(&format!("{MARGINT}?key=k&customer=c-42&feature=f%26%C3%A9"))
        .await;
    assert_eq!(answer.status, StatusCode::OK);
    let breach = &answer.json["breaches"][0];
    assert_eq!(answer.json["allowed"], false);
    assert_eq!(breach["budgetId"], "daily");
    // 5.000123 of 5.00: what is used is rounded up, so that it reaches the limit.
    assert_eq!(breach["limitCents"], 500);
    assert_eq!(breach["usedCents"], 501);
    assert_eq!(breach["action"], "block");
    assert_eq!(
        breach["scope"],
        json!({"customerId": "c-42", "feature": "f&é"})
    );
    assert!(
        answer.json["reason"].as_str().unwrap().contains("daily"),
        "{}",
        answer.json
    );

    let free = bench.get(&format!("{MARGINT}?key=k&customer=c-43")).await;
    assert_eq!(
        free.json,
        json!({"allowed": true}),
        "lists are absent, never null"
    );
    bench.spent("c-43", "4.10", "warn");
    let warned = bench.get(&format!("{MARGINT}?key=k&customer=c-43")).await;
    assert_eq!(warned.json["allowed"], true);
    assert_eq!(warned.json["warnings"][0]["usedCents"], 410);

    for broken in [
        "",
        "?",
        "?customer=",
        "?customer=%ff&feature=%",
        "?customer[]=1&customer=2",
    ] {
        let answer = bench.get(&format!("{MARGINT}{broken}")).await;
        assert_eq!(
            (answer.status, &answer.json["allowed"]),
            (StatusCode::OK, &json!(true))
        );
    }
    let long = "x".repeat(5_000);
    let answer = bench.get(&format!("{MARGINT}?customer={long}")).await;
    assert_eq!(answer.status, StatusCode::OK);
}

#[tokio::test]
async fn margint_knows_no_cheaper_model_so_a_setting_says_what_it_is_told() {
    let downgrade = json!([{"at": 80, "do": "downgrade", "to": "gpt-4o-mini"}]);
    for (setting, allowed) in [
        (MargintDowngrade::Allow, true),
        (MargintDowngrade::Block, false),
    ] {
        let compat = CompatConfig {
            margint_downgrade: setting,
            ..CompatConfig::default()
        };
        let mut bench = bench(SidecarConfig { compat, ..config() }, None);
        bench.budget("5.00", downgrade.clone());
        bench.spent("c-42", "4.50", "downgrade");
        let answer = bench.get(&format!("{MARGINT}?customer=c-42")).await;
        assert_eq!(answer.json["allowed"], allowed, "{}", answer.json);
        let list = if allowed { "warnings" } else { "breaches" };
        assert_eq!(answer.json[list][0]["action"], "downgrade");
    }
}

#[tokio::test]
async fn margints_events_are_counted_without_what_they_get_wrong() {
    let bench = bench(config(), None);
    let batch = json!({"apiKey": "k", "events": [
        {"customerId": 42, "provider": "openai", "model": "gpt-4o", "inputTokens": 10,
         "outputTokens": 5, "costMicrodollars": 75, "customerEmail": "a@example.com",
         "stripeCustomerId": "cus_1", "latencyMs": 12, "metadata": {"a": 1, "deep": {"b": 2}}},
        {"customerId": "c", "provider": "unknown", "model": "claude-opus-4-8", "inputTokens": 10,
         "outputTokens": 5, "costMicrodollars": 0},
        {"customerId": "c", "provider": "google", "model": "gemini-2.5-flash", "inputTokens": 10.0,
         "outputTokens": null},
        "no event",
        {"customerId": "c", "provider": "openai", "inputTokens": 1, "outputTokens": 1},
    ]});
    let answer = bench.post(MARGINT_EVENTS, batch.to_string()).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(
        (&answer.json["accepted"], &answer.json["rejected"]),
        (&json!(3), &json!(2))
    );
    let events = sent(&bench);
    let first = &events[0]["data"];
    assert_eq!(events[0]["source"], source_of("margint"));
    assert_eq!(first["customer"].to_string().trim_matches('"'), "42");
    assert_eq!(
        first["usage"],
        json!({"input_tokens": 10, "output_tokens": 5})
    );
    assert_eq!(first["reported_cost_usd"], "0.000075");
    let tags = json!({"compat": "no_cache", "stripe_customer": "cus_1", "a": "1"});
    assert_eq!(first["tags"], tags);
    assert_eq!(first["flags"], json!(["compat_no_cache"]));
    assert!(
        !events[0].to_string().contains("example.com"),
        "an address is nobody's business"
    );
    assert_eq!(events[1]["data"].get("provider"), None);
    assert_eq!(
        events[1]["data"].get("reported_cost_usd"),
        None,
        "0 is what it does not know"
    );
    assert_eq!(events[2]["data"]["provider"], "gemini");

    let config = SidecarConfig {
        max_usage_events: 2,
        ..config()
    };
    let one_at_a_time = bench_with(config);
    let event = json!({"customerId": "c", "provider": "openai", "model": "gpt-4o",
                       "inputTokens": 1, "outputTokens": 1});
    let backlog = json!({"apiKey": "k", "events": vec![event; 5]});
    let answer = one_at_a_time
        .post(MARGINT_EVENTS, backlog.to_string())
        .await;
    assert_eq!(
        answer.json["accepted"], 5,
        "what it is refused it never sends again"
    );
    assert_eq!(sent(&one_at_a_time).len(), 5);

    for broken in ["", "{", "[]", "{\"apiKey\": 1}", "{\"events\": null}"] {
        let answer = bench.post(MARGINT_EVENTS, broken).await;
        assert_eq!(
            answer.status,
            StatusCode::OK,
            "{broken}: no status of ours is looked at"
        );
        assert_eq!(answer.json["rejected"], 1);
    }
}

#[tokio::test]
async fn margindash_gets_the_whole_list_until_it_has_this_version() {
    let mut bench = Bench::with_a_blocked_customer(config());
    let list = format!("{MARGINDASH}/budgets/blocklist");
    let first = bench.get(&format!("{list}?since_version=0")).await;
    let version = first.json["version"].clone();
    assert_eq!(first.json["changed"], true);
    assert_eq!(
        first.json["blocked"],
        json!({"organization": false, "event_types": [], "customer_ids": ["c-42"]})
    );
    let same = bench.get(&format!("{list}?since_version={version}")).await;
    assert_eq!(
        (&same.json["changed"], &same.json["version"]),
        (&json!(false), &version)
    );

    // A limit that is raised lifts the block before its entry says so.
    bench.budget("50.00", steps());
    tokio::time::sleep(std::time::Duration::from_millis(250)).await;
    let lifted = bench.get(&format!("{list}?since_version={version}")).await;
    assert_eq!(lifted.json["changed"], true);
    assert_eq!(lifted.json["blocked"]["customer_ids"], json!([]));
    for broken in [
        "",
        "?since_version=",
        "?since_version=-1",
        "?since_version=true",
    ] {
        let answer = bench.get(&format!("{list}{broken}")).await;
        assert_eq!(
            (answer.status, &answer.json["changed"]),
            (StatusCode::OK, &json!(true))
        );
    }
}

#[tokio::test]
async fn margindashs_events_keep_their_identity_when_they_are_sent_again() {
    let bench = bench(config(), None);
    let event = json!({"events": [{
        "customer_id": "c1", "revenue_amount_in_cents": 499, "event_type": "chat",
        "unique_request_token": "t-1",
        "vendor_responses": [
            {"model": "openai/gpt-4o", "input_tokens": 10, "output_tokens": 5},
            {"model": "meta/own-model", "input_tokens": null, "output_tokens": 5},
        ],
    }]});
    let path = format!("{MARGINDASH}/events");
    for _ in 0..2 {
        let answer = bench.post(&path, event.to_string()).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(
            answer.json.get("budget_state_version"),
            None,
            "it would keep an old list"
        );
    }
    assert_eq!(bench.sink.ids()[..3], ["t-1:0", "t-1:1", "t-1:rev"]);
    let events = sent(&bench);
    assert_eq!(events[0]["source"], source_of("margindash"));
    assert_eq!(events[0]["data"]["provider"], "openai");
    assert_eq!(events[0]["data"]["model"], "gpt-4o");
    assert_eq!(events[1]["data"]["model"], "meta/own-model");
    assert_eq!(events[2]["type"], "spendfuse.revenue");
    assert_eq!(events[2]["data"]["revenue_usd"], "4.99");

    bench.sink.away.store(true, Ordering::SeqCst);
    let away = bench.post(&path, event.to_string()).await;
    assert_eq!(
        away.status,
        StatusCode::SERVICE_UNAVAILABLE,
        "it tries again"
    );
}

#[tokio::test]
async fn margindash_finds_prices_by_both_kinds_of_names() {
    let answer = bench(config(), None)
        .get(&format!("{MARGINDASH}/models"))
        .await;
    let models = answer.json["models"].as_array().unwrap();
    for slug in ["openai/gpt-4o", "gpt-4o"] {
        let found = models.iter().find(|model| model["slug"] == slug);
        let pricing = &found.unwrap_or_else(|| panic!("{slug}"))["pricing"];
        assert_eq!(
            pricing,
            &json!({"input_per_1m_usd": 2.5, "output_per_1m_usd": 10.0})
        );
    }
}

/// A key for the workspace acme, and its text.
fn key(rights: &[Right], customer: Option<&str>) -> (Key, String) {
    let text = format!("sf-{:064x}", rights.len());
    let customer = customer.map(|customer| ("customer".to_owned(), customer.to_owned()));
    let key = Key {
        hash: KeyHash::of(text.as_bytes()),
        name: format!("key-{}", rights.len()),
        workspace: Some("acme".to_owned()),
        rights: rights.to_vec(),
        accept: vec![Place::Query, Place::Bearer],
        attribution: customer.into_iter().collect(),
        upstreams: Vec::new(),
    };
    (key, text)
}

async fn list_for(bench: &Bench, key: &str) -> Value {
    let list = Request::get(format!("{MARGINDASH}/budgets/blocklist"))
        .header("authorization", format!("Bearer {key}"));
    let list = bench.ask(list.body(Body::empty()).unwrap()).await;
    list.json["blocked"]["customer_ids"].clone()
}

#[tokio::test]
async fn an_unknown_key_sees_nothing_and_counts_nothing() {
    let (right, good) = key(&[Right::Compat], None);
    let (other, without) = key(&[Right::Check, Right::Usage], None);
    let config = SidecarConfig {
        default_workspace: String::new(),
        token: Token::new("token"),
        keys: Keyring::new(vec![right, other]).unwrap(),
        ..config()
    };
    let bench = Bench::with_a_blocked_customer(config);
    // The token is for headers: what stands in addresses ends up in logs.
    for (key, is_known) in [
        (&*good, true),
        ("wrong", false),
        (&without, false),
        ("token", false),
    ] {
        let asked = bench
            .get(&format!("{MARGINT}?key={key}&customer=c-42"))
            .await;
        assert_eq!(asked.json["allowed"], !is_known, "{key}");
        assert_eq!(asked.json.get("breaches").is_some(), is_known, "{key}");
        let event = json!({"customerId": "c", "provider": "openai", "model": "gpt-4o",
                           "inputTokens": 1, "outputTokens": 1});
        let batch = json!({"apiKey": key, "events": [event]});
        let told = bench.post(MARGINT_EVENTS, batch.to_string()).await;
        let accepted = json!(u8::from(is_known));
        assert_eq!(
            (told.status, &told.json["accepted"]),
            (StatusCode::OK, &accepted)
        );
    }
    for (key, listed) in [(&*good, json!(["c-42"])), ("wrong", json!([]))] {
        assert_eq!(list_for(&bench, key).await, listed, "{key}");
    }
    let logged = bench.post("/v1/ingest/litellm", "[]").await;
    assert_eq!(
        logged.status,
        StatusCode::UNAUTHORIZED,
        "its headers hold the key"
    );
    let sent = sent(&bench);
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0]["data"]["workspace"], "acme", "it is the key's");
}

#[tokio::test]
async fn a_key_of_one_customer_sees_and_spends_for_no_other() {
    let (own, text) = key(&[Right::Compat], Some("c-43"));
    let config = SidecarConfig {
        keys: Keyring::new(vec![own]).unwrap(),
        ..config()
    };
    let bench = Bench::with_a_blocked_customer(config);
    assert_eq!(list_for(&bench, &text).await, json!([]));
    let asked = bench
        .get(&format!("{MARGINT}?key={text}&customer=c-42"))
        .await;
    assert_eq!(asked.json["allowed"], true, "it is asked about c-43");
    let event = json!({"customerId": "c-42", "provider": "openai", "model": "gpt-4o",
                       "inputTokens": 1, "outputTokens": 1});
    let batch = json!({"apiKey": text, "events": [event]});
    bench.post(MARGINT_EVENTS, batch.to_string()).await;
    assert_eq!(sent(&bench)[0]["data"]["customer"], "c-43");
}

#[tokio::test]
async fn litellms_payloads_become_calls_without_what_was_said() {
    let bench = bench(config(), None);
    let call = json!({
        "id": "chatcmpl-1", "call_type": "acompletion", "status": "success", "cache_hit": false,
        "custom_llm_provider": "openai", "model": "gpt-4o", "model_group": "best",
        "prompt_tokens": 1200, "completion_tokens": 380, "endTime": null, "end_user": "c-42",
        "session_id": "s-1", "response_cost": 0.0058,
        "request_tags": ["team:growth", "beta"],
        "messages": [{"role": "user", "content": "a secret"}],
        "response": {"choices": [{"message": {"content": "another secret"}}]},
        "metadata": {
            "usage_object": {"prompt_tokens": 1200, "completion_tokens": 380,
                             "prompt_tokens_details": {"cached_tokens": 800}},
            "user_api_key_user_id": "u-1", "user_api_key_team_alias": "core",
            "spend_logs_metadata": {"run": 7},
        },
    });
    let mut hit = call.clone();
    hit["cache_hit"] = json!(true);
    hit["id"] = json!("chatcmpl-2_cache_hit123");
    let mut failed = call.clone();
    failed["status"] = json!("failure");
    let lines = format!("{call}\n{hit}\n{failed}\n");
    let array = json!([call, hit, failed]).to_string();
    for body in [array, lines] {
        let answer = bench.post("/v1/ingest/litellm", body).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(
            answer.json,
            json!({"accepted": 1, "skipped": 2, "rejected": 0, "reasons": []})
        );
    }
    let events = sent(&bench);
    assert_eq!(events[0]["id"], "chatcmpl-1");
    assert_eq!(events[0]["source"], source_of("litellm"));
    let data = &events[0]["data"];
    assert_eq!(data["usage"]["prompt_tokens_details"]["cached_tokens"], 800);
    assert_eq!(
        (&data["customer"], &data["session"], &data["user"]),
        (&json!("c-42"), &json!("s-1"), &json!("u-1"))
    );
    assert_eq!(
        data["tags"],
        json!({"team": "core", "run": "7", "beta": "true"})
    );
    assert_eq!(data["reported_cost_usd"], "0.005800000");
    assert!(!format!("{events:?}").contains("secret"));

    // A line that cannot be read does not take the others with it.
    let lines = format!("{call}\nno JSON\n{{\"metadata\": 7}}\n{call}\n");
    let mixed = bench.post("/v1/ingest/litellm", lines).await;
    assert_eq!(mixed.json["accepted"], 2, "{}", mixed.json);
    assert_eq!(mixed.json["rejected"], 2, "{}", mixed.json);

    let broken = bench.post("/v1/ingest/litellm", "[{\"id\": 1}, 7]").await;
    assert_eq!(
        (broken.status, &broken.json["rejected"]),
        (StatusCode::OK, &json!(2))
    );
}
