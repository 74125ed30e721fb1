//! Commands as shells meet them: examples as they are printed, and signals.
// Clippy's exception for tests does not cover their helper functions.
#![allow(clippy::unwrap_used)]

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// The examples that `--help` prints, for a shell.
fn examples(command: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_spendfuse"))
        .args(command)
        .arg("--help")
        .output()
        .unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let (_, examples) = help.split_once("Examples:\n").unwrap();
    let examples = examples.split("\n\n").next().unwrap();
    examples.to_owned()
}

#[test]
fn examples_work_as_they_are_printed() {
    let folder = tempfile::tempdir().unwrap();
    let event = r#"{"id":"r-1","workspace":"acme","provider":"openai","model":"gpt-4o","usage":{"input_tokens":9}}"#;
    for file in ["event.json", "events.ndjson"] {
        std::fs::write(folder.path().join(file), event).unwrap();
    }
    let programs = Path::new(env!("CARGO_BIN_EXE_spendfuse")).parent().unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    for (command, count) in [(["prices", "cost"], 2), (["prices", "explain"], 3)] {
        let examples = examples(&command);
        assert_eq!(
            examples.matches("spendfuse prices").count(),
            count,
            "{examples}"
        );
        let output = Command::new("sh")
            .args(["-ec", &examples])
            .env("PATH", &path)
            .env("SPENDFUSE_KAFKA_BROKERS", "127.0.0.1:9")
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{examples}: {output:?}");
    }
}

#[test]
fn a_price_file_that_is_not_there_is_named_without_kafka() {
    let output = Command::new(env!("CARGO_BIN_EXE_spendfuse"))
        .args(["prices", "diff", "snapshot", "nowhere.jsonl"])
        .args(["--set", "kafka.brokers=127.0.0.1:9"])
        .current_dir(env!("CARGO_TARGET_TMPDIR"))
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("nowhere.jsonl: No such file"), "{said}");
}

/// Re-rates by a ClickHouse that listens and never answers.
fn rerate(silent: &TcpListener) -> Child {
    let url = format!("clickhouse.url=http://{}", silent.local_addr().unwrap());
    Command::new(env!("CARGO_BIN_EXE_spendfuse"))
        .args(["rerate", "--where", "model=m", "--by", "tester", "--yes"])
        .args(["--set", &url])
        .current_dir(env!("CARGO_TARGET_TMPDIR"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// By itself: a signal that only kills it would tear a transaction, which everybody then waits for.
#[test]
fn a_command_that_writes_in_transactions_ends_by_itself_when_it_is_asked_to_stop() {
    for (signal, code) in [("-TERM", 143), ("-INT", 130)] {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut command = rerate(&silent);
        let _asked = silent.accept().unwrap();
        let id = command.id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status().unwrap();
        assert!(sent.success());
        assert_eq!(command.wait().unwrap().code(), Some(code), "{signal}");
    }
}
