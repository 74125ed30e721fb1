//! How every budget and scope stands, from the blocklist topic and the budgets in force.

use std::collections::BTreeSet;

use jiff::tz::TimeZone;
use serde_json::Number;
use spendfuse_domain::budget::{Budget, BudgetsRecord, Spend};
use spendfuse_domain::verdict::{BlocklistEntry, BlocklistKey, Heartbeat};
use spendfuse_domain::{Figures, UnixMillis, Verdict, Window};

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
    let percent = entry.percent.as_ref().and_then(Number::as_f64);
    percent.unwrap_or(f64::INFINITY)
}

/// The entry of a budget for one scope that has spent nothing; `None` where it has no single scope
/// or no calendar window.
fn untouched(budget: &Budget, now: UnixMillis) -> Option<BlocklistEntry> {
    let scope = budget
        .scope
        .single()
        .filter(|_| !budget.window.is_session())?;
    let zone = TimeZone::get(&budget.timezone).ok()?;
    let window = Window::containing(budget.window, &zone, now);
    let spend = Spend::default();
    let step = budget.reached(&spend);
    let verdict = step.map_or(Verdict::Ok, |step| step.action.verdict());
    let filter = budget.filter.to_json().map(serde_json::Value::Object);
    Some(BlocklistEntry {
        v: 1,
        budget: budget.id.to_string(),
        scope,
        filter,
        verdict,
        action: verdict.name().to_owned(),
        figures: Figures::new(spend.counted(budget.limit.unit()), budget.limit),
        percent: (budget.limit.number() > 0)
            .then(|| Number::from_f64(0.0))
            .flatten(),
        window: window.label,
        window_start: window.start,
        resets_at: window.end,
        expires_at: window.end,
        counted_from: budget.counted_from.max(window.start),
        downgrade_to: None,
        version: 0,
        decided_at: now,
        caused_by: None,
    })
}
