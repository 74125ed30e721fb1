//! From the broker's acknowledgement of an event until its verdict is in force in a guard.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use spendfuse_benches::figures::Times;
use spendfuse_benches::lab::{Lab, Role};
use spendfuse_benches::load::{Pace, send_at};
use spendfuse_benches::probe::{GuardProbe, Marks};
use spendfuse_benches::workload::Workload;

use crate::sitting::Sitting;
use crate::table::Line;

const PARTITIONS: u32 = 4;
/// Events whose verdicts are timed, a second.
const MARKED: f64 = 200.0;
/// The stages that a verdict passes.
const STAGES: [&str; 2] = ["meter", "ledger"];
const PATIENCE: Duration = Duration::from_secs(60);
/// What the first seconds of a load bring is not steady yet.
const WARM_UP: Duration = Duration::from_secs(3);

/// A processor under load, and a guard that follows it.
struct Watched {
    lab: Lab,
    processor: Role,
    guard: GuardProbe,
    marks: Arc<Marks>,
    workload: Workload,
    sent: u64,
}

/// What a load at a steady rate brought.
pub struct Observed {
    /// From acknowledged to in force.
    pub lags: Times,
    rate: f64,
    cpu_share: f64,
    broker_share: f64,
    cost: f64,
    /// Commits of the meter and of the ledger.
    commits: [Commits; 2],
    elapsed: Duration,
}

/// How many commits a stage made, and how long they took together.
#[derive(Clone, Copy, Debug)]
struct Commits {
    count: f64,
    seconds: f64,
}

impl Commits {
    fn of(processor: &Role, stage: &str) -> Self {
        let part = |part: &str| {
            let name = format!("spendfuse_stage_commit_seconds_{part}{{stage=\"{stage}\"");
            processor.metric(&name).unwrap_or(0.0)
        };
        Self {
            count: part("count"),
            seconds: part("sum"),
        }
    }

    fn since(self, before: Self) -> Self {
        Self {
            count: self.count - before.count,
            seconds: self.seconds - before.seconds,
        }
    }
}

impl Observed {
    /// What the lag consists of.
    pub fn reason(&self) -> String {
        let [meter, ledger] = self.commits.map(|commits| {
            format!(
                "{:.0} ms ({:.0} a second)",
                commits.seconds * 1e3 / commits.count.max(1.0),
                commits.count / self.elapsed.as_secs_f64()
            )
        });
        let cores = thread::available_parallelism().map_or(0, usize::from);
        format!(
            "a verdict passes two transactions: the meter's takes {meter}, the ledger's {ledger}; \
             the broker answers a request for each partition of them, and uses {:.0} % of a core, \
             the processor {:.0} %, of {cores} cores that senders and readers share",
            self.broker_share * 100.0,
            self.cpu_share * 100.0
        )
    }
}

impl Watched {
    fn start(sitting: &Sitting, lab_name: &str) -> Result<Self> {
        let lab = sitting.lab(lab_name, PARTITIONS)?;
        let marks = Arc::new(Marks::default());
        let processor = lab.start("processor", "1", &[])?;
        let guard = GuardProbe::start(&lab, Arc::clone(&marks))?;
        Ok(Self {
            lab,
            processor,
            guard,
            marks,
            workload: Workload::new("g"),
            sent: 0,
        })
    }

    fn load(&mut self, rate: Option<f64>, marked: f64, duration: Duration) -> Result<u64> {
        let pace = Pace {
            rate,
            duration,
            marked,
        };
        let sent = send_at(&self.lab, &mut self.workload, pace, &self.marks, &|| false)?;
        self.sent += sent;
        Ok(sent)
    }

