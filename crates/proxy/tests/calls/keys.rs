//! Calls with keys: whose they are, by which provider's key they are made, and that none of ours
//! leaves the proxy.

use axum::http::StatusCode;
use serde_json::{Value, json};
use spendfuse_sidecar::keys::{Key, KeyHash, Place, Right};

use crate::support::{Answer, Bench, bench_with, text};
use crate::{CHAT, completion};

const OURS: &str = "sf-0123456789abcdef";
const THEIRS: &str = "sf-fedcba9876543210";

fn key(text: &str, workspace: &str, upstreams: &[&str]) -> Key {
    Key {
        hash: KeyHash::of(text.as_bytes()),
        name: format!("key of {workspace}"),
        workspace: Some(workspace.to_owned()),
        rights: Key::USUAL_RIGHTS.to_vec(),
        accept: vec![Place::Bearer, Place::Header, Place::Query],
        attribution: [("customer".to_owned(), "c-1".to_owned())].into(),
        upstreams: upstreams.iter().map(|name| (*name).to_owned()).collect(),
    }
}

/// Tenants with upstreams of their own, and one that all share.
async fn tenants() -> Bench {
    let keys = vec![
        key(OURS, "ours", &["openai-ours", "shared"]),
        key(THEIRS, "theirs", &["openai-theirs", "shared"]),
    ];
    let more = [
        ("openai-ours", Some("sk-ours")),
        ("openai-theirs", Some("sk-theirs")),
        ("shared", Some("sk-shared")),
    ];
    bench_with(keys, &more).await
}

fn bearer(key: &str) -> (&'static str, String) {
    ("authorization", format!("Bearer {key}"))
}

