//! `spendfuse demo` as users run it: it adds up, and it notices when the pipeline does not.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Output};

use serde_json::Value;
use spendfuse_devstack::{ENV_CLICKHOUSE_URL, ENV_KAFKA_BROKERS};
use spendfuse_testkit::receiver::Receiver;
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
    let hook = Receiver::start(|_, _| 200);
    let url = format!("notifier.channels.hook.url={}", hook.url());
    let settings = [
        "--set=notifier.channels.hook.kind=webhook",
        "--set=notifier.routes.all.to=hook",
        &format!("--set={url}"),
    ];
    let (output, summary) = demo(&turn, &settings);
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
    // How many calls come before their block is known depends on the machine.
    let (refused, blocked) = (number("refused_calls"), number("blocked_scopes"));
    assert!(refused > 20 && blocked > 20, "{summary:#}");
    let told: Vec<Value> = hook.received().into_iter().map(|one| one.body).collect();
    people_are_told_what_the_summary_says(&told, &summary);
}

/// Who installs spendfuse and lets this traffic through is told of: each runaway session that reaches
/// `warning` and none of the near misses, the model without a price, each reason for which events
/// were set aside, and steps of budgets, of which ten an hour and ledger partition by themselves.
/// Each once, and nothing else but that the upgraded customer's block is over, where it is among the
/// ten: that depends on who was quicker.
fn people_are_told_what_the_summary_says(messages: &[Value], summary: &Value) {
    let mut by_kind: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let mut over = BTreeSet::new();
    for message in messages {
        let [alert] = message["alerts"]
            .as_array()
            .expect("it has alerts")
            .as_slice()
        else {
            panic!("one alert each: {message:#}");
        };
        let text = |name: &str| alert[name].as_str().expect("a text").to_owned();
        let about = match (alert["kind"].as_str().expect("a text"), text("scope")) {
            ("finding", scope) => format!("{} {scope}", text("subject")),
            ("budget_step", scope) if alert["count"].is_null() => {
                let severity = text("severity");
                format!("{} {scope} {severity}", text("subject"))
            }
            _ => text("subject"),
        };
        if message["what"] == "resolved" {
            let told = by_kind.get("budget_step");
            let is_told = told.is_some_and(|told| told.contains(&about));
            assert!(is_told && over.insert(about), "{message:#}");
            continue;
        }
        assert_eq!(message["what"], "new", "{message:#}");
        let kind = by_kind
            .entry(alert["kind"].as_str().expect("a text"))
            .or_default();
        assert!(kind.insert(about), "told twice: {message:#}");
    }
    let lines = |lines: &[&str]| -> BTreeSet<String> {
        lines.iter().map(|line| (*line).to_owned()).collect()
    };
    let rejected = summary["rejected"].as_object().expect("reasons").keys();
    let rejected = rejected.filter(|reason| *reason != "late").cloned();
    let of_budgets = by_kind.remove("budget_step").expect("budgets are reached");
    let expected = BTreeMap::from([
        ("late_spend", lines(&["acme"])),
        ("rejected_spend", rejected.collect()),
        ("unpriced_model", lines(&["acme-labs/zebrafish-7"])),
        (
            "finding",
            lines(&[
                "context_bloat acme/session=run-lean4-proof",
                "context_bloat acme/session=runaway-context-bloat",
                "retry_loop acme/session=runaway-retry-loop",
                "tool_amplification acme/session=runaway-tool-amplification",
            ]),
        ),
    ]);
    assert_eq!(by_kind, expected);
    let upgraded = "hooli-day acme/customer=hooli critical";
    assert!(over.iter().all(|line| line == upgraded), "{over:#?}");

    let is_of_sessions = |line: &&String| line.starts_with("agent-session ");
    let of_sessions: BTreeSet<String> = of_budgets.iter().filter(is_of_sessions).cloned().collect();
    let sessions = lines(&[
        "agent-session acme/session=near-miss-session-budget warning",
        "agent-session acme/session=runaway-session-budget critical",
    ]);
    assert_eq!(of_sessions, sessions);
    let others = of_budgets.iter().filter(|line| !is_of_sessions(line));
    let is_known = |line: &String| {
        let begins = [
            "free-plan acme/customer=free-",
            "initech-day acme/customer=initech ",
            "hooli-day acme/customer=hooli ",
            "ledger partition ",
        ];
        begins.iter().any(|begin| line.starts_with(begin))
    };
    assert!(others.clone().all(is_known), "{of_budgets:#?}");
    assert!(
        others.clone().any(|line| line.ends_with("critical")),
        "{of_budgets:#?}"
    );
    // Ten of each of the demo's two partitions; one partition may have fewer.
    let is_told_alone = |line: &&String| !line.starts_with("ledger partition ");
    let steps = others.filter(is_told_alone).count();
    assert!((11..=20).contains(&steps), "{of_budgets:#?}");
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
