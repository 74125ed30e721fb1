//! The real parts: servers, proxies before them, and the roles as processes.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use spendfuse_bus::KafkaConfig;
use spendfuse_devstack::{DevStack, DevStackOptions, Kafka};
use spendfuse_testkit::proxy::{Protocol, Proxy, Request};
use spendfuse_tests::lab::{Said, run_to_end};
use spendfuse_tests::pause;
use spendfuse_tests::warehouse::Warehouse;
use tokio::runtime::Runtime;

use crate::actor::Actor;
use crate::events::PARTITIONS;
use crate::fault::{Link, Part};
use crate::levers::{self, Levers};
use crate::logs::{COUNTED, Logs, TAPED};
use crate::order::StartOrder;
use crate::retention::{self, Life};
use crate::tape::Tape;

const PREFIX: &str = "chaos.";
/// Begins groups and transactional ids.
pub const ID_PREFIX: &str = "chaos";
/// The database of all tables.
pub const DATABASE: &str = "chaos";
/// Small, so that a broker that is away for some seconds fills it.
const SPOOL_BYTES: &str = "150000";
const BREAK_VARIABLE: &str = "SPENDFUSE_BREAK";
const FORGET_PATIENCE: Duration = Duration::from_secs(4);
const COMMAND_PATIENCE: Duration = Duration::from_secs(150);

/// Settings of one role by key.
type OwnSettings<'a> = &'a [(&'a str, &'a str)];

/// How the system is set up.
#[derive(Clone, Debug)]
pub struct SystemOptions {
    /// Nodes of Kafka, 1 or 3.
    pub nodes: u16,
    /// The executable of the roles.
    pub program: PathBuf,
    /// That of the previous release, where it takes turns.
    pub previous: Option<PathBuf>,
    /// The guarantee that is broken on purpose.
    pub broken: Option<String>,
    /// What is special about its time.
    pub life: Life,
    /// Where data and logs go.
    pub folder: PathBuf,
}

/// Everything that runs.
pub struct System {
    // Roles end before proxies and servers.
    /// Processors, loader, sidecar.
    pub actors: Vec<Actor>,
    /// One a node of Kafka, then ClickHouse's.
    proxies: Vec<Proxy>,
    /// Whether workers fence their predecessors before they take over.
    pub order: Arc<StartOrder>,
    /// Kafka and ClickHouse.
    pub stack: DevStack,
    /// In the order of the actors, then those of ClickHouse, Kafka and the operator.
    levers: Vec<Levers>,
    /// What lay in topics that do not keep it.
    tape: Option<Arc<Tape>>,
    options: SystemOptions,
    /// Nobody starts the loader until its offsets are lost.
    loader_is_held: bool,
    _runtime: Runtime,
}

/// Indexes into the actors and their levers.
pub const LOADER: usize = 2;
/// See [`LOADER`].
pub const SIDECAR: usize = 3;
const CLICKHOUSE: usize = 4;
const KAFKA: usize = 5;
const OPERATOR: usize = 6;
/// Names of the actors.
const ROLE_NAMES: [&str; 4] = ["p1", "p2", "loader", "sidecar"];
/// The folder of the sidecar's spool.
const SPOOL: &str = "spool";

