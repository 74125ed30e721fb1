//! `spendfuse demo` as users run it: it adds up, and it notices when the pipeline does not.

use std::process::{Command, Output};

use serde_json::Value;
use spendfuse_devstack::{ENV_CLICKHOUSE_URL, ENV_KAFKA_BROKERS};
use spendfuse_tests::stack::Turn;

/// The first fifth of the hour, in ten seconds.
const SCALE: &str = "20";

fn demo(turn: &Turn, arguments: &[&str]) -> (Output, Value) {
    let stack = turn.stack();
    let output = Command::new(spendfuse_tests::lab::spendfuse())
        .args(["demo", "--headless", "--scale", SCALE])
        .args(arguments)
        .env(ENV_KAFKA_BROKERS, stack.kafka.brokers())
        .env(ENV_CLICKHOUSE_URL, stack.clickhouse.url())
        .output()
        .expect("the demo starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let summary = serde_json::from_str(&text).unwrap_or_else(|error| {
        let log = String::from_utf8_lossy(&output.stderr);
        panic!("{error}: no summary in {text:?}:\n{log}")
    });
    (output, summary)
}

#[test]
fn the_demo_adds_up_to_the_nano_dollar_and_every_detector_fires() {
    let turn = Turn::take();
    let (output, summary) = demo(&turn, &[]);
    assert!(output.status.success(), "{summary:#}");
    let number = |name: &str| summary[name].as_u64().unwrap();
    let rejected = summary["rejected"].as_object().unwrap();
    let rejected: u64 = rejected.values().filter_map(Value::as_u64).sum();
    assert_eq!(
        number("produced"),
        number("counted") + number("duplicates") + rejected
    );
    assert!(number("produced") > 5_000, "{summary:#}");
    let spend = &summary["spend_usd"];
    assert!(spend["ledger"].is_string());
    assert_eq!(spend["ledger"], spend["warehouse"]);
    assert_eq!(spend["ledger"], spend["reference"]);
    for detector in [
        "budget_exceeded",
        "context_bloat",
        "retry_loop",
        "token_acceleration",
        "tool_amplification",
    ] {
        assert!(
            summary["findings"][detector].as_u64() >= Some(1),
            "{detector}"
        );
    }
    assert!(number("refused_calls") > 100 && number("blocked_scopes") > 60);
}

#[test]
fn a_lost_or_doubled_event_fails_the_demo() {
    let turn = Turn::take();
    for fault in ["lose", "double"] {
        let (output, summary) = demo(&turn, &["--sabotage", fault]);
        assert_eq!(output.status.code(), Some(1), "{fault}: {summary:#}");
        let spend = &summary["spend_usd"];
        assert_ne!(spend["ledger"], spend["reference"], "{fault}");
        assert_eq!(spend["ledger"], spend["warehouse"], "{fault}");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(told.contains("spend: ledger against reference"), "{told}");
    }
}
