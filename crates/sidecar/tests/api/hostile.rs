//! Clients that are slow, many, web pages, or send what they should not.

use std::io::Write as _;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Request, StatusCode};
use flate2::Compression;
use flate2::write::GzEncoder;
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::{Value, json};
use spendfuse_domain::UnixMillis;
use spendfuse_domain::event::decode;
use spendfuse_sidecar::server::ServerLimits;
use spendfuse_sidecar::{Listeners, SidecarConfig, Token, serve};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use crate::support::{Answer, Bench, bench, call, config};

const CHECK: &str = "POST /v1/check HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
     content-length: 20\r\nconnection: close\r\n\r\n{\"customer\": \"c-42\"}";

const LONG: Duration = Duration::from_secs(60);

/// Limits that tests reach in no time.
fn limited(connections: usize, patience: Duration) -> SidecarConfig {
    SidecarConfig {
        limits: ServerLimits {
            connections,
            header_timeout: patience,
            body_timeout: patience,
        },
        max_body_memory: 1 << 20,
        ..config()
    }
}

/// A sidecar on a real port.
async fn small(connections: usize, patience: Duration) -> std::net::SocketAddr {
    let config = limited(connections, patience);
    let listeners = Listeners::bind(&config).await.unwrap();
    let address = listeners.tcp_address().unwrap().unwrap();
    let sidecar = bench(config, None).sidecar;
    tokio::spawn(serve(sidecar, listeners, std::future::pending()));
    address
}

async fn open(address: std::net::SocketAddr, beginning: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(beginning.as_bytes()).await.unwrap();
    stream
}

/// What the server still says, until it closes the connection.
async fn rest(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset is an end too.
    let _ = stream.read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn clients_that_do_not_finish_make_room_for_those_who_ask() {
    let address = small(8, LONG).await;
    let mut slow = Vec::new();
    for number in 0..40 {
        let beginning = match number % 2 {
            0 => "POST /v1/check HTTP/1.1\r\nhost: local",
            _ => "POST /v1/check HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{",
        };
        slow.push(open(address, beginning).await);
    }
    let began = Instant::now();
    let answer = rest(open(address, CHECK).await).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(began.elapsed() < LONG / 4, "{:?}", began.elapsed());
}

#[tokio::test]
async fn half_a_head_and_half_a_body_are_not_waited_for() {
    let patience = Duration::from_millis(300);
    let address = small(8, patience).await;
    let began = Instant::now();
    let head = open(address, "POST /v1/check HTTP/1.1\r\nhost: local").await;
    let body = "POST /v1/usage HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{";
    let body = rest(open(address, body).await).await;
    assert!(body.starts_with("HTTP/1.1 408"), "{body}");
    assert!(body.contains("\"too_slow\""), "{body}");
    rest(head).await;
    assert!(began.elapsed() < 30 * patience, "{:?}", began.elapsed());
}

#[tokio::test]
async fn half_bodies_share_a_bounded_memory_and_small_requests_pass() {
    let address = small(64, LONG).await;
    let half = |length: usize| {
        format!(
            "POST /v1/usage HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             content-length: 8000000\r\n\r\n{}",
            " ".repeat(length)
        )
    };
    let mut slow = Vec::new();
    for _ in 0..4 {
        slow.push(open(address, &half(300_000)).await);
    }
    // Each needs 300,000 - 65,536 of the 2^20 bytes: the fifth does not fit.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let refused = rest(open(address, &half(300_000)).await).await;
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    assert!(refused.contains("retry-after: 1"), "{refused}");
    let answer = rest(open(address, CHECK).await).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn long_answers_that_nobody_reads_share_that_memory() {
    let directory = TempDir::new().unwrap();
    // A Unix socket's own buffer is smaller than such an answer.
    let path = directory.path().join("sidecar.sock");
    let config = SidecarConfig {
        unix_socket: Some(path.clone()),
        ..limited(64, LONG)
    };
    let listeners = Listeners::bind(&config).await.unwrap();
    let mut server = bench(config, None);
    for number in 0..800 {
        server.spent(&format!("c-{number}-{}", "x".repeat(200)), "5.00", "block");
    }
    tokio::spawn(serve(server.sidecar, listeners, std::future::pending()));
    let mut unread = Vec::new();
    for expected in ["200", "503"] {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        let page = "GET /v1/blocklist HTTP/1.1\r\nhost: localhost\r\n\r\n";
        stream.write_all(page.as_bytes()).await.unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.unwrap();
        assert_eq!(&status[9..], expected.as_bytes());
        unread.push(stream);
    }
    // Taken after all, it is whole, and makes room.
    let mut first = String::new();
    let mut stream = unread.swap_remove(0);
    while !first.contains("\"more\"") {
        let mut bytes = vec![0; 64 * 1024];
        let length = stream.read(&mut bytes).await.unwrap();
        first.push_str(std::str::from_utf8(&bytes[..length]).unwrap());
    }
    assert_eq!(first.matches("window_start").count(), 800);
    let mut stream = UnixStream::connect(&path).await.unwrap();
    let again = "GET /v1/blocklist HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(again.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"));
}

async fn ask_as(bench: &Bench, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::get(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    bench.ask(request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn web_pages_are_refused_on_loopback() {
    let loopback = bench(config(), None);
    let state = "/v1/state?customer=c";
    for own in [
        ("host", "localhost:4117"),
        ("host", "127.0.0.1:4117"),
        ("sec-fetch-site", "none"),
    ] {
        assert_eq!(
            ask_as(&loopback, state, &[own]).await.status,
            StatusCode::OK,
            "{own:?}"
        );
    }
    for pages in [
        ("origin", "https://example.com"),
        ("origin", "null"),
        ("origin", "http://localhost:3000"),
        ("host", "rebound.example.com:4117"),
        ("sec-fetch-site", "cross-site"),
    ] {
        for path in [state, "/v1/authz?customer=c", "/v1/blocklist", "/metrics"] {
            let refused = ask_as(&loopback, path, &[pages]).await;
            assert_eq!(refused.status, StatusCode::FORBIDDEN, "{pages:?} {path}");
            assert_eq!(refused.json["error"]["code"], "browser");
        }
    }
    // A gateway passes on what its caller's browser sent, with its own headers beside.
    let passed_on = [
        ("origin", "https://app.example.com"),
        ("x-spendfuse-customer", "c"),
    ];
    let answer = ask_as(&loopback, "/v1/authz", &passed_on).await;
    assert_eq!(answer.status, StatusCode::OK);
    // Beyond loopback the token decides.
    let open = SidecarConfig {
        listen: Some(([0, 0, 0, 0], 4117).into()),
        token: Token::new("s3cret"),
        ..config()
    };
    let open = bench(open, None);
    let headers = [
        ("host", "sidecar.internal"),
        ("authorization", "bearer s3cret"),
    ];
    assert_eq!(ask_as(&open, state, &headers).await.status, StatusCode::OK);
}

async fn post_as(bench: &Bench, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
    let mut request = Request::post("/v1/usage");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    bench.ask(request.body(Body::from(body)).unwrap()).await
}

#[tokio::test]
async fn json_is_taken_as_json_only() {
    let bench = bench(config(), None);
    let body = || call("r-1").to_string().into_bytes();
    for kind in [
        "application/json",
        "application/json; charset=utf-8",
        "Application/CloudEvents+JSON",
        "application/x-ndjson",
    ] {
        let answer = post_as(&bench, &[("content-type", kind)], body()).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{kind}");
    }
    assert_eq!(
        post_as(&bench, &[], body()).await.status,
        StatusCode::ACCEPTED
    );
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
    ] {
        let answer = post_as(&bench, &[("content-type", kind)], body()).await;
        assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{kind}");
        let message = answer.json["error"]["message"].to_string();
        assert!(message.contains("application/json"), "{message}");
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn compressed_bodies_are_read_and_bombs_are_not() {
    let bench = bench(config(), None);
    let zipped = [("content-encoding", "gzip")];
    let event = gzip(call("r-1").to_string().as_bytes());
    let answer = post_as(&bench, &zipped, event.clone()).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.json);
    assert_eq!(bench.sink.ids(), ["r-1"]);
    let bomb = gzip(&vec![b' '; 9_000_000]);
    assert!(bomb.len() < 20_000);
    let answer = post_as(&bench, &zipped, bomb).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    let answer = post_as(&bench, &zipped, b"{}".to_vec()).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    for unknown in ["br", "deflate", "zstd", "gzip, gzip"] {
        let answer = post_as(&bench, &[("content-encoding", unknown)], event.clone()).await;
        assert_eq!(
            answer.status,
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "{unknown}"
        );
        assert_eq!(answer.headers["accept-encoding"], "gzip");
    }
    let twice = [
        ("content-encoding", "identity"),
        ("content-encoding", "gzip"),
    ];
    let answer = post_as(&bench, &twice, event).await;
    assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    for same in ["GZIP", "x-gzip", " Gzip "] {
        let event = gzip(call(&format!("r-{same}")).to_string().as_bytes());
        let answer = post_as(&bench, &[("content-encoding", same)], event).await;
        assert_eq!(
            answer.status,
            StatusCode::ACCEPTED,
            "{same}: {}",
            answer.json
        );
    }
}

#[tokio::test]
async fn a_body_that_a_gateway_passes_on_compressed_is_not_its_question() {
    let bench = bench(config(), None);
    for encoding in ["gzip", "br"] {
        let request = Request::post("/v1/authz?customer=c")
            .header("content-type", "application/json")
            .header("content-encoding", encoding)
            .body(Body::from("anything"));
        assert_eq!(bench.ask(request.unwrap()).await.status, StatusCode::OK);
    }
}

#[test]
fn failed_logins_are_counted_by_reason() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let counted = recorder.handle();
    metrics::with_local_recorder(&recorder, || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let secret = SidecarConfig {
            token: Token::new("s3cret"),
            ..config()
        };
        let bench = bench(secret, None);
        let state = "/v1/state?customer=c";
        runtime.block_on(async {
            ask_as(&bench, state, &[]).await;
            for given in ["Bearer guess", "Basic s3cret"] {
                ask_as(&bench, state, &[("authorization", given)]).await;
            }
            let right = ask_as(&bench, state, &[("x-spendfuse-token", "s3cret")]).await;
            assert_eq!(right.status, StatusCode::OK);
        });
    });
    let text = counted.render();
    for (reason, count) in [("missing", 1), ("wrong", 2)] {
        let line = format!("spendfuse_sidecar_failed_logins_total{{reason=\"{reason}\"}} {count}");
        assert!(text.contains(&line), "{text}");
    }
    assert!(!text.contains("guess"));
}

#[tokio::test]
async fn every_refusal_is_json() {
    let bench = bench(config(), None);
    let large = Request::post("/v1/check").body(Body::from("x".repeat(70_000)));
    let get = |path: &str| Request::get(path).body(Body::empty());
    for (request, status, code) in [
        (large, 413, "too_large"),
        (get("/v1/blocklist?limit=many"), 400, "bad_request"),
        (get("/v1/check"), 405, "method_not_allowed"),
        (get("/v1/chek"), 404, "not_found"),
        (get("/v1/traces"), 501, "not_supported"),
        (
            Request::post("/v1/logs").body(Body::from("\n\0")),
            501,
            "not_supported",
        ),
    ] {
        let answer = bench.ask(request.unwrap()).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.json["error"]["code"], code, "{}", answer.json);
    }
}

#[tokio::test]
async fn an_event_in_binary_mode_is_the_same_event() {
    let bench = bench(config(), None);
    let mut data = call("");
    data.as_object_mut().unwrap().remove("id");
    data["workspace"] = json!("acme");
    let headers = [
        ("ce-specversion", "1.0"),
        ("ce-id", "r%201"),
        ("ce-source", "checkout-api"),
        ("ce-type", "spendfuse.usage"),
        ("ce-time", "2026-11-22T10:15:30Z"),
        ("content-type", "application/json"),
    ];
    let answer = post_as(&bench, &headers, data.to_string().into_bytes()).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{}", answer.json);
    assert_eq!(answer.json["results"][0]["id"], "r 1");
    let taken = bench.sink.taken.lock().unwrap()[0].value.clone();
    let event = decode(&taken, &[], UnixMillis(i64::MAX)).unwrap();
    assert_eq!((&*event.id, &*event.source), ("r 1", "checkout-api"));
    let answer = post_as(&bench, &headers[..1], b"no json".to_vec()).await;
    assert_eq!(answer.json["results"][0]["reason"], "malformed_json");
    assert_eq!(answer.json["results"][0]["id"], Value::Null);
}
