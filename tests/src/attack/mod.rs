//! What a hostile program can do to a sidecar, and what honest callers see of it.
//!
//! Slow connections, half-sent bodies, requests made to break things, invented names: each comes on
//! top of the ones before, while one caller goes on asking honest questions. The attacker is a
//! process of its own with the lowest priority, as if it had a machine of its own. Loopback only,
//! and everything bounded in count and time.

mod attacker;
mod client;
mod honest;
mod hostile;
mod slow;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use crate::admin::Address;
use crate::wait::pause;
use attacker::{Attacker, Step};
use honest::Honest;

pub use attacker::{ATTACKER_FLAG, obey, of_lowest_priority};
pub use client::Client;

/// How much of everything.
#[derive(Clone, Copy, Debug, Args)]
pub struct Plan {
    /// Connections that send half a head, a byte a second
    #[arg(long, default_value_t = 900)]
    pub slow: usize,
    /// Connections that send half a body
    #[arg(long, default_value_t = 60)]
    pub half: usize,
    /// Bytes of such a body that are sent; twice as many are announced
    #[arg(long, default_value_t = 4_000_000)]
    pub half_bytes: usize,
    /// Requests made to break things
    #[arg(long, default_value_t = 50_000)]
    pub requests: usize,
    /// How many of them in a second
    #[arg(long, default_value_t = 1_000)]
    pub rate: usize,
    /// Models, customers and sessions that nobody has heard of
    #[arg(long, default_value_t = 100_000)]
    pub names: usize,
    /// How many seconds the honest caller asks in calm, and while only connections are held
    #[arg(long, default_value_t = 20)]
    pub seconds: u64,
}

impl Plan {
    fn arguments(&self) -> Vec<String> {
        let numbers = [
            ("slow", self.slow),
            ("half", self.half),
            ("half-bytes", self.half_bytes),
            ("requests", self.requests),
            ("rate", self.rate),
            ("names", self.names),
        ];
        let flags = numbers.map(|(name, number)| format!("--{name}={number}"));
        let seconds = format!("--seconds={}", self.seconds);
        flags.into_iter().chain([seconds]).collect()
    }

    fn phase(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

/// Answers by status; 0 where the connection was closed instead.
type Answers = BTreeMap<u16, usize>;

/// One thing that was done, and what the honest caller saw meanwhile.
#[derive(Debug)]
pub struct Phase {
    /// In words.
    pub what: String,
    /// Honest questions that were not answered 200, also when asked again on a new connection.
    pub failures: usize,
    /// Honest questions that were.
    pub answered: usize,
    /// Half of the answers came within this.
    pub p50: Duration,
    /// 99 of 100 did.
    pub p99: Duration,
    /// The slowest answer of the admin address.
    pub admin: Duration,
    /// The most memory that was seen, bytes.
    pub memory: u64,
}

/// One attack.
#[derive(Debug)]
pub struct Report {
    /// In the order of the attack.
    pub phases: Vec<Phase>,
    /// Hostile requests by answer; 0 where the connection was closed instead.
    pub answers: BTreeMap<u16, usize>,
}

/// Asks honest questions of the sidecar at `api`, and looks at the admin address of the same one.
#[derive(Clone, Copy, Debug)]
pub struct Observer {
    /// Where checks are answered.
    pub api: Address,
    /// Where its metrics are.
    pub admin: Address,
}

impl Observer {
    /// What honest callers see while nobody attacks; `what` says so in a few words.
    pub fn calm(self, what: &str, plan: &Plan) -> Phase {
        self.during(what, || pause(plan.phase()))
    }

    /// What they see while `program`, which calls [`obey`], attacks the sidecar at `attacked`: the
    /// one that is asked, or another one of the same machine.
    ///
    /// # Panics
    /// Where the attacker cannot be started, or ends.
    pub fn attack(self, attacked: Address, program: &Path, plan: &Plan) -> Report {
        let mut attacker = Attacker::start(program, attacked, plan);
        let mut answers = Answers::new();
        let mut phases = Vec::new();
        for step in Step::ALL {
            phases.push(self.during(&step.told(plan), || {
                for (status, count) in attacker.take(step) {
                    *answers.entry(status).or_default() += count;
                }
                if matches!(step, Step::Slow | Step::Half) {
                    pause(plan.phase());
                }
            }));
        }
        Report { phases, answers }
    }

    fn during(self, what: &str, work: impl FnOnce()) -> Phase {
        let done = Arc::new(AtomicBool::new(false));
        let asking = {
            let done = Arc::clone(&done);
            thread::spawn(move || Honest::ask_until(self.api, &done))
        };
        let watching = {
            let done = Arc::clone(&done);
            thread::spawn(move || self.watch(&done))
        };
        work();
        done.store(true, Ordering::SeqCst);
        let honest = asking.join().expect("the honest caller does not panic");
        let (admin, memory) = watching.join().expect("the observer does not panic");
        Phase {
            what: what.to_owned(),
            failures: honest.failures,
            answered: honest.times.len(),
            p50: honest.percentile(50),
            p99: honest.percentile(99),
            admin,
            memory,
        }
    }

    /// The slowest answer of the admin address, and the most memory.
    fn watch(self, done: &AtomicBool) -> (Duration, u64) {
        let (mut slowest, mut most) = (Duration::ZERO, 0);
        while !done.load(Ordering::SeqCst) {
            let began = Instant::now();
            let (_, text) = self.admin.get("/metrics").unwrap_or_default();
            slowest = slowest.max(began.elapsed());
            let memory = text.lines().find_map(|line| {
                let value = line.strip_prefix("process_resident_memory_bytes ")?;
                value.parse::<u64>().ok()
            });
            most = most.max(memory.unwrap_or_default());
            pause(Duration::from_millis(100));
        }
        (slowest, most)
    }
}

impl Report {
    /// Memory at its most, beyond what it was in calm, bytes.
    pub fn growth(&self, calm: &Phase) -> u64 {
        let memory = self.phases.iter().map(|phase| phase.memory);
        let most = memory.max().unwrap_or_default();
        most.saturating_sub(calm.memory)
    }

    /// The slowest p99 of honest answers.
    pub fn p99(&self) -> Duration {
        let all = self.phases.iter().map(|phase| phase.p99);
        all.max().unwrap_or_default()
    }
}

/// The columns of [`Phase`].
pub fn columns() -> String {
    format!(
        "{:<38} {:>8} {:>6} {:>9} {:>9} {:>9} {:>7}",
        "", "honest", "failed", "p50", "p99", "admin", "memory"
    )
}

impl fmt::Display for Phase {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |time: Duration| format!("{:.2} ms", time.as_secs_f64() * 1e3);
        write!(
            formatter,
            "{:<38} {:>8} {:>6} {:>9} {:>9} {:>9} {:>4} MB",
            self.what,
            self.answered,
            self.failures,
            millis(self.p50),
            millis(self.p99),
            millis(self.admin),
            self.memory / 1_000_000
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for phase in &self.phases {
            writeln!(formatter, "{phase}")?;
        }
        write!(formatter, "hostile requests by answer:")?;
        for (status, count) in &self.answers {
            match status {
                0 => write!(formatter, " closed {count}")?,
                status => write!(formatter, " {status} {count}")?,
            }
        }
        Ok(())
    }
}
