//! A proxy before an upstream that does as tests tell it, with a guard that they write to.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::any;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use spendfuse_domain::UnixMillis;
use spendfuse_guard::{Guard, GuardConfig, GuardWriter, Now};
use spendfuse_pricing::PricingPolicy;
use spendfuse_proxy::{AskUsage, Attributing, Proxy, ProxyConfig, Shape, Upstream};
use spendfuse_sidecar::keys::{Key, Keyring};
use spendfuse_sidecar::spool::SpooledEvent;
use spendfuse_sidecar::{
    Acknowledgement, Delivery, Prices, Sidecar, SidecarConfig, Token, UsageSink,
};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

/// A broker that acknowledges at once.
#[derive(Default)]
struct Taken(Mutex<Vec<SpooledEvent>>);

impl UsageSink for Taken {
    fn send(&self, event: &SpooledEvent) -> Acknowledgement {
        let (acknowledge, acknowledgement) = oneshot::channel();
        let mut taken = self.0.lock().unwrap();
        taken.push(event.clone());
        let _ = acknowledge.send(Ok(taken.len() as i64 - 1));
        acknowledgement
    }
}

/// What the upstream answers to the next request, in pieces; it waits for each.
pub struct Answer {
    pub status: StatusCode,
    pub headers: Vec<(&'static str, String)>,
    pub pieces: mpsc::UnboundedReceiver<Bytes>,
    /// How long the upstream thinks before it says anything.
    pub after: Duration,
}

impl Answer {
    /// A whole answer in JSON.
    pub fn json(status: u16, body: &Value) -> Self {
        Self::whole(status, "application/json", body.to_string().into_bytes())
    }

    pub fn whole(status: u16, content_type: &str, body: Vec<u8>) -> Self {
        let (answer, pieces) = Self::pieces(status, content_type);
        pieces.send(Bytes::from(body)).unwrap();
        answer
    }

    /// An answer that goes on until what sends its pieces is dropped.
    pub fn pieces(status: u16, content_type: &str) -> (Self, mpsc::UnboundedSender<Bytes>) {
        let (send, pieces) = mpsc::unbounded_channel();
        let answer = Self {
            status: StatusCode::from_u16(status).unwrap(),
            headers: vec![("content-type", content_type.to_owned())],
            pieces,
            after: Duration::ZERO,
        };
        (answer, send)
    }
}

/// A request as the upstream has seen it.
#[derive(Clone, Debug)]
pub struct Asked {
    pub path: String,
    pub headers: HeaderMap,
    pub body: String,
}

#[derive(Clone, Default)]
struct Stub {
    answers: Arc<Mutex<std::collections::VecDeque<Answer>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

async fn answer(State(stub): State<Stub>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    stub.asked.lock().unwrap().push(Asked {
        path: parts.uri.to_string(),
        headers: parts.headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    });
    let answer = stub.answers.lock().unwrap().pop_front();
    let Some(mut answer) = answer else {
        return Response::new(Body::from("{}"));
    };
    tokio::time::sleep(answer.after).await;
    let mut response = Response::builder().status(answer.status);
    for (name, value) in &answer.headers {
        response = response.header(*name, value);
    }
    let frames = Frames(Box::new(move |context| answer.pieces.poll_recv(context)));
    response.body(Body::new(frames)).unwrap()
}

type Poll = Box<dyn FnMut(&mut std::task::Context<'_>) -> std::task::Poll<Option<Bytes>> + Send>;

struct Frames(Poll);

impl axum::body::HttpBody for Frames {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
        let polled = (self.0)(context);
        polled.map(|piece| piece.map(|piece| Ok(hyper::body::Frame::data(piece))))
    }
}

pub struct Bench {
    pub writer: GuardWriter,
    address: String,
    stub: Stub,
    taken: Arc<Taken>,
    client: Client<HttpConnector, Body>,
}

/// A proxy whose upstreams `openai`, `anthropic`, `gemini` and `own` are one stub.
pub async fn bench() -> Bench {
    bench_with(Vec::new(), &[]).await
}

/// The same with keys, and more upstreams of OpenAI: their names, and the provider's keys for them.
pub async fn bench_with(keys: Vec<Key>, more: &[(&str, Option<&str>)]) -> Bench {
    bench_of(keys, more, |_| {}).await
}

/// The same with other settings.
pub async fn bench_of(
    keys: Vec<Key>,
    more: &[(&str, Option<&str>)],
    change: impl FnOnce(&mut ProxyConfig),
) -> Bench {
    let stub = Stub::default();
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}", upstream.local_addr().unwrap());
    let router = axum::Router::new()
        .fallback(any(answer))
        .with_state(stub.clone());
    tokio::spawn(async move { axum::serve(upstream, router).await });

