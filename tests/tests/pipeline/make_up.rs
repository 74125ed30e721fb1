//! `make up`: starts what does not run, and says what does.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use spendfuse_tests::lab::{Said, run_to_end, spendfuse};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn make_up_starts_what_is_missing_and_leaves_the_rest_alone() {
    let place = Place::new();
    let first = place.run("up");
    assert_eq!(first.code, Some(0), "{first:?}");
    let (stack, roles) = (place.number("devstack.pid"), place.number("spendfuse.pid"));

    let again = place.run("up");
    assert_eq!(again.code, Some(0), "{again:?}");
    assert!(again.stderr.contains("all roles run already"), "{again:?}");
    assert_eq!(again.stdout, first.stdout);
    assert_eq!(place.number("spendfuse.pid"), roles);

    // Whatever ends the roles, Kafka stays, and they come back.
    kill(roles);
    let repaired = place.run("up");
    assert_eq!(repaired.code, Some(0), "{repaired:?}");
    assert!(
        repaired.stderr.contains("starting the roles"),
        "{repaired:?}"
    );
    assert_eq!(place.number("devstack.pid"), stack);
    assert_ne!(place.number("spendfuse.pid"), roles);
    assert_eq!(
        repaired.stdout.matches("SPENDFUSE_SIDECAR_URL=").count(),
        1,
        "{repaired:?}"
    );

    let down = place.run("down");
    assert_eq!(down.code, Some(0), "{down:?}");
    assert!(!place.file("env").exists());
}

/// The scripts with the executables of this test, in a folder of their own.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let folder = TempDir::new().expect("a temporary folder can be made");
        let place = Self(folder);
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts");
        let scripts = scripts.canonicalize().expect("the scripts are there");
        for folder in ["scripts", "target"] {
            fs::create_dir(place.path(folder)).expect("a folder can be made");
        }
        for name in ["up", "down"] {
            fs::copy(scripts.join(name), place.path("scripts").join(name))
                .expect("a script can be copied");
        }
        let executables = spendfuse();
        let executables = executables.parent().expect("an executable is in a folder");
        symlink(executables, place.path("target/release")).expect("a link can be made");
        place
    }

    fn run(&self, script: &str) -> Said {
        let mut command = Command::new(self.path("scripts").join(script));
        command.env("SPENDFUSE_DEVSTACK_PORTS", "free");
        run_to_end(command, &self.path(&format!("{script}-said")), PATIENCE)
    }

    fn number(&self, name: &str) -> u32 {
        let text = fs::read_to_string(self.file(name)).expect("the file is there");
        text.trim().parse().expect("it holds a number")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path(".devstack").join(name)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Where the test has failed; otherwise nothing runs any more.
        let _ = Command::new(self.path("scripts/down")).output();
    }
}

fn kill(process: u32) {
    let killed = Command::new("kill")
        .args(["-9", &process.to_string()])
        .status();
    assert!(killed.expect("kill can be started").success());
}
