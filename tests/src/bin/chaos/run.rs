//! One run: start, faults under load, peace, checks.

mod faults;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use crate::behind::Behind;
use crate::budgets::Budgets;
use crate::changes::{Change, OPERATOR_PATIENCE, first_prices, operate};
use crate::check::{self, Check, Depth};
use crate::clock::{self, Boundary};
use crate::events::Events;
use crate::ledger::{Book, Ledger};
use crate::proxied;
use crate::quiet::Quiet;
use crate::retention::Life;
use crate::rows::PriceBooks;
use crate::schedule::{Planned, Releases, schedule};
use crate::sender::{KafkaSender, Running, SidecarSender};
use crate::system::{ID_PREFIX, System, SystemOptions};
use crate::timeline::{Step, timeline};
use spendfuse_testkit::proxy::Proxy;
use spendfuse_tests::random::Random;

const KAFKA_EVENTS_A_SECOND: u64 = 300;
const SIDECAR_EVENTS_A_SECOND: u64 = 60;
/// How long everything may take to settle after the faults.
const SETTLE: Duration = Duration::from_secs(150);
/// About how long servers, topics and tables take to be there.
const PREPARATION: Duration = Duration::from_secs(12);
const PROGRESS_EVERY: Duration = Duration::from_secs(15);

/// What to run.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// Decides everything that happens.
    pub seed: u64,
    /// How long faults happen.
    pub length: Duration,
    /// Nodes of Kafka.
    pub nodes: u16,
    /// The executable.
    pub program: PathBuf,
    /// That of the previous release, where it takes turns.
    pub previous: Option<PathBuf>,
    /// Where data and logs go.
    pub folder: PathBuf,
}

/// What a run found.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Faults injected, by kind.
    pub faults: BTreeMap<String, u64>,
    /// What happened, in numbers.
    pub figures: Vec<(&'static str, u64)>,
    /// What was compared.
    pub checks: Vec<Check>,
}

impl Outcome {
    /// Whether nothing differs.
    pub fn is_right(&self) -> bool {
        self.checks.iter().all(|check| check.differences.is_empty())
    }

    /// How many faults were injected.
    pub fn fault_count(&self) -> u64 {
        self.faults.values().sum()
    }
}

/// Runs the faults of a seed and checks what is left.
pub fn run(options: &RunOptions) -> Result<Outcome> {
    let life = Life::of(options.seed);
    let nodes = usize::from(options.nodes);
    let releases = match options.previous {
        Some(_) => Releases::TakeTurns,
        None => Releases::of(options.seed),
    };
    let planned = schedule(options.seed, options.length, nodes, life, releases);
    let mut world = World::start(
        SystemOptions {
            nodes: options.nodes,
            program: options.program.clone(),
            previous: options.previous.clone(),
            broken: None,
            life,
            length: options.length,
            releases,
            folder: options.folder.clone(),
        },
        options.seed,
        options.length.as_secs(),
    )?;
    world.start_roles()?;
    let mut senders = vec![world.send_to_kafka()?, world.send_to_sidecar()];
    if releases != Releases::TakeTurns {
        senders.extend(world.call_through_proxy());
    }
    world.carry_out(&planned, options.length)?;
    world.settle(senders, SETTLE, Depth::Everything)
}

/// The system, those who use it, and what they know.
pub struct World {
    /// The parts.
    pub system: System,
    /// What was promised.
    pub ledger: Arc<Ledger>,
    /// The budgets in force, or on their way there.
    pub budgets: Budgets,
    pub prices: PriceBooks,
    /// Faults so far.
    pub faults: BTreeMap<String, u64>,
    seed: u64,
    /// What was done when, by the time that logs bear.
    diary: File,
    quiet: Quiet,
    random: Random,
    changes: Sender<Change>,
    operator: JoinHandle<Result<PriceBooks>>,
    posts: Arc<(AtomicU64, AtomicU64)>,
    finalized_at: Option<Instant>,
    tells_more: bool,
    /// Calls that are corrected, or on their way to it.
    corrected: BTreeSet<usize>,
}

impl World {
    /// Starts servers and proxies and puts the first budgets into force, for events of so many
    /// seconds; roles do not run yet.
    pub fn start(options: SystemOptions, seed: u64, seconds: u64) -> Result<Self> {
        let boundary = Boundary::of(seed);
        boundary.comes_after(PREPARATION + Duration::from_secs(seconds) / 2);
        let diary = File::create(options.folder.join("faults.log"))?;
        let tells_more = options.releases == Releases::One;
        let system = System::start(options)?;
        let budgets = Budgets::new(seed, seconds, boundary);
        let operator = system.operator();
        operator.apply_budgets(&budgets.yaml(), OPERATOR_PATIENCE)?;
        let prices = first_prices(&system)?;
        let (changes, todo) = channel();
        let ledger = Arc::new(Ledger::default());
        let noted = Arc::clone(&ledger);
        let operator = thread::spawn(move || operate(&operator, &todo, &noted));
        Ok(Self {
            system,
            ledger,
            budgets,
            prices,
            faults: BTreeMap::new(),
            seed,
            diary,
            quiet: Quiet::default(),
            random: Random::new(seed, 2),
            changes,
            operator,
            posts: Arc::default(),
            finalized_at: None,
            tells_more,
            corrected: BTreeSet::new(),
        })
    }

