//! Whether the warehouse has everything that was sent before some time.
//!
//! From the usage topic to the warehouse an event passes the meter, perhaps the topic by which it is
//! handed over to its home partition, the meter again, and the loader. Where each of these topics ends
//! is noted when the one before is done: whatever was there at the mark is then loaded.

use std::thread;
use std::time::{Duration, Instant};

use spendfuse_bus::{committed_with_metadata, log_ends};
use spendfuse_domain::UnixMillis;
use spendfuse_loader::checkpoint::is_of_another_database;

use super::super::kafka::{self, PATIENCE};
use super::super::output::{counted, grouped};
use super::super::warehouse::Connection;
use super::Failure;
use crate::settings::Settings;

/// The processor or the loader is given up where it does not move for so long.
pub const STANDS_STILL: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Brokers' clocks differ, and what a meter remembers is known by the minute.
const MARGIN_MILLIS: i64 = 60_000;

/// A moment, and how far what was sent before it has come.
pub struct Mark<'s> {
    settings: &'s Settings,
    /// What is counted before this time, by the brokers' clock, is loaded once the mark is reached.
    pub at: UnixMillis,
    way: Way,
    /// Up to where the topic must be read; 0 where that is done.
    ends: Vec<i64>,
}

/// A piece of the way: the topic that is read there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Usage,
    Rerouted,
    Corrections,
    Rows,
}

impl Way {
    fn topic(self, settings: &Settings) -> String {
        let topics = settings.topics();
        match self {
            Self::Usage => topics.usage,
            Self::Rerouted => topics.rerouted,
            Self::Corrections => topics.corrections,
            Self::Rows => topics.rows,
        }
    }

    fn role(self) -> &'static str {
        match self {
            Self::Usage | Self::Rerouted | Self::Corrections => "meter",
            Self::Rows => "loader",
        }
    }

    fn next(self) -> Option<Self> {
        match self {
            Self::Usage => Some(Self::Rerouted),
            Self::Rerouted | Self::Corrections => Some(Self::Rows),
            Self::Rows => None,
        }
    }
}

impl<'s> Mark<'s> {
    /// Marks what was sent before now.
    pub fn now(settings: &'s Settings) -> Result<Self, Failure> {
        Self::of(settings, Way::Usage)
    }

    /// The same of corrections alone.
    pub fn of_corrections(settings: &'s Settings) -> Result<Self, Failure> {
        Self::of(settings, Way::Corrections)
    }

    fn of(settings: &'s Settings, way: Way) -> Result<Self, Failure> {
        // Before the ends are asked for: what lies beyond them arrived later.
        let Some(stamp) = kafka::newest_report(settings)? else {
            return Err(Failure::work(
                "no processor has ever reported, so nothing is counted; start one: spendfuse processor",
            ));
        };
        Ok(Self {
            settings,
            at: UnixMillis(stamp).plus(-MARGIN_MILLIS),
            way,
            ends: ends(settings, way)?,
        })
    }

    /// When it was made, by the brokers' clock.
    pub fn made_at(&self) -> UnixMillis {
        self.at.plus(MARGIN_MILLIS)
    }

    /// Whether the warehouse has everything, as far as that can be seen now.
    pub fn is_reached(&mut self) -> Result<bool, Failure> {
        Ok(self.look()? == 0)
    }

    /// Waits until the warehouse has everything. `tell` is given what is waited for.
    pub fn wait(&mut self, tell: impl Fn(String)) -> Result<(), Failure> {
        let mut best = (self.way, u64::MAX);
        let mut moved = Instant::now();
        loop {
            let missing = self.look()?;
            if missing == 0 {
                return Ok(());
            }
            if self.way != best.0 || missing < best.1 {
                best = (self.way, missing);
                moved = Instant::now();
            }
            let role = match self.way.role() {
                "meter" => "processor",
                role => role,
            };
            if moved.elapsed() >= STANDS_STILL {
                return Err(Failure::work(format!(
                    "what was sent before is not in ClickHouse, so that nobody can say what was \
                     counted: the {role} stands still with {} to go; see to it (spendfuse doctor), \
                     then run the command again: nothing is counted twice",
                    counted(missing, "record")
                )));
            }
            tell(format!(
                "{} of before wait for the {role}",
                grouped(missing)
            ));
            thread::park_timeout(LOOK_EVERY);
        }
    }

    /// How many records are still to be read on the piece of the way where the mark is.
    fn look(&mut self) -> Result<u64, Failure> {
        loop {
            let missing = self.missing()?;
            if missing > 0 {
                return Ok(missing);
            }
            let Some(next) = self.way.next() else {
                self.must_be_loaded_here()?;
                return Ok(0);
            };
            self.way = next;
            self.ends = ends(self.settings, next)?;
        }
    }

    fn missing(&mut self) -> Result<u64, Failure> {
        let settings = self.settings;
        let (topic, group) = (self.way.topic(settings), self.group());
        let unread = kafka::unread(settings, &group, &topic, &mut self.ends)?;
        Ok(unread.iter().map(|(_, records)| records).sum())
    }

    /// Of a database that was restored from a backup, or lost its disk, the offsets say nothing until its
    /// rebuild is done: whoever took it at its word would count again what it lacks.
    fn must_be_loaded_here(&self) -> Result<(), Failure> {
        let settings = self.settings;
        let connection = Connection::open(settings)?;
        let database = connection.wait(connection.warehouse.database_id())?;
        let (topic, group) = (self.way.topic(settings), self.group());
        let loaded = committed_with_metadata(&settings.kafka(), &group, &topic, PATIENCE)
            .map_err(|error| kafka::failure(settings, &error))?;
        let mut loaded = loaded.iter().flatten();
        let is_elsewhere =
            loaded.any(|known| is_of_another_database(&known.metadata, database.as_deref()));
        match is_elsewhere {
            false => Ok(()),
            true => Err(Failure::work(format!(
                "database {} is not the one that has been loaded, or is still being rebuilt, so that \
                 nobody can say what was counted: run `spendfuse warehouse rebuild`, and when its \
                 loaders are done this command again: nothing is counted twice",
                settings.warehouse().database
            ))),
        }
    }

    fn group(&self) -> String {
        kafka::transactional_id(self.settings, self.way.role())
    }
}

fn ends(settings: &Settings, way: Way) -> Result<Vec<i64>, Failure> {
    log_ends(&settings.kafka(), &way.topic(settings), PATIENCE)
        .map_err(|error| kafka::failure(settings, &error))
}
