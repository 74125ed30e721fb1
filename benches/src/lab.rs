//! Real servers, topics and tables of one measurement, and the real binary's roles on them.

use std::collections::HashMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use spendfuse_bus::KafkaConfig;
use spendfuse_devstack::{
    ClickHouseOptions, DevStack, DevStackOptions, KafkaOptions, Purpose, ServerProcess,
};
use tempfile::TempDir;

use crate::http::ask;
use crate::process::{self, Usage};

const COUNTED: &str = "spendfuse_events_counted_total";

/// Kafka and ClickHouse, shared by all measurements of a sitting.
pub struct Servers {
    stack: DevStack,
    folder: TempDir,
}

impl Servers {
    /// Starts both, as fast as they get.
    ///
    /// # Errors
    /// Where a server does not come up.
    pub fn start() -> Result<Self> {
        let stack = DevStack::start(DevStackOptions {
            kafka: KafkaOptions {
                purpose: Purpose::Benchmarks,
                ..KafkaOptions::default()
            },
            clickhouse: ClickHouseOptions::default(),
        })?;
        let folder = TempDir::new()?;
        Ok(Self { stack, folder })
    }

    /// The bootstrap servers.
    pub fn brokers(&self) -> String {
        self.stack.kafka.brokers()
    }

    /// A folder that is removed with the servers.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where the broker keeps its logs.
    pub fn broker_data(&self) -> PathBuf {
        self.stack.kafka.folder().join("node-1/data")
    }

    /// What the broker has used.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn broker_usage(&self) -> Result<Usage> {
        let process = self.stack.kafka.process_id(0);
        process::usage(process.context("the broker does not run")?)
    }

    /// What ClickHouse has used.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn warehouse_usage(&self) -> Result<Usage> {
        let process = self.stack.clickhouse.process_id();
        process::usage(process.context("ClickHouse does not run")?)
    }
}

/// Topics, tables and settings of one measurement; others do not see them.
pub struct Lab {
    name: String,
    brokers: String,
    clickhouse_url: String,
    settings: Vec<String>,
    folder: PathBuf,
    /// Partitions of every stage topic.
    pub partitions: u32,
}

impl Lab {
    /// Creates topics and tables, and applies `budgets` (YAML). `settings` are further `KEY=VALUE`
    /// for all roles.
    ///
    /// # Errors
    /// Where a command fails, with what it said.
    pub fn create(
        servers: &Servers,
        name: &str,
        partitions: u32,
        budgets: &str,
        settings: &[String],
    ) -> Result<Self> {
        let folder = servers.folder().join(name);
        fs::create_dir(&folder)?;
        let mut lab = Self {
            name: name.to_owned(),
            brokers: servers.brokers(),
            clickhouse_url: servers.stack.clickhouse.url(),
            settings: Vec::new(),
            folder,
            partitions,
        };
        lab.settings = vec![
            format!("kafka.brokers={}", lab.brokers),
            format!("clickhouse.url={}", lab.clickhouse_url),
            format!("clickhouse.database={}", lab.database()),
            format!("partitions={partitions}"),
            format!("topic_prefix={name}."),
            format!("transactional_id_prefix={name}"),
        ];
        lab.settings.extend_from_slice(settings);
        lab.command(&["topics", "create"])?;
        lab.command(&["migrate"])?;
        lab.apply_budgets(budgets)?;
        Ok(lab)
    }

    /// Applies budgets (YAML), without waiting until they are in force.
    ///
    /// # Errors
    /// Where the command refuses, with what it said.
    pub fn apply_budgets(&self, yaml: &str) -> Result<()> {
        let file = self.folder.join("budgets.yaml");
        fs::write(&file, yaml)?;
        self.command(&["budgets", "apply", "--no-wait", &file.display().to_string()])?;
        Ok(())
    }

    /// Full name of the topic `name`.
    pub fn topic(&self, name: &str) -> String {
        format!("{}.{name}", self.name)
    }

    /// The database of its tables.
    pub fn database(&self) -> String {
        format!("spendfuse_{}", self.name)
    }

    /// Address of ClickHouse.
    pub fn clickhouse_url(&self) -> &str {
        &self.clickhouse_url
    }

    /// How to reach the broker.
    pub fn kafka(&self) -> KafkaConfig {
        KafkaConfig::new(&self.brokers, "spendfuse-bench")
    }

