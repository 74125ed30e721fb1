//! The providers' own SDKs, in the versions that tests/clients pins, against a refusal that a gateway
//! passes on: they try once, and nobody sleeps.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use spendfuse_tests::lab::{Said, run_to_end};
use spendfuse_tests::relay::Relay;

use crate::refusing::{REFUSED, Refusing};

/// What the sidecar decides by itself, and what gateways may ask for.
const MODES: [&str; 4] = ["auto", "429", "402", "403"];
/// These try a 429 again whatever its headers say; the sidecar does not answer 429 to them by itself.
const DEAF: [&str; 4] = [
    "genai-python-with-retries",
    "genai-node-with-retries",
    "botocore",
    "vercel-ai",
];
/// Every client with every mode.
const CALLS: usize = 10 * MODES.len();
/// The exit code of scripts/python-venv where pip could not install something.
const REGISTRY_AWAY: i32 = 3;
/// The first time, the SDKs are fetched.
const INSTALL_PATIENCE: Duration = Duration::from_secs(300);
const CALLS_PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn a_refusal_is_tried_once_by_every_sdk_and_nobody_sleeps() {
    let refusing = Refusing::new("sdks", &[("sidecar.refusal_status", "auto")]);
    let relay = Relay::start(refusing.address, REFUSED);
    let folder = refusing.lab.file("sdks");
    std::fs::create_dir(&folder).expect("the folder can be written");

    let python = installed("python-venv", "tests/clients/requirements.txt", &folder);
    let mut by_python = Command::new(python.join("bin/python"));
    by_python.arg(repository().join("tests/clients/refusals.py"));

    // A module looks for others from where it lies.
    let modules = installed("npm-modules", "tests/clients", &folder);
    std::os::unix::fs::symlink(modules, folder.join("node_modules")).expect("a link can be made");
    let script = folder.join("refusals.mjs");
    std::fs::copy(repository().join("tests/clients/refusals.mjs"), &script)
        .expect("the folder can be written");
    let mut by_node = Command::new("node");
    by_node.arg(&script);

    let mut seen = Vec::new();
    for (mut command, name) in [(by_python, "python"), (by_node, "node")] {
        command.arg(relay.url()).args(MODES);
        let said = run_to_end(command, &folder.join(name), CALLS_PATIENCE);
        assert_eq!(said.code, Some(0), "{said:?}");
        let lines = said.stdout.lines();
        seen.extend(lines.map(|line| serde_json::from_str::<Value>(line).expect("lines are JSON")));
    }
    assert_eq!(seen.len(), CALLS, "{seen:?}");
    for one in &seen {
        let text = |field: &str| one[field].as_str().unwrap_or_default();
        let (client, mode) = (text("client"), text("mode"));
        let attempts = relay.attempts(&format!("{client}.{mode}"));
        println!(
            "{client} {}, status {mode}: attempts {attempts}, {}",
            text("version"),
            text("error")
        );
        if mode == "429" && DEAF.contains(&client) {
            // Seen here as long as they are deaf: so this test does notice a second attempt.
            assert!(attempts > 1, "{client} heeds the header now: {one}");
            continue;
        }
        assert_eq!(attempts, 1, "{one}");
        assert_eq!(one["sleeps"], Value::Array(Vec::new()), "{one}");
        let is_deaf = DEAF.contains(&client) || client.starts_with("genai");
        let status = match (mode, is_deaf) {
            ("auto", true) => "402",
            ("auto", false) => "429",
            (asked, _) => asked,
        };
        assert_eq!(one["status"].to_string(), status, "{one}");
    }
}

/// The folder that a script prints, which installs what `pinned` says where it is not there yet.
pub fn installed(script: &str, pinned: &str, folder: &Path) -> PathBuf {
    let said = install(script, pinned, folder);
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    said.stdout.trim().into()
}

/// As [`installed`]; `None`, and a line that says so, where the registry cannot be reached.
pub fn installed_or_none(script: &str, pinned: &str, folder: &Path) -> Option<PathBuf> {
    let said = install(script, pinned, folder);
    if said.code == Some(REGISTRY_AWAY) {
        println!("SKIPPED: the registry cannot be reached: {}", said.stderr);
        return None;
    }
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    Some(said.stdout.trim().into())
}

fn install(script: &str, pinned: &str, folder: &Path) -> Said {
    let mut command = Command::new(repository().join("scripts").join(script));
    command.arg(repository().join(pinned));
    run_to_end(command, &folder.join(script), INSTALL_PATIENCE)
}

pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
