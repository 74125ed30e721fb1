//! What a run came to.

use std::fmt;
use std::time::Duration;

use spendfuse_testkit::receiver::{NO_ANSWER, SILENCE};

use super::Plan;
use super::places::Seen;

/// What a run came to.
#[derive(Debug)]
pub struct Report {
    /// What was to be done.
    pub plan: Plan,
    /// Kills of the notifier.
    pub notifier_kills: usize,
    /// Kills of the broker.
    pub broker_kills: usize,
    /// What the places saw.
    pub seen: Seen,
    /// From the first start to the last look.
    pub took: Duration,
    /// What the notifier logged in its last life.
    pub log: String,
    /// What should be otherwise; empty = all is well.
    pub differences: Vec<String>,
}

impl Report {
    /// Whether each alert arrived, once and in order.
    pub fn is_well(&self) -> bool {
        self.differences.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seen = &self.seen;
        let failed: usize = seen.failures.values().sum();
        writeln!(
            formatter,
            "{} alerts; {} kills of the notifier, {} of the broker; {:.0} s",
            self.plan.alerts,
            self.notifier_kills,
            self.broker_kills,
            self.took.as_secs_f64()
        )?;
        let each = seen.failures.iter().map(|(status, count)| match *status {
            NO_ANSWER => format!("{count} taken without an answer"),
            SILENCE => format!("{count} left without a word"),
            status => format!("{count} answered {status}"),
        });
        writeln!(
            formatter,
            "{} requests, {failed} failed ({:.0} %): {}",
            seen.requests,
            100.0 * failed as f64 / seen.requests.max(1) as f64,
            each.collect::<Vec<_>>().join(", ")
        )?;
        writeln!(
            formatter,
            "{} messages fell back to the second place; {} came again to who had said yes, by their ids",
            seen.fallen_back, seen.repeats
        )?;
        for difference in &self.differences {
            writeln!(formatter, "{difference}")?;
        }
        let verdict = match self.is_well() {
            true => "each arrived, none twice under its key, those of a scope in order",
            false => "NOT as it must be",
        };
        formatter.write_str(verdict)
    }
}
