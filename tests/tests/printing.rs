//! What commands print, whoever wrote the names in it: nothing that a terminal obeys.
// Clippy's exception for tests does not cover their helper functions.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};
use spendfuse_domain::printable::is_obeyed;
use spendfuse_tests::lab::Said;
use spendfuse_tests::traffic::now;
use spendfuse_tests::{Lab, eventually};

/// Clears the screen, goes up, forges a line, sets the title, turns text around, hides.
const HOSTILE: &str = "x\u{1b}[2J\u{1b}[1A\r\nforged\u{7}\u{9b}31m\u{1b}]0;t\u{7}\u{202e}\u{200b}";
const WAIT: Duration = Duration::from_secs(20);

fn hostile(name: &str) -> String {
    format!("{name}-{HOSTILE}")
}

/// A step of a loop, every name of which is hostile.
fn event(number: u32) -> Value {
    json!({
        "specversion": "1.0", "type": "spendfuse.usage", "source": hostile("source"),
        "id": format!("{}{number}", hostile("id")), "time": now().to_string(),
        "data": {
            "workspace": hostile("workspace"), "customer": hostile("customer"),
            "feature": hostile("feature"), "agent": hostile("agent"), "user": hostile("user"),
            "session": hostile("session"), "provider": hostile("provider"),
            "model": hostile("model"), "tags": {"team": hostile("team")},
            "prompt_fingerprint": "9f2c41d0a1b2c3d4",
            "usage": {"input_tokens": 2000, "output_tokens": 380},
        },
    })
}

fn budgets() -> String {
    let text = |text: &str| serde_json::to_string(&hostile(text)).unwrap();
    format!(
        "budgets:\n  - id: caps\n    scope: {{workspace: {}, customer: \"*\"}}\n    limit: \"0.0001\"\n    \
         window: day\n    message: {}\n",
        text("workspace"),
        text("message")
    )
}

fn assert_harmless(command: &[&str], said: &Said) {
    for text in [&said.stdout, &said.stderr] {
        let obeyed = text.chars().find(|one| is_obeyed(*one) && *one != '\n');
        assert_eq!(obeyed, None, "{command:?} prints it: {text:?}");
        let forged = text.lines().find(|line| line.starts_with("forged"));
        assert_eq!(forged, None, "{command:?} prints a forged line: {text}");
    }
}

#[test]
fn nothing_that_anybody_sends_reaches_a_terminal_as_it_is() {
    let lab = Lab::new("printing");
    lab.apply_budgets(&budgets());
    let processor = lab.processor("1");
    let loader = lab.loader();
    let file = lab.file("events.ndjson");
    let wrong = json!({"specversion": "1.0", "type": hostile("type"), "id": hostile("id"), "source": hostile("source")});
    let mut lines: Vec<String> = (0..5).map(|number| event(number).to_string()).collect();
    lines.extend([wrong.to_string(), "{\"\u{1b}[2J\u{9b}".to_owned()]);
    fs::write(&file, lines.join("\n")).unwrap();
    let wrong_budgets = lab.file("wrong.yaml");
    fs::write(
        &wrong_budgets,
        budgets().replace("day", &hostile("day").replace(['\r', '\n', '\u{7}'], "")),
    )
    .unwrap();
    let (file, wrong_budgets) = (file.to_str().unwrap(), wrong_budgets.to_str().unwrap());

    let sent = lab.run(&["ingest", file]);
    assert_eq!(sent.code, Some(1), "two lines are rejected: {sent:?}");
    let shown = eventually("findings, rejects and spend are there", WAIT, || {
        let findings = lab.must(&["findings", "list", "--json"]);
        let status = lab.must(&["budgets", "status", "--json"]);
        let all: Value = serde_json::from_str(&findings.stdout).unwrap();
        let is_there = findings.stdout.contains("retry_loop")
            && status.stdout.contains("\"spent_usd\"")
            && status.stdout.contains("malformed_json");
        is_there
            .then_some(all)
            .ok_or(format!("{findings:?}\n{status:?}"))
    });
    let id = shown[0]["id"].as_str().unwrap();
    let (model, workspace, customer) =
        (hostile("model"), hostile("workspace"), hostile("customer"));
    let usage = r#"{"input_tokens":1000}"#;
    let commands: &[&[&str]] = &[
        &["findings", "list", "--all"],
        &["findings", "show", id],
        &["findings", "show", "workspace-"],
        &["findings", "show", &customer],
        &["budgets", "list"],
        &["budgets", "status"],
        &["budgets", "validate", wrong_budgets],
        &["budgets", "apply", wrong_budgets],
        &[
            "check",
            "--workspace",
            &workspace,
            "--customer",
            &customer,
            "--model",
            &model,
        ],
        &["dlq", "list"],
        &["dlq", "list", "--all"],
        &["dlq", "replay"],
        &["ingest", file, "--dry-run"],
        &["prices", "show", &model],
        &[
            "prices",
            "cost",
            "--provider",
            &model,
            "--model",
            &model,
            "--usage",
            usage,
        ],
        &["prices", "cost", "--model", &model, "--usage", &model],
        &["prices", "set", &model, &model],
        &["audit"],
        &["topics", "check"],
        &[
            "config",
            "--set",
            &format!("sidecar.default_workspace={workspace}"),
        ],
        &["config", "--set", &workspace],
    ];
    for command in commands {
        assert_harmless(command, &lab.run(command));
        assert_harmless(command, &lab.run(&[*command, &["--json"]].concat()));
    }
    let as_role = |role: &spendfuse_tests::Role| Said {
        code: None,
        stdout: role.log(),
        stderr: String::new(),
    };
    assert_harmless(&["processor"], &as_role(&processor));
    assert_harmless(&["loader"], &as_role(&loader));
}