async fn called(bench: &Bench, path: &str, headers: &[(&'static str, String)]) -> StatusCode {
    let headers: Vec<(&str, &str)> = headers
        .iter()
        .map(|(name, value)| (*name, &**value))
        .collect();
    let response = bench.post(path, &headers, r#"{"model":"gpt-4o"}"#).await;
    let status = response.status();
    let body = text(response).await;
    assert!(!body.contains(OURS) && !body.contains(THEIRS), "{body}");
    status
}

#[tokio::test]
async fn a_key_brings_its_upstream_its_workspace_and_its_customer() {
    let bench = tenants().await;
    bench.will_answer(Answer::json(200, &completion()));
    let headers = [
        bearer(OURS),
        ("x-spendfuse-workspace", "theirs".to_owned()),
        ("x-spendfuse-customer", "c-2".to_owned()),
        ("x-spendfuse-feature", "f".to_owned()),
        ("x-note", format!("mine is {OURS}, keep it")),
    ];
    assert_eq!(called(&bench, CHAT, &headers).await, 200);
    let asked = &bench.asked()[0];
    assert_eq!(asked.headers["authorization"], "Bearer sk-ours");
    assert!(!format!("{asked:?}").contains(OURS), "{asked:?}");
    let event = &bench.events(1).await[0];
    let data = &event["data"];
    for (name, wanted) in [
        ("workspace", "ours"),
        ("customer", "c-1"),
        ("feature", "f"),
        ("api_key_id", "key of ours"),
    ] {
        assert_eq!(data[name], wanted, "{data}");
    }
    assert!(!event.to_string().contains(OURS), "{event}");
}

#[tokio::test]
async fn clients_present_keys_where_they_have_their_providers() {
    let bench = tenants().await;
    for (path, header) in [
        (CHAT.to_owned(), Some(bearer(OURS))),
        (CHAT.to_owned(), Some(("api-key", OURS.to_owned()))),
        (CHAT.to_owned(), Some(("x-api-key", OURS.to_owned()))),
        (CHAT.to_owned(), Some(("x-goog-api-key", OURS.to_owned()))),
        (
            CHAT.to_owned(),
            Some(("x-spendfuse-token", OURS.to_owned())),
        ),
        (format!("{CHAT}?key={OURS}&api-version=1"), None),
    ] {
        let headers: Vec<_> = header.into_iter().collect();
        assert_eq!(
            called(&bench, &path, &headers).await,
            200,
            "{path} {headers:?}"
        );
    }
    for asked in bench.asked() {
        assert_eq!(asked.headers["authorization"], "Bearer sk-ours");
        assert!(!format!("{asked:?}").contains(OURS), "{asked:?}");
    }
    assert!(bench.asked()[5].path.ends_with("completions?api-version=1"));
}

#[tokio::test]
async fn without_a_right_key_nothing_is_forwarded() {
    let mut reads_only = key("sf-reads", "ours", &[]);
    reads_only.rights = vec![Right::State];
    reads_only.name = "reads".to_owned();
    let mut keys = vec![reads_only, key(OURS, "ours", &["shared"])];
    keys[1].accept = vec![Place::Header];
    let bench = bench_with(keys, &[("shared", Some("sk-shared"))]).await;
    for (headers, wanted) in [
        (vec![], 401),
        (vec![bearer("sk-of-the-provider")], 401),
        (vec![bearer("sf-gone")], 401),
        (vec![bearer(OURS)], 401),
        (vec![bearer("sf-reads")], 403),
        (vec![("x-api-key", OURS.to_owned())], 200),
    ] {
        assert_eq!(called(&bench, CHAT, &headers).await, wanted, "{headers:?}");
    }
    for path in [
        "/anthropic/v1/messages",
        "/gemini/v1beta/models/m:generateContent",
        "/x/y",
    ] {
        assert_eq!(called(&bench, path, &[]).await, 401, "{path}");
    }
    assert_eq!(bench.asked().len(), 1);
}

#[tokio::test]
async fn a_key_in_the_place_of_the_providers_needs_an_upstream_that_has_one() {
    let bench = bench_with(vec![key(OURS, "ours", &[])], &[]).await;
    assert_eq!(called(&bench, CHAT, &[bearer(OURS)]).await, 403);
    assert!(bench.asked().is_empty());
    // Beside it, the caller's own goes on.
    let headers = [
        ("x-spendfuse-token", OURS.to_owned()),
        bearer("sk-of-the-caller"),
    ];
    assert_eq!(called(&bench, CHAT, &headers).await, 200);
    let asked = &bench.asked()[0];
    assert_eq!(asked.headers["authorization"], "Bearer sk-of-the-caller");
    assert!(!format!("{asked:?}").contains(OURS), "{asked:?}");
}

#[tokio::test]
async fn a_call_by_a_key_that_tenants_share_names_nothing_that_is_kept_by_it() {
    let bench = tenants().await;
    let key = bearer(OURS);
    let headers = [(key.0, key.1.as_str())];
    for (upstream, body, wanted) in [
        (
            "shared",
            r#"{"model":"m","previous_response_id":"resp_theirs"}"#,
            403,
        ),
        (
            "shared",
            r#"{"model":"m","input":[{"type":"item_reference","id":"msg_theirs"}]}"#,
            403,
        ),
        // Nobody could ask what it has cost.
        ("shared", r#"{"model":"m","background":true}"#, 403),
        (
            "shared",
            r#"{"model":"m","input":"previous_response_id"}"#,
            200,
        ),
        (
            "openai-ours",
            r#"{"model":"m","previous_response_id":"resp_ours"}"#,
            200,
        ),
    ] {
        let path = format!("/{upstream}/v1/responses");
        let response = bench.post(&path, &headers, body).await;
        assert_eq!(response.status(), wanted, "{upstream} {body}");
    }
    assert_eq!(bench.asked().len(), 2);
}

#[tokio::test]
async fn where_all_keys_are_of_one_workspace_nothing_is_anothers() {
    let keys = vec![key(OURS, "ours", &[])];
    let bench = bench_with(keys, &[("shared", Some("sk-shared"))]).await;
    let key = bearer(OURS);
    let headers = [(key.0, key.1.as_str())];
    let body = r#"{"model":"m","previous_response_id":"resp_ours"}"#;
    let response = bench.post("/shared/v1/responses", &headers, body).await;
    assert_eq!(response.status(), 200);
    for path in ["/shared/v1/responses/resp_ours", "/shared/v1/files"] {
        assert_eq!(bench.ask("GET", path, &headers).await.status(), 200);
    }
}

/// Whatever path, header or query somebody tries with the key of one tenant: the other's provider's key
/// is never used, and every event is the own one's.
#[tokio::test]
async fn a_key_neither_calls_nor_names_what_is_another_tenants() {
    let bench = tenants().await;
    let mut forwarded = 0;
    for upstream in [
        "openai",
        "openai-theirs",
        "openai-ours",
        "shared",
        "anthropic",
        "away",
        "no",
    ] {
        for path in [
            "/v1/chat/completions",
            "/v1/files",
            "/v1/responses/resp_theirs",
            "/v1/models/../files",
            "/v1/images/generations",
            "/v1/embeddings?key=sf-fedcba98",
        ] {
            let path = format!("/{upstream}{path}");
            let headers = [bearer(OURS), ("x-spendfuse-workspace", "theirs".to_owned())];
            let status = called(&bench, &path, &headers).await;
            if status.is_success() {
                forwarded += 1;
            } else {
                assert!([403, 404].contains(&status.as_u16()), "{path} {status}");
            }
        }
    }
    let asked = bench.asked();
    assert_eq!(asked.len(), forwarded);
    let mut shared = Vec::new();
    for one in &asked {
        let key = one.headers["authorization"].to_str().unwrap();
        assert!(
            ["Bearer sk-ours", "Bearer sk-shared"].contains(&key),
            "{one:?}"
        );
        assert!(!format!("{one:?}").contains("sf-"), "{one:?}");
        if key == "Bearer sk-shared" {
            shared.push(one.path.as_str());
        }
    }
    // By a key that both tenants' calls are made with, only what is metered goes.
    let metered = [
        "/v1/chat/completions",
        "/v1/images/generations",
        "/v1/embeddings",
    ];
    assert_eq!(shared, metered);
    // `away` is nobody's: the tenant's own stands in for it.
    let events = bench.events(12).await;
    let workspace = |event: &Value| event["data"]["workspace"].clone();
    assert!(events.iter().all(|event| workspace(event) == json!("ours")));
}
