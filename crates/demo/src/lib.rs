//! The demo: an hour of real model traffic through the real pipeline, watched live and checked.
//!
//! In: addresses of Kafka and ClickHouse where nothing of the demo exists yet. [`scenario`] is the
//! script, [`player`] plays it, [`watcher`] follows what the pipeline publishes as an enforcement
//! point does, [`view`] draws it. Then [`ledger`], the warehouse and [`reference`] say what was
//! spent, and [`outcome`] compares them. Called by the executable beside it (`command`), which starts
//! the roles between [`Demo::prepare`] and [`Demo::run`].

mod board;
mod budgets;
mod clock;
mod error;
mod event;
mod gate;
mod ledger;
mod made_up;
mod outcome;
mod player;
mod progress;
mod questions;
mod real_hour;
mod reference;
mod scenario;
mod settle;
mod summary;
mod view;
mod wait;
mod watcher;

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use spendfuse_bus::{KafkaConfig, Shutdown};
use spendfuse_domain::Topics;
use spendfuse_warehouse::Warehouse;
use tokio::runtime::Handle;

use board::{Phase, SharedBoard, open};
use budgets::DemoBudgets;
use gate::Gate;
use outcome::Measured;
use player::{Played, Player};
use scenario::Scenario;
use settle::Whereabouts;
use watcher::Watcher;

pub use error::DemoError;
pub use outcome::{Difference, Outcome};
pub use player::Sabotage;
pub use settle::MetricsText;
pub use summary::differences;

/// The roles have this long to come up.
const ROLES_PATIENCE: Duration = Duration::from_secs(60);
const POLL_WAREHOUSE: Duration = Duration::from_millis(500);

/// Where the demo is played.
pub struct Stage {
    /// Brokers.
    pub kafka: KafkaConfig,
    /// Topics that nobody else uses.
    pub topics: Topics,
    /// Their partitions.
    pub partitions: u32,
    /// Begins the demo's transactional ids.
    pub transactional_id: String,
    /// A database that nobody else uses, migrated, with the prices in table `prices`.
    pub warehouse: Warehouse,
    /// Version of those prices.
    pub price_version: String,
    /// The Unix socket of a sidecar on these topics; without one a guard in this process is asked.
    pub sidecar: Option<PathBuf>,
    /// Runs what waits for ClickHouse and the sidecar.
    pub runtime: Handle,
    /// The processor's metrics.
    pub metrics: Arc<MetricsText>,
}

/// How it is played.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How much of the real hour, percent.
    pub percent: u32,
    /// Whether to draw on the terminal.
    pub draw: bool,
    /// A deliberate fault.
    pub sabotage: Option<Sabotage>,
}

/// The demo, ready to be played.
pub struct Demo {
    stage: Stage,
    options: Options,
    budgets: DemoBudgets,
}

/// What the demo has to say when it is over.
pub struct Report {
    /// The figures.
    pub outcome: Outcome,
    /// The summary for people.
    pub text: String,
}

impl Demo {
    /// Puts the budgets into force.
    ///
    /// # Errors
    /// What Kafka says.
    pub fn prepare(stage: Stage, options: Options) -> Result<Self, DemoError> {
        let id = format!("{}-budgets", stage.transactional_id);
        let budgets = DemoBudgets::apply(&stage.kafka, &stage.topics.budgets, &id, clock::now())?;
        Ok(Self {
            stage,
            options,
            budgets,
        })
    }

    /// Plays it with roles that are running or about to, and compares what came out.
    ///
    /// # Errors
    /// [`DemoError::Stopped`] where `shutdown` was requested, or what went wrong.
    pub fn run(self, shutdown: &Shutdown) -> Result<Report, DemoError> {
        let board = SharedBoard::default();
        if !self.options.draw {
            let _progress = progress::ProgressLines::start(&board);
            return self.play(&board, shutdown);
        }
        let over = Shutdown::new();
        thread::scope(|scope| {
            let playing = scope.spawn(|| {
                let _over = RequestAtEnd(&over);
                self.play(&board, shutdown)
            });
            let drawn = view::draw(&board, &over, shutdown);
            let report = playing
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            drawn.and(report)
        })
    }

    fn play(self, board: &SharedBoard, shutdown: &Shutdown) -> Result<Report, DemoError> {
        let Self {
            stage,
            options,
            budgets,
        } = self;
        let watcher = Watcher::start(&stage.kafka, &stage.topics, stage.partitions, board)?;
        watcher.wait_until_live(ROLES_PATIENCE, shutdown)?;
        let mut gate = match &stage.sidecar {
            Some(socket) => Gate::sidecar(socket, &stage.runtime),
            None => Gate::Guard(watcher.guard.clone()),
        };
        gate.wait_until_live(ROLES_PATIENCE, shutdown)?;
        let scenario = Scenario::new(options.percent, clock::now());
        let player = Player::new(
            &stage.kafka,
            &stage.topics.usage,
            stage.partitions,
            board,
            gate,
            budgets,
            options.sabotage,
        );
        let polled = Shutdown::new();
        let played = thread::scope(|scope| {
            scope.spawn(|| stage.poll_warehouse(board, &polled));
            // Also where playing panics: the scope waits for the poll.
            let _over = RequestAtEnd(&polled);
            player.play(&scenario, shutdown)
        })?;
        stage.conclude(&scenario, &played, board, shutdown)
    }
}

/// Asks to stop when it goes out of scope.
struct RequestAtEnd<'a>(&'a Shutdown);

impl Drop for RequestAtEnd<'_> {
    fn drop(&mut self) {
        self.0.request();
    }
}

impl Stage {
    /// Shows how many rows have arrived, while events are produced.
    fn poll_warehouse(&self, board: &SharedBoard, until: &Shutdown) {
        while !until.wait(POLL_WAREHOUSE) {
            // What fails here fails again when it matters.
            if let Ok(totals) = self.runtime.block_on(self.warehouse.totals()) {
                open(board).warehouse = (totals.entries, totals.cost);
            }
        }
    }

    fn conclude(
        &self,
        scenario: &Scenario,
        played: &Played,
        board: &SharedBoard,
        shutdown: &Shutdown,
    ) -> Result<Report, DemoError> {
        open(board).phase = Phase::Settling;
        let produced = played.events.len() as u64;
        let (whereabouts, totals): (Whereabouts, _) = settle::wait(
            produced,
            &self.warehouse,
            &self.runtime,
            &*self.metrics,
            board,
            shutdown,
        )?;
        let elapsed = played.began.unwrap_or_else(Instant::now).elapsed();
        open(board).phase = Phase::Checking;
        let ledger = ledger::total(&self.kafka, &self.topics.ledger_changelog, self.partitions)?;
        let asked = async {
            let version = &self.price_version;
            let reference = reference::compute(&self.warehouse, &played.events, version).await?;
            let answers = questions::ask(&self.warehouse).await?;
            Ok::<_, DemoError>((reference, answers))
        };
        let (reference, answers) = self.runtime.block_on(asked)?;
        let board = {
            let mut board = open(board);
            board.phase = Phase::Over;
            board.clone()
        };
        let outcome = Measured {
            scenario,
            played,
            board: &board,
            whereabouts,
            ledger,
            warehouse: totals.cost,
            reference,
            elapsed,
        }
        .judge();
        let text = summary::text(&outcome, &board, &answers, view::width());
        Ok(Report { outcome, text })
    }
}
