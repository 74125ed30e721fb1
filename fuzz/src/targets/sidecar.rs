//! HTTP requests to the sidecar.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use spendfuse_guard::{Guard, GuardConfig};
use spendfuse_pricing::PricingPolicy;
use spendfuse_sidecar::server::Answers as _;
use spendfuse_sidecar::spool::SpooledEvent;
use spendfuse_sidecar::{
    Acknowledgement, Api, Delivery, Prices, Sidecar, SidecarConfig, UsageSink,
};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use crate::Target;

/// The sidecar's routes. An input is `METHOD path`, headers, an empty line, the body.
pub const SIDECAR: Target = Target {
    name: "sidecar",
    examples: &[],
    words: &[
        "POST /v1/check\n",
        "GET /v1/authz?customer=c",
        "POST /v1/usage\n",
        "GET /v1/state?session=s",
        "GET /v1/blocklist?cursor=",
        "\ncontent-type: application/json\n",
        "x-spendfuse-customer: c",
        "content-type: application/cloudevents-batch+json\n",
        "content-type: text/plain\n",
        "content-encoding: gzip\n",
        "content-length: 8000000\n",
        "ce-specversion: 1.0\nce-id: x%20y\n",
        "host: localhost\n",
        "origin: null\n",
        "\u{1f}",
        "\"customer\":\"c-42\"",
        "\"estimate\":{\"model\":\"gpt-4o\",\"input_tokens\":5}",
        "\"estimated_cost_usd\":\"1\"",
        "\"tags\":{\"team\":\"x\"}",
        "&tags.team=x",
        "%zz",
        "\"id\":\"x\"",
        "\"usage\":{}",
    ],
    most_bytes: 16 << 20,
    run,
};

/// A broker that takes everything.
struct TakesAll;

impl UsageSink for TakesAll {
    fn send(&self, _: &SpooledEvent) -> Acknowledgement {
        let (acknowledge, acknowledgement) = oneshot::channel();
        let _ = acknowledge.send(Ok(0));
        acknowledgement
    }
}

struct Server {
    sidecar: Arc<Sidecar>,
    runtime: Runtime,
}

impl Server {
    fn start() -> Self {
        let (mut writer, guard) = Guard::new(GuardConfig::new(1));
        let budget = br#"{"v":1,"id":"daily","scope":{"workspace":"*","customer":"*"},
            "where":{"plan":"free"},"limit":"5.00","window":"day","counted_from":"2026-11-01T00:00:00Z",
            "steps":[{"at":80,"do":"warn"},{"at":100,"do":"block"}]}"#;
        writer
            .apply_budget("daily", Some(budget), 1)
            .expect("a budget");
        writer.publish(spendfuse_domain::UnixMillis(0));
        let delivery = Delivery::new(Arc::new(TakesAll), None, Duration::from_secs(1));
        let config = SidecarConfig {
            default_workspace: "acme".to_owned(),
            listen: Some(([127, 0, 0, 1], 0).into()),
            ..SidecarConfig::new(1)
        };
        let prices = Prices::new(PricingPolicy::default());
        Self {
            sidecar: Sidecar::new(config, guard, prices, delivery, Arc::new(String::new)),
            runtime: Builder::new_current_thread()
                .enable_time()
                .build()
                .expect("a runtime without threads"),
        }
    }
}

thread_local! {
    static SERVER: Server = Server::start();
}

fn run(input: &[u8]) {
    let Some(request) = request(input) else {
        return;
    };
    SERVER.with(|server| {
        server.runtime.block_on(async {
            let api = Api::new(Arc::clone(&server.sidecar), true);
            let response = api.answer(request, None).await;
            let (parts, body) = response.into_parts();
            assert_ne!(parts.status, StatusCode::INTERNAL_SERVER_ERROR);
            let body = to_bytes(body, usize::MAX).await.expect("a body in memory");
            let kind = parts.headers.get("content-type");
            if kind.is_some_and(|kind| kind == "application/json") {
                serde_json::from_slice::<serde_json::Value>(&body).expect("JSON, as it says");
            }
        });
    });
}

/// `None` where it is nothing that an HTTP server would hand on.
fn request(input: &[u8]) -> Option<Request<Body>> {
    let end = input.windows(2).position(|pair| pair == b"\n\n");
    let (head, body) = end.map_or((input, &[][..]), |at| (&input[..at], &input[at + 2..]));
    let head = std::str::from_utf8(head).ok()?;
    let mut lines = head.lines();
    let (method, path) = lines.next()?.split_once(' ')?;
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        request = request.header(name, value);
    }
    request.body(Body::from(body.to_vec())).ok()
}
