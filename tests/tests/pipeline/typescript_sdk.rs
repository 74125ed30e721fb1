//! The SDK for TypeScript as npm delivers it: its own tests, with the providers' packages and a real
//! sidecar.

use std::process::Command;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use spendfuse_tests::lab::run_to_end;
use spendfuse_tests::{Address, Lab, PATIENCE, Role, eventually, pause};

use crate::provider_clients::repository;

/// Of the tests in sdk/typescript/test/real.test.mts, and of its README. Above half of a limit figures
/// are at most five seconds old: limits lie a little above what is spent.
const BUDGETS: &str = "budgets:
  - {id: per-customer, scope: {workspace: acme, customer: c-43}, limit: \"0.05\", window: day, steps: [{at: 80, do: warn}, {at: 100, do: block}]}
  - {id: for-nothing, scope: {workspace: acme, customer: c-2}, limit: \"0\", window: year, action: block}
  - {id: cap, scope: {workspace: sdk, customer: c-1}, limit: \"0.03\", window: lifetime, action: block}
  - {id: nothing, scope: {workspace: sdk, customer: c-2}, limit: \"0\", window: year, action: block}
  - {id: cheaper, scope: {workspace: sdk, customer: c-3}, limit: \"0.003\", window: lifetime, steps: [{at: 100, do: downgrade, to: gpt-4o-mini}]}
  - {id: few, scope: {workspace: sdk, customer: c-4}, limit: \"0.0018\", window: lifetime, action: block}
  - {id: watched, scope: {workspace: sdk, customer: c-6}, limit: \"0.007\", window: lifetime, action: block}
  - {id: calls, scope: {workspace: sdk, customer: c-9}, limit_calls: 10100, window: lifetime, action: block}
";
/// Calls that are tracked while the sidecar is killed again and again.
const TRACKED: u64 = 10_000;
const PER_SECOND: u64 = 2_500;
const KILLS: usize = 3;
/// As sdk/typescript/scripts/check exits where npm cannot install the packages.
const NOT_INSTALLED: i32 = 3;
const TESTS_PATIENCE: Duration = Duration::from_secs(300);

/// A sidecar that keeps its port through kills, with a processor behind it.
struct Parts {
    sidecar: Role,
    place: Address,
    _processor: Role,
    // Dropped after its roles.
    lab: Lab,
}

impl Parts {
    fn new(name: &str) -> Self {
        let lab = Lab::empty(name);
        lab.create_topics();
        let processor = lab.processor("1");
        lab.apply_budgets(BUDGETS);
        let place = Address::free();
        let sidecar = lab.role("sidecar", "1", &[("sidecar.listen", &place.setting())]);
        let parts = Self {
            sidecar,
            place,
            _processor: processor,
            lab,
        };
        eventually("the sidecar refuses", PATIENCE, || {
            match parts.state("c-2").map(|state| state["decision"].clone()) {
                Some(decision) if decision == "block" => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        parts
    }

    fn url(&self) -> String {
        format!("http://{}", self.place.setting())
    }

    fn state(&self, customer: &str) -> Option<Value> {
        let path = format!("/v1/state?workspace=sdk&customer={customer}");
        let (_, body) = self.place.get(&path)?;
        serde_json::from_str(&body).ok()
    }
}

#[test]
fn the_sdk_for_typescript_passes_its_tests_and_its_readme_on_a_real_sidecar() {
    let parts = Parts::new("typescript");
    let mut command = Command::new(repository().join("sdk/typescript/scripts/check"));
    command.env("SPENDFUSE_TEST_URL", parts.url());
    let said = run_to_end(command, &parts.lab.file("tests"), TESTS_PATIENCE);
    if said.code == Some(NOT_INSTALLED) {
        println!(
            "SKIPPED: the providers' packages cannot be installed: {}",
            said.stderr
        );
        return;
    }
    assert_eq!(said.code, Some(0), "{} {}", said.stdout, said.stderr);
    // Of the two runs of scripts/test, in the words of any reporter of Node's.
    let skipped = said.stdout.lines();
    let skipped =
        skipped.filter_map(|line| line[line.find(' ')?..].trim().strip_prefix("skipped "));
    assert_eq!(skipped.collect::<Vec<_>>(), ["0", "0"], "{}", said.stdout);
}

/// Needs nothing but the compiler from npm.
#[test]
fn calls_that_are_tracked_while_the_sidecar_is_killed_count_once() {
    let mut parts = Parts::new("typescript-kills");
    let mut build = Command::new(repository().join("sdk/typescript/scripts/check"));
    build
        .arg("--only-track")
        .arg(TRACKED.to_string())
        .arg(PER_SECOND.to_string());
    build.env("SPENDFUSE_URL", parts.url());
    let output = parts.lab.file("track");
    let tracking = thread::spawn(move || run_to_end(build, &output, TESTS_PATIENCE));
    eventually("calls are counted", TESTS_PATIENCE, || {
        match counted(&parts) {
            Some(0) | None if !tracking.is_finished() => Err("none yet".to_owned()),
            _ => Ok(()),
        }
    });
    for _ in 0..KILLS {
        if tracking.is_finished() {
            break;
        }
        pause(Duration::from_millis(500));
        parts.sidecar.kill();
        pause(Duration::from_millis(300));
        parts.sidecar.restart();
    }
    let said = tracking.join().expect("it ends");
    if said.code == Some(NOT_INSTALLED) {
        println!("SKIPPED: the compiler cannot be installed: {}", said.stderr);
        return;
    }
    println!("{}", said.stdout);
    assert_eq!(said.code, Some(0), "{} {}", said.stdout, said.stderr);
    eventually("every call is counted once", PATIENCE, || {
        match counted(&parts) {
            Some(TRACKED) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

/// How many calls of the customer are in the ledger.
fn counted(parts: &Parts) -> Option<u64> {
    let state = parts.state("c-9")?;
    let lines = state["budgets"].as_array()?;
    let line = lines.iter().find(|line| line["budget"] == "calls")?;
    line["spent_calls"].as_u64()
}
