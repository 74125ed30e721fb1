//! `spendfuse audit`: input, row blocks, warehouse, rollups, deltas, ledger and blocklist compared.
//!
//! The arithmetic is the engine's (`spendfuse_engine::audit`); here is what reads the sides. Nothing
//! has to stand still: each comparison takes what both sides have come to, and what is not settled
//! is said and left for the next time.

mod auditor;
mod blocks;
mod budgets;
mod deltas;
mod input;
mod ledger;
mod look;
mod metrics;
mod prices;
mod print;
mod rollups;
mod sql;
mod tail;
mod watch;
mod windows;

pub use metrics::ALL as METRICS;

use std::cell::Cell;
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use jiff::SignedDuration;
use spendfuse_bus::Shutdown;
use spendfuse_domain::Topics;

use super::warehouse::Connection;
use super::{Failure, found_wrong, kafka, output};
use crate::settings::Settings;
use auditor::Auditor;

const POLL: Duration = Duration::from_millis(100);
/// How long the loader may need for rows that are in its topics.
const LOADER_PATIENCE: Duration = Duration::from_secs(20);

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  spendfuse audit\n  spendfuse audit --since 2h --json | jq '.differences[]'\n  spendfuse audit --watch --every 30s --set admin.listen=127.0.0.1:4119\n\nExit code 0: nothing differs; 1: something does."
)]
pub struct AuditArgs {
    /// Go on comparing what comes; figures stand on the admin address' /metrics
    #[arg(long)]
    watch: bool,
    /// With --watch: how often to compare; long rounds are kept to a twentieth of the time
    #[arg(long, value_name = "DURATION", default_value = "30s", requires = "watch", value_parser = duration)]
    every: Duration,
    /// Only what arrived within this time; without it everything that Kafka still has
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    since: Option<Duration>,
    /// Print JSON; with --watch a line a round
    #[arg(long)]
    json: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "write a duration such as 30s, 15m or 2h".to_owned();
    let parsed: SignedDuration = text.parse().map_err(|_| wrong())?;
    Duration::try_from(parsed).map_err(|_| wrong())
}

pub fn run(settings: &Settings, args: &AuditArgs) -> Result<ExitCode, Failure> {
    let connection = Connection::open(settings)?;
    let since = args.since.map(|since| {
        let millis = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        output::now().plus(-millis).0
    });
    let context = Context {
        settings,
        connection: &connection,
        topics: settings.topics(),
        since,
        waited: Cell::new(Duration::ZERO),
    };
    if args.watch {
        return watch::run(&context, args);
    }
    let mut auditor = Auditor::new(&context)?;
    let round = auditor.round(&context, false)?;
    print::round(&round, args.json);
    Ok(match round.differences().is_empty() {
        true => ExitCode::SUCCESS,
        false => found_wrong(),
    })
}

/// What was not compared, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// In words.
    pub text: String,
    /// Whether waiting helps: a role is behind.
    pub is_behind: bool,
}

impl Note {
    /// Something that cannot be compared.
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            is_behind: false,
        }
    }

    /// Something that cannot be compared yet.
    pub fn behind(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            is_behind: true,
        }
    }
}

/// Where the sides are.
pub struct Context<'a> {
    settings: &'a Settings,
    connection: &'a Connection,
    topics: Topics,
    /// Only what arrived since then, milliseconds since 1970.
    since: Option<i64>,
    /// How long the audit has waited for others so far.
    waited: Cell<Duration>,
}

impl Context<'_> {
    /// Waits for others, or for another look.
    fn pause(&self, time: Duration) {
        Shutdown::new().wait(time);
        self.waited.set(self.waited.get() + time);
    }

    /// The rows of an answer of ClickHouse.
    fn ask(&self, question: &str) -> Result<Vec<Vec<String>>, Failure> {
        let answer = self.connection.warehouse.query_table(question);
        Ok(self.connection.wait(answer)?.rows)
    }

    fn group(&self, role: &str) -> String {
        format!("{}-{role}", self.settings.text("transactional_id_prefix"))
    }

    /// Per partition, the next offset of an input topic that the meter will process.
    fn processed(&self, topic: &str) -> Result<Vec<Option<i64>>, Failure> {
        input::group_offsets(self, &self.group("meter"), topic)
    }

    /// Per topic of rows and partition, the offset up to which everything is in the warehouse.
    fn loaded(&self) -> Result<[Vec<i64>; 2], Failure> {
        let offsets = |topic: &str| -> Result<Vec<i64>, Failure> {
            let offsets = input::group_offsets(self, &self.group("loader"), topic)?;
            Ok(offsets
                .into_iter()
                .map(|offset| offset.unwrap_or(0))
                .collect())
        };
        let topics = &self.topics;
        Ok([offsets(&topics.rows)?, offsets(&topics.rows_ledger)?])
    }

    /// Waits until the warehouse has all rows that are in their topics now. `false`: it does not get
    /// there in time.
    fn wait_until_loaded(&self) -> Result<bool, Failure> {
        let topics = [&self.topics.rows, &self.topics.rows_ledger];
        let mut missing = Vec::new();
        for (place, topic) in topics.into_iter().enumerate() {
            let ranges = kafka::ranges(self.settings, topic)?;
            missing.extend(ranges.into_iter().map(|range| (place, topic, range)));
        }
        let begin = Instant::now();
        loop {
            let loaded = self.loaded()?;
            let mut still_missing = Vec::new();
            for (place, topic, mut range) in missing {
                range.from = range.from.max(loaded[place][range.partition as usize]);
                // What lies beyond the last record is no record: the ends of transactions.
                let mut has_record = false;
                kafka::read(self.settings, topic, &[range], &mut |_| {
                    has_record = true;
                    ControlFlow::Break(())
                })?;
                if has_record {
                    still_missing.push((place, topic, range));
                }
            }
            missing = still_missing;
            if missing.is_empty() {
                return Ok(true);
            }
            if begin.elapsed() > LOADER_PATIENCE {
                return Ok(false);
            }
            self.pause(POLL);
        }
    }
}
