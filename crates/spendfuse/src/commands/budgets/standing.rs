//! How every budget and scope stands, from the blocklist topic and the budgets in force.

use std::collections::BTreeSet;

use spendfuse_domain::budget::{Budget, BudgetsRecord, CompiledBudget};
use spendfuse_domain::verdict::{BlocklistEntry, BlocklistKey, Heartbeat};
use spendfuse_domain::{Percent, UnixMillis};
use spendfuse_engine::account::{Account, AccountPlace};

use super::super::{Failure, kafka, output};
use super::records_in_force;
use crate::settings::Settings;

/// Every active budget and scope.
pub struct Standing {
    /// The strictest first, then the fullest.
    pub scopes: Vec<BlocklistEntry>,
    /// Budgets in force of which nothing is spent in the current window.
    pub without_spend: Vec<String>,
    /// When every partition of the processor had last reported; `None` where one never has.
    pub reported_at: Option<UnixMillis>,
}

/// Reads both topics to their ends.
pub fn read(settings: &Settings, now: UnixMillis) -> Result<Standing, Failure> {
    let records = records_in_force(settings)?;
    let table = kafka::read_table(settings, &settings.topics().blocklist)?;
    let mut scopes = Vec::new();
    let mut seen: BTreeSet<String> = BTreeSet::new();
    let mut reports = Vec::new();
    for (key, value) in &table {
        match BlocklistKey::parse(key) {
            Some(BlocklistKey::Heartbeat { .. }) => {
                // A heartbeat that cannot be read is one that never came.
                reports.extend(serde_json::from_slice::<Heartbeat>(value));
                continue;
            }
            Some(BlocklistKey::Budget { .. } | BlocklistKey::Finding { .. }) => {}
            None => continue,
        }
        let entry: BlocklistEntry = match serde_json::from_slice(value) {
            Ok(entry) => entry,
            Err(error) => {
                output::warning(format!("blocklist entry {key}: {error}; left out"));
                continue;
            }
        };
        let expired = entry.expires_at.is_some_and(|at| at <= now);
        if !expired {
            seen.insert(entry.budget.clone());
            scopes.push(entry);
        }
    }
    let mut without_spend = Vec::new();
    for record in &records {
        let BudgetsRecord::Budget(budget) = record else {
            continue;
        };
        if seen.contains(budget.id.as_str()) {
            continue;
        }
        match untouched(budget, now) {
            Some(entry) => scopes.push(entry),
            None => without_spend.push(budget.id.to_string()),
        }
    }
    scopes.sort_by(|one, other| {
        let fuller = percent(other).total_cmp(&percent(one));
        let strictness = other.verdict.cmp(&one.verdict).then(fuller);
        strictness.then_with(|| (&one.budget, &one.scope).cmp(&(&other.budget, &other.scope)))
    });
    Ok(Standing {
        scopes,
        without_spend,
        reported_at: reported_at(&reports),
    })
}

/// When the most silent partition reported.
fn reported_at(reports: &[Heartbeat]) -> Option<UnixMillis> {
    let written = reports.iter().map(|beat| {
        let lag = i64::try_from(beat.lag_ms).unwrap_or(i64::MAX);
        beat.complete_to.plus(lag)
    });
    written.min()
}

fn percent(entry: &BlocklistEntry) -> f64 {
    // Without a percentage the limit is 0, or it is a stopped session: both refuse everything.
    entry.percent.map_or(f64::INFINITY, Percent::as_f64)
}

/// The entry of a budget for one scope that has spent nothing; `None` where it has no single scope
/// or no calendar window.
fn untouched(budget: &Budget, now: UnixMillis) -> Option<BlocklistEntry> {
    let scope = budget.scope.single()?;
    if budget.window.is_session() {
        return None;
    }
    let compiled = CompiledBudget::new(budget.clone());
    let window = compiled.window(now);
    let place = AccountPlace::in_window(&scope, &window);
    Some(Account::default().publish(&compiled, place, 0, now))
}
