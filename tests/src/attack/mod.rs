//! What a hostile program on this machine can do to a sidecar, and what honest callers see of it.
//!
//! Slow connections, half-sent bodies, requests made to break things, invented names: each comes on
//! top of the ones before, while one caller goes on asking honest questions. Loopback only, and
//! everything bounded in count and time.

mod client;
mod honest;
mod hostile;
mod slow;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::admin::Address;
use crate::wait::pause;
use honest::Honest;

pub use client::Client;

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Connections that send half a head, a byte a second.
    pub slow: usize,
    /// Connections that send half a body.
    pub half: usize,
    /// Bytes of such a body that are sent; twice as many are announced.
    pub half_bytes: usize,
    /// Requests made to break things.
    pub requests: usize,
    /// How many of them a second: who has two cores must leave one to the rest.
    pub requests_per_second: usize,
    /// Models, customers and sessions that nobody has heard of.
    pub names: usize,
    /// How long the honest caller asks in calm, and while only connections are held.
    pub phase: Duration,
}

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

/// What happened.
#[derive(Debug)]
pub struct Report {
    /// The first is the calm before.
    pub phases: Vec<Phase>,
    /// Hostile requests by answer; 0 where the connection was closed instead.
    pub answers: BTreeMap<u16, usize>,
}

/// Attacks the sidecar at `api`, whose metrics are at `admin`.
pub fn attack(api: Address, admin: Address, plan: &Plan) -> Report {
    attack_beside(api, api, admin, plan)
}

/// Attacks the sidecar at `attacked`, while the honest caller asks the one at `api`. Where that is
/// another one, it tells what the attackers and their victim take from everybody on the machine.
pub fn attack_beside(attacked: Address, api: Address, admin: Address, plan: &Plan) -> Report {
    let observer = Observer { api, admin };
    let stop = Arc::new(AtomicBool::new(false));
    let mut phases = vec![observer.during("calm", || pause(plan.phase))];
    let mut answers = BTreeMap::new();
    thread::scope(|scope| {
        let held = Arc::clone(&stop);
        scope.spawn(move || slow::heads(attacked, plan.slow, &held));
        let what = format!("{} slow connections", plan.slow);
        phases.push(observer.during(&what, || pause(plan.phase)));
        let held = Arc::clone(&stop);
        scope.spawn(move || slow::bodies(attacked, plan.half, plan.half_bytes, &held));
        let megabytes = plan.half_bytes / 1_000_000;
        let what = format!("and {} half bodies of {megabytes} MB", plan.half);
        phases.push(observer.during(&what, || pause(plan.phase)));
        let what = format!("and {} hostile requests", plan.requests);
        phases.push(observer.during(&what, || answers = hostile::requests(attacked, plan)));
        let what = format!("and {} invented names", plan.names);
        phases.push(observer.during(&what, || {
            for (status, count) in hostile::names(attacked, plan) {
                *answers.entry(status).or_default() += count;
            }
        }));
        stop.store(true, Ordering::SeqCst);
    });
    Report { phases, answers }
}

/// Asks honest questions and looks at the admin address while something is done.
#[derive(Clone, Copy)]
struct Observer {
    api: Address,
    admin: Address,
}

impl Observer {
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
    pub fn growth(&self) -> u64 {
        let memory = self.phases.iter().map(|phase| phase.memory);
        let calm = self.phases.first().map_or(0, |calm| calm.memory);
        memory.max().unwrap_or_default().saturating_sub(calm)
    }

    /// The worst p99 of honest answers under attack, by that of the same phase where another
    /// sidecar of this machine was attacked: what is left is what the attacked one makes of it.
    pub fn slow_down(&self, beside: &Self) -> f64 {
        let both = self.phases.iter().zip(&beside.phases).skip(1);
        let ratios = both.map(|(one, other)| one.p99.as_secs_f64() / other.p99.as_secs_f64());
        ratios.fold(0.0, f64::max)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "{:<38} {:>8} {:>6} {:>9} {:>9} {:>9} {:>7}",
            "", "honest", "failed", "p50", "p99", "admin", "memory"
        )?;
        let millis = |time: Duration| format!("{:.2} ms", time.as_secs_f64() * 1e3);
        for phase in &self.phases {
            writeln!(
                formatter,
                "{:<38} {:>8} {:>6} {:>9} {:>9} {:>9} {:>4} MB",
                phase.what,
                phase.answered,
                phase.failures,
                millis(phase.p50),
                millis(phase.p99),
                millis(phase.admin),
                phase.memory / 1_000_000
            )?;
        }
        write!(formatter, "hostile requests by answer:")?;
        for (status, count) in &self.answers {
            match status {
                0 => write!(formatter, " closed {count}")?,
                status => write!(formatter, " {status} {count}")?,
            }
        }
        writeln!(formatter)?;
        write!(formatter, "memory grew by {} MB", self.growth() / 1_000_000)
    }
}
