//! Every service of `docker-compose.yml` that runs spendfuse starts with its own command and
//! environment, and an event goes through all of them; only hosts and ports are this machine's.
// Clippy's exception for tests does not cover their helper functions.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use spendfuse_devstack::free_port;
use spendfuse_tests::lab::{Said, run_to_end, spendfuse};
use spendfuse_tests::stack::Turn;
use spendfuse_tests::{Role, eventually};
use yaml_rust2::{Yaml, YamlLoader};

const IMAGE: &str = "spendfuse:dev";
/// Where the sidecar listens in its container.
const SIDECAR_PORT: &str = "4117";
const WAIT: Duration = Duration::from_secs(30);

/// The file, and what stands for its hosts here.
struct Compose {
    text: String,
    file: Yaml,
    folder: tempfile::TempDir,
    hosts: Vec<(String, String)>,
    sidecar_port: String,
}

/// What a container would run.
struct Service {
    arguments: Vec<String>,
    environment: BTreeMap<String, String>,
}

/// A service of several processes, which end with their container; here, with this.
struct Together(Role);

impl Drop for Together {
    fn drop(&mut self) {
        let Some(leader) = self.0.process_id() else {
            return;
        };
        let group = format!("-{leader}");
        let killed = Command::new("kill").args(["-KILL", "--", &group]).status();
        if !killed.is_ok_and(|status| status.success()) {
            eprintln!("the processes of group {leader} still run");
        }
    }
}

#[test]
fn every_service_of_the_compose_file_starts_and_an_event_goes_through_all_of_them() {
    let turn = Turn::take();
    let compose = Compose::read(&turn);
    let services = compose.services();
    let names: Vec<&str> = services.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "init",
            "loader",
            "notifier",
            "processor",
            "sidecar",
            "traffic"
        ]
    );

    let init = compose.run_to_end(&services["init"]);
    assert_eq!(init.code, Some(0), "{init:?}");
    let start = |name: &str| compose.start(name, &services[name]);
    let roles = ["processor", "loader", "notifier", "sidecar"].map(start);
    let lines = [
        "stage=\"meter\"",
        "admin address",
        "stage=\"notifier\"",
        "the sidecar answers",
    ];
    for (role, line) in roles.iter().zip(lines) {
        role.await_line(line, WAIT);
    }

    let traffic = Together(start("traffic"));
    let asked = compose.curl_of_the_first_lines();
    eventually(
        "a customer's spend is in the sidecar's answer",
        WAIT,
        || {
            let said = compose.shell(&asked.replace("/v1/authz", "/v1/state"));
            let state: Value =
                serde_json::from_str(&said.stdout).map_err(|error| format!("{error}: {said:?}"))?;
            let spent = &state["budgets"][0]["spent_usd"];
            match spent.as_str().is_some_and(|usd| usd != "0.00") {
                true => Ok(()),
                false => Err(state.to_string()),
            }
        },
    );
    let said = compose.shell(&format!("{asked} -o /dev/null -w '%{{http_code}}'"));
    assert_eq!(said.stdout, "200", "the documented question: {said:?}");
    let count = "SELECT count() > 0 FROM spendfuse.spend";
    eventually("rows are in the warehouse", WAIT, || {
        let said = compose.shell(&format!(
            "curl -s {} -d '{count}'",
            turn.stack().clickhouse.url()
        ));
        (said.stdout.trim() == "1")
            .then_some(())
            .ok_or(format!("{said:?}"))
    });
    for role in roles.iter().chain([&traffic.0]) {
        let log = role.log();
        assert!(role.is_running() && !log.contains("unknown"), "{log}");
    }
}

#[test]
fn what_the_compose_file_mounts_publishes_and_waits_for_is_there() {
    let file = parsed(&text());
    let services = file["services"].as_hash().unwrap();
    let named: Vec<&str> = services.keys().filter_map(Yaml::as_str).collect();
    for (name, service) in services {
        let service = merged(service);
        for volume in strings(&service["volumes"]) {
            let source = volume.split(':').next().unwrap();
            let is_there = match source.starts_with('.') {
                true => root().join(source).exists(),
                false => !file["volumes"][source].is_badvalue(),
            };
            assert!(is_there, "{name:?} mounts {volume}");
        }
        let waits_for = service["depends_on"].as_hash();
        for other in waits_for.into_iter().flat_map(|others| others.keys()) {
            assert!(
                named.contains(&other.as_str().unwrap()),
                "{name:?} waits for {other:?}"
            );
        }
        for published in strings(&service["ports"]) {
            let is_here_only = published.starts_with("127.0.0.1:");
            assert!(
                is_here_only,
                "{name:?} is published to other machines: {published}"
            );
        }
    }
}

