//! Keys: what their owners may do, and that they see, spend and name nothing of other workspaces.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};
use spendfuse_domain::UnixMillis;
use spendfuse_guard::Now;
use spendfuse_sidecar::keys::{Key, KeyHash, Keyring, Place, Right};
use spendfuse_sidecar::server::Answers as _;
use spendfuse_sidecar::{Api, SidecarConfig, Token};

use crate::support::{Answer, Bench, assert_conforms, bench, config, steps};

const OURS: &str = "sf-ours";
const THEIRS: &str = "sf-theirs";

fn key(text: &str, name: &str, workspace: Option<&str>) -> Key {
    Key {
        hash: KeyHash::of(text.as_bytes()),
        name: name.to_owned(),
        workspace: workspace.map(str::to_owned),
        rights: Key::USUAL_RIGHTS.to_vec(),
        accept: Key::USUAL_PLACES.to_vec(),
        attribution: BTreeMap::new(),
        upstreams: Vec::new(),
    }
}

fn with_keys(keys: Vec<Key>) -> SidecarConfig {
    SidecarConfig {
        keys: Keyring::new(keys).unwrap(),
        token: Token::new("operator"),
        ..config()
    }
}

fn two_tenants() -> SidecarConfig {
    with_keys(vec![
        key(OURS, "ours", Some("acme")),
        key(THEIRS, "theirs", Some("rival")),
    ])
}

impl Bench {
    async fn by(&self, key: &str, method: &str, path: &str, body: &str) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {key}"))
            .header("content-type", "application/json")
            .body(Body::from(body.to_owned()));
        self.ask(request.unwrap()).await
    }

    /// Publishes what a scope has spent of a budget.
    fn publish(&mut self, budget: &str, scope: &str, spent: &str, verdict: &str) {
        let entry = json!({
            "v": 1, "budget": budget, "scope": scope, "where": null, "verdict": verdict,
            "action": "block", "spent_usd": spent, "limit_usd": "9.00", "percent": 12.3,
            "window": "day:2026-11-22", "window_start": "2026-11-22T00:00:00Z",
            "resets_at": "2999-01-01T00:00:00Z", "expires_at": "2999-01-01T00:00:00Z",
            "counted_from": "2026-11-22T00:00:00Z", "downgrade_to": null, "version": 1,
            "decided_at": "2026-11-22T10:00:00Z", "caused_by": null,
        });
        let now = Now {
            wall: UnixMillis(0),
            monotonic_millis: 0,
        };
        let (key, entry) = (
            format!("{budget}|{scope}"),
            serde_json::to_vec(&entry).unwrap(),
        );
        let applied = self.writer.apply(&key, Some(&entry), UnixMillis(0), now);
        applied.unwrap();
        self.writer.publish(UnixMillis(0));
    }

    /// The workspaces of all events that were sent.
    fn workspaces(&self) -> Vec<String> {
        let taken = self.sink.taken.lock().unwrap();
        let workspace = |value: &[u8]| {
            let event: Value = serde_json::from_slice(value).unwrap();
            event["data"]["workspace"].as_str().unwrap().to_owned()
        };
        taken.iter().map(|event| workspace(&event.value)).collect()
    }
}