impl System {
    /// Starts servers and proxies, makes topics and tables. No role runs yet.
    pub fn start(options: SystemOptions) -> Result<Self> {
        let runtime = Runtime::new()?;
        let order = Arc::new(StartOrder::default());
        let mut proxies = Vec::new();
        for _ in 0..options.nodes {
            let order = Arc::clone(&order);
            let observer =
                Arc::new(move |request: &Request<'_>, opened| order.seen(request, opened));
            proxies.push(Proxy::listen(
                runtime.handle(),
                Protocol::Kafka,
                Some(observer),
            )?);
        }
        let levers = make_levers(&options.folder)?;
        let mut stack = DevStackOptions::default().in_folder(&options.folder);
        stack.clickhouse.environment = levers[CLICKHOUSE].environment().to_vec();
        stack.kafka.environment = levers[KAFKA].environment().to_vec();
        stack.kafka.properties = retention::broker_properties();
        stack.kafka.nodes = options.nodes;
        stack.kafka.controller_apart = options.nodes == 1;
        stack.kafka.detours = proxies.iter().map(Proxy::port).collect();
        let stack = DevStack::start(stack)?;
        for (node, proxy) in proxies.iter().enumerate() {
            proxy.forward_to(stack.kafka.detour_port(node));
        }
        let clickhouse = Proxy::listen(runtime.handle(), Protocol::Bytes, None)?;
        let port = stack.clickhouse.url().rsplit(':').next().map(str::parse);
        clickhouse.forward_to(port.context("ClickHouse has a port")??);
        proxies.push(clickhouse);
        let mut system = Self {
            actors: Vec::new(),
            proxies,
            order,
            stack,
            levers,
            tape: None,
            options,
            loader_is_held: false,
            _runtime: runtime,
        };
        system.actors = system.make_actors();
        for role in 0..ROLE_NAMES.len() {
            system.install(role, &system.options.program)?;
        }
        // A topic that was just made may have no leader yet.
        let patience = Duration::from_secs(30);
        system.operator().insist(&["topics", "create"], patience)?;
        if system.options.life == Life::ShortMemory {
            retention::shorten(&system.stack.kafka.brokers(), PREFIX)?;
        }
        system.tape = Some(Arc::new(system.start_tape()?));
        system.must(&["migrate"])?;
        Ok(system)
    }

    fn make_actors(&self) -> Vec<Actor> {
        let socket = self.socket().display().to_string();
        let spool = self.options.folder.join(SPOOL).display().to_string();
        let sidecar = [
            ("sidecar.listen", "127.0.0.1:0"),
            ("sidecar.socket", &socket),
            ("sidecar.spool_dir", &spool),
            ("sidecar.spool_max_bytes", SPOOL_BYTES),
        ];
        let roles: [(&str, OwnSettings<'_>); 4] = [
            ("processor", &[]),
            ("processor", &[]),
            ("loader", &[]),
            ("sidecar", &sidecar),
        ];
        let actor = |(index, (role, settings)): (usize, (&str, OwnSettings<'_>))| {
            let instance = ROLE_NAMES[index];
            // `env` becomes the role: same process.
            let variables = self.levers[index].environment().iter();
            let variables = variables.map(|(name, value)| format!("{name}={value}"));
            let mut arguments: Vec<String> = variables.collect();
            if let Some(broken) = &self.options.broken {
                arguments.push(format!("{BREAK_VARIABLE}={broken}"));
            }
            arguments.push(self.release_of(index).display().to_string());
            arguments.push(role.to_owned());
            arguments.extend(self.settings(&self.behind_proxies()));
            let own = [("instance_id", instance), ("admin.listen", "")];
            for (key, value) in own.iter().chain(settings) {
                arguments.extend(["--set".to_owned(), format!("{key}={value}")]);
            }
            Actor::new(instance, Path::new("env"), arguments, &self.options.folder)
        };
        roles.into_iter().enumerate().map(actor).collect()
    }

    /// What a role starts: a link to one release or the other.
    fn release_of(&self, role: usize) -> PathBuf {
        let folder = &self.options.folder;
        folder.join(format!("{}.release", ROLE_NAMES[role]))
    }

    fn install(&self, role: usize, program: &Path) -> Result<()> {
        let link = self.release_of(role);
        match fs::remove_file(&link) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
            _ => Ok(symlink(program, link)?),
        }
    }

    /// Ends a role in order, without waiting.
    pub fn terminate(&mut self, part: Part) {
        self.actors[actor_of(part)].terminate();
    }

    /// A role goes on as the other release.
    pub fn exchange(&mut self, part: Part) -> Result<()> {
        self.kill(part);
        let Some(previous) = &self.options.previous else {
            return self.start_part(part);
        };
        let role = actor_of(part);
        let present = &self.options.program;
        let is_present = fs::read_link(self.release_of(role))? == *present;
        self.install(role, if is_present { previous } else { present })?;
        self.start_part(part)
    }

    /// Whether the previous release ran as well.
    pub fn had_two_releases(&self) -> bool {
        self.options.previous.is_some()
    }

    /// Every role is the present release from its next start on; those that are not end.
    fn upgrade(&mut self) -> Result<()> {
        for part in Self::ROLES {
            let role = actor_of(part);
            if fs::read_link(self.release_of(role))? != self.options.program {
                self.actors[role].stop();
                let program = self.options.program.clone();
                self.install(role, &program)?;
            }
        }
        Ok(())
    }

    fn behind_proxies(&self) -> [(&'static str, String); 2] {
        let clickhouse = self.proxy(Link::ClickHouse).port();
        [
            ("kafka.brokers", self.stack.kafka.detour_brokers()),
            ("clickhouse.url", format!("http://127.0.0.1:{clickhouse}")),
        ]
    }

    fn past_proxies(&self) -> [(&'static str, String); 2] {
        [
            ("kafka.brokers", self.stack.kafka.brokers()),
            ("clickhouse.url", self.stack.clickhouse.url()),
        ]
    }

    fn settings(&self, servers: &[(&'static str, String)]) -> Vec<String> {
        let common = [
            ("clickhouse.database", DATABASE.to_owned()),
            ("topic_prefix", PREFIX.to_owned()),
            ("transactional_id_prefix", ID_PREFIX.to_owned()),
            ("partitions", PARTITIONS.to_string()),
        ];
        let all = servers.iter().chain(&common);
        all.flat_map(|(key, value)| ["--set".to_owned(), format!("{key}={value}")])
            .collect()
    }

    /// What is special about the time of the run.
    pub fn life(&self) -> Life {
        self.options.life
    }

    /// The sidecar's socket.
    pub fn socket(&self) -> PathBuf {
        self.options.folder.join("sidecar.socket")
    }

    /// The topics, past the proxies.
    pub fn logs(&self) -> Logs {
        Logs {
            kafka: KafkaConfig::new(&self.stack.kafka.brokers(), "chaos"),
            prefix: PREFIX.to_owned(),
            tape: Arc::clone(self.tape.as_ref().expect("it begins with the topics")),
        }
    }

    fn start_tape(&self) -> Result<Tape> {
        let partitions = |name| if name == "budgets" { 1 } else { PARTITIONS };
        let topics = TAPED.iter().chain(&COUNTED);
        let topics: Vec<_> = topics
            .map(|name| (format!("{PREFIX}{name}"), partitions(*name)))
            .collect();
        let counted = COUNTED.map(|name| format!("{PREFIX}{name}"));
        Tape::start(&self.stack.kafka.brokers(), &topics, counted.to_vec())
    }

    /// Deletes a group's offsets; nobody may be in it.
    pub fn delete_group(&self, name: &str) -> Result<()> {
        let said = Kafka::tool("org.apache.kafka.tools.consumer.group.ConsumerGroupCommand")?
            .args(["--bootstrap-server", &self.stack.kafka.brokers()])
            .args(["--delete", "--group", &format!("{ID_PREFIX}-{name}")])
            .output()?;
        // The tool ends well where it deleted nothing, too.
        let deleted = String::from_utf8_lossy(&said.stdout).contains("was successful");
        ensure!(deleted, "{said:?}");
        Ok(())
    }

    /// The tables, past the proxies.
    pub fn warehouse(&self) -> Warehouse {
        Warehouse::new(&self.stack.clickhouse.url(), DATABASE)
    }

    /// The proxy of a link.
    pub fn proxy(&self, link: Link) -> &Proxy {
        match link {
            Link::Kafka(node) => &self.proxies[node],
            Link::ClickHouse => &self.proxies[self.proxies.len() - 1],
        }
    }

    /// All proxies.
    pub fn proxies(&self) -> &[Proxy] {
        &self.proxies
    }

    /// Starts a part where it does not run.
    pub fn start_part(&mut self, part: Part) -> Result<()> {
        match part {
            Part::ClickHouse => Ok(self.stack.clickhouse.restart()?),
            Part::Kafka(node) => Ok(self.stack.kafka.restart(node)?),
            Part::Loader if self.loader_is_held => Ok(()),
            role => {
                let index = actor_of(role);
                if index < LOADER && !self.actors[index].is_running() {
                    self.order.started(&self.actors[index].name);
                }
                self.actors[index].start()
            }
        }
    }

    /// The loader ends, and nobody starts it before it has lost its offsets.
    pub fn hold_loader(&mut self) {
        self.kill(Part::Loader);
        self.loader_is_held = true;
    }

    /// The loader's group is deleted, as a broker does after `offsets.retention.minutes` without
    /// members, and the loader starts.
    pub fn lose_loader_offsets(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.loader_is_held) {
            return Ok(());
        }
        let group = format!("{ID_PREFIX}-loader");
        let begin = Instant::now();
        // A broker that is just away, or that still waits for the member that died.
        while let Err(error) = retention::forget_group(&self.stack.kafka.brokers(), &group) {
            if begin.elapsed() > FORGET_PATIENCE {
                eprintln!("group {group} is not deleted: {error:#}");
                break;
            }
            pause(Duration::from_millis(300));
        }
        self.start_part(Part::Loader)
    }

    /// SIGKILL.
    pub fn kill(&mut self, part: Part) {
        match part {
            Part::ClickHouse => self.stack.clickhouse.kill(),
            Part::Kafka(node) => self.stack.kafka.kill(node),
            role => self.actors[actor_of(role)].kill(),
        }
    }

    /// SIGSTOP.
    pub fn pause(&self, part: Part) {
        match part {
            Part::ClickHouse => self.stack.clickhouse.pause(),
            Part::Kafka(node) => self.stack.kafka.pause(node),
            role => self.actors[actor_of(role)].pause(),
        }
    }

    /// SIGCONT.
    pub fn resume(&self, part: Part) {
        match part {
            Part::ClickHouse => self.stack.clickhouse.resume(),
            Part::Kafka(node) => self.stack.kafka.resume(node),
            role => self.actors[actor_of(role)].resume(),
        }
    }

    /// Clock and disk of a role or a server. All nodes of Kafka have one clock.
    pub fn levers(&self, part: Part) -> &Levers {
        &self.levers[match part {
            Part::ClickHouse => CLICKHOUSE,
            Part::Kafka(_) => KAFKA,
            role => actor_of(role),
        }]
    }

    /// All roles, in the order of the actors.
    pub const ROLES: [Part; 4] = [
        Part::Processor(0),
        Part::Processor(1),
        Part::Loader,
        Part::Sidecar,
    ];

    /// Ends all faults: everything runs and can reach everything.
    pub fn heal(&mut self) -> Result<()> {
        self.proxies.iter().for_each(Proxy::heal);
        for levers in &self.levers {
            levers.clock(0)?;
            levers.disk(false)?;
        }
        self.upgrade()?;
        self.lose_loader_offsets()?;
        let nodes = (0..self.stack.kafka.node_count()).map(Part::Kafka);
        let parts: Vec<Part> = nodes.chain([Part::ClickHouse]).chain(Self::ROLES).collect();
        for part in parts {
            self.resume(part);
            self.start_part(part)?;
        }
        self.stack.kafka.wait_ready()?;
        self.stack.clickhouse.wait_ready()?;
        Ok(())
    }

    /// Lets time pass, and starts roles again that ended by themselves.
    pub fn wait_until(&mut self, time: Instant) -> Result<()> {
        loop {
            for actor in &mut self.actors {
                actor.supervise()?;
            }
            let left = time.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            pause(left.min(Duration::from_millis(100)));
        }
    }

    /// Runs a command of the executable, past the proxies.
    pub fn run(&self, arguments: &[&str]) -> Said {
        self.operator().run(arguments)
    }

    fn must(&self, arguments: &[&str]) -> Result<Said> {
        let said = self.run(arguments);
        ensure!(said.code == Some(0), "spendfuse {arguments:?}: {said:?}");
        Ok(said)
    }

    /// Somebody who runs commands while faults happen.
    pub fn operator(&self) -> Operator {
        Operator {
            program: self.options.program.clone(),
            settings: self.settings(&self.past_proxies()),
            folder: self.options.folder.clone(),
            broken: self.options.broken.clone(),
            environment: self.levers[OPERATOR].environment().to_vec(),
        }
    }
}

fn make_levers(folder: &Path) -> Result<Vec<Levers>> {
    let library = levers::build(folder)?;
    let disks = ROLE_NAMES.map(|name| (name, folder.join(SPOOL)));
    let clickhouse = ("clickhouse", folder.join("clickhouse/data"));
    // Their disks are never full.
    let others = ["kafka", "operator"].map(|name| (name, folder.join("no-disk")));
    let all = disks.into_iter().chain([clickhouse]).chain(others);
    all.map(|(name, disk)| Levers::new(folder, &library, name, &disk))
        .collect()
}

fn actor_of(role: Part) -> usize {
    match role {
        Part::Processor(index) => index,
        Part::Loader => LOADER,
        _ => SIDECAR,
    }
}

/// Runs commands.
#[derive(Clone)]
pub struct Operator {
    program: PathBuf,
    settings: Vec<String>,
    folder: PathBuf,
    broken: Option<String>,
    environment: Vec<(String, String)>,
}

impl Operator {
    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Said {
        let mut command = Command::new(&self.program);
        command.args(arguments).args(&self.settings);
        command.current_dir(&self.folder);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        // Some guarantees are those of tables. What else an operator does is not broken.
        if arguments[0] == "migrate" {
            command.envs(self.broken.as_ref().map(|broken| (BREAK_VARIABLE, broken)));
        }
        let output = self.folder.join(format!("command-{}", arguments[0]));
        run_to_end(command, &output, COMMAND_PATIENCE)
    }

    /// Puts budgets into force, and tries until that works.
    pub fn apply_budgets(&self, yaml: &str, patience: Duration) -> Result<()> {
        let file = self.folder.join("budgets.yaml");
        fs::write(&file, yaml)?;
        let file = file.display().to_string();
        // Faults hold back who would have to report; what is in force is checked at the end.
        self.insist(
            &["budgets", "apply", "--prune", "--no-wait", &file],
            patience,
        )?;
        Ok(())
    }

    /// Changes rates of a model, and tries until that works; the new version's name.
    pub fn set_prices(&self, model: &str, rates: &[String], patience: Duration) -> Result<String> {
        let mut arguments = vec!["prices", "set", model];
        arguments.extend(rates.iter().map(String::as_str));
        arguments.extend(["--no-clickhouse", "--json"]);
        let said = self.insist(&arguments, patience)?;
        let answer: Value = serde_json::from_str(&said.stdout)?;
        let version = answer["version"].as_str().context("a version")?;
        Ok(version.to_owned())
    }

    fn insist(&self, arguments: &[&str], patience: Duration) -> Result<Said> {
        let deadline = Instant::now() + patience;
        loop {
            let said = self.run(arguments);
            if said.code == Some(0) {
                return Ok(said);
            }
            ensure!(
                Instant::now() < deadline,
                "spendfuse {arguments:?} never works: {said:?}"
            );
            pause(Duration::from_millis(500));
        }
    }
}
