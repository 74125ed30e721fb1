//! LiteLLM's proxy with PostgreSQL and Redis in front of the same stub; see `benches/peers/litellm`.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use spendfuse_benches::figures::Times;
use spendfuse_benches::lab::Servers;
use spendfuse_benches::process::{Usage, usage_with_children};
use spendfuse_devstack::ServerProcess;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::callers::Connection;
use crate::client::{Address, ChatProtocol, Protocol, as_fast, paced};
use crate::sitting::{Sitting, fetch};
use crate::stub::Stub;
use crate::table::Line;

const ROW: &str = "proxy";
/// How the version that `benches/peers/fetch` has is called.
pub const NAME: &str = "LiteLLM 1.108.7";
/// Where it takes chat completions.
pub const PATH: &str = "/v1/chat/completions";
const MASTER: &str = "Authorization: Bearer sk-master\r\n";
/// It starts for 25 s on a quiet machine.
const PATIENCE: Duration = Duration::from_secs(240);
/// Calls a second that one of its workers answers with ease.
const RATE: u32 = 20;
const WARM_UP: Duration = Duration::from_secs(3);

/// How it is set.
#[derive(Clone, Copy)]
pub struct Settings {
    /// As `benches/peers/litellm/serve` calls it.
    name: &'static str,
    /// As the table does.
    pub what: &'static str,
}

/// As it comes, and with all that its documentation has against overspending.
pub const SETTINGS: [Settings; 2] = [
    Settings {
        name: "default",
        what: "defaults",
    },
    Settings {
        name: "strict",
        what: "strictest",
    },
];

/// Running workers with a database and a Redis of their own. Dropped, all of it ends.
pub struct LiteLlm {
    process: ServerProcess,
    workers: Vec<u32>,
    /// Where each worker listens.
    pub addresses: Vec<String>,
    folder: TempDir,
}

impl LiteLlm {
    /// Starts it, and waits until every worker is ready.
    pub fn start(
        servers: &Servers,
        stub: &Stub,
        settings: Settings,
        workers: usize,
    ) -> Result<Self> {
        let (peer, redis) = (fetch("litellm")?, fetch("redis")?);
        let folder = tempfile::tempdir_in(servers.folder())?;
        let serve = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/litellm/serve");
        let log = folder.path().join("serve.log");
        let arguments = vec![
            peer.display().to_string(),
            redis.display().to_string(),
            folder.path().display().to_string(),
            stub.address.clone(),
            settings.name.to_owned(),
            workers.to_string(),
        ];
        let process = ServerProcess::new(NAME.to_owned(), serve, arguments, log);
        process.start()?;
        let mut litellm = Self {
            process,
            workers: Vec::new(),
            addresses: Vec::new(),
            folder,
        };
        let ready = litellm.folder.path().join("ready");
        litellm.process.wait_ready(PATIENCE, || {
            let is_there = ready.is_file();
            is_there.then_some(()).ok_or("it is starting".to_owned())
        })?;
        for line in fs::read_to_string(&ready)?.lines() {
            let (worker, address) = line.split_once(' ').context("a process and an address")?;
            litellm.workers.push(worker.parse()?);
            litellm.addresses.push(address.to_owned());
        }
        ensure!(
            litellm.workers.len() == workers,
            "not all workers are there"
        );
        Ok(litellm)
    }

    /// The header line of a new key with a budget, known to every worker: a crowd that asks with
    /// one that is not would measure the database.
    pub async fn key(&self, dollars: f64) -> Result<String> {
        let asked = json!({"max_budget": dollars});
        let mut connection = Connection::patient(&self.addresses[0], MASTER);
        let answer = connection.post("/key/generate", &asked).await?;
        let key = answer["key"].as_str().context("a key")?;
        let headers = format!("Authorization: Bearer {key}\r\n");
        let unknown = json!({"model": "none", "messages": []});
        for address in &self.addresses {
            let mut connection = Connection::patient(address, &headers);
            // It is refused for its model, after the key was looked up, and costs nothing.
            connection.exchange(PATH, &unknown).await?;
        }
        Ok(headers)
    }