#[tokio::test]
async fn without_a_right_key_nothing_is_answered_and_with_one_what_it_may() {
    let mut checks_only = key("sf-checks", "checks", None);
    checks_only.rights = vec![Right::Check];
    let mut by_query = key("sf-query", "query", None);
    by_query.accept = vec![Place::Query];
    let bench = bench(with_keys(vec![checks_only, by_query]), None);
    for (key, path, wanted) in [
        ("sf-checks", "/v1/authz?customer=c", StatusCode::OK),
        ("sf-checks", "/v1/state?customer=c", StatusCode::FORBIDDEN),
        ("sf-checks", "/v1/blocklist", StatusCode::FORBIDDEN),
        ("operator", "/v1/blocklist", StatusCode::OK),
        ("sf-other", "/v1/authz?customer=c", StatusCode::UNAUTHORIZED),
        ("sf-query", "/v1/authz?customer=c", StatusCode::UNAUTHORIZED),
        (
            "sf-query",
            "/v1/authz?customer=c&key=sf-query",
            StatusCode::UNAUTHORIZED,
        ),
    ] {
        let answer = bench.by(key, "GET", path, "").await;
        assert_eq!(answer.status, wanted, "{key} {path} {}", answer.json);
        if wanted != StatusCode::OK {
            assert_eq!(answer.headers["x-should-retry"], "false");
            assert!(!answer.json.to_string().contains(key), "{}", answer.json);
        }
    }
    let posted = bench.by("sf-checks", "POST", "/v1/usage", "{}").await;
    assert_eq!(posted.status, StatusCode::FORBIDDEN);
    assert_eq!(
        bench.get("/v1/state?customer=c").await.status,
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(bench.get("/healthz").await.status, StatusCode::OK);
}

#[tokio::test]
async fn keys_that_are_taken_away_are_worth_nothing_at_once() {
    let config = with_keys(vec![key(OURS, "ours", None)]);
    let (keyring, bench) = (config.keys.clone(), bench(config, None));
    let path = "/v1/authz?customer=c";
    assert_eq!(bench.by(OURS, "GET", path, "").await.status, StatusCode::OK);
    keyring.replace(vec![key(THEIRS, "theirs", None)]).unwrap();
    assert_eq!(
        bench.by(OURS, "GET", path, "").await.status,
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(
        bench.by(THEIRS, "GET", path, "").await.status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn an_address_that_guesses_is_not_listened_to_but_for_real_keys() {
    let bench = bench(with_keys(vec![key(OURS, "ours", None)]), None);
    let path = "/v1/authz?customer=c";
    for _ in 0..30 {
        let answer = bench.by("guess", "GET", path, "").await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    }
    // The token is what somebody has chosen, and could be guessed; a key could not.
    for guess in ["guess", "sf-guess", "operator"] {
        let answer = bench.by(guess, "GET", path, "").await;
        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{guess}");
        assert!(answer.headers.contains_key("retry-after"));
    }
    assert_eq!(bench.by(OURS, "GET", path, "").await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_event_counts_against_what_its_key_says() {
    let mut own = key(OURS, "checkout", Some("acme"));
    own.attribution = [("customer", "c-1"), ("tags.team", "growth")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    let bench = bench(with_keys(vec![own]), None);
    let event = json!({"id": "r-1", "workspace": "rival", "customer": "c-2", "model": "gpt-4o",
        "provider": "openai", "tags": {"team": "x", "site": "y"}, "usage": {"input_tokens": 5}});
    let answer = bench
        .by(OURS, "POST", "/v1/usage", &event.to_string())
        .await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.json);
    let taken = bench.sink.taken.lock().unwrap()[0].clone();
    let event: Value = serde_json::from_slice(&taken.value).unwrap();
    assert_eq!(event["source"], "checkout");
    assert_eq!(event["data"]["workspace"], "acme");
    assert_eq!(event["data"]["customer"], "c-1");
    assert_eq!(
        event["data"]["tags"],
        json!({"team": "growth", "site": "y"})
    );
    assert!(!String::from_utf8_lossy(&taken.value).contains(OURS));
}

#[tokio::test]
async fn a_budget_across_workspaces_stops_calls_and_tells_nobody_what_others_spend() {
    let mut bench = bench(two_tenants(), None);
    bench.budget_of("all", json!({}), "9.00", steps());
    bench.publish("all", "*", "9.123456", "block");
    let answer = bench
        .by(OURS, "POST", "/v1/check", r#"{"customer":"c"}"#)
        .await;
    assert_conforms("check-response", &answer.json);
    assert_eq!(answer.json["decision"], "block");
    let refused = bench.by(OURS, "GET", "/v1/authz?customer=c", "").await;
    assert_eq!(refused.json["error"]["code"], "budget_exceeded");
    let state = bench.by(OURS, "GET", "/v1/state?customer=c", "").await;
    assert_conforms("state-response", &state.json);
    let blocklist = bench.by(OURS, "GET", "/v1/blocklist", "").await;
    let standings = "/v1/blocklist?view=standings";
    let standings = bench.by(OURS, "GET", standings, "").await;
    assert_conforms("blocklist-standings", &standings.json);
    let standing = &standings.json["entries"][0]["value"];
    assert_eq!(
        (&standing["verdict"], &standing["limit_usd"]),
        (&json!("block"), &json!("9.00"))
    );
    assert_eq!(standings.json["imposed"], json!({"workspace": "acme"}));
    for answer in [answer, refused, state, blocklist, standings] {
        assert!(!answer.json.to_string().contains("9.12"), "{}", answer.json);
    }
    let whole = bench.by("operator", "GET", "/v1/blocklist", "").await;
    assert!(whole.json.to_string().contains("9.12"), "{}", whole.json);
}

#[tokio::test]
async fn standings_name_nobody_of_other_workspaces() {
    let mut bench = bench(two_tenants(), None);
    let block = json!([{"at": 100, "do": "block"}]);
    let users = json!({"user": "*"});
    bench.budget_of("users", users, "9.00", steps());
    bench.budget_of("models", json!({"model": "*"}), "9.00", steps());
    bench.budget_of(
        "each",
        json!({"workspace": "*", "customer": "*"}),
        "9.00",
        steps(),
    );
    let theirs = json!({"workspace": "rival", "customer": "their-customer"});
    bench.budget_of("of-rival", theirs, "0", block.clone());
    bench.budget_of("user", json!({"user": "their-user"}), "0", block.clone());
    bench.budget_of("model", json!({"model": "dear"}), "0", block);
    bench.publish("users", "*/user=their-user", "9.123456", "block");
    bench.publish("models", "*/model=dear", "9.123456", "block");
    bench.publish("each", "rival/customer=their-customer", "9.123456", "block");
    bench.publish("each", "acme/customer=c-1", "9.50", "block");
    let path = "/v1/blocklist?view=standings";
    let ours = bench.by(OURS, "GET", path, "").await.json;
    let text = ours.to_string();
    for secret in ["their-", "rival", "9.12"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    let entries = ours["entries"].as_array().unwrap();
    let mut keys: Vec<_> = entries
        .iter()
        .map(|one| one["key"].as_str().unwrap())
        .collect();
    keys.sort_unstable();
    assert_eq!(keys, ["each|acme/customer=c-1", "models|*/model=dear"]);
    assert_eq!(ours["rules"].as_array().unwrap().len(), 1, "{ours}");
    let all = bench.by("operator", "GET", path, "").await.json;
    assert_eq!(all["entries"].as_array().unwrap().len(), 4, "{all}");
    assert_eq!(all["rules"].as_array().unwrap().len(), 3, "{all}");
}

/// Texts that may be taken for the other workspace.
fn names() -> impl Strategy<Value = &'static str> {
    select(vec![
        "rival",
        "acme",
        "*",
        "",
        "%72ival",
        "rival/customer=theirs",
        "acme/../rival",
        "their-session",
        "their-customer",
        "RIVAL",
        "rival|acme",
    ])
}

/// A question in one of its forms, with names of others wherever names can stand.
fn questions() -> impl Strategy<Value = String> {
    let field = select(vec![
        "workspace",
        "customer",
        "session",
        "root_session",
        "user",
        "feature",
        "tags.workspace",
    ]);
    let fields = proptest::collection::vec((field, names()), 1..4);
    fields.prop_map(|fields| {
        let pairs: Vec<String> = fields
            .iter()
            .map(|(name, value)| {
                format!("{name}={}", value.replace('%', "%25").replace('|', "%7C"))
            })
            .collect();
        pairs.join("&")
    })
}

#[derive(Clone, Debug)]
enum Try {
    Check(String),
    Authz(String, &'static str),
    State(String),
    Blocklist,
    Event(&'static str, u8, bool),
    Release(bool),
    Extend,
    Estimate(&'static str),
}

fn tries() -> impl Strategy<Value = Try> {
    prop_oneof![
        questions().prop_map(Try::Check),
        (questions(), names()).prop_map(|(question, header)| Try::Authz(question, header)),
        questions().prop_map(Try::State),
        Just(Try::Blocklist),
        (names(), 0..4_u8, any::<bool>())
            .prop_map(|(workspace, form, settles)| Try::Event(workspace, form, settles)),
        any::<bool>().prop_map(Try::Release),
        Just(Try::Extend),
        names().prop_map(Try::Estimate),
    ]
}

/// What the other tenant has: budgets, spend, a session's finding, a call under way.
async fn rivals() -> (Bench, String) {
    let mut bench = bench(two_tenants(), None);
    bench.budget_of(
        "their-budget",
        json!({"workspace": "rival", "customer": "*"}),
        "9.00",
        steps(),
    );
    bench.budget_of("each", json!({"workspace": "*"}), "9.00", steps());
    bench.publish(
        "their-budget",
        "rival/customer=their-customer",
        "7.654321",
        "warn",
    );
    bench.publish("each", "rival", "7.654321", "warn");
    bench.used_up(
        "their-budget",
        "rival/session=their-session",
        "their-customer",
    );
    let question = r#"{"customer":"their-customer","estimated_cost_usd":"0.50","reserve":true}"#;
    let held = bench.by(THEIRS, "POST", "/v1/check", question).await;
    let id = held.json["reservation_id"].as_str().unwrap().to_owned();
    (bench, id)
}

async fn carry_out(bench: &Bench, number: usize, one: &Try, theirs: &str) -> Answer {
    match one {
        Try::Check(question) => {
            let members: serde_json::Map<_, _> = question
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .filter(|(name, _)| !name.contains('.'))
                .map(|(name, value)| (name.to_owned(), json!(value)))
                .collect();
            let body = Value::Object(members).to_string();
            bench.by(OURS, "POST", "/v1/check", &body).await
        }
        Try::Authz(question, header) => {
            let request = Request::get(format!("/v1/authz?{question}"))
                .header("authorization", format!("Bearer {OURS}"))
                .header("x-spendfuse-workspace", *header);
            bench.ask(request.body(Body::empty()).unwrap()).await
        }
        Try::State(question) => {
            bench
                .by(OURS, "GET", &format!("/v1/state?{question}"), "")
                .await
        }
        Try::Blocklist => bench.by(OURS, "GET", "/v1/blocklist", "").await,
        Try::Event(workspace, form, settles) => {
            let mut data = json!({"workspace": workspace, "customer": "their-customer",
                "provider": "openai", "model": "gpt-4o", "usage": {"input_tokens": 5}});
            if *settles {
                data["reservation_id"] = json!(theirs);
            }
            let id = format!("r-{number}");
            let event = json!({"specversion": "1.0", "type": "spendfuse.usage", "source": "s",
                "id": id, "time": bench.sidecar.now().to_string(), "data": data});
            let body = match form {
                0 => event.to_string(),
                1 => json!([event]).to_string(),
                2 => {
                    data["id"] = json!(id);
                    data.to_string()
                }
                // Said twice: whichever of them a reader takes.
                _ => event.to_string().replacen(
                    "\"workspace\":",
                    "\"work\\u0073pace\":\"rival\",\"workspace\":",
                    1,
                ),
            };
            bench.by(OURS, "POST", "/v1/usage", &body).await
        }
        Try::Release(exact) => {
            let id = match exact {
                true => theirs.to_owned(),
                false => theirs.replace("-1", "-2"),
            };
            bench
                .by(OURS, "DELETE", &format!("/v1/reservations/{id}"), "")
                .await
        }
        Try::Extend => {
            let path = format!("/v1/reservations/{theirs}/extend");
            bench
                .by(OURS, "POST", &path, r#"{"call_timeout_s":80000}"#)
                .await
        }
        Try::Estimate(name) => {
            let body = json!({"model": name, "provider": name, "text": "x"}).to_string();
            bench.by(OURS, "POST", "/v1/estimate", &body).await
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Over the whole API: answers hold nothing of the other workspace, every event is of the own one,
    /// and the other's figures and reservations are as before.
    #[test]
    fn a_key_reads_spends_and_names_nothing_of_another_workspace(
        tries in proptest::collection::vec(tries(), 1..12)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (bench, theirs) = rivals().await;
            let state = "/v1/state?customer=their-customer&session=their-session";
            let before = bench.by(THEIRS, "GET", state, "").await.json;
            prop_assert!(before.to_string().contains("7.654321"), "{}", before);
            for (number, one) in tries.iter().enumerate() {
                let answer = carry_out(&bench, number, one, &theirs).await;
                prop_assert!(answer.status != StatusCode::UNAUTHORIZED, "{:?}", one);
                let text = answer.json.to_string();
                // What an answer may repeat are words of its own question, never these.
                for secret in ["7.654321", "7.65", "their-budget", "used up", "\"rival/", "\"rival\""] {
                    prop_assert!(!text.contains(secret), "{:?}: {}", one, text);
                }
            }
            prop_assert!(bench.workspaces().iter().all(|name| name == "acme"));
            let mut after = bench.by(THEIRS, "GET", state, "").await.json;
            after["state_age_ms"] = before["state_age_ms"].clone();
            prop_assert_eq!(&before["budgets"], &after["budgets"]);
            prop_assert_eq!(&before["findings"], &after["findings"]);
            let released = bench.by(THEIRS, "DELETE", &format!("/v1/reservations/{theirs}"), "").await;
            prop_assert_eq!(released.status, StatusCode::NO_CONTENT);
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn over_a_socket_a_key_is_honoured_and_not_demanded() {
    let bench = bench(two_tenants(), None);
    for (key, wanted) in [
        (None, StatusCode::OK),
        (Some(OURS), StatusCode::OK),
        (Some("sk-of-a-provider"), StatusCode::OK),
        (Some("sf-gone"), StatusCode::UNAUTHORIZED),
    ] {
        let mut request = Request::get("/v1/authz?customer=c");
        if let Some(key) = key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let api = Api::new(Arc::clone(&bench.sidecar), false);
        let response = api.answer(request.body(Body::empty()).unwrap(), None).await;
        assert_eq!(response.status(), wanted, "{key:?}");
    }
}

#[tokio::test]
async fn only_a_key_with_the_right_to_gives_sessions_limits() {
    let mut limiting = key("sf-limiting", "limiting", Some("acme"));
    limiting.rights.push(Right::Limits);
    let bench = bench(
        with_keys(vec![key(OURS, "ours", Some("acme")), limiting]),
        None,
    );
    let question = r#"{"session":"s-1","session_limit_usd":"0.50"}"#;
    // A member that is written in another way is the same member.
    let event = |id: &str, name: &str| {
        format!(
            r#"{{"id":"{id}","session":"s-1","model":"gpt-4o","provider":"openai","usage":{{"input_tokens":1}},"{name}":"0.50"}}"#
        )
    };
    let names = ["session_limit_usd", r"session\u005flimit_usd"];
    for (key, status, limit) in [
        (OURS, StatusCode::BAD_REQUEST, None),
        ("sf-limiting", StatusCode::OK, Some("0.50")),
    ] {
        let answer = bench.by(key, "POST", "/v1/check", question).await;
        assert_eq!(answer.status, status, "{key}: {}", answer.json);
        for (number, name) in names.into_iter().enumerate() {
            let event = event(&format!("{key}-{number}"), name);
            let told = bench.by(key, "POST", "/v1/usage", &event).await;
            assert_eq!(told.status, StatusCode::ACCEPTED, "{}", told.json);
            let taken = bench.sink.taken.lock().unwrap();
            let sent: Value = serde_json::from_slice(&taken.last().unwrap().value).unwrap();
            let said = sent["data"]["session_limit_usd"].as_str();
            assert_eq!(said.filter(|said| !said.is_empty()), limit, "{key} {name}");
        }
    }
}