    /// Where files of this measurement may be put.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Starts a role of the real binary; `settings` are further `KEY=VALUE` for it alone.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start(&self, role: &str, instance: &str, settings: &[String]) -> Result<Role> {
        let admin = free_address()?;
        let mut arguments = vec![role.to_owned()];
        let own = [
            format!("admin.listen={admin}"),
            format!("instance_id={instance}"),
        ];
        for setting in self.settings.iter().chain(&own).chain(settings) {
            arguments.extend(["--set".to_owned(), setting.clone()]);
        }
        let log = self.folder.join(format!("{role}-{instance}.log"));
        let process = ServerProcess::new(role.to_owned(), spendfuse()?, arguments, log.clone());
        process.start()?;
        Ok(Role {
            process,
            admin,
            log,
        })
    }

    /// Rows in table `spend` and what they cost, nano-dollars.
    ///
    /// # Errors
    /// Where ClickHouse does not answer.
    pub fn stored(&self) -> Result<(u64, i128)> {
        let answer = self.of_spend("count(), toInt128(sum(cost) * 1000000000)", "")?;
        let mut numbers = answer.split_whitespace();
        let rows = numbers.next().context("no answer")?.parse()?;
        let nanos = numbers.next().context("no answer")?.parse()?;
        Ok((rows, nanos))
    }

    /// Waits until table `spend` has so many rows that cost so much, nano-dollars.
    ///
    /// # Errors
    /// Where it has not after `patience`; with what it has.
    pub fn await_stored(&self, wanted: (u64, i128), patience: Duration) -> Result<()> {
        let began = Instant::now();
        loop {
            let found = self.stored()?;
            if found == wanted {
                return Ok(());
            }
            ensure!(
                began.elapsed() < patience,
                "rows and nano-dollars in the warehouse: {found:?}, not {wanted:?}"
            );
            thread::sleep(Duration::from_millis(250));
        }
    }

    /// What each customer has cost by the warehouse's rows, nano-dollars.
    ///
    /// # Errors
    /// Where ClickHouse does not answer.
    pub fn stored_by_customer(&self) -> Result<HashMap<String, i128>> {
        let columns = "customer, toInt128(sum(cost) * 1000000000)";
        let answer = self.of_spend(columns, "GROUP BY customer")?;
        let sum = |line: &str| -> Result<(String, i128)> {
            let (customer, nanos) = line.split_once('\t').context("a line without a sum")?;
            Ok((customer.to_owned(), nanos.parse()?))
        };
        answer.lines().map(sum).collect()
    }

    fn of_spend(&self, columns: &str, clauses: &str) -> Result<String> {
        let sql = format!("SELECT {columns} FROM {}.spend {clauses}", self.database());
        let address = self.clickhouse_url.trim_start_matches("http://");
        ask(address.trim_end_matches('/'), "/", &sql)
    }

    /// Runs a command of the real binary with this lab's settings.
    ///
    /// # Errors
    /// Where it fails, with what it said.
    pub fn command(&self, arguments: &[&str]) -> Result<String> {
        let settings = self.settings.iter();
        let output = Command::new(spendfuse()?)
            .args(arguments)
            .args(settings.flat_map(|setting| ["--set", setting]))
            .current_dir(&self.folder)
            .output()?;
        ensure!(
            output.status.success(),
            "spendfuse {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// A running role. Dropped, it is killed.
pub struct Role {
    process: ServerProcess,
    admin: String,
    log: PathBuf,
}

impl Role {
    /// What it has used since its start.
    ///
    /// # Errors
    /// Where it does not run any more, with the end of its log.
    pub fn usage(&self) -> Result<Usage> {
        match (self.process.exit_status(), self.process.process_id()) {
            (None, Some(process)) => process::usage(process),
            (status, _) => bail!("a role ended ({status:?}):\n{}", self.log_tail()),
        }
    }

    /// Events that it has counted, 0 while it does not answer yet.
    pub fn counted(&self) -> u64 {
        self.metric(COUNTED).unwrap_or(0.0) as u64
    }

    /// Waits until it has counted so many events.
    ///
    /// # Errors
    /// Where it ends before, or takes longer than `patience`.
    pub fn await_counted(&self, events: u64, patience: Duration) -> Result<()> {
        let began = Instant::now();
        loop {
            let counted = self.counted();
            if counted >= events {
                return Ok(());
            }
            self.usage()?;
            ensure!(
                began.elapsed() < patience,
                "{counted} of {events} events counted"
            );
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// The sum of the lines of its metrics that begin with `name`; `None` where there is none.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let metrics = ask(&self.admin, "/metrics", "").ok()?;
        let lines = metrics.lines().filter(|line| line.starts_with(name));
        let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        values.reduce(|one, other| one + other)
    }

    /// Its process id, while it runs.
    pub fn process_id(&self) -> Option<u32> {
        self.process.process_id()
    }

    /// SIGKILL.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// Starts it again after a kill.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn restart(&self) -> Result<()> {
        Ok(self.process.start()?)
    }

    /// SIGTERM, and waits.
    pub fn stop(self) {
        self.process.stop(Duration::from_secs(20));
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

/// The executable next to this one: both are built with the same profile.
fn spendfuse() -> Result<PathBuf> {
    let this = std::env::current_exe()?;
    let path = this.parent().unwrap_or(Path::new("/")).join("spendfuse");
    ensure!(
        path.is_file(),
        "{} is not built; `make bench` builds it",
        path.display()
    );
    Ok(path)
}

/// An address on this machine that nobody listens on.
///
/// # Errors
/// Where the system has none.
pub fn free_address() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    Ok(listener.local_addr()?.to_string())
}
