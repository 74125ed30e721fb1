//! An unmodified Apache Kafka on this machine: one or three KRaft nodes.

mod archive;
mod java;
mod nodes;
mod probe;
mod properties;
mod segment;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::child::ServerProcess;
use crate::error::DevStackError;
use crate::folder::DataFolder;
use crate::locate;
use crate::ports::ReservedPort;
use archive::ClassArchive;
use java::{JavaCommand, QUICK_START};
use nodes::{addresses, prepare_node, reserve_ports};
pub use segment::{Damage, Segment, StoredBatch};

use properties::{Detour, NodeAddress, Role};

/// What the broker is started for: tests want it up soon, benchmarks want it fast.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Purpose {
    /// Starts in about two thirds of the time: one compiler tier, serial collector.
    #[default]
    Tests,
    /// The JVM's own defaults.
    Benchmarks,
}

/// How to start Kafka.
#[derive(Debug, Clone)]
pub struct KafkaOptions {
    /// Number of nodes, each broker and controller: 1 or 3.
    pub nodes: u16,
    /// Where data and logs are kept; `None` is a temporary folder that goes with the value.
    pub folder: Option<PathBuf>,
    /// The first node's port, or the next free one above it; `None` is any free port.
    pub port: Option<u16>,
    /// What it is started for.
    pub purpose: Purpose,
    /// Lines of `server.properties` that are added, or replace ours.
    pub properties: Vec<(String, String)>,
    /// With one node: further listeners, by protocol (`SSL`, `SASL_SSL`) and port.
    pub more_listeners: Vec<(&'static str, u16)>,
    /// Ports of proxies, one a node: clients that come by [`Kafka::detour_brokers`] are told these
    /// and stay behind the proxies, which forward to [`Kafka::detour_port`]. Empty = none.
    pub detours: Vec<u16>,
    /// With one node: a controller process of its own, which outlives the broker when that is
    /// killed, as in production. A broker that is its own controller starts with a stale idea of who
    /// leads, and Kafka 4.3 then drops the ends of transactions that were under way (seen in fault
    /// runs: "Couldn't find leader endpoint … likely deleted already", and readers stuck for ever).
    pub controller_apart: bool,
    /// Variables of the processes' environment, besides those of this process.
    pub environment: Vec<(String, String)>,
    /// How long a node may take to get ready.
    pub patience: Duration,
}

impl Default for KafkaOptions {
    fn default() -> Self {
        Self {
            nodes: 1,
            folder: None,
            port: None,
            purpose: Purpose::default(),
            properties: Vec::new(),
            more_listeners: Vec::new(),
            detours: Vec::new(),
            controller_apart: false,
            environment: Vec::new(),
            // Two seconds on an idle machine; tests run where compilers do.
            patience: Duration::from_secs(90),
        }
    }
}

/// A running Kafka. Nodes are counted from 0. Dropped, it is killed.
#[derive(Debug)]
pub struct Kafka {
    // Processes before the folder: they end before their data is removed.
    nodes: Vec<Node>,
    controller: Option<ServerProcess>,
    patience: Duration,
    folder: DataFolder,
}

#[derive(Debug)]
struct Node {
    process: ServerProcess,
    broker: ReservedPort,
    _controller: ReservedPort,
    detour: Option<(ReservedPort, u16)>,
}

impl Kafka {
    /// Starts Kafka and waits until every node is part of the cluster and takes requests.
    ///
    /// # Errors
    /// [`DevStackError::NotSetUp`] without the jars; [`DevStackError::Ended`] or
    /// [`DevStackError::NotReady`], with the end of the log, where a node does not come up.
    ///
    /// # Panics
    /// Where `options.nodes` is neither 1 nor 3, or there are detours for some nodes only.
    pub fn start(options: KafkaOptions) -> Result<Self, DevStackError> {
        let class_archive = match options.purpose {
            Purpose::Tests => ClassArchive::recorded(&locate::kafka_jars()?),
            Purpose::Benchmarks => ClassArchive::Unused,
        };
        Self::start_with(&options, &class_archive)
    }