    /// What the workers and their database engines have used; PostgreSQL and Redis are not in it.
    fn usage(&self) -> Result<Usage> {
        let mut sum = Usage::default();
        for worker in &self.workers {
            let one = usage_with_children(*worker)?;
            sum.cpu += one.cpu;
            sum.memory_kib += one.memory_kib;
            sum.peak_memory_kib += one.peak_memory_kib;
        }
        Ok(sum)
    }

    fn measure(&self, duration: Duration) -> Result<Found> {
        let runtime = Runtime::new()?;
        let protocol = ChatProtocol {
            path: PATH,
            headers: runtime.block_on(self.key(1e6))?,
        };
        let addresses = self.addresses.iter().cloned().map(Address::Tcp);
        let addresses: Vec<Address> = addresses.collect();
        Found::measure(&addresses, &protocol, || self.usage(), duration)
    }
}

impl Drop for LiteLlm {
    fn drop(&mut self) {
        // It takes its database along.
        self.process.stop(Duration::from_secs(20));
    }
}

/// What was found of a proxy.
pub struct Found {
    times: Times,
    rate: f64,
    cpu_a_thousand: f64,
    memory_mib: f64,
}

impl Found {
    /// Asks at [`RATE`], then as fast as it goes. `used` says what its processes have used.
    pub fn measure<P: Protocol>(
        addresses: &[Address],
        protocol: &P,
        used: impl Fn() -> Result<Usage>,
        duration: Duration,
    ) -> Result<Self> {
        paced(addresses, protocol, RATE, WARM_UP)?;
        let times = paced(addresses, protocol, RATE, duration)?;
        let before = used()?.cpu;
        let began = Instant::now();
        let rate = as_fast(addresses, protocol, duration)?;
        let answered = rate * began.elapsed().as_secs_f64();
        let after = used()?;
        Ok(Self {
            times,
            rate,
            cpu_a_thousand: (after.cpu - before).as_secs_f64() / answered * 1e3,
            memory_mib: after.memory_kib as f64 / 1024.0,
        })
    }

    fn in_words(&self) -> String {
        format!(
            "{} at {RATE} calls/s, {:.0} calls/s at most, {:.2} CPU-s per 1,000, {:.0} MiB",
            self.times.in_millis(),
            self.rate,
            self.cpu_a_thousand,
            self.memory_mib
        )
    }
}

/// A line for each of its settings, with one worker and with two, beside what was found of ours;
/// a single one that says why where it cannot be had.
pub fn beside(sitting: &Sitting, stub: &Stub, ours: &Found, duration: Duration) -> Vec<Line> {
    let line = |what: String| Line::new(ROW, what, ours.in_words());
    if let Err(why) = fetch("litellm").and_then(|_| fetch("redis")) {
        return vec![line(format!("beside {NAME}")).against(skipped(&why))];
    }
    let mut lines = Vec::new();
    for workers in 1..=2 {
        for settings in SETTINGS {
            let started = LiteLlm::start(&sitting.servers, stub, settings, workers);
            let found = started.and_then(|litellm| litellm.measure(duration));
            let line = line(format!("beside {NAME}, {}", told(settings, workers)));
            lines.push(match found {
                Err(why) => line.against(skipped(&why)),
                Ok(theirs) => {
                    let (one, other) = (ours.cpu_a_thousand, theirs.cpu_a_thousand);
                    line.against(theirs.in_words())
                        .ratio(other, one)
                        .target("≥ 100× less CPU", other >= one * 100.0)
                        .note(
                            "CPU and most: sixteen callers; CPU and memory are the proxies' own \
                             and their database engines', not PostgreSQL's, Redis's, the broker's \
                             or the processor's",
                        )
                }
            });
        }
    }
    lines
}

/// `one worker, defaults`.
pub fn told(settings: Settings, workers: usize) -> String {
    let workers = match workers {
        1 => "one worker".to_owned(),
        count => format!("{count} workers"),
    };
    format!("{workers}, {}", settings.what)
}

/// Why there is nothing of it, on one line.
pub fn skipped(why: &anyhow::Error) -> String {
    let why = format!("{why:#}");
    let last = why.lines().rfind(|line| !line.trim().is_empty());
    format!("{NAME} was not measured: {}", last.unwrap_or_default())
}
