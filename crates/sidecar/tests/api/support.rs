//! A sidecar without Kafka: a guard that tests write to, and a sink that obeys them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use serde_json::{Value, json};
use spendfuse_domain::UnixMillis;
use spendfuse_guard::{Guard, GuardConfig, GuardWriter, Now};
use spendfuse_pricing::PricingPolicy;
use spendfuse_sidecar::server::Answers as _;
use spendfuse_sidecar::spool::{Spool, SpoolConfig, SpooledEvent};
use spendfuse_sidecar::{
    Acknowledgement, Api, Delivery, Prices, Sidecar, SidecarConfig, SinkError, UsageSink,
};
use tempfile::TempDir;
use tokio::sync::oneshot;

use crate::closed::close;

/// A broker that acknowledges at once, or is away.
#[derive(Default)]
pub struct FakeSink {
    pub away: AtomicBool,
    pub taken: Mutex<Vec<SpooledEvent>>,
}

impl UsageSink for FakeSink {
    fn send(&self, event: &SpooledEvent) -> Acknowledgement {
        let (acknowledge, acknowledgement) = oneshot::channel();
        let outcome = if self.away.load(Ordering::SeqCst) {
            let detail = "no broker".to_owned();
            Err(SinkError { detail })
        } else {
            let mut taken = self.taken.lock().unwrap();
            taken.push(event.clone());
            Ok(taken.len() as i64 - 1)
        };
        let _ = acknowledge.send(outcome);
        acknowledgement
    }
}

impl FakeSink {
    /// The ids of what was taken, in order.
    pub fn ids(&self) -> Vec<String> {
        let taken = self.taken.lock().unwrap();
        let id = |event: &SpooledEvent| {
            let event: Value = serde_json::from_slice(&event.value).unwrap();
            event["id"].as_str().unwrap().to_owned()
        };
        taken.iter().map(id).collect()
    }
}

pub struct Bench {
    pub sink: Arc<FakeSink>,
    pub sidecar: Arc<Sidecar>,
    pub writer: GuardWriter,
    pub delivery: Delivery,
    pub guard: Guard,
}

pub fn config() -> SidecarConfig {
    SidecarConfig {
        default_workspace: "acme".to_owned(),
        listen: Some(([127, 0, 0, 1], 0).into()),
        ..SidecarConfig::new(4)
    }
}

pub fn small_spool(directory: &TempDir, max_bytes: u64) -> Spool {
    Spool::open(SpoolConfig {
        directory: directory.path().to_owned(),
        max_bytes,
        segment_bytes: 1_000,
    })
    .unwrap()
}

pub fn bench(config: SidecarConfig, spool: Option<Spool>) -> Bench {
    let (writer, guard) = Guard::new(GuardConfig {
        hold_capacity: config.max_reservations,
        reserve_rule: config.reserve_rule,
        ..GuardConfig::new(4)
    });
    let sink = Arc::new(FakeSink::default());
    let shared: Arc<dyn UsageSink> = Arc::clone(&sink) as _;
    let delivery = Delivery::new(shared, spool, Duration::from_millis(200));
    let delivery = delivery.with_partitions(config.partitions);
    let prices = Prices::new(PricingPolicy::default());
    let metrics = Arc::new(|| "spendfuse_up 1\n".to_owned());
    Bench {
        sidecar: Sidecar::new(config, guard.clone(), prices, delivery.clone(), metrics),
        sink,
        writer,
        delivery,
        guard,
    }
}

impl Bench {
    /// Puts a daily budget of the workspace acme for each customer in force.
    pub fn budget(&mut self, limit: &str, steps: Value) {
        let scope = json!({"workspace": "acme", "customer": "*"});
        self.budget_of("daily", scope, limit, steps);
    }

    /// Puts a daily budget in force.
    pub fn budget_of(&mut self, id: &str, scope: Value, limit: &str, steps: Value) {
        let record = json!({
            "v": 1, "id": id, "scope": scope,
            "limit": limit, "window": "day", "timezone": "UTC", "steps": steps,
            "counted_from": "2026-11-01T00:00:00Z", "help_url": "https://example.com/upgrade",
        });
        let record = serde_json::to_vec(&record).unwrap();
        self.writer.apply_budget(id, Some(&record), 1).unwrap();
        self.writer.publish(UnixMillis(0));
    }

