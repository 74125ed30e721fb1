//! A client: asks, calls, reports.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use spendfuse_domain::{Nanos, ReservationId};

use super::{CUSTOMERS, PATIENCE, SIDECARS, Shared, customer, dollars};
use crate::Record;
use crate::http::post;
use crate::random::Random;
use crate::traffic::now;
use crate::wait::{eventually, pause};

/// 24,000 tokens of half the price: what a call costs where it costs what it was thought to.
pub(super) const USUAL_COST_NANOS: i64 = 20_000_000;
/// Nano-dollars of a token of input.
const TOKEN: i64 = 2_500;
/// A hold lasts so long; some calls last longer.
const CALL_TIMEOUT: Duration = Duration::from_secs(4);
/// None does, nor does the meter tell later that its event has come by another way.
const LONG_TIMEOUT: Duration = Duration::from_secs(60);

static EVENTS: AtomicU64 = AtomicU64::new(0);

/// A call that was admitted.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(super) customer: String,
    pub(super) held: Nanos,
    pub(super) cost: Nanos,
    /// Who holds it.
    pub(super) incarnation: String,
    pub(super) admitted_at: Instant,
    pub(super) held_until: Instant,
    pub(super) end: End,
}

/// What a call has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    UnderWay,
    /// Its event was safe then.
    Counted(Instant),
    /// It was never made, and its client is gone.
    Dead,
}

/// Calls until all is over, and reports every call that it has made.
pub(super) fn run(shared: &Shared<'_>, mut random: Random, is_exact: bool) {
    while !shared.is_over.load(Ordering::Relaxed) {
        let estimate = i64::try_from(2_000 + random.below(12_000)).unwrap_or(0) * TOKEN;
        // From a third of the estimate to three times as much.
        let cost = match random.below(2) {
            _ if is_exact => estimate,
            0 => estimate / i64::try_from(1 + random.below(3)).unwrap_or(1),
            _ => estimate * i64::try_from(1 + random.below(3)).unwrap_or(1),
        };
        let tokens = cost / TOKEN;
        let cost = Nanos::new(i128::from(tokens * TOKEN));
        let customer = customer(random.below(CUSTOMERS));
        let sidecar = random.below(SIDECARS as u64) as usize;
        let timeout = if is_exact { LONG_TIMEOUT } else { CALL_TIMEOUT };
        let asked = ask(shared, sidecar, &customer, (estimate, timeout), cost);
        let Some((place, id)) = asked else {
            pause(random.millis(100, 500));
            continue;
        };
        let longest = if is_exact { 2_000 } else { 5_000 };
        pause(random.millis(100, longest));
        if !is_exact && random.below(20) == 0 {
            shared.calls()[place].end = End::Dead;
            continue;
        }
        report(shared, &mut random, &customer, tokens, &id);
        shared.calls()[place].end = End::Counted(Instant::now());
    }
}

/// Where the call stands among all, and its reservation; `None` where it is refused.
fn ask(
    shared: &Shared<'_>,
    sidecar: usize,
    customer: &str,
    (estimate, timeout): (i64, Duration),
    cost: Nanos,
) -> Option<(usize, String)> {
    let estimate = Nanos::new(estimate.into());
    let question = json!({
        "workspace": "acme", "customer": customer, "estimated_cost_usd": estimate.to_string(),
        "model": "gpt-4o", "provider": "openai", "feature": "holds",
        "reserve": true, "call_timeout_s": timeout.as_secs(),
    });
    let asked_at = Instant::now();
    let answer = post(
        shared.connect(sidecar).ok()?,
        "/v1/check",
        &question.to_string(),
    )
    .ok()?;
    let answer: Value = serde_json::from_str(&answer.body).ok()?;
    let Some(id) = answer["reservation_id"].as_str() else {
        let mut refused = shared
            .refused
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        *refused += 1;
        return None;
    };
    let mut calls = shared.calls();
    calls.push(Call {
        customer: customer.to_owned(),
        held: dollars(&answer["reserved_usd"]),
        cost,
        incarnation: ReservationId::parse(id)?.incarnation.to_owned(),
        admitted_at: Instant::now(),
        held_until: asked_at + timeout,
        end: End::UnderWay,
    });
    Some((calls.len() - 1, id.to_owned()))
}

/// Returns once the event is safe.
fn report(
    shared: &Shared<'_>,
    random: &mut Random,
    customer: &str,
    tokens: i64,
    reservation: &str,
) {
    let number = EVENTS.fetch_add(1, Ordering::Relaxed);
    let event = json!({
        "specversion": "1.0", "type": "spendfuse.usage", "source": "holds",
        "id": format!("held-{number}"), "time": now(),
        "data": {
            "workspace": "acme", "customer": customer, "provider": "openai", "model": "gpt-4o",
            "feature": "holds", "session": format!("s-{}", number % 50),
            "usage": {"input_tokens": tokens, "output_tokens": 0}, "reservation_id": reservation,
        },
    });
    let event = event.to_string();
    if random.below(5) == 0 {
        // Into any partition.
        let partition = random.below(shared.lab.partitions().into()) as u32;
        shared.sender.send(&Record {
            partition: Some(partition),
            key: None,
            value: event.into_bytes(),
        });
        shared.sender.flush();
        return;
    }
    loop {
        let sidecar = random.below(SIDECARS as u64) as usize;
        let answer = shared
            .connect(sidecar)
            .and_then(|stream| post(stream, "/v1/usage", &event));
        if answer.is_ok_and(|answer| answer.status == 202) {
            return;
        }
        pause(Duration::from_millis(50));
    }
}

/// The random bits of a sidecar's start, once it admits anything again.
pub(super) fn incarnation(shared: &Shared<'_>, sidecar: usize) -> String {
    let question = json!({
        "workspace": "of-no-budget", "estimated_cost_usd": "0.000001",
        "reserve": true, "call_timeout_s": 1,
    });
    eventually("a sidecar says which start it is of", PATIENCE, || {
        let stream = shared.connect(sidecar).map_err(|error| error.to_string())?;
        let asked = post(stream, "/v1/check", &question.to_string());
        let body = asked.map_err(|error| error.to_string())?.body;
        let answer: Value = serde_json::from_str(&body).unwrap_or_default();
        let id = answer["reservation_id"]
            .as_str()
            .and_then(ReservationId::parse);
        id.map(|id| id.incarnation.to_owned()).ok_or(body)
    })
}
