//! Nothing is left open, broken or dead, and the product's own audit agrees.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Result;
use spendfuse_domain::Topics;
use spendfuse_tests::lab::Said;
use spendfuse_tests::pause;

use super::{BETWEEN, Check};
use crate::logs::Logs;
use crate::system::{LOADER, System};

/// How long the audit may fail to look.
const AUDIT_PATIENCE: Duration = Duration::from_secs(60);

/// No transaction is open. Heartbeats open some all the time, so each partition must be seen
/// without one, once.
pub(super) fn transactions(logs: &Logs) -> Result<Check> {
    let topics = Topics::new("");
    let topics: Vec<&str> = topics.all().iter().map(|topic| topic.name).collect();
    let begin = Instant::now();
    let mut suspects: Option<BTreeSet<String>> = None;
    let mut last;
    loop {
        last = logs.open_transactions(&topics)?;
        let now: BTreeSet<String> = last
            .iter()
            .filter_map(|line| line.split_once(':'))
            .map(|(partition, _)| partition.to_owned())
            .collect();
        let left = match &suspects {
            None => now,
            Some(before) => before.intersection(&now).cloned().collect(),
        };
        if left.is_empty() || begin.elapsed() > Duration::from_secs(10) {
            last.retain(|line| {
                line.split_once(':')
                    .is_some_and(|(partition, _)| left.contains(partition))
            });
            break;
        }
        suspects = Some(left);
        pause(BETWEEN);
    }
    Ok(Check {
        name: "no transaction is left open",
        compared: format!("{} topics", topics.len()),
        differences: last,
    })
}

/// No chain between stages was broken.
pub(super) fn links(system: &System, logs: &Logs) -> Result<Check> {
    let mut differences = Vec::new();
    for record in logs.read("alerts")? {
        let value = record.value.unwrap_or_default();
        let alert: serde_json::Value = serde_json::from_slice(&value)?;
        if alert["kind"] == "delta_chain" {
            differences.push(alert["message"].to_string());
        }
    }
    let loader = &system.actors[LOADER];
    differences.extend(loader.lines_with("does not continue its writer's chain"));
    differences.extend(loader.lines_with("partition stopped"));
    Ok(Check {
        name: "no chain between stages is broken",
        compared: "deltas and row blocks".to_owned(),
        differences,
    })
}

/// No role ended by itself, no worker panicked.
pub(super) fn processes(system: &System) -> Check {
    let mut differences = Vec::new();
    for actor in &system.actors {
        let ends = actor.own_ends.iter();
        differences.extend(ends.map(|end| format!("{} ended by itself: {end}", actor.name)));
        if actor.panics() > 0 {
            differences.push(format!("{} panicked {} times", actor.name, actor.panics()));
        }
    }
    Check {
        name: "no role ended by itself or panicked",
        compared: format!("{} roles", system.actors.len()),
        differences,
    }
}

/// The product's own audit, where it has one.
pub(super) fn audit(system: &System) -> Option<Check> {
    let help = system.run(&["--help"]);
    if !help
        .stdout
        .lines()
        .any(|line| line.trim_start().starts_with("audit"))
    {
        return None;
    }
    let begin = Instant::now();
    loop {
        let said = system.run(&["audit"]);
        let is_over = begin.elapsed() >= AUDIT_PATIENCE;
        let Some(differences) = drift(&said).or_else(|| is_over.then(|| vec![format!("{said:?}")]))
        else {
            // It could not ask a part that has just been started.
            pause(BETWEEN);
            continue;
        };
        let total = said.stdout.lines().next_back().unwrap_or_default();
        return Some(Check {
            name: "spendfuse audit finds no drift",
            compared: total.to_owned(),
            differences,
        });
    }
}

/// The differences that the audit found; `None` where it could not look.
fn drift(said: &Said) -> Option<Vec<String>> {
    if said.code == Some(0) {
        return Some(Vec::new());
    }
    // They follow the sums, in a table of their own; the last line is the total.
    let mut lines = said.stdout.lines();
    lines.find(|line| line.starts_with("DIFFERENCE"))?;
    let lines = lines.map(str::trim_end).filter(|line| !line.is_empty());
    Some(lines.map(str::to_owned).collect())
}