    /// Publishes the finding that a budget is used up in a scope.
    pub fn used_up(&mut self, budget: &str, scope: &str, customer: &str) {
        let finding = json!({
            "v": 1, "detector": "budget_exceeded", "scope": scope, "agent": "", "model": "",
            "customer": customer, "feature": "", "rule": budget, "state": "open",
            "severity": "critical", "opened_at": "2026-11-22T10:00:00Z",
            "last_at": "2026-11-22T10:00:00Z", "measured": 5.0, "threshold": 5.0,
            "wasted_usd": "0.00", "evidence": [], "message": "used up",
        });
        let finding = serde_json::to_vec(&finding).unwrap();
        let key = format!("{scope}|budget_exceeded|{budget}|");
        self.writer.apply_finding(&key, Some(&finding)).unwrap();
        self.writer.publish(UnixMillis(0));
    }

    /// A sidecar with the daily budget of 5.00, which customer c-42 has used up.
    pub fn with_a_blocked_customer(config: SidecarConfig) -> Self {
        let mut bench = bench(config, None);
        bench.budget("5.00", steps());
        bench.spent("c-42", "5.000123", "block");
        bench
    }

    /// Publishes what a customer has spent against the limit 5.00, never to reset.
    pub fn spent(&mut self, customer: &str, spent: &str, verdict: &str) {
        let key = format!("daily|acme/customer={customer}");
        let entry = json!({
            "v": 1, "budget": "daily", "scope": format!("acme/customer={customer}"),
            "where": null, "verdict": verdict, "action": verdict, "spent_usd": spent,
            "limit_usd": "5.00", "percent": 1.0, "window": "day:2026-11-22",
            "window_start": "2026-11-22T00:00:00Z", "resets_at": "2999-01-01T00:00:00Z",
            "expires_at": "2999-01-01T00:00:00Z", "counted_from": "2026-11-22T00:00:00Z",
            "downgrade_to": null, "version": 1, "decided_at": "2026-11-22T10:00:00Z",
            "caused_by": null,
        });
        let entry = serde_json::to_vec(&entry).unwrap();
        let now = Now {
            wall: UnixMillis(0),
            monotonic_millis: 0,
        };
        let logged_at = UnixMillis(0);
        self.writer
            .apply(&key, Some(&entry), logged_at, now)
            .unwrap();
        self.writer.publish(UnixMillis(0));
    }

    pub async fn post(&self, path: &str, body: impl Into<Body>) -> Answer {
        let request = Request::post(path).header("content-type", "application/json");
        self.ask(request.body(body.into()).unwrap()).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask(Request::get(path).body(Body::empty()).unwrap())
            .await
    }

    /// As if it came over TCP.
    pub async fn ask(&self, request: Request<Body>) -> Answer {
        let api = Api::new(Arc::clone(&self.sidecar), true);
        let (parts, body) = api.answer(request, None).await.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        Answer {
            status: parts.status,
            headers: parts.headers,
            json: serde_json::from_slice(&body).unwrap_or(Value::Null),
        }
    }
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub json: Value,
}

/// Steps of a budget that warns and blocks.
pub fn steps() -> Value {
    json!([{"at": 80, "do": "warn"}, {"at": 100, "do": "block"}])
}

/// A bare data object of a call that costs something.
pub fn call(id: &str) -> Value {
    json!({
        "id": id, "customer": "c-42", "session": "s-1", "provider": "openai",
        "model": "gpt-4o-mini", "usage": {"input_tokens": 1000, "output_tokens": 100},
    })
}

/// Holds `answer` against its schema, in which every field that is sent must be written down.
pub fn assert_conforms(name: &str, answer: &Value) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../schemas");
    let text = std::fs::read_to_string(format!("{folder}/{name}.schema.json")).unwrap();
    let mut schema: Value = serde_json::from_str(&text).unwrap();
    close(&mut schema);
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<_> = validator
        .iter_errors(answer)
        .map(|error| error.to_string())
        .collect();
    assert!(errors.is_empty(), "{name}: {errors:?} in {answer}");
}