impl Compose {
    fn read(turn: &Turn) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let binaries = folder.path().join("bin");
        fs::create_dir(&binaries).unwrap();
        symlink(spendfuse(), binaries.join("spendfuse")).unwrap();
        let stack = turn.stack();
        let sidecar_port = free_port(None).unwrap().to_string();
        let hosts = [
            ("kafka:19092", stack.kafka.brokers()),
            ("http://clickhouse:8123", stack.clickhouse.url()),
            (":4117", format!(":{sidecar_port}")),
        ];
        let text = text();
        Self {
            file: parsed(&text),
            text,
            folder,
            hosts: hosts.map(|(theirs, ours)| (theirs.to_owned(), ours)).into(),
            sidecar_port,
        }
    }

    /// The services that run spendfuse, by name.
    fn services(&self) -> BTreeMap<String, Service> {
        let all = self.file["services"].as_hash().unwrap().iter();
        let ours = all.map(|(name, service)| (name.as_str().unwrap(), merged(service)));
        ours.filter(|(_, service)| service["image"].as_str() == Some(IMAGE))
            .map(|(name, service)| (name.to_owned(), self.service(&service)))
            .collect()
    }

    fn service(&self, service: &Yaml) -> Service {
        let entrypoint = match strings(&service["entrypoint"]) {
            given if given.is_empty() => vec!["spendfuse".to_owned()],
            given => given,
        };
        let arguments = entrypoint.into_iter().chain(strings(&service["command"]));
        let mounts: Vec<(String, String)> = strings(&service["volumes"])
            .iter()
            .filter_map(|volume| {
                let mut parts = volume.split(':');
                let source = root().join(parts.next()?);
                Some((parts.next()?.to_owned(), source.display().to_string()))
            })
            .collect();
        let arguments = arguments
            .map(|argument| replaced(&argument, &mounts))
            .collect();
        let environment = merged(&service["environment"]);
        let environment = environment.as_hash().unwrap().iter();
        let mut environment: BTreeMap<String, String> = environment
            .map(|(name, value)| {
                (
                    name.as_str().unwrap().to_owned(),
                    self.here(value.as_str().unwrap()),
                )
            })
            .collect();
        // In containers the admin addresses do not meet.
        let admin = format!("127.0.0.1:{}", free_port(None).unwrap());
        environment.insert("SPENDFUSE_ADMIN_LISTEN".to_owned(), admin);
        Service {
            arguments,
            environment,
        }
    }

    /// A value with its variables' defaults and this machine's hosts.
    fn here(&self, value: &str) -> String {
        replaced(&with_defaults(value), &self.hosts)
    }

    /// `env` clears what this process has, as a container would.
    fn command_line(&self, service: &Service) -> Vec<String> {
        let path = std::env::var("PATH").unwrap();
        let binaries = self.folder.path().join("bin");
        let mut line = vec![
            "-i".to_owned(),
            format!("PATH={}:{path}", binaries.display()),
        ];
        let variables = service.environment.iter();
        line.extend(variables.map(|(name, value)| format!("{name}={value}")));
        line.extend(service.arguments.iter().cloned());
        line
    }

    fn start(&self, name: &str, service: &Service) -> Role {
        let log = self.folder.path().join(format!("{name}.log"));
        Role::start(name, PathBuf::from("env"), self.command_line(service), log)
    }

    fn run_to_end(&self, service: &Service) -> Said {
        let mut command = Command::new("env");
        command.args(self.command_line(service));
        run_to_end(command, &self.folder.path().join("ended"), WAIT)
    }

    fn shell(&self, line: &str) -> Said {
        let mut command = Command::new("bash");
        command.args(["-c", line]);
        run_to_end(command, &self.folder.path().join("shell"), WAIT)
    }

    /// The question that the comment at the top of the file shows.
    fn curl_of_the_first_lines(&self) -> String {
        let comments = self.text.lines().map_while(|line| line.strip_prefix('#'));
        let line = comments
            .map(str::trim)
            .find(|line| line.starts_with("curl "));
        let port = format!(":{}", self.sidecar_port);
        line.expect("the comment shows a question")
            .replace("curl ", "curl -s ")
            .replace(&format!(":{SIDECAR_PORT}"), &port)
    }
}

/// The image is built where no development stack is, so nothing else would notice.
#[test]
fn the_image_installs_what_the_program_is_built_with() {
    let read = |path| fs::read_to_string(root().join(path)).unwrap();
    let (prerequisites, image) = (
        read("scripts/check-prerequisites"),
        read("deploy/Dockerfile"),
    );
    let installed = image
        .lines()
        .find(|line| line.contains("build-essential"))
        .unwrap();
    let builders = prerequisites
        .lines()
        .filter(|line| line.starts_with("need ") && line.contains("\"builds "));
    let packages: Vec<&str> = builders
        .map(|line| line.split(' ').nth(2).unwrap())
        .collect();
    assert!(packages.contains(&"perl"), "{packages:?}");
    for package in packages {
        assert!(
            installed.split(' ').any(|word| word == package),
            "{package} is missing: {installed}"
        );
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn text() -> String {
    fs::read_to_string(root().join("docker-compose.yml")).unwrap()
}

fn parsed(text: &str) -> Yaml {
    YamlLoader::load_from_str(text).unwrap().remove(0)
}

/// A mapping with those that its `<<` names, whose entries it may replace.
fn merged(yaml: &Yaml) -> Yaml {
    let Yaml::Hash(own) = yaml else {
        return yaml.clone();
    };
    let merge_key = Yaml::String("<<".to_owned());
    let mut all = match own.get(&merge_key).map(merged) {
        Some(Yaml::Hash(base)) => base,
        _ => yaml_rust2::yaml::Hash::new(),
    };
    let entries = own.iter().filter(|(key, _)| **key != merge_key);
    all.extend(entries.map(|(key, value)| (key.clone(), value.clone())));
    Yaml::Hash(all)
}

fn strings(list: &Yaml) -> Vec<String> {
    let items = list.as_vec().into_iter().flatten();
    items.filter_map(Yaml::as_str).map(str::to_owned).collect()
}

/// `${NAME:-default}` becomes the default, as where nobody has set NAME.
fn with_defaults(text: &str) -> String {
    let Some((before, rest)) = text.split_once("${") else {
        return text.to_owned();
    };
    let (variable, after) = rest.split_once('}').unwrap();
    let default = variable.split_once(":-").map_or("", |(_, default)| default);
    format!("{before}{default}{}", with_defaults(after))
}

fn replaced(text: &str, replacements: &[(String, String)]) -> String {
    replacements
        .iter()
        .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}
