//! Nothing is left open, broken or dead, and the product's own audit agrees.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Result;
use spendfuse_domain::Topics;
use spendfuse_tests::lab::Said;
use spendfuse_tests::pause;

use super::{BETWEEN, Check};
use crate::logs::Logs;
use crate::retention::Life;
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

/// What the heartbeats of every partition must reach.
const HEARTBEAT_PATIENCE: Duration = Duration::from_secs(40);

/// Every partition has counted everything, knows the last budgets, and says so.
pub(super) fn heartbeats(system: &mut System, logs: &Logs) -> Result<Check> {
    let ends = logs.ends("usage")?;
    let newest = logs.budget_versions()?.last;
    let begin = Instant::now();
    loop {
        let table = logs.table("blocklist")?;
        let mut differences = Vec::new();
        for (partition, end) in ends.iter().enumerate() {
            let number = |stage: &str, name: &str| {
                let key = format!("heartbeat|{stage}|{partition}");
                table
                    .get(&key)
                    .and_then(|heartbeat| heartbeat[name].as_i64())
            };
            let counted = number("meter", "usage_offset");
            if counted != Some(*end) {
                let counted =
                    format!("meter {partition} says that it has counted up to {counted:?}");
                differences.push(format!("{counted}, the log ends at {end}"));
            }
            for stage in ["meter", "ledger"] {
                let version = number(stage, "budget_version");
                if version != Some(newest.cast_signed()) {
                    let known = format!("{stage} {partition} has budgets {version:?}");
                    differences.push(format!("{known}, the newest are {newest}"));
                }
            }
        }
        for (key, heartbeat) in &table {
            // What was spent before a budget comes when the loader has everything of before.
            if key.starts_with("heartbeat|ledger|") && !heartbeat["openings"].is_null() {
                differences.push(format!("{key} waits for {}", heartbeat["openings"]));
            }
        }
        if differences.is_empty() || begin.elapsed() >= HEARTBEAT_PATIENCE {
            return Ok(Check {
                name: "every partition has counted everything and says so",
                compared: format!("heartbeats of {} partitions", ends.len()),
                differences,
            });
        }
        system.wait_until(Instant::now() + BETWEEN)?;
    }
}

/// What people are told of in every run: budgets that are reached, sessions in circles, events with
/// other content, too old, or unreadable. Any other alert says that something is wrong.
const USUAL_ALERTS: [&str; 5] = [
    "budget_step",
    "finding",
    "conflict",
    "late_spend",
    "rejected_spend",
];

/// No chain between stages was broken, and nobody raised an alert that nothing provoked.
pub(super) fn links(system: &System, logs: &Logs) -> Result<Check> {
    let mut differences = Vec::new();
    let clock_jumps = system.life() == Life::JumpingBroker;
    for record in logs.read("alerts")? {
        let value = record.value.unwrap_or_default();
        let alert: serde_json::Value = serde_json::from_slice(&value)?;
        let kind = alert["kind"].as_str().unwrap_or_default();
        let is_usual = USUAL_ALERTS.contains(&kind) || (kind == "clock" && clock_jumps);
        if !is_usual {
            differences.push(format!("{kind}: {}", alert["message"]));
        }
    }
    let loader = &system.actors[LOADER];
    differences.extend(loader.lines_with("does not continue its writer's chain"));
    differences.extend(loader.lines_with("partition stopped"));
    Ok(Check {
        name: "no chain between stages is broken, no other alert",
        compared: "deltas, row blocks, alerts".to_owned(),
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
