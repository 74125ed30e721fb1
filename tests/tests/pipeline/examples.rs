//! Every example prints what its first lines say, on the real parts, and what the producers write to
//! Kafka is counted.

use std::process::Command;
use std::time::Duration;

use spendfuse_tests::Lab;
use spendfuse_tests::lab::run_to_end;

use crate::provider_clients::{installed, installed_or_none, repository};
use crate::refusing::start_with_first_budget;

const EXAMPLES_PATIENCE: Duration = Duration::from_secs(400);
/// One of them is Go's, which is not everywhere.
const EXAMPLES: usize = 8;

#[test]
fn examples_print_what_they_say() {
    let lab = Lab::empty("examples");
    let folder = lab.file("examples");
    std::fs::create_dir(&folder).expect("the folder can be written");
    let pinned = "examples/requirements.txt";
    let Some(python) = installed_or_none("python-venv", pinned, &folder) else {
        return;
    };
    let packages = [
        ("NODE_MODULES", "examples/node"),
        ("NEXT_MODULES", "examples/nextjs"),
        ("SDK_MODULES", "sdk/typescript"),
    ];
    let packages = packages.map(|(name, pinned)| (name, installed("npm-modules", pinned, &folder)));
    let (_processor, _sidecar, address) = start_with_first_budget(&lab);

    let mut command = Command::new(python.join("bin/python"));
    command.arg(repository().join("examples/run.py"));
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command.envs(packages);
    command.env("SPENDFUSE_URL", format!("http://{address}"));
    command.env("SPENDFUSE_WORKSPACE", "acme");
    command.env("SPENDFUSE_KAFKA_BROKERS", lab.kafka().brokers());
    command.env("SPENDFUSE_TOPIC_PREFIX", lab.topic(""));
    let said = run_to_end(command, &folder.join("examples"), EXAMPLES_PATIENCE);
    println!("{}", said.stdout);
    assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
    let is_right = |line: &&str| {
        line.ends_with(": prints what it says")
            || line.starts_with("go/") && line.contains("SKIPPED")
    };
    let right = said.stdout.lines().filter(is_right).count();
    assert_eq!(right, EXAMPLES, "{}", said.stdout);
}
