//! PyPI `margint` (0.1.0): `guarded_call` and `track`.
//!
//! Its client raises whatever is not status 200 with an object as an error of its own before the
//! app's call runs, and never looks at the status of what it sends: an answer, whatever it says,
//! means delivered. Only a connection that ends without one makes it send again.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use metrics::counter;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use spendfuse_domain::{Amount, Verdict};
use spendfuse_guard::{BudgetLine, CheckResponse};
use xxhash_rust::xxh3::xxh3_64;

use super::events::{Draft, Summary, Taking, count, name};
use super::{Line, parameters};
use crate::delivery::Unsafe;
use crate::http::{Question, Shared, Sidecar, json};
use crate::keys::{Caller, Place};
use crate::metrics::COMPAT_INEXPRESSIBLE_TOTAL;

const SOURCE: &str = "margint";
const FLAG: &str = "compat_no_cache";
/// Nano-dollars.
const CENT: i128 = 10_000_000;

/// What is told of a call that a cheaper model should answer: its client knows no such thing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDowngrade {
    /// It is allowed, with a warning.
    #[default]
    Allow,
    /// It is refused.
    Block,
}

impl FromStr for OnDowngrade {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "allow" => Ok(Self::Allow),
            "block" => Ok(Self::Block),
            _ => Err("write allow or block"),
        }
    }
}

/// The answer of `GET /api/budgets/check`. Lists are never null: the client would trip over it.
#[derive(Debug, Serialize)]
struct Checked {
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    breaches: Vec<Told>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<Told>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    budget_id: String,
    scope: Scope,
    limit_cents: i64,
    used_cents: i64,
    action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    resets_at: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Scope {
    customer_id: Option<String>,
    feature: Option<String>,
}

pub(super) async fn check(State(sidecar): Shared, line: Line, uri: Uri) -> Response {
    let parameters = parameters(&uri);
    let value = |name: &str| {
        let found = parameters.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    };
    let caller = line.caller(&sidecar, Place::Query, value("key").map(str::as_bytes));
    let answer = match caller {
        Some(caller) => ask(&sidecar, &caller, value("customer"), value("feature")).await,
        None => Checked::allowed(),
    };
    json(StatusCode::OK, &answer)
}

async fn ask(
    sidecar: &Sidecar,
    caller: &Caller,
    customer: Option<&str>,
    feature: Option<&str>,
) -> Checked {
    let mut question = Question::default();
    let named = [("customer", customer), ("feature", feature)];
    let named = named.map(|(name, value)| (name, value.filter(|value| !value.is_empty())));
    let put = named.into_iter().try_for_each(|(name, value)| match value {
        Some(value) => question.put(name, value.to_owned()),
        None => Ok(()),
    });
    let answer = match put {
        Ok(()) => sidecar.answer(question, caller, "margint").await,
        Err(error) => Err(error),
    };
    let scope = Scope {
        customer_id: named[0].1.map(str::to_owned),
        feature: named[1].1.map(str::to_owned),
    };
    match answer {
        Ok(answer) => Checked::of(&answer, &scope, sidecar.config.compat.margint_downgrade),
        // A question that cannot be judged: strict sidecars refuse those.
        Err(error) => Checked {
            allowed: !sidecar.config.strict,
            reason: Some(error.to_string()),
            breaches: Vec::new(),
            warnings: Vec::new(),
        },
    }
}

impl Checked {
    fn allowed() -> Self {
        Self {
            allowed: true,
            reason: None,
            breaches: Vec::new(),
            warnings: Vec::new(),
        }
    }

    fn of(answer: &CheckResponse, scope: &Scope, on_downgrade: OnDowngrade) -> Self {
        let lines = |refusing: bool| {
            let lines = answer.budgets.iter().filter(move |line| {
                line.verdict != Verdict::Ok && refuses(line.verdict, on_downgrade) == refusing
            });
            lines.map(|line| Told::of(line, scope)).collect()
        };
        if answer.decision == Verdict::Downgrade && on_downgrade == OnDowngrade::Allow {
            counter!(COMPAT_INEXPRESSIBLE_TOTAL, "client" => "margint").increment(1);
        }
        let allowed = !refuses(answer.decision, on_downgrade);
        Self {
            allowed,
            reason: (!allowed).then(|| reason(answer, on_downgrade)),
            breaches: if allowed { Vec::new() } else { lines(true) },
            warnings: lines(false),
        }
    }
}

fn refuses(verdict: Verdict, on_downgrade: OnDowngrade) -> bool {
    match verdict {
        Verdict::Block => true,
        Verdict::Downgrade => on_downgrade == OnDowngrade::Block,
        Verdict::Ok | Verdict::Warn => false,
    }
}

/// Why a call is refused. The client writes "Budget exceeded for customer …: " before it.
fn reason(answer: &CheckResponse, on_downgrade: OnDowngrade) -> String {
    let refusing = |line: &&BudgetLine| refuses(line.verdict, on_downgrade);
    let Some(line) = answer.budgets.iter().find(refusing) else {
        return format!("the state of budgets is {}", answer.state);
    };
    if let Some(message) = &line.message {
        return message.clone();
    }
    let counted = line.figures.counted();
    let figures = match (counted.spent, counted.limit) {
        (Some(spent), Some(limit)) => format!(": {} of {} used", spent.figure(), limit.figure()),
        _ => String::new(),
    };
    let resets = line.resets_at;
    let resets = resets.map_or_else(String::new, |at| format!("; resets {at}"));
    format!("budget {} is used up{figures}{resets}", line.budget)
}

impl Told {
    fn of(line: &BudgetLine, scope: &Scope) -> Self {
        let figures = &line.figures;
        let parts = [figures.spent, figures.pending, figures.reserved];
        let nanos = |amount: Option<Amount>| amount.and_then(Amount::usd);
        // Not in dollars: the reason has the figures.
        let limit = nanos(figures.limit).map_or(0, |limit| limit.get());
        let used = parts.iter().filter_map(|part| nanos(*part));
        let used: i128 = used.map(|part| part.get()).sum();
        Self {
            budget_id: line.budget.clone(),
            scope: scope.clone(),
            limit_cents: cents(limit.div_euclid(CENT)),
            used_cents: cents(-(-used).div_euclid(CENT)),
            action: line.verdict.name(),
            resets_at: line.resets_at.map(|at| at.to_string()),
        }
    }
}

fn cents(number: i128) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Batch<'a> {
    #[serde(default)]
    api_key: Option<String>,
    #[serde(borrow)]
    events: Vec<&'a RawValue>,
}

