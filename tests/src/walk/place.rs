//! Where a walk happens: the repository's files in a folder of their own.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// Not part of the sources, or not needed by a walk.
const LEFT_OUT: [&str; 4] = ["target", ".devstack", ".cache", ".git"];
/// Executables that are built already.
const BUILT: [&str; 4] = [
    "spendfuse",
    "spendfuse-demo",
    "spendfuse-devstack",
    "spendfuse-clickhouse",
];
/// Stands before the real `make`: what is built already is not built again.
const MAKE: &str = "#!/bin/sh\nPATH=${PATH#*:} exec make --no-print-directory -o build \"$@\"\n";
/// Variables of a development stack, which a newcomer has not set.
const ADDRESSES: [&str; 5] = [
    "SPENDFUSE_KAFKA_BROKERS",
    "SPENDFUSE_CLICKHOUSE_URL",
    "SPENDFUSE_SIDECAR_URL",
    "SPENDFUSE_SIDECAR_LISTEN",
    "SPENDFUSE_ADMIN_LISTEN",
];

/// Where the servers of a walk listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// Where the pages say.
    Usual,
    /// Anywhere: the commands get the addresses put in, and the answers the pages' addresses.
    Free,
}

/// What commands said, both streams as they came.
#[derive(Debug)]
pub struct Said {
    /// Whether the last command succeeded.
    pub succeeded: bool,
    /// What was printed.
    pub output: String,
}

/// A copy of the repository. Dropped, what runs in it is stopped and the copy removed.
#[derive(Debug)]
pub struct Place {
    folder: TempDir,
    ports: Ports,
}

impl Place {
    /// Copies the repository at `root`; the executables are those next to the running one.
    ///
    /// # Errors
    /// Where files cannot be copied, or executables are missing.
    pub fn copy_of(root: &Path, ports: Ports) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("walk-").tempdir()?;
        for entry in fs::read_dir(root)? {
            let entry = entry?;
            let name = entry.file_name();
            if !LEFT_OUT.iter().any(|left_out| name == *left_out) {
                copy(&entry.path(), &folder.path().join(&name))?;
            }
        }
        let built = folder.path().join("target/release");
        fs::create_dir_all(&built)?;
        for name in BUILT {
            symlink(executable(name)?, built.join(name))?;
        }
        let before_path = folder.path().join("target/before-path");
        fs::create_dir_all(&before_path)?;
        let make = before_path.join("make");
        fs::write(&make, MAKE)?;
        fs::set_permissions(&make, fs::Permissions::from_mode(0o755))?;
        let cache = root.join(".cache");
        if cache.is_dir() {
            symlink(cache, folder.path().join(".cache"))?;
        }
        Ok(Self { folder, ports })
    }

    /// A file's text.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn read(&self, path: &str) -> Result<String, String> {
        fs::read_to_string(self.folder.path().join(path))
            .map_err(|error| format!("{path}: {error}"))
    }

    /// Runs lines in a shell, as a newcomer would.
    ///
    /// # Errors
    /// Where no shell can be started.
    pub fn run(&self, commands: &str) -> Result<Said, String> {
        let log = self.folder.path().join("target/said");
        let failed = |error: io::Error| format!("running {commands}: {error}");
        let output = fs::File::create(&log).map_err(failed)?;
        let errors = output.try_clone().map_err(failed)?;
        let status = self
            .shell(&self.with_addresses(commands))
            .stdout(output)
            .stderr(errors)
            .status()
            .map_err(failed)?;
        let bytes = fs::read(&log).map_err(failed)?;
        Ok(Said {
            succeeded: status.success(),
            output: String::from_utf8_lossy(&bytes).into_owned(),
        })
    }

    fn shell(&self, commands: &str) -> Command {
        let mut command = Command::new("bash");
        let path = std::env::var("PATH").unwrap_or_default();
        let before_path = self.folder.path().join("target/before-path");
        command
            .args(["-c", commands])
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .env("PATH", format!("{}:{path}", before_path.display()))
            .env_remove("MAKEFLAGS");
        for name in ADDRESSES {
            command.env_remove(name);
        }
        if self.ports == Ports::Free {
            command.env("SPENDFUSE_DEVSTACK_PORTS", "free");
            command.envs(self.addresses());
        }
        command
    }

    /// What was printed, with the addresses that the pages have.
    pub fn as_printed(&self, output: &str) -> String {
        let moved = self.moved();
        let printed = moved.iter().fold(output.to_owned(), |text, (usual, own)| {
            text.replace(own, usual)
        });
        let folder = format!("{}/", self.folder.path().display());
        printed.replace(&folder, "")
    }

    fn with_addresses(&self, commands: &str) -> String {
        let moved = self.moved();
        let named = commands.replace("localhost:", "127.0.0.1:");
        moved
            .iter()
            .fold(named, |text, (usual, own)| text.replace(usual, own))
    }

    /// Addresses on the pages, and this walk's own.
    fn moved(&self) -> Vec<(String, String)> {
        let usual = |name: &str| match name {
            "SPENDFUSE_KAFKA_BROKERS" => Some("127.0.0.1:9092"),
            "SPENDFUSE_CLICKHOUSE_URL" => Some("127.0.0.1:8123"),
            "SPENDFUSE_SIDECAR_URL" => Some("127.0.0.1:4117"),
            _ => None,
        };
        let own = |address: &str| address.trim_start_matches("http://").to_owned();
        self.addresses()
            .iter()
            .filter_map(|(name, address)| Some((usual(name)?.to_owned(), own(address))))
            .collect()
    }

    /// What `make up` has written.
    fn addresses(&self) -> Vec<(String, String)> {
        let text = self.read(".devstack/env").unwrap_or_default();
        let lines = text.lines().filter_map(|line| line.split_once('='));
        lines
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    /// Stops what `make up` has started.
    ///
    /// # Errors
    /// Where `make down` fails or leaves addresses behind.
    pub fn stop(&self) -> Result<(), String> {
        let said = self.run("make down")?;
        if !said.succeeded || !self.addresses().is_empty() {
            return Err(format!("make down does not stop it:\n{}", said.output));
        }
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A walk that went well has done it already; one that did not has said why.
        let _ = self.run("make down");
    }
}

fn executable(name: &str) -> io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let mut folders = own.ancestors().skip(1).take(3);
    let found = folders.find_map(|folder| Some(folder.join(name)).filter(|path| path.is_file()));
    found.ok_or_else(|| {
        let reason = format!("{name} is not built: run `make build`");
        io::Error::new(io::ErrorKind::NotFound, reason)
    })
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    if !from.is_dir() {
        return fs::copy(from, to).map(drop);
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}
