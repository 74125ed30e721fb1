//! A scenario: the events in the order of their arrival, and the budgets over time.

use std::fmt;
use std::sync::Arc;

use spendfuse_domain::finding::{DetectorRule, DetectorRules};
use spendfuse_domain::row::{CostParts, PriceBasis};
use spendfuse_domain::{Body, Budget, BudgetId, Dimension, Dimensions, Event, UnixMillis};
use spendfuse_engine::book::BudgetBook;

/// One event as it stands in the usage topic, with the price that it will get.
#[derive(Clone, PartialEq)]
pub struct LogEvent {
    /// When the broker took it; never less than that of the event before.
    pub arrival: UnixMillis,
    /// The event.
    pub event: Event<'static>,
    /// What it costs.
    pub cost: CostParts,
    /// Where the price comes from.
    pub priced: PriceBasis,
    /// Of history: since when nobody but the meter knows what was counted.
    pub judged_at: Option<UnixMillis>,
    /// Whether it is no event but a correction of one; then `event` is that one.
    pub corrects: Option<LogCorrection>,
}

/// A correction as it stands in the corrections topic.
#[derive(Clone, Debug, PartialEq)]
pub struct LogCorrection {
    /// Place in the log of the event whose entry is corrected.
    pub of: usize,
    /// What is wanted.
    pub what: Wanted,
    /// What whoever made it knew.
    pub known: Known,
    /// How long before its arrival the warehouse was asked, milliseconds.
    pub judged_before: i64,
}

/// What a correction is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Wanted {
    Void,
    Restore,
    Usage {
        output: u64,
        cost: i128,
    },
    Customer(&'static str),
    /// The same call at another price.
    Rate {
        cost: i128,
        priced: PriceBasis,
    },
}

/// What whoever made a correction knew of the ones before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// All of them.
    All,
    /// All but the last one.
    AllButOne,
    /// It is the last one again.
    Again,
}

/// The budgets and rules from one event on.
#[derive(Clone, PartialEq)]
pub struct BudgetVersion {
    /// Place in [`Scenario::log`] of the first event under it; 0 for the first version.
    pub from: usize,
    /// All budgets.
    pub budgets: Vec<Budget>,
    /// All detector rules.
    pub rules: Vec<DetectorRule>,
}

/// One line, as a person would write it: a failing case is read far more often than it is written.
impl fmt::Debug for LogEvent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let event = &self.event;
        write!(
            formatter,
            "{} {} time {} #{}",
            self.arrival, event.id, event.time, event.content
        )?;
        if let Some(corrects) = &self.corrects {
            write!(formatter, " {corrects:?}")?;
        }
        if let Some(judged_at) = self.judged_at {
            write!(formatter, " history judged at {judged_at}")?;
        }
        let tag = Dimension::Tag("team".to_owned());
        for dimension in Dimension::FIXED.iter().chain([&tag]) {
            let value = event.attribution.value(dimension);
            if !value.is_empty() {
                write!(formatter, " {}={value}", dimension.name())?;
            }
        }
        let Body::Usage(call) = &event.body else {
            return write!(formatter, " {:?}", event.body);
        };
        write!(
            formatter,
            " {:?} context {} tokens {} cost {} (input {}) {:?} tools {} prompt {:?} tool {:?}",
            call.operation,
            call.tokens.context(),
            call.tokens.total(),
            self.cost.total().get(),
            (self.cost.input + self.cost.cache_read).get(),
            self.priced,
            call.tool_calls,
            call.prompt_fingerprint,
            call.tool_fingerprint,
        )
    }
}

/// One line a budget.
impl fmt::Debug for BudgetVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "from event {}:", self.from)?;
        for budget in &self.budgets {
            writeln!(
                formatter,
                "  {} {:?} where {:?} {:?} per {:?} {} {:?} unpriced {} publish {} opening {:?} from {}",
                budget.id,
                budget.scope.0,
                budget.filter.0,
                budget.limit,
                budget.window,
                budget.timezone,
                budget.steps,
                budget.unpriced_blocks,
                budget.publish_from.0,
                budget.opening,
                budget.counted_from,
            )?;
        }
        for rule in &self.rules {
            writeln!(formatter, "  {}", format!("{rule:?}").replace(", ", " "))?;
        }
        Ok(())
    }
}

/// Everything that is given; how it is processed is a schedule's affair.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// Partitions of every stage.
    pub partitions: u32,
    /// The events, by arrival.
    pub log: Vec<LogEvent>,
    /// Budgets over time, ascending by `from`; at least one.
    pub versions: Vec<BudgetVersion>,
    /// Dedupe horizon.
    pub horizon_millis: i64,
    /// Bound of the dedupe memory, in identities.
    pub dedupe_capacity: usize,
    /// A session without events for this long has ended.
    pub idle_millis: i64,
    /// How long ended windows take late spend.
    pub grace_millis: i64,
}

impl Scenario {
    /// The compiled budgets of `version`.
    pub fn book(&self, version: usize) -> Arc<BudgetBook> {
        let budgets = &self.versions[version];
        let rules = DetectorRules::new(budgets.rules.iter().cloned());
        let number = version as u64 + 1;
        let mut book = BudgetBook::compile(number, budgets.budgets.clone(), rules);
        for compiled in &mut book.budgets {
            let (_, began) = self.count_begins(version, &compiled.budget);
            compiled.counts_since_version = began as u64 + 1;
        }
        Arc::new(book)
    }

    /// Whether `version` starts or ends a count, so that the expectation is only defined when all
    /// stages change to it at the same event.
    pub fn starts_a_count(&self, version: usize) -> bool {
        if version == 0 {
            return false;
        }
        let (before, now) = (&self.versions[version - 1], &self.versions[version]);
        before.budgets.len() != now.budgets.len()
            || now.budgets.iter().any(|budget| {
                !find(&before.budgets, &budget.id).is_some_and(|old| budget.counts_like(old))
            })
    }

    /// The place in the log from which the count of `budget` in `version` runs, and the version
    /// in which it began.
    pub fn count_begins(&self, version: usize, budget: &Budget) -> (usize, usize) {
        let mut first = version;
        while first > 0
            && find(&self.versions[first - 1].budgets, &budget.id)
                .is_some_and(|old| budget.counts_like(old))
        {
            first -= 1;
        }
        (self.versions[first].from, first)
    }
}

fn find<'a>(budgets: &'a [Budget], id: &BudgetId) -> Option<&'a Budget> {
    budgets.iter().find(|budget| budget.id == *id)
}