    fn observe(&mut self, sitting: &Sitting, rate: f64, duration: Duration) -> Result<Observed> {
        self.load(Some(rate), MARKED, WARM_UP)?;
        let commits = |processor: &Role| STAGES.map(|stage| Commits::of(processor, stage));
        let (before, broker) = (
            commits(&self.processor),
            sitting.servers.broker_usage()?.cpu,
        );
        let since = Instant::now();
        let (counted, cpu) = (self.processor.counted(), self.processor.usage()?.cpu);
        let sent = self.load(Some(rate), MARKED, duration)?;
        let elapsed = since.elapsed();
        let counted = self.processor.counted() - counted;
        let cpu = (self.processor.usage()?.cpu - cpu).as_secs_f64();
        let broker = (sitting.servers.broker_usage()?.cpu - broker).as_secs_f64();
        let [meter, ledger] = commits(&self.processor);
        Ok(Observed {
            lags: self.marks.lags(since, PATIENCE)?,
            rate: sent as f64 / elapsed.as_secs_f64(),
            cpu_share: cpu / elapsed.as_secs_f64(),
            broker_share: broker / elapsed.as_secs_f64(),
            cost: cpu * 1e6 / counted.max(1) as f64,
            commits: [meter.since(before[0]), ledger.since(before[1])],
            elapsed,
        })
    }

    fn settle(&self) -> Result<()> {
        self.processor.await_counted(self.sent, PATIENCE)
    }

    /// Events a second while senders, broker and processor share this machine and a backlog grows.
    fn most(&mut self, duration: Duration) -> Result<f64> {
        self.load(None, 0.0, WARM_UP)?;
        let (counted, began) = (self.processor.counted(), Instant::now());
        self.load(None, 0.0, duration)?;
        let rate = (self.processor.counted() - counted) as f64 / began.elapsed().as_secs_f64();
        self.settle()?;
        Ok(rate)
    }
}

/// The lag at 1,000 events/s: what peers are compared with.
pub fn at_a_thousand(sitting: &Sitting, lab_name: &str) -> Result<Observed> {
    let mut watched = Watched::start(sitting, lab_name)?;
    let duration = sitting.choose(Duration::from_secs(15), Duration::from_secs(5));
    watched.observe(sitting, 1_000.0, duration)
}

/// The lines of the row.
pub fn measure(sitting: &mut Sitting) -> Result<Vec<Line>> {
    const ROW: &str = "lag";
    let mut watched = Watched::start(sitting, ROW)?;
    let duration = sitting.choose(Duration::from_secs(30), Duration::from_secs(6));
    // The most comes first: under load the broker's Java compiles what it needs for transactions,
    // which takes a core for half a minute and is not what a broker that runs for days does.
    let most = watched.most(sitting.choose(Duration::from_secs(12), Duration::from_secs(3)))?;
    let slow = watched.observe(sitting, 1_000.0, duration)?;
    let half = watched.observe(sitting, most / 2.0, duration)?;
    watched.settle()?;
    let millis = |times: &Times, percent| times.percentile(percent).as_secs_f64() * 1e3;
    let note = |observed: &Observed| {
        format!(
            "{} verdicts timed at {:.0} events/s; longest {:.0} ms; processor {:.1} % of a core, \
             {:.2} CPU-s/M events",
            observed.lags.count(),
            observed.rate,
            observed.lags.longest().as_secs_f64() * 1e3,
            observed.cpu_share * 100.0,
            observed.cost
        )
    };
    Ok(vec![
        Line::new(
            ROW,
            "acknowledged → in force, 1,000 events/s",
            slow.lags.in_millis(),
        )
        .target(
            "p50 ≤ 25, p99 ≤ 80 ms",
            millis(&slow.lags, 50.0) <= 25.0 && millis(&slow.lags, 99.0) <= 80.0,
        )
        .because(slow.reason())
        .note(note(&slow)),
        Line::new(
            ROW,
            format!(
                "the same at {:.0} k events/s, half the most",
                half.rate / 1e3
            ),
            half.lags.in_millis(),
        )
        .target("p99 ≤ 150 ms", millis(&half.lags, 99.0) <= 150.0)
        .because(half.reason())
        .note(format!(
            "{}; the most is {:.0} k events/s with senders and broker on the same cores; the \
             guard holds {} entries",
            note(&half),
            most / 1e3,
            watched.guard.entry_count()
        )),
    ])
}
