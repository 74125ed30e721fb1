//! What must hold once everything has settled.

mod counts;
mod input;
mod parts;
mod proxied;
mod second;
mod verdicts;

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;

use crate::budgets::{Budgets, Figures};
use crate::clock::now;
use crate::events::is_idling;
use crate::ledger::{Book, Kind};
use crate::rows::{PriceBooks, rows};
use crate::system::System;
use second::Second;

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

/// How far the checks go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// All of them.
    Everything,
    /// Until one finds a difference.
    FirstDifference,
}

/// What the checks look at.
pub struct Everything<'a> {
    /// The parts.
    pub system: &'a mut System,
    /// What was promised.
    pub book: &'a Book,
    /// The budgets in force.
    pub budgets: &'a mut Budgets,
    pub prices: &'a PriceBooks,
    /// How long everything may take to settle.
    pub patience: Duration,
    /// How far the checks go.
    pub depth: Depth,
}

/// Waits until nothing is under way, then compares everything.
pub fn everything(all: Everything<'_>) -> Result<Vec<Check>> {
    let mut checks = compare(all)?;
    for check in &mut checks {
        let more = check.differences.len().saturating_sub(SHOWN);
        check.differences.truncate(SHOWN);
        if more > 0 {
            check.differences.push(format!("and {more} more"));
        }
    }
    Ok(checks)
}

/// Sessions that got nothing after the beginning.
fn idled(book: &Book) -> impl Iterator<Item = String> + '_ {
    book.events.iter().filter_map(|(kind, _)| match kind {
        Kind::Call(call) if is_idling(&call.session) => Some(call.session.clone()),
        _ => None,
    })
}

fn compare(all: Everything<'_>) -> Result<Vec<Check>> {
    let is_enough = |checks: &[Check]| {
        let differs = checks.iter().any(|check| !check.differences.is_empty());
        differs && all.depth == Depth::FirstDifference
    };
    let logs = all.system.logs();
    let (input, settled) = input::settle(all.system, &logs, all.book, all.patience)?;
    let warehouse = all.system.warehouse();
    let rows = rows(&warehouse)?;
    let mut checks = vec![
        settled,
        counts::promises(all.book, &input),
        proxied::counted(all.system, &input),
        proxied::losses(all.system, &input),
        counts::counted(&input, &rows),
        counts::rejected(&logs, &input)?,
        counts::contents(all.book, &rows, all.prices),
        counts::addresses(&rows),
        counts::rollups(all.system, &rows)?,
        counts::versions(&rows, all.prices),
        verdicts::blocked_loops(&logs, &input)?,
        parts::links(all.system, &logs)?,
        parts::processes(all.system),
        Check {
            name: "workers fence their predecessors before they take over",
            compared: "requests on the wire".to_owned(),
            differences: all.system.order.wrong(),
        },
    ];
    // Those that follow wait for what does not come where something is broken.
    if is_enough(&checks) {
        return Ok(checks);
    }
    checks.push(parts::transactions(&logs)?);
    checks.push(parts::heartbeats(all.system, &logs)?);
    let mut ended: BTreeSet<String> = input.ends.values().cloned().collect();
    if all.system.sessions_idle_out() {
        ended.extend(idled(all.book));
    }
    for figures in [Figures::AsTold, Figures::Anew] {
        if figures == Figures::Anew {
            all.budgets.change();
            let yaml = all.budgets.yaml();
            all.system
                .operator()
                .apply_budgets(&yaml, LEDGER_PATIENCE)?;
        }
        let mut versions = logs.budget_versions()?.first;
        for opened in logs.opened_budgets()? {
            versions.insert(opened, 0);
        }
        all.budgets.learn(versions, ended.clone());
        let (system, budgets) = (&mut *all.system, &*all.budgets);
        checks.push(verdicts::verdicts(system, &logs, budgets, &rows, figures)?);
        if is_enough(&checks) {
            return Ok(checks);
        }
        checks.push(verdicts::decisions(system, budgets, &rows, figures));
    }
    // What another worker counted, as a plot has it, has no rows: SQL and audit would say so, rightly.
    if input.counted_before.is_empty() {
        let (usage, budgets) = (&input.usage, &*all.budgets);
        let second = Second::new(all.system, usage, all.book, all.prices, budgets, now())?;
        checks.push(second.rows()?);
        checks.push(second.rollups()?);
        checks.push(second.windows(all.system, &logs)?);
        checks.extend(parts::audit(all.system));
    }
    Ok(checks)
}