    let (writer, guard) = Guard::new(GuardConfig::new(4));
    let taken = Arc::new(Taken::default());
    let sink: Arc<dyn UsageSink> = Arc::clone(&taken) as _;
    let delivery = Delivery::new(sink, None, Duration::from_secs(5));
    let config = SidecarConfig {
        listen: Some(([127, 0, 0, 1], 0).into()),
        keys: Keyring::new(keys).unwrap(),
        ..SidecarConfig::new(4)
    };
    let prices = Prices::new(PricingPolicy::default());
    let sidecar = Sidecar::new(config, guard, prices, delivery, Arc::new(String::new));
    let upstreams = [
        ("openai", Shape::OpenAi, "openai"),
        ("anthropic", Shape::Anthropic, "anthropic"),
        ("gemini", Shape::Gemini, "gemini"),
    ];
    let upstream = |base_url: &str, shape, provider: &str| Upstream {
        base_url: base_url.to_owned(),
        shape,
        provider: provider.to_owned(),
        key: None,
        ask_usage: AskUsage::Auto,
    };
    let mut upstreams: std::collections::BTreeMap<String, Upstream> = upstreams
        .into_iter()
        .map(|(name, shape, provider)| (name.to_owned(), upstream(&base_url, shape, provider)))
        .collect();
    for (name, place, shape) in [
        ("azure", "{resource}", Shape::Azure),
        ("bedrock", "{region}", Shape::Bedrock),
    ] {
        let base_url = format!("{base_url}/at-{place}");
        upstreams.insert(name.to_owned(), upstream(&base_url, shape, name));
    }
    // Nobody listens there.
    let away = upstream("http://127.0.0.1:1", Shape::OpenAi, "openai");
    upstreams.insert("away".to_owned(), away);
    for (name, key) in more {
        let mut upstream = upstream(&base_url, Shape::OpenAi, "openai");
        upstream.key = key.and_then(Token::new);
        upstreams.insert((*name).to_owned(), upstream);
    }
    let mut config = ProxyConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        upstreams,
        attributing: Attributing {
            trust_headers: true,
            workspace: "acme".to_owned(),
            ..Attributing::default()
        },
        drain_for: Duration::from_secs(5),
        max_body_bytes: 1024 * 1024,
        max_body_memory: 1024 * 1024,
        fingerprint_key: Token::new("workspace-key-1"),
        ..ProxyConfig::default()
    };
    change(&mut config);
    let listener = spendfuse_proxy::bind(&config, sidecar.keys())
        .await
        .unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let proxy = Proxy::new(config, sidecar).unwrap();
    tokio::spawn(proxy.serve(listener, std::future::pending()));
    Bench {
        writer,
        address,
        stub,
        taken,
        client: Client::builder(TokioExecutor::new()).build_http(),
    }
}

impl Bench {
    pub fn will_answer(&self, answer: Answer) {
        self.stub.answers.lock().unwrap().push_back(answer);
    }

    /// What the upstream was asked, in order.
    pub fn asked(&self) -> Vec<Asked> {
        self.stub.asked.lock().unwrap().clone()
    }

    /// Puts a daily budget of each customer in force.
    pub fn budget(&mut self, limit: &str, steps: &Value) {
        let record = json!({
            "v": 1, "id": "daily", "scope": {"workspace": "acme", "customer": "*"},
            "limit": limit, "window": "day", "timezone": "UTC", "steps": steps,
            "counted_from": "2026-11-01T00:00:00Z",
        });
        let record = serde_json::to_vec(&record).unwrap();
        self.writer.apply_budget("daily", Some(&record), 1).unwrap();
        self.writer.publish(UnixMillis(0));
    }

    /// What a customer has spent of 5.00, and what follows from it.
    pub fn spent(&mut self, customer: &str, spent: &str, verdict: &str) {
        let scope = format!("acme/customer={customer}");
        let entry = json!({
            "v": 1, "budget": "daily", "scope": scope, "where": null, "verdict": verdict,
            "action": verdict, "spent_usd": spent, "limit_usd": "5.00", "percent": 1.0,
            "window": "day:2026-11-22", "window_start": "2026-11-22T00:00:00Z",
            "resets_at": "2999-01-01T00:00:00Z", "expires_at": "2999-01-01T00:00:00Z",
            "counted_from": "2026-11-22T00:00:00Z", "downgrade_to": null, "version": 1,
            "decided_at": "2026-11-22T10:00:00Z", "caused_by": null,
        });
        let entry = serde_json::to_vec(&entry).unwrap();
        let now = Now {
            wall: UnixMillis(0),
            monotonic_millis: 0,
        };
        let key = format!("daily|{scope}");
        self.writer
            .apply(&key, Some(&entry), UnixMillis(0), now)
            .unwrap();
        self.writer.publish(UnixMillis(0));
    }

    pub async fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<String>,
    ) -> Response<hyper::body::Incoming> {
        let mut request = axum::http::Request::post(format!("{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/json");
        }
        let request = request.body(Body::from(body.into())).unwrap();
        self.client.request(request).await.unwrap()
    }

    /// A request whose length nobody says before.
    pub async fn post_in_pieces(
        &self,
        path: &str,
        pieces: &[&'static str],
    ) -> Response<hyper::body::Incoming> {
        let pieces = pieces
            .iter()
            .map(|piece| Bytes::from_static(piece.as_bytes()));
        let mut pieces = pieces.collect::<Vec<_>>().into_iter();
        let frames = Frames(Box::new(move |_| std::task::Poll::Ready(pieces.next())));
        let request = axum::http::Request::post(format!("{}{path}", self.address));
        let request = request.header("content-type", "application/json");
        let request = request.body(Body::new(frames)).unwrap();
        self.client.request(request).await.unwrap()
    }

    /// A request without a body.
    pub async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Response<hyper::body::Incoming> {
        let mut request = axum::http::Request::builder().method(method);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.uri(format!("{}{path}", self.address));
        let request = request.body(Body::empty()).unwrap();
        self.client.request(request).await.unwrap()
    }

    pub async fn get(&self, path: &str) -> Response<hyper::body::Incoming> {
        self.ask("GET", path, &[]).await
    }

    /// The usage events that were told, once there are `count`.
    pub async fn events(&self, count: usize) -> Vec<Value> {
        for _ in 0..1000 {
            let taken = self.taken.0.lock().unwrap().clone();
            if taken.len() >= count {
                let read = |event: &SpooledEvent| serde_json::from_slice(&event.value).unwrap();
                return taken.iter().map(read).collect();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{count} events were not told");
    }
}

pub async fn text(response: Response<hyper::body::Incoming>) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}
