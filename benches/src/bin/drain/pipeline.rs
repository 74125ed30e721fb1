//! The servers, the topics, and the processes that are measured.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use spendfuse_bus::KafkaConfig;
use spendfuse_devstack::{
    ClickHouseOptions, DevStack, DevStackOptions, KafkaOptions, Purpose, ServerProcess,
};
use tempfile::TempDir;

use crate::http::ask;
use crate::process::{self, Usage};

/// Partitions of every stage topic.
pub const PARTITIONS: u32 = 4;
/// The topic of the backlog.
pub const USAGE_TOPIC: &str = "spendfuse.usage";

const COUNTED: &str = "spendfuse_events_counted_total";

const BUDGETS: &str = r#"budgets:
  - {id: everything, scope: {}, limit: "1000000.00", window: lifetime, action: warn}
  - {id: per-workspace, scope: {workspace: "*"}, limit: "1000.00", window: day}
  - {id: per-customer, scope: {workspace: "*", customer: "*"}, limit: "5.00", window: day}
  - {id: per-feature, scope: {workspace: "*", customer: "*", feature: "*"}, limit: "20.00", window: month}
"#;

/// Running servers, and the processes on them.
pub struct Pipeline {
    processor: Option<ServerProcess>,
    loader: Option<ServerProcess>,
    settings: Vec<String>,
    admin_address: String,
    stack: DevStack,
    folder: TempDir,
}

impl Pipeline {
    /// Starts the servers, creates topics and tables, applies the budgets. `settings` are further
    /// `KEY=VALUE` for all processes.
    pub fn start(settings: Vec<String>) -> Result<Self> {
        let stack = DevStack::start(DevStackOptions {
            kafka: KafkaOptions {
                purpose: Purpose::Benchmarks,
                ..KafkaOptions::default()
            },
            clickhouse: ClickHouseOptions::default(),
        })?;
        let mut pipeline = Self {
            processor: None,
            loader: None,
            settings: vec![
                format!("kafka.brokers={}", stack.kafka.brokers()),
                format!("clickhouse.url={}", stack.clickhouse.url()),
                format!("partitions={PARTITIONS}"),
            ],
            admin_address: free_address()?,
            stack,
            folder: TempDir::new()?,
        };
        pipeline.settings.extend(settings);
        pipeline.command(&["topics", "create"])?;
        pipeline.command(&["migrate"])?;
        let budgets = pipeline.file("budgets.yaml");
        fs::write(&budgets, BUDGETS)?;
        pipeline.command(&["budgets", "apply", &budgets.display().to_string()])?;
        Ok(pipeline)
    }

    /// How to reach the broker.
    pub fn kafka(&self) -> KafkaConfig {
        KafkaConfig::new(&self.stack.kafka.brokers(), "spendfuse-drain")
    }

    /// Starts the processor.
    pub fn start_processor(&mut self) -> Result<()> {
        let admin = format!("admin.listen={}", self.admin_address);
        self.processor = Some(self.role("processor", &admin)?);
        Ok(())
    }

    /// Starts the loader.
    pub fn start_loader(&mut self) -> Result<()> {
        self.loader = Some(self.role("loader", "admin.listen=")?);
        Ok(())
    }

    /// Events that the processor has counted, 0 while it does not answer yet.
    pub fn counted(&self) -> u64 {
        let metrics = ask(&self.admin_address, "/metrics", "").unwrap_or_default();
        let counts = metrics
            .lines()
            .filter(|line| line.starts_with(COUNTED))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
        counts.sum()
    }

    /// Rows in the warehouse and what they cost, nano-dollars.
    pub fn stored(&self) -> Result<(u64, i128)> {
        let url = self.stack.clickhouse.url();
        let address = url.trim_start_matches("http://").trim_end_matches('/');
        let sql = "SELECT count(), toInt128(sum(cost) * 1000000000) FROM spendfuse.spend";
        let answer = ask(address, "/", sql)?;
        let mut numbers = answer.split_whitespace();
        let rows = numbers.next().context("no answer")?.parse()?;
        let nanos = numbers.next().context("no answer")?.parse()?;
        Ok((rows, nanos))
    }

    /// What the processor has used.
    pub fn processor_usage(&self) -> Result<Usage> {
        usage_of(self.processor.as_ref())?.context("the processor runs")
    }

    /// What the loader has used, where it was started.
    pub fn loader_usage(&self) -> Result<Option<Usage>> {
        usage_of(self.loader.as_ref())
    }

    /// The shares of a core that the processes use while nothing happens; none for no time.
    pub fn idle_shares(&self, time: Duration) -> Result<Vec<(&'static str, f64)>> {
        if time.is_zero() {
            return Ok(Vec::new());
        }
        // The last rows and states are on their way still.
        thread::sleep(Duration::from_secs(3));
        let began = Instant::now();
        let before = (self.processor_usage()?, self.loader_usage()?);
        thread::sleep(time);
        let share = |before: Usage, after: Usage| {
            (after.cpu - before.cpu).as_secs_f64() / began.elapsed().as_secs_f64()
        };
        let mut shares = vec![("processor", share(before.0, self.processor_usage()?))];
        if let (Some(before), Some(after)) = (before.1, self.loader_usage()?) {
            shares.push(("loader", share(before, after)));
        }
        Ok(shares)
    }

    /// The end of the processor's log.
    pub fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.file("processor.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn role(&self, role: &str, admin: &str) -> Result<ServerProcess> {
        let mut arguments = vec![role.to_owned(), "--set".to_owned(), admin.to_owned()];
        arguments.extend(self.setting_arguments());
        let log = self.file(&format!("{role}.log"));
        let process = ServerProcess::new(role.to_owned(), spendfuse()?, arguments, log);
        process.start()?;
        Ok(process)
    }

    fn command(&self, arguments: &[&str]) -> Result<()> {
        let output = Command::new(spendfuse()?)
            .args(arguments)
            .args(self.setting_arguments())
            .current_dir(self.folder.path())
            .output()?;
        ensure!(
            output.status.success(),
            "spendfuse {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    fn setting_arguments(&self) -> impl Iterator<Item = String> {
        self.settings
            .iter()
            .flat_map(|setting| ["--set".to_owned(), setting.clone()])
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn usage_of(process: Option<&ServerProcess>) -> Result<Option<Usage>> {
    let process_id = process.and_then(ServerProcess::process_id);
    process_id.map(process::usage).transpose()
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

fn free_address() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    Ok(listener.local_addr()?.to_string())
}
