//! A budgets topic that was deleted and made again under its name: versions begin again, so what
//! stages remember of the old ones never comes.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use spendfuse_bus::{BusError, Condition, Part};
use spendfuse_engine::book::BudgetBook;

/// A version that another process has seen is here within milliseconds. Before the broker is asked
/// that long passes, and between two questions.
const PATIENCE: Duration = Duration::from_secs(5);

type EndOfTopic = Box<dyn Fn() -> Result<i64, BusError> + Send>;

/// Finds out why a version of the budgets does not come.
pub struct Lookout {
    topic: String,
    end: EndOfTopic,
    health: Part,
    patience: Duration,
    /// The versions that somebody waits for. Each partition has its own.
    waits: BTreeMap<u64, Wait>,
    /// The end of the topic when the broker was last asked, `None` where it did not say.
    asked: Option<(Instant, Option<u64>)>,
    /// People were told that budgets are waited for.
    told: bool,
}

#[derive(Clone, Copy, Debug)]
struct Wait {
    since: Instant,
    /// When somebody last needed the version: a partition may go to another process.
    needed_at: Instant,
}

impl Lookout {
    /// `end` asks the broker for the end of `topic`, `health` tells people.
    pub fn new(
        topic: &str,
        health: Part,
        end: impl Fn() -> Result<i64, BusError> + Send + 'static,
    ) -> Self {
        Self {
            topic: topic.to_owned(),
            end: Box::new(end),
            health,
            patience: PATIENCE,
            waits: BTreeMap::new(),
            asked: None,
            told: false,
        }
    }

    /// The same with another patience, for tests.
    #[cfg(test)]
    pub(crate) fn patient_for(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Whether `version` is of a topic that is gone, and the budgets of the new one can be used.
    /// Before somebody has applied any, there are none, and to go on without would end every
    /// account and lift every block.
    pub(crate) fn is_gone(&mut self, version: u64, known: &BudgetBook) -> bool {
        let now = Instant::now();
        let wait = self.waits.entry(version).or_insert(Wait {
            since: now,
            needed_at: now,
        });
        wait.needed_at = now;
        if now.duration_since(wait.since) < self.patience {
            return false;
        }
        // An end that was asked for within this time is that of a moment when the version was there.
        let end = match self.asked {
            Some((at, end)) if now.duration_since(at) < self.patience => end,
            _ => self.ask(),
        };
        let Some(end) = end else {
            return false;
        };
        let topic = &self.topic;
        if end >= version {
            self.waits(format!(
                "version {version} of the budgets is in topic {topic} and not read yet"
            ));
            return false;
        }
        if known.is_empty() {
            self.waits(format!(
                "topic {topic} was made anew and is empty: what is counted belongs to version {version} of the budgets, and the topic ends at {end}; write the budgets again with `spendfuse budgets apply FILE`, then counting goes on with what was counted"
            ));
            return false;
        }
        tracing::error!(
            topic,
            version,
            end,
            "the budgets topic was made anew; its budgets are used, and budgets that it lacks end"
        );
        self.told = false;
        self.waits.remove(&version);
        self.health.tell(Condition::ReadyBut(format!(
            "topic {topic} was made anew; the budgets in it are in force, and those that it lacks have ended"
        )));
        true
    }

    /// The budgets in force are those of all records before `end`: nobody waits for these versions
    /// any more.
    pub(crate) fn reached(&mut self, end: u64) {
        let now = Instant::now();
        let kept = self.patience * 2;
        self.waits
            .retain(|version, wait| *version > end && now.duration_since(wait.needed_at) <= kept);
        if self.waits.is_empty() && std::mem::take(&mut self.told) {
            self.health.ready();
        }
    }

    fn ask(&mut self) -> Option<u64> {
        let end = (self.end)();
        if let Err(error) = &end {
            let topic = &self.topic;
            self.waits(format!("cannot ask for the end of topic {topic}: {error}"));
        }
        let end = end.ok().map(i64::unsigned_abs);
        self.asked = Some((Instant::now(), end));
        end
    }

    fn waits(&mut self, reason: String) {
        tracing::error!(reason, "waiting for budgets");
        self.told = true;
        self.health.not_ready(reason);
    }
}

impl fmt::Debug for Lookout {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Lookout")
            .field("topic", &self.topic)
            .finish_non_exhaustive()
    }
}
