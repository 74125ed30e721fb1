//! The SDK for Python: its own tests, those of its README among them, on the real parts; and what it
//! has told is counted once, though the sidecar was killed meanwhile.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use spendfuse_domain::Nanos;
use spendfuse_tests::lab::run_to_end;
use spendfuse_tests::{Lab, PATIENCE, Role, eventually, pause};

use crate::provider_clients::{installed_or_none, repository};
use crate::refusing::{ask_at, first_budget, start_sidecar};

/// What one tracked call costs: 1,000 tokens of gpt-4o-mini at $0.15 a million and 100 at $0.60.
const NANODOLLARS: i128 = 210_000;
const TRACKED: i128 = 5_000;
const TRACKED_WHEN_MEASURED: i128 = 100_000;
const TESTS_PATIENCE: Duration = Duration::from_secs(240);

#[test]
fn the_python_sdk_guards_meters_and_loses_nothing() {
    run(TRACKED, &["-q"]);
}

#[test]
#[ignore = "a minute of load"]
fn a_hundred_thousand_calls_are_counted_once_by_the_python_sdk() {
    run(TRACKED_WHEN_MEASURED, &["-q", "-s", "-k", "killed"]);
}

fn run(tracked: i128, arguments: &[&str]) {
    let lab = Lab::empty("pysdk");
    let folder = lab.file("pysdk");
    std::fs::create_dir(&folder).expect("the folder can be written");
    let pinned = "sdk/python/tests/requirements.txt";
    let Some(python) = installed_or_none("python-venv", pinned, &folder) else {
        return;
    };
    lab.create_topics();
    let _processor = lab.processor("1");
    // Beside what the README of the SDK puts into force. Above half of a limit what is spent is
    // published within 5 s.
    let limit = Nanos::new(tracked * NANODOLLARS * 3 / 2);
    let own = format!(
        "  - {{id: tracked, scope: {{workspace: tracked}}, limit: \"{limit}\", window: lifetime}}
  - {{id: cheaper, scope: {{workspace: cheap}}, limit: \"0.003\", window: lifetime, steps: [{{at: 100, do: downgrade, to: gpt-4o-mini}}]}}"
    );
    lab.apply_budgets(&format!("{}\n{own}\n", first_budget().trim_end()));
    let socket = lab.file("sidecar.sock");
    let named = |path: &Path| path.to_str().expect("a plain name").to_owned();
    let (socket_name, spool) = (named(&socket), named(&lab.file("spool")));
    let settings = [
        ("sidecar.socket", socket_name.as_str()),
        ("sidecar.spool_dir", spool.as_str()),
    ];
    let (mut sidecar, address) = start_sidecar(&lab, "1", &settings);
    let spent = |sidecar| {
        let answer = ask_at(sidecar, "/v1/state?workspace=tracked&customer=c-1");
        let state: Value = serde_json::from_str(&answer.body).expect("it is JSON");
        state["budgets"][0]["spent_usd"].as_str().map(str::to_owned)
    };
    eventually("the budgets are in force", PATIENCE, || {
        spent(address).ok_or_else(|| "not yet".to_owned())
    });

    let sdk = repository().join("sdk/python");
    let mut command = Command::new(python.join("bin/python"));
    command.args(["-m", "pytest", "-p", "no:cacheprovider"]);
    command.args(arguments);
    command.current_dir(&sdk);
    command.env("PYTHONPATH", sdk.join("src"));
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("SPENDFUSE_TEST_URL", format!("http://{address}"));
    command.env("SPENDFUSE_TEST_SOCKET", &socket);
    command.env("SPENDFUSE_TEST_TRACKED", tracked.to_string());
    let signal = socket.with_extension("now");
    let output = folder.join("pytest");
    let tests = thread::spawn(move || run_to_end(command, &output, TESTS_PATIENCE));
    let address = loop {
        if signal.exists() {
            break killed_and_started(&mut sidecar);
        }
        if tests.is_finished() {
            break address;
        }
        pause(Duration::from_millis(10));
    };
    let said = tests.join().expect("the tests end");
    println!("{}", said.stdout);
    assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
    assert!(signal.exists(), "nobody asked for the sidecar's end");

    let expected = Nanos::new(tracked * NANODOLLARS).to_string();
    eventually(
        "what was tracked is counted once",
        PATIENCE,
        || match spent(address) {
            Some(spent) if spent == expected => Ok(()),
            other => Err(format!("{other:?} of {expected}")),
        },
    );
}

/// What it has on its disk it still sends; what it has not taken comes again.
fn killed_and_started(sidecar: &mut Role) -> SocketAddr {
    sidecar.kill();
    pause(Duration::from_millis(500));
    sidecar.restart();
    let line = sidecar.await_line("the sidecar answers", PATIENCE);
    let mut words = line.split_whitespace();
    let address = words.find_map(|word| word.strip_prefix("address="));
    address.expect("it is said").parse().expect("it is one")
}