    fn start_with(
        options: &KafkaOptions,
        class_archive: &ClassArchive,
    ) -> Result<Self, DevStackError> {
        assert!(
            matches!(options.nodes, 1 | 3),
            "a cluster of {} nodes is not supported: 1 or 3",
            options.nodes
        );
        let nodes = usize::from(options.nodes);
        assert!(
            options.detours.is_empty() || options.detours.len() == nodes,
            "{} detours for {nodes} nodes",
            options.detours.len()
        );
        assert!(
            nodes == 1 || !options.controller_apart,
            "three nodes are their own controllers"
        );
        let java = JavaCommand::new(options, class_archive)?;
        let folder = match &options.folder {
            Some(path) => DataFolder::named(path)?,
            None => DataFolder::temporary()?,
        };
        let count = nodes * 2 + options.detours.len();
        let mut ports = reserve_ports(folder.path(), count, options.port)?;
        let detour_ports = ports.split_off(nodes * 2);
        let mut addresses = addresses(&ports, options.controller_apart);
        for ((address, port), advertised) in addresses
            .iter_mut()
            .zip(&detour_ports)
            .zip(&options.detours)
        {
            address.detour = Some(Detour {
                port: port.number(),
                advertised: *advertised,
            });
        }

        let mut ports = ports.into_iter();
        let mut detour_ports = detour_ports.into_iter();
        let mut nodes = Vec::new();
        for address in &addresses {
            let node_folder = folder.path().join(format!("node-{}", address.id));
            let process = prepare_node(&node_folder, &java, address, &addresses, options)?;
            nodes.push(Node {
                process,
                broker: ports.next().expect("two ports a node were reserved"),
                _controller: ports.next().expect("two ports a node were reserved"),
                detour: detour_ports
                    .next()
                    .zip(address.detour.map(|detour| detour.advertised)),
            });
        }
        let controller = match addresses[0].role {
            Role::Broker => {
                let apart = NodeAddress {
                    role: Role::Controller,
                    detour: None,
                    ..addresses[0]
                };
                let folder = folder.path().join("controller");
                Some(prepare_node(&folder, &java, &apart, &addresses, options)?)
            }
            _ => None,
        };
        for process in controller
            .iter()
            .chain(nodes.iter().map(|node| &node.process))
        {
            process.start()?;
        }
        let kafka = Self {
            nodes,
            controller,
            patience: options.patience,
            folder,
        };
        kafka.wait_ready()?;
        Ok(kafka)
    }

    /// The bootstrap servers: `127.0.0.1:PORT`, by commas.
    pub fn brokers(&self) -> String {
        let addresses: Vec<String> = self
            .nodes
            .iter()
            .map(|node| format!("127.0.0.1:{}", node.broker.number()))
            .collect();
        addresses.join(",")
    }

    /// The bootstrap servers of clients that must stay behind the proxies.
    ///
    /// # Panics
    /// Where it was started without detours.
    pub fn detour_brokers(&self) -> String {
        let address = |node: &Node| {
            let (_, advertised) = node.detour.as_ref().expect("it was started with detours");
            format!("127.0.0.1:{advertised}")
        };
        let addresses: Vec<String> = self.nodes.iter().map(address).collect();
        addresses.join(",")
    }

    /// Where a node's proxy forwards to.
    ///
    /// # Panics
    /// Where it was started without detours.
    pub fn detour_port(&self, node: usize) -> u16 {
        let detour = self.nodes[node].detour.as_ref();
        detour
            .map(|(port, _)| port.number())
            .expect("it was started with detours")
    }

    /// Number of nodes, running or not.
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// Where data and logs are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// SIGKILL: what a crash of the broker's process looks like.
    pub fn kill(&self, node: usize) {
        self.nodes[node].process.kill();
    }

    /// SIGTERM: a controlled shutdown. Returns whether it ended within a minute; a node that did
    /// not is killed.
    pub fn stop(&self, node: usize) -> bool {
        self.nodes[node].process.stop(Duration::from_secs(60))
    }

    /// SIGSTOP: connections stay open, nothing answers.
    pub fn pause(&self, node: usize) {
        self.nodes[node].process.pause();
    }

    /// SIGCONT: ends a pause.
    pub fn resume(&self, node: usize) {
        self.nodes[node].process.resume();
    }

    /// Starts a node that was killed or stopped, on the same port and data, without waiting.
    ///
    /// # Errors
    /// Where the process cannot be started.
    pub fn restart(&self, node: usize) -> Result<(), DevStackError> {
        self.nodes[node].process.start()
    }

    /// Waits until every node takes requests and sees all others.
    ///
    /// # Errors
    /// [`DevStackError::Ended`] or [`DevStackError::NotReady`].
    pub fn wait_ready(&self) -> Result<(), DevStackError> {
        let begin = Instant::now();
        for node in &self.nodes {
            let left = self.patience.saturating_sub(begin.elapsed());
            node.process.wait_ready(left, || {
                let seen = probe::live_brokers(node.broker.number())?;
                if seen == self.nodes.len() {
                    Ok(())
                } else {
                    Err(format!("it sees {seen} live brokers"))
                }
            })?;
        }
        Ok(())
    }

    /// The process id of a node, while it runs.
    pub fn process_id(&self, node: usize) -> Option<u32> {
        self.nodes[node].process.process_id()
    }

    /// A call of one of Kafka's own tools, such as `org.apache.kafka.tools.ConsoleProducer`, from
    /// the broker's jars; arguments follow.
    ///
    /// # Errors
    /// [`DevStackError::NotSetUp`] without the jars.
    pub fn tool(class: &str) -> Result<Command, DevStackError> {
        let mut command = Command::new(locate::java());
        command
            .args(QUICK_START)
            .args(["-cp", &format!("{}/*", locate::kafka_jars()?.display())])
            .arg(class);
        Ok(command)
    }

    /// Stops all nodes (SIGTERM, then SIGKILL) and keeps the data of a named folder.
    pub fn shut_down(self) {
        for node in &self.nodes {
            node.process.terminate();
        }
        for node in &self.nodes {
            // The last nodes of three wait in vain for a quorum; what they hold is in the page
            // cache already.
            node.process.stop(Duration::from_secs(5));
        }
        if let Some(controller) = &self.controller {
            controller.stop(Duration::from_secs(5));
        }
    }
}
