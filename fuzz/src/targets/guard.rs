//! What guards follow: blocklist, budgets, findings.

use spendfuse_domain::budget::Spend;
use spendfuse_domain::{Attribution, Nanos, UnixMillis};
use spendfuse_guard::{CheckRequest, Guard, GuardConfig, Now};

use super::record;
use crate::Target;

/// A guard's replica, and what it decides by a foreign record. An input's key begins with the
/// topic: `blocklist `, `budgets `, `findings `.
pub const REPLICA: Target = Target {
    name: "replica",
    examples: &["tests/samples/v0.1.0/followed"],
    words: &[
        "blocklist daily|acme/customer=c-42\n",
        "budgets daily\n",
        "findings acme/session=s-1|",
        "blocklist finding|retry_loop|acme/session=s-1\n",
        "blocklist heartbeat|meter|0\n",
        "\"spent_usd\":\"5.00\",",
        "\"limit_usd\":\"5.00\",",
        "\"limit_tokens\":5,",
        "\"verdict\":\"block\",",
        "\"expires_at\":null,",
        "\"limit\":\"0\",",
        "\"steps\":[],",
    ],
    most_bytes: 16 << 20,
    run,
};

const NOW: Now = Now {
    wall: UnixMillis(1_795_345_000_000),
    monotonic_millis: 0,
};

fn run(input: &[u8]) {
    let (key, value) = record(input);
    let key = String::from_utf8_lossy(key);
    let Some((topic, key)) = key.split_once(' ') else {
        return;
    };
    let (mut writer, guard) = Guard::new(GuardConfig::new(1));
    let budget = br#"{"v":1,"id":"daily","scope":{"workspace":"*","customer":"*"},"limit":"5.00",
        "window":"day","steps":[{"at":80,"do":"warn"},{"at":100,"do":"block"}],
        "counted_from":"2026-11-01T00:00:00Z"}"#;
    writer
        .apply_budget("daily", Some(budget), 1)
        .expect("a budget");
    // What cannot be read is an error for the caller to count; the rest must be usable.
    let _ = match topic {
        "budgets" => writer.apply_budget(key, value, 2),
        "findings" => writer.apply_finding(key, value),
        _ => writer.apply(key, value, NOW.wall, NOW),
    };
    writer.caught_up();
    writer.publish(NOW.wall);
    let request = CheckRequest {
        attribution: Attribution {
            workspace: "acme".into(),
            customer: "c-42".into(),
            session: "s-1".into(),
            ..Attribution::default()
        },
        estimate: Spend {
            cost: Nanos::from_dollars(1),
            tokens: 1,
            calls: 1,
        },
        ..CheckRequest::default()
    };
    let decision = guard.check(&request, NOW);
    let answer = guard.check_with_reasons(&request, NOW).explain();
    assert_eq!(answer.decision, decision.verdict());
    serde_json::to_string(&answer).expect("an answer is JSON");
    guard.blocklist(None, 100, NOW.wall).expect("a first page");
}
