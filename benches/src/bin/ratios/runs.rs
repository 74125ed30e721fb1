//! What several runs of the same callers came to.

use std::time::Duration;

use crate::callers::{CALLS_IN_BUDGET, Outcome};

/// What the runs of one number of callers came to.
pub struct Runs {
    /// How many asked at a time.
    pub callers: usize,
    /// Cents: the worst of all runs.
    pub beyond: u64,
    /// Cents: the worst of all runs.
    pub left: u64,
    /// Cents that were acknowledged and are in no figure: the worst of all runs.
    pub missing: u64,
    /// The median.
    pub needless: u64,
    /// Calls that failed, of all runs.
    pub failed: u64,
    /// The median; `None` where it was not all spent.
    pub spent_after: Option<Duration>,
}

impl Runs {
    /// The outcomes, each with the cents that are counted.
    pub fn of(callers: usize, outcomes: &[(Outcome, u64)]) -> Self {
        let worst =
            |cents: fn(&(Outcome, u64)) -> u64| outcomes.iter().map(cents).max().unwrap_or(0);
        let mut needless: Vec<u64> = outcomes
            .iter()
            .map(|(one, _)| one.needlessly_refused)
            .collect();
        needless.sort_unstable();
        let mut times: Vec<_> = outcomes
            .iter()
            .map(|(one, _)| one.spent_after.unwrap_or(Duration::MAX))
            .collect();
        times.sort_unstable();
        let middle = outcomes.len() / 2;
        Self {
            callers,
            beyond: worst(|(one, _)| one.acknowledged.saturating_sub(CALLS_IN_BUDGET)),
            left: worst(|(one, _)| CALLS_IN_BUDGET.saturating_sub(one.acknowledged)),
            missing: worst(|(one, counted)| one.acknowledged.saturating_sub(*counted)),
            needless: needless[middle],
            failed: outcomes.iter().map(|(one, _)| one.failed).sum(),
            spent_after: Some(times[middle]).filter(|time| *time < Duration::MAX),
        }
    }

    /// Nothing beyond, everything spent within 1.5 times the ideal time, at most 50 needless
    /// refusals; where the time that is offered is too short, as far as it goes.
    pub fn is_all_spent(&self, call: Duration, offered: Duration) -> bool {
        let rounds = CALLS_IN_BUDGET.div_ceil(self.callers as u64) as u32;
        let ideal = call * rounds;
        let in_time = match self.spent_after {
            Some(after) => after <= ideal.mul_f64(1.5),
            None => ideal > offered,
        };
        self.beyond == 0 && in_time && self.needless <= 50
    }
}

/// A figure of each, divided by slashes.
pub fn per_callers(all: &[Runs], figure: fn(&Runs) -> String) -> String {
    let figures: Vec<String> = all.iter().map(figure).collect();
    figures.join(" / ")
}

/// The figures; with what is missing where that is asked for.
pub fn told(all: &[Runs], with_missing: bool) -> String {
    let mut told = format!(
        "{} beyond, {} left",
        per_callers(all, |runs| dollars(runs.beyond)),
        per_callers(all, |runs| dollars(runs.left))
    );
    if with_missing {
        let missing = per_callers(all, |runs| dollars(runs.missing));
        told.push_str(&format!(", {missing} missing"));
    }
    let needless = per_callers(all, |runs| runs.needless.to_string());
    let after = per_callers(all, |runs| match runs.spent_after {
        Some(after) => format!("{:.1}", after.as_secs_f64()),
        None => "never".to_owned(),
    });
    told.push_str(&format!(
        "; {needless} needless refusals; spent after {after} s"
    ));
    if all.iter().any(|runs| runs.failed > 0) {
        let failed = per_callers(all, |runs| runs.failed.to_string());
        told.push_str(&format!("; {failed} calls failed"));
    }
    told
}

fn dollars(cents: u64) -> String {
    format!("${}.{:02}", cents / 100, cents % 100)
}