    /// Starts every role.
    pub fn start_roles(&mut self) -> Result<()> {
        for role in System::ROLES {
            self.system.start_part(role)?;
        }
        Ok(())
    }

    /// A sender to the usage topic, past the proxies.
    pub fn kafka_sender(&self) -> Result<KafkaSender> {
        let logs = self.system.logs();
        KafkaSender::new(&logs.kafka, logs.topic("usage"), Arc::clone(&self.ledger))
    }

    /// A sender to the sidecar.
    pub fn sidecar_sender(&self) -> SidecarSender {
        SidecarSender {
            socket: self.system.socket(),
            ledger: Arc::clone(&self.ledger),
            posts: Arc::clone(&self.posts),
        }
    }

    /// Mixed events to Kafka until the end.
    pub fn send_to_kafka(&self) -> Result<Running> {
        let events = Events::new(self.seed, 3, self.quiet.clone()).telling_more(self.tells_more);
        Ok(Running::kafka(
            self.kafka_sender()?,
            events,
            KAFKA_EVENTS_A_SECOND,
        ))
    }

    /// Good events to the sidecar until the end.
    pub fn send_to_sidecar(&self) -> Running {
        let events = Events::new(self.seed, 5, self.quiet.clone());
        let rate = SIDECAR_EVENTS_A_SECOND;
        Running::sidecar(self.sidecar_sender(), events, self.seed, rate)
    }

    /// Calls through the proxy until the end.
    pub fn call_through_proxy(&self) -> Vec<Running> {
        let system = &self.system;
        proxied::call(self.seed, system, &self.ledger, &self.quiet)
    }

    /// Injects the faults at their times, then waits until `length` is over.
    pub fn carry_out(&mut self, planned: &[Planned], length: Duration) -> Result<()> {
        let begin = Instant::now();
        let mut progress_at = begin + PROGRESS_EVERY;
        // Where logs keep everything nothing is lost by being late.
        let behind = (self.system.life() == Life::ShortMemory)
            .then(|| Behind::watch(self.system.logs(), format!("{ID_PREFIX}-loader")));
        let mut spared = BTreeSet::new();
        for (at, number, step) in timeline(planned) {
            self.system.wait_until(begin + at)?;
            if let Step::Fault(fault) = step
                && behind.as_ref().is_some_and(|behind| behind.spares(fault))
            {
                writeln!(
                    self.diary,
                    "{} the loader is spared {fault:?}",
                    clock::now()
                )?;
                spared.insert(number);
            }
            if !spared.contains(&number) {
                self.step(step)?;
            }
            if Instant::now() >= progress_at {
                progress_at += PROGRESS_EVERY;
                let book = self.ledger.snapshot();
                let faults: u64 = self.faults.values().sum();
                // Else it looks as if the senders stood still.
                let quiet = match self.quiet.is_total() {
                    true => "; nothing is sent now, as planned",
                    false => "",
                };
                eprintln!(
                    "{:>4} s: {faults} faults, {} of {} records acknowledged{quiet}",
                    begin.elapsed().as_secs(),
                    book.acknowledged,
                    book.sent
                );
            }
        }
        self.system.wait_until(begin + length)
    }

    /// Ends all faults and all sending, waits until nothing is under way, and checks everything.
    pub fn settle(
        mut self,
        senders: impl IntoIterator<Item = Running>,
        patience: Duration,
        depth: Depth,
    ) -> Result<Outcome> {
        eprintln!("faults are over; everything settles");
        self.quiet.end();
        self.system.heal()?;
        for sender in senders {
            sender.finish()?;
        }
        drop(self.changes);
        self.system.await_proxy()?;
        let named = self.system.named_by_proxy();
        self.system.calls.settle(&self.ledger, &named);
        let operated = self.operator.join();
        let made = operated.map_err(|_| anyhow!("the operator panicked"))??;
        self.prices.extend(made);
        let checks = check::everything(check::Everything {
            system: &mut self.system,
            book: &self.ledger.snapshot(),
            budgets: &mut self.budgets,
            prices: &self.prices,
            patience,
            depth,
        })?;
        let book = self.ledger.snapshot();
        let kafka = self.system.proxies().len() - 1;
        let lost = self.system.proxies()[..kafka].iter().map(Proxy::lost).sum();
        let mut figures = figures(&book, &self.posts, lost);
        figures.extend(self.system.calls.figures(&named));
        let removed = self.system.logs().removed("usage")?;
        figures.push(("records of the usage topic that retention removed", removed));
        for actor in &mut self.system.actors {
            actor.stop();
        }
        Ok(Outcome {
            faults: self.faults,
            figures,
            checks,
        })
    }
}

fn figures(book: &Book, posts: &(AtomicU64, AtomicU64), lost: u64) -> Vec<(&'static str, u64)> {
    vec![
        ("events made", book.events.len() as u64),
        ("records sent", book.sent),
        ("records acknowledged", book.acknowledged),
        (
            "posts taken by the sidecar",
            posts.0.load(Ordering::Relaxed),
        ),
        (
            "posts refused or unanswered",
            posts.1.load(Ordering::Relaxed),
        ),
        ("records with other content", book.conflicts),
        ("records that tell more of a call", book.grown),
        ("calls voided", book.voided.len() as u64),
        ("calls amended", book.amended.len() as u64),
        ("Kafka messages lost by name", lost),
    ]
}