/// What is known of a batch before its events are looked at.
struct Read {
    key: Option<String>,
    marks: Vec<u64>,
}

fn read(body: &[u8]) -> Result<Read, String> {
    let batch = serde_json::from_slice::<Batch<'_>>(body);
    let batch = batch.map_err(|error| format!("the body cannot be read: {error}"))?;
    let marks = batch.events.iter();
    let marks = marks.map(|event| xxh3_64(event.get().as_bytes()));
    Ok(Read {
        marks: marks.collect(),
        key: batch.api_key,
    })
}

/// A backlog of this client comes in one body: away from the threads that answer checks.
pub(super) async fn ingest(State(sidecar): Shared, line: Line, body: Bytes) -> Response {
    let shared = body.clone();
    let mut summary = Summary::default();
    match sidecar.background.run(async move { read(&shared) }).await {
        Err(reason) => summary.reject(reason),
        Ok(Read { key, marks }) => {
            let key = key.as_deref().map(str::as_bytes);
            if let Some(caller) = line.caller(&sidecar, Place::Query, key) {
                let key = xxh3_64(key.unwrap_or_default());
                let Some(taken) = take(&sidecar, caller, key, marks, body).await else {
                    line.hang_up().await;
                    return json(StatusCode::SERVICE_UNAVAILABLE, &summary);
                };
                summary = taken;
            }
        }
    }
    json(StatusCode::OK, &summary)
}

/// `None` where neither broker nor spool takes all of them.
async fn take(
    sidecar: &Arc<Sidecar>,
    caller: Caller,
    key: u64,
    marks: Vec<u64>,
    body: Bytes,
) -> Option<Summary> {
    let resent = &sidecar.compat.resent;
    let before = resent.repeated(key, &marks).await;
    let (waiting, outcome) = resent.take(key, marks);
    let shared = Arc::clone(sidecar);
    // Whatever becomes of the connection, what is begun is finished.
    let sending = sidecar.background.finish(async move {
        let mut taking = Taking::new(&shared, &caller);
        let sent = send(&mut taking, &body, before).await;
        outcome.tell(before + taking.done);
        sent.ok().map(|()| taking.summary)
    });
    let mut summary = sending.await.ok().flatten()?;
    waiting.answered();
    summary.accepted += before;
    Some(summary)
}

/// Sends the events of a body that was read before, from number `first` on.
async fn send(taking: &mut Taking<'_>, body: &[u8], first: usize) -> Result<(), Unsafe> {
    let batch = serde_json::from_slice::<Batch<'_>>(body);
    for event in batch.iter().flat_map(|batch| &batch.events[first..]) {
        taking.add(draft(event)).await?;
    }
    taking.send().await
}

/// One call. Its cost by the client's own table, which is 0 for every model that it does not know, is
/// what was reported, and nobody is charged by it.
fn draft(event: &RawValue) -> Result<Draft, String> {
    let event: Map<String, Value> =
        serde_json::from_str(event.get()).map_err(|error| format!("no event: {error}"))?;
    let field = |name: &str| event.get(name);
    let provider = match name(field("provider")) {
        Value::String(provider) if provider == "unknown" => Value::Null,
        Value::String(provider) if provider == "google" => "gemini".into(),
        other => other,
    };
    let usage = serde_json::json!({
        "input_tokens": count(field("inputTokens")),
        "output_tokens": count(field("outputTokens")),
    });
    let reported = field("costMicrodollars")
        .and_then(Value::as_u64)
        .filter(|cost| *cost > 0);
    let reported =
        reported.map(|micros| format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000));
    let mut draft = Draft::call(SOURCE, next_id())
        .with("customer", name(field("customerId")))
        .with("feature", name(field("feature")))
        .with("provider", provider)
        .with("model", name(field("model")))
        .with("usage", usage)
        .with("usage_format", "spendfuse")
        .with("latency_ms", count(field("latencyMs")))
        .with(
            "reported_cost_usd",
            reported.map_or(Value::Null, Value::String),
        )
        // It tells no cached tokens: what they cost is charged at the full rate, or not at all.
        .with("flags", vec![FLAG])
        // As events bore before there was the flag: queries and budgets may name it.
        .tagged("compat", &"no_cache".into())
        .tagged(
            "stripe_customer",
            field("stripeCustomerId").unwrap_or(&Value::Null),
        );
    if let Some(Value::Object(metadata)) = field("metadata") {
        for (name, value) in metadata {
            draft = draft.tagged(name, value);
        }
    }
    Ok(draft)
}

/// Its events have no id; this one is of this process alone.
fn next_id() -> String {
    static RUN: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(std::process::id()));
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("mg-{:016x}-{}", *RUN, NEXT.fetch_add(1, Ordering::Relaxed))
}
