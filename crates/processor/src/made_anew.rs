//! A budgets topic that was deleted and made again under its name: versions begin again, so what
//! stages remember of the old ones never comes.

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
    waits_since: Option<Instant>,
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
            waits_since: None,
        }
    }

    /// The same without waiting, for tests.
    #[cfg(test)]
    pub(crate) fn at_once(mut self) -> Self {
        self.patience = Duration::ZERO;
        self
    }

    /// Whether `version` is of a topic that is gone, and the budgets of the new one can be used.
    /// Before somebody has applied any, there are none, and to go on without would end every
    /// account and lift every block.
    pub(crate) fn is_gone(&mut self, version: u64, known: &BudgetBook) -> bool {
        let now = Instant::now();
        let since = *self.waits_since.get_or_insert(now);
        if now.duration_since(since) < self.patience {
            return false;
        }
        self.waits_since = Some(now);
        let topic = &self.topic;
        let end = match (self.end)() {
            Ok(end) => end,
            Err(error) => {
                self.waits(format!("cannot ask for the end of topic {topic}: {error}"));
                return false;
            }
        };
        if end.unsigned_abs() >= version {
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
        self.health.tell(Condition::ReadyBut(format!(
            "topic {topic} was made anew; the budgets in it are in force, and those that it lacks have ended"
        )));
        true
    }

    fn waits(&self, reason: String) {
        tracing::error!(reason, "waiting for budgets");
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
