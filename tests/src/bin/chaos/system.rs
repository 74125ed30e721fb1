//! The real parts: servers, proxies before them, and the roles as processes.

mod faults;
mod proxied;

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use spendfuse_bus::KafkaConfig;
use spendfuse_devstack::{DevStack, DevStackOptions, Kafka};
use spendfuse_domain::installation::FORMAT_KEY;
use spendfuse_testkit::proxy::{Protocol, Proxy, Request};
use spendfuse_tests::lab::{BREAK_VARIABLE, Said};
use spendfuse_tests::warehouse::Warehouse;
use tokio::runtime::Runtime;

use crate::actor::Actor;
use crate::events::PARTITIONS;
use crate::fault::{Link, Part};
use crate::levers::{self, Levers};
use crate::logs::{COUNTED, Logs, TAPED};
use crate::operator::Operator;
use crate::order::StartOrder;
use crate::proxied::{Calls, Provider};
use crate::retention::{self, Life};
use crate::schedule::Releases;
use crate::tape::Tape;

const PREFIX: &str = "chaos.";
/// Begins groups and transactional ids.
pub const ID_PREFIX: &str = "chaos";
/// The database of all tables.
pub const DATABASE: &str = "chaos";
/// Small, so that a broker that is away for some seconds fills it.
const SPOOL_BYTES: &str = "150000";

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
    /// How long faults happen.
    pub length: Duration,
    /// Which releases run, and which were there before.
    pub releases: Releases,
    /// Where data and logs go.
    pub folder: PathBuf,
}

/// Everything that runs.
pub struct System {
    // Roles end before proxies and servers.
    /// Processors, loader, sidecar, proxy.
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
    /// Behind the proxy.
    provider: Provider,
    /// What it and its callers know.
    pub calls: Arc<Calls>,
    options: SystemOptions,
    /// Nobody starts the loader until its offsets are lost.
    loader_is_held: bool,
    /// Nobody starts ClickHouse until its power is back.
    power_is_off: bool,
    _runtime: Runtime,
}

/// Indexes into the actors and their levers.
pub const LOADER: usize = 2;
/// See [`LOADER`].
const SIDECAR: usize = 3;
const PROXY: usize = 4;
const CLICKHOUSE: usize = 5;
const KAFKA: usize = 6;
const OPERATOR: usize = 7;
/// Names of the actors.
const ROLE_NAMES: [&str; 5] = ["p1", "p2", "loader", "sidecar", "proxy"];
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
        let calls: Arc<Calls> = Arc::default();
        let mut system = Self {
            actors: Vec::new(),
            proxies,
            order,
            stack,
            levers,
            tape: None,
            provider: Provider::start(Arc::clone(&calls))?,
            calls,
            options,
            loader_is_held: false,
            power_is_off: false,
            _runtime: runtime,
        };
        system.actors = system.make_actors();
        for role in 0..ROLE_NAMES.len() {
            system.install(role, &system.options.program)?;
        }
        // A topic that was just made may have no leader yet.
        let patience = Duration::from_secs(30);
        system.operator().insist(&["topics", "create"], patience)?;
        if system.options.releases == Releases::Upgraded {
            system.store_old_formats()?;
        }
        if system.options.life == Life::ShortMemory {
            let kept = retention::kept(system.options.length);
            retention::shorten(&system.stack.kafka.brokers(), PREFIX, kept)?;
        }
        system.tape = Some(Arc::new(system.start_tape()?));
        system.must(&["migrate"])?;
        Ok(system)
    }

    /// As an installation of before is, until it is finalized.
    fn store_old_formats(&self) -> Result<()> {
        let topic = format!("{PREFIX}installation");
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", self.stack.kafka.brokers())
            .create()?;
        let first = BaseRecord::to(&topic)
            .key(FORMAT_KEY)
            .payload(r#"{"v":1,"format":1}"#);
        producer.send(first).map_err(|(error, _)| error)?;
        Ok(producer.flush(Duration::from_secs(20))?)
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
        let proxy = self.proxy_settings();
        let proxy: Vec<_> = proxy.iter().map(|(key, value)| (*key, &**value)).collect();
        let roles: [(&str, OwnSettings<'_>); 5] = [
            ("processor", &[]),
            ("processor", &[]),
            ("loader", &[]),
            ("sidecar", &sidecar),
            ("proxy", proxy.as_slice()),
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

    /// Whether the previous release ran as well.
    pub fn had_two_releases(&self) -> bool {
        self.options.previous.is_some()
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
        let idle = retention::session_idle(self.options.length)
            .map(|idle| ("processor.session_idle", format!("{}s", idle.as_secs())));
        let all = servers.iter().chain(&common).chain(&idle);
        all.flat_map(|(key, value)| ["--set".to_owned(), format!("{key}={value}")])
            .collect()
    }

    /// Whether sessions that get nothing after the beginning have ended when the run does.
    pub fn sessions_idle_out(&self) -> bool {
        retention::session_idle(self.options.length).is_some()
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

    pub fn proxy(&self, link: Link) -> &Proxy {
        match link {
            Link::Kafka(node) => &self.proxies[node],
            Link::ClickHouse => &self.proxies[self.proxies.len() - 1],
        }
    }

    pub fn proxies(&self) -> &[Proxy] {
        &self.proxies
    }

    /// All roles, in the order of the actors.
    pub const ROLES: [Part; 5] = [
        Part::Processor(0),
        Part::Processor(1),
        Part::Loader,
        Part::Sidecar,
        Part::Proxy,
    ];

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
        Part::Proxy => PROXY,
        _ => SIDECAR,
    }
}
