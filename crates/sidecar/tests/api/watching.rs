//! `GET /v1/blocklist` with `wait` and `view=standings`: for those who decide by themselves.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};
use spendfuse_sidecar::server::Answers as _;
use spendfuse_sidecar::{Api, Listeners, SidecarConfig, serve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::support::{Bench, assert_conforms, bench, config, steps};

const STANDINGS: &str = "/v1/blocklist?view=standings";

impl Bench {
    /// Asks in the background.
    fn asking(&self, path: String) -> JoinHandle<(StatusCode, Value)> {
        let api = Api::new(Arc::clone(&self.sidecar), true);
        tokio::spawn(async move {
            let request = Request::get(path).body(Body::empty()).unwrap();
            let (parts, body) = api.answer(request, None).await.into_parts();
            let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
            (parts.status, serde_json::from_slice(&body).unwrap())
        })
    }

    /// The first page, to its end.
    async fn standings(&self) -> Value {
        let page = self.get(STANDINGS).await.json;
        assert_conforms("blocklist-standings", &page);
        assert_eq!(page["more"], false);
        page
    }
}

fn next(page: &Value, more: &str) -> String {
    format!(
        "{STANDINGS}&cursor={}{more}",
        page["cursor"].as_str().unwrap()
    )
}

#[tokio::test]
async fn a_request_that_waits_is_answered_at_the_change_and_else_at_the_end_of_its_wait() {
    let mut bench = bench(config(), None);
    bench.budget("5.00", steps());
    for view in ["entries", "standings"] {
        let path = format!("/v1/blocklist?view={view}");
        let page = bench.get(&format!("{path}&wait=30s")).await.json;
        let path = format!("{path}&cursor={}", page["cursor"].as_str().unwrap());
        let began = Instant::now();
        let nothing = bench.get(&format!("{path}&wait=300ms")).await.json;
        assert_eq!(nothing["entries"], json!([]), "{view}");
        assert!(began.elapsed() >= Duration::from_millis(300), "{view}");
        let began = Instant::now();
        let asking = bench.asking(format!("{path}&wait=30s"));
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!asking.is_finished(), "{view}");
        bench.spent(view, "5.01", "block");
        let (_, page) = asking.await.unwrap();
        let key = format!("daily|acme/customer={view}");
        assert_eq!(page["entries"][0]["key"], key);
        assert!(began.elapsed() < Duration::from_secs(10), "{view}");
    }
    for wrong in ["5", "-1s", "soon"] {
        let answer = bench.get(&format!("/v1/blocklist?wait={wrong}")).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{wrong}");
        let message = answer.json["error"]["message"].as_str().unwrap();
        assert!(message.contains("5s"), "{message}");
    }
}

#[tokio::test]
async fn standings_tell_only_what_makes_a_difference() {
    let mut bench = bench(config(), None);
    bench.budget("5.00", steps());
    let steps = json!([{"at": 100, "do": "block"}]);
    bench.budget_of(
        "nothing",
        json!({"workspace": "acme", "plan": "*"}),
        "0",
        steps,
    );
    bench.spent("far", "0.10", "ok");
    bench.spent("near", "4.50", "warn");
    let page = bench.standings().await;
    let entries = page["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 1, "{page}");
    assert_eq!(entries[0]["key"], "daily|acme/customer=near");
    assert_eq!(entries[0]["value"]["verdict"], "warn");
    assert_eq!(entries[0]["value"]["spent_usd"], "4.50");
    let rules = page["rules"].as_array().unwrap();
    assert_eq!(rules.len(), 1, "{page}");
    assert_eq!(rules[0]["scope"], json!({"workspace": "acme", "plan": "*"}));
    assert_eq!(rules[0]["verdict"], "block");
    assert_eq!(page["workspace"], "acme");

    // What makes none is not even waited for.
    bench.spent("far", "0.20", "ok");
    let unchanged = bench.get(&next(&page, "&wait=100ms")).await.json;
    assert_eq!(unchanged["entries"], json!([]));
    assert_eq!(unchanged["rules"], Value::Null);
    bench.spent("near", "0.00", "ok");
    let removed = bench.get(&next(&unchanged, "&wait=30s")).await.json;
    let expected = json!([{"key": "daily|acme/customer=near", "value": null}]);
    assert_eq!(removed["entries"], expected);

    // Other budgets judge otherwise: all is to be fetched again.
    let asking = bench.asking(next(&removed, "&wait=30s"));
    bench.budget("0.15", json!([{"at": 100, "do": "block"}]));
    let (status, gone) = asking.await.unwrap();
    assert_eq!(
        (status, &gone["error"]["code"]),
        (StatusCode::GONE, &json!("cursor_expired"))
    );
    let page = bench.standings().await;
    assert_eq!(page["entries"][0]["key"], "daily|acme/customer=far");
    assert_eq!(page["entries"][0]["value"]["verdict"], "block");
}

#[tokio::test]
async fn so_many_may_wait_and_no_more_and_the_stop_ends_all_waits() {
    let mut config = config();
    config.limits.connections = 4;
    let bench = bench(config.clone(), None);
    let page = bench.standings().await;
    let listeners = Listeners::bind(&config).await.unwrap();
    let address = listeners.tcp_address().unwrap().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(serve(Arc::clone(&bench.sidecar), listeners, async {
        let _ = stopped.await;
    }));
    let mut stream = TcpStream::connect(address).await.unwrap();
    let path = next(&page, "&wait=30s");
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let waiting = bench.asking(path.clone());
    tokio::time::sleep(Duration::from_millis(200)).await;
    let refused = bench.get(&path).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.json["error"]["code"], "too_many_waiting");
    assert_eq!(bench.get(&next(&page, "")).await.status, StatusCode::OK);
    // Whoever goes away makes room.
    waiting.abort();
    let _ = waiting.await;
    let again = bench.asking(path.clone());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!again.is_finished());

    let began = Instant::now();
    stop.send(()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert!(String::from_utf8_lossy(&answer).starts_with("HTTP/1.1 200"));
    assert_eq!(again.await.unwrap().0, StatusCode::OK);
    serving.await.unwrap().unwrap();
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn standings_say_by_which_age_and_clock_they_are_to_be_read() {
    let bench = bench(
        SidecarConfig {
            stale_after: Duration::from_secs(7),
            ..config()
        },
        None,
    );
    let page = bench.standings().await;
    assert_eq!(page["stale_after_ms"], 7000);
    assert_eq!(page["state"], "cold");
    assert_eq!(page["cold_start"], "allow");
    let page = bench.get(&next(&page, "&wait=120ms")).await.json;
    assert!(page["waited_ms"].as_u64() >= Some(120), "{page}");
}

#[test]
fn the_pages_of_the_vectors_are_such_as_are_served() {
    let text = include_str!("../../../../schemas/decision-vectors.json");
    let vectors: Value = serde_json::from_str(text).unwrap();
    let cases = vectors["cases"].as_array().unwrap().iter();
    let steps = cases.flat_map(|case| case["steps"].as_array().unwrap());
    let pages: Vec<_> = steps.filter_map(|step| step.get("page")).collect();
    assert!(pages.len() > 20, "{}", pages.len());
    for page in pages {
        assert_conforms("blocklist-standings", page);
    }
}
