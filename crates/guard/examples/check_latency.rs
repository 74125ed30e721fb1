//! How long a check takes, call by call, with 10² … 10⁶ active scopes.
//!
//! Four stacking budgets (workspace, customer, feature, user) and one per session. Scopes are asked
//! for in no order, as callers would; the request itself is in the cache, as one that was just
//! read. Next to it a lookup in a `HashMap` of the same scopes' texts. Both are measured with the
//! same clock, whose own cost is printed and not subtracted.
//!
//! `cargo run --release -p spendfuse-guard --example check_latency`

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::hint::black_box;
use std::time::Instant;

use serde_json::json;
use spendfuse_domain::{Attribution, UnixMillis};
use spendfuse_guard::{CheckRequest, Guard, GuardConfig, GuardWriter, Now};

const NOW: Now = Now {
    wall: UnixMillis(1_795_000_000_000),
    monotonic_millis: 0,
};
const CALLS: usize = 300_000;
/// One of each: a user spends in his own scope, his feature's and his session's.
const SCOPES_PER_USER: usize = 4;

fn main() {
    println!(
        "{:>9}  {:^27}  {:^27}",
        "scopes", "check, ns", "HashMap get, ns"
    );
    let clock = percentiles((0..CALLS).map(|_| timed(|| ())));
    println!("{:>9}  {clock}  the clock alone", "");
    for scopes in [100, 1_000, 10_000, 100_000, 1_000_000] {
        let users = scopes / SCOPES_PER_USER;
        let (guard, spent) = guard_of(users);
        let mut random = Random(1);
        let checks = percentiles((0..CALLS).map(|_| {
            let user = random.below(users);
            let (customer, user, session) = names(user);
            let request = CheckRequest {
                attribution: Attribution {
                    workspace: "acme".into(),
                    customer: customer.as_str().into(),
                    feature: "chat".into(),
                    user: user.as_str().into(),
                    session: session.as_str().into(),
                    model: "gpt-4o-mini".into(),
                    ..Attribution::default()
                },
                ..CheckRequest::default()
            };
            timed(|| guard.check(&request, NOW).verdict())
        }));
        let lookups = percentiles((0..CALLS).map(|_| {
            let (customer, _, _) = names(random.below(users));
            let key = format!("customer|acme/customer={customer}");
            timed(|| spent.get(&key))
        }));
        println!("{:>9}  {checks}  {lookups}", guard.entry_count());
    }
}

fn timed<T>(work: impl FnOnce() -> T) -> u32 {
    let start = Instant::now();
    black_box(work());
    start.elapsed().as_nanos() as u32
}

fn percentiles(nanos: impl Iterator<Item = u32>) -> String {
    let mut sorted: Vec<_> = nanos.collect();
    sorted.sort_unstable();
    let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share) as usize];
    format!(
        "p50 {:>4} p99 {:>4} p99.9 {:>5}",
        at(0.5),
        at(0.99),
        at(0.999)
    )
}

fn names(user: usize) -> (String, String, String) {
    (
        format!("c-{user}"),
        format!("u-{user}"),
        format!("s-{user}"),
    )
}

/// The guard, and a map of the same entries.
fn guard_of(users: usize) -> (Guard, HashMap<String, u64>) {
    let (mut writer, guard) = Guard::new(GuardConfig::new(1));
    let budgets = [
        ("workspace", json!({"workspace": "*"}), "day"),
        (
            "customer",
            json!({"workspace": "*", "customer": "*"}),
            "day",
        ),
        (
            "feature",
            json!({"workspace": "*", "customer": "*", "feature": "*"}),
            "month",
        ),
        (
            "user",
            json!({"workspace": "*", "customer": "*", "user": "*"}),
            "day",
        ),
        ("session", json!({"workspace": "*"}), "session"),
    ];
    for (id, scope, window) in budgets {
        let record = json!({
            "v": 1, "id": id, "scope": scope, "limit": "5.00", "window": window,
            "timezone": "America/New_York", "counted_from": "2026-01-01T00:00:00Z",
            "steps": [{"at": 80, "do": "warn"}, {"at": 100, "do": "block"}],
        });
        let record = serde_json::to_vec(&record).unwrap();
        writer.apply_budget(id, Some(&record), 1).unwrap();
    }
    let mut spent = HashMap::new();
    let mut apply = |writer: &mut GuardWriter, budget: &str, scope: String| {
        let key = format!("{budget}|{scope}");
        let entry = json!({
            "v": 1, "budget": budget, "scope": scope, "where": null, "verdict": "ok",
            "action": "block", "spent_usd": "0.01", "limit_usd": "5.00", "percent": 0.2,
            "window": "day:2026-11-18", "window_start": NOW.wall, "resets_at": null,
            "expires_at": NOW.wall.plus(3_600_000), "counted_from": NOW.wall, "downgrade_to": null,
            "version": 1, "decided_at": NOW.wall, "caused_by": null,
        });
        let value = serde_json::to_vec(&entry).unwrap();
        writer.apply(&key, Some(&value), NOW.wall, NOW).unwrap();
        spent.insert(key, 10_000_000);
    };
    apply(&mut writer, "workspace", "acme".to_owned());
    for number in 0..users {
        let (customer, user, session) = names(number);
        let scope = format!("acme/customer={customer}");
        apply(&mut writer, "feature", format!("{scope}/feature=chat"));
        apply(&mut writer, "user", format!("{scope}/user={user}"));
        apply(&mut writer, "customer", scope);
        apply(&mut writer, "session", format!("acme/session={session}"));
        if number % 1000 == 0 {
            writer.publish(NOW.wall);
        }
    }
    writer.caught_up();
    writer.publish(NOW.wall);
    (guard, spent)
}

/// Small, quick and the same every time.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((u128::from(self.0) * end as u128) >> 64) as usize
    }
}
