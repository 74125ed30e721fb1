//! LiteLLM, as SDK and as proxy, with the callback of the SDK for Python in it: its own tests, on the
//! real parts.

use std::process::Command;
use std::time::Duration;

use spendfuse_tests::Lab;
use spendfuse_tests::lab::run_to_end;

use crate::provider_clients::{installed_or_none, repository};
use crate::refusing::start_with_first_budget;

/// LiteLLM imports for ten seconds, here three times.
const TESTS_PATIENCE: Duration = Duration::from_secs(300);

#[test]
fn litellm_is_guarded_and_metered_by_its_callback() {
    let lab = Lab::empty("litellm");
    let folder = lab.file("litellm");
    std::fs::create_dir(&folder).expect("the folder can be written");
    let pinned = "sdk/python/tests/with_litellm/requirements.txt";
    let Some(python) = installed_or_none("python-venv", pinned, &folder) else {
        return;
    };
    let (_processor, _sidecar, address) = start_with_first_budget(&lab);

    let sdk = repository().join("sdk/python");
    let mut command = Command::new(python.join("bin/python"));
    command.args(["-m", "pytest", "-q", "-p", "no:cacheprovider"]);
    command.args(["-W", "ignore", "tests/with_litellm"]);
    command.current_dir(&sdk);
    command.env("PYTHONPATH", sdk.join("src"));
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("SPENDFUSE_TEST_URL", format!("http://{address}"));
    let said = run_to_end(command, &folder.join("pytest"), TESTS_PATIENCE);
    println!("{}", said.stdout);
    assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
    // Without the packages pytest would skip everything, and be content.
    assert!(!said.stdout.contains("skipped"), "{}", said.stdout);
}
