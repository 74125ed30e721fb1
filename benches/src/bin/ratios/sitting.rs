//! What the rows of one sitting share: servers, sizes, and measurements that several rows quote.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use spendfuse_benches::lab::{Lab, Servers};
use spendfuse_benches::workload::BUDGETS;

use crate::pipeline::Drained;

/// One run of the bench.
pub struct Sitting {
    /// Kafka and ClickHouse.
    pub servers: Servers,
    /// Whether everything is to be short.
    pub quick: bool,
    /// Events in the backlog of a throughput measurement.
    pub events: u64,
    /// Sizes of state after which a restart is measured.
    pub sizes: Vec<u64>,
    settings: Vec<String>,
    drained: Option<Drained>,
}

impl Sitting {
    /// Starts the servers.
    pub fn start(quick: bool, events: Option<u64>, settings: Vec<String>) -> Result<Self> {
        let by_default = if quick { 400_000 } else { 2_000_000 };
        Ok(Self {
            servers: Servers::start()?,
            quick,
            events: events.unwrap_or(by_default),
            sizes: Vec::new(),
            settings,
            drained: None,
        })
    }

    /// `long`, or `short` where everything is to be short.
    pub fn choose<T>(&self, long: T, short: T) -> T {
        if self.quick { short } else { long }
    }

    /// New topics and tables with the bench's budgets.
    pub fn lab(&self, name: &str, partitions: u32) -> Result<Lab> {
        self.lab_with(name, partitions, BUDGETS)
    }

    /// New topics and tables with budgets of their own.
    pub fn lab_with(&self, name: &str, partitions: u32, budgets: &str) -> Result<Lab> {
        Lab::create(&self.servers, name, partitions, budgets, &self.settings)
    }

    /// The drained backlog; the first row that asks measures it.
    pub fn drained(&mut self) -> Result<&Drained> {
        if self.drained.is_none() {
            self.drained = Some(Drained::measure(self)?);
        }
        let drained = self.drained.as_ref();
        Ok(drained.expect("it was measured just now"))
    }
}

/// A peer that is not part of the build: fetched into the cache folder by `benches/peers/fetch`,
/// once. Returns its folder.
pub fn fetch(peer: &str) -> Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/fetch");
    let output = Command::new(&script)
        .arg(peer)
        .output()
        .with_context(|| format!("running {}", script.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}", said.trim());
    let folder = String::from_utf8_lossy(&output.stdout);
    Ok(PathBuf::from(folder.trim()))
}
