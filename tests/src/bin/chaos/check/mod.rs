//! What must hold once everything has settled.

mod counts;
mod input;
mod parts;
mod verdicts;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;

use crate::budgets::Budgets;
use crate::events::Book;
use crate::rows::{Rates, rows};
use crate::system::System;
use input::Input;

/// How long the ledger may take to publish every state anew.
const LEDGER_PATIENCE: Duration = Duration::from_secs(45);
/// Between two looks at what changes.
const BETWEEN: Duration = Duration::from_millis(500);
/// Differences that are kept of one check.
const SHOWN: usize = 8;

/// One thing that must hold, and every way in which it does not.
#[derive(Clone, Debug)]
pub struct Check {
    /// What must hold.
    pub name: &'static str,
    /// What was compared.
    pub compared: String,
    /// How it is not.
    pub differences: Vec<String>,
}

/// What the checks look at.
pub struct Everything<'a> {
    /// The parts.
    pub system: &'a mut System,
    /// What was promised.
    pub book: &'a Book,
    /// The budgets in force.
    pub budgets: &'a mut Budgets,
    /// Rates by price version.
    pub prices: &'a BTreeMap<String, Rates>,
    /// How long everything may take to settle.
    pub patience: Duration,
}

/// Waits until nothing is under way, then compares everything.
pub fn everything(all: Everything<'_>) -> Result<Vec<Check>> {
    let logs = all.system.logs();
    let input = Input::read(&logs, all.book)?;
    let settled = input::settle(all.system, &logs, &input, all.patience)?;
    let warehouse = all.system.warehouse();
    let rows = rows(&warehouse)?;
    let mut checks = vec![
        settled,
        counts::promises(all.book, &input),
        counts::counted(&input, &rows),
        counts::rejected(&logs, &input)?,
        counts::contents(all.book, &rows, all.prices),
        counts::addresses(&rows),
    ];
    checks.extend(counts::rollups(all.system, &rows)?);
    all.budgets.change();
    all.system
        .operator()
        .apply_budgets(&all.budgets.yaml(), LEDGER_PATIENCE)?;
    checks.push(verdicts::verdicts(all.system, &logs, all.budgets, &rows)?);
    checks.push(verdicts::decisions(all.system, all.budgets, &rows));
    checks.push(verdicts::blocked_loops(&logs, &input)?);
    checks.push(parts::transactions(&logs)?);
    checks.push(parts::links(all.system, &logs)?);
    checks.push(parts::processes(all.system));
    checks.push(Check {
        name: "workers fence their predecessors before they take over",
        compared: "requests on the wire".to_owned(),
        differences: all.system.order.wrong(),
    });
    checks.extend(parts::audit(all.system));
    for check in &mut checks {
        let more = check.differences.len().saturating_sub(SHOWN);
        check.differences.truncate(SHOWN);
        if more > 0 {
            check.differences.push(format!("and {more} more"));
        }
    }
    Ok(checks)
}
