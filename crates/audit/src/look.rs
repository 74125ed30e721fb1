//! A look at the ledger: accounts against rows, blocklist against accounts.
//!
//! What differs is looked at a second time from a new cut, so that only what stays is reported.

use std::collections::BTreeMap;
use std::time::Duration;

use spendfuse_domain::UnixMillis;
use spendfuse_engine::audit::{Difference, Differences, Kind, Site, Tally, compare_published};

use crate::auditor::Note;
use crate::budgets::BudgetsInForce;
use crate::context::Context;
use crate::deltas::DeltaLog;
use crate::error::AuditError;
use crate::ledger::{LedgerReplica, WindowKey};
use crate::windows::{self, Compared, Cut};

const BEFORE_SECOND_LOOK: Duration = Duration::from_millis(1500);

/// What was looked at.
#[derive(Debug, Default)]
pub struct Looked {
    /// What differs; `None` where ledger or loader were behind.
    pub differences: Option<Differences>,
    /// Windows that were compared.
    pub compared: Compared,
    /// Entries of the blocklist that were compared.
    pub entries: u64,
}

/// Differences by what they are about: budget or key, scope, window.
type Found = BTreeMap<(String, WindowKey), Difference>;

/// Compares; where something differs, twice.
pub fn look(
    context: &Context<'_>,
    replica: &mut LedgerReplica,
    deltas: &DeltaLog,
    budgets: &BudgetsInForce,
    number: &mut u64,
    notes: &mut Vec<Note>,
) -> Result<Looked, AuditError> {
    let mut looked = Looked::default();
    let Some(first) = once(context, replica, deltas, budgets, number, &mut looked)? else {
        notes.push(Note::behind(
            "ledger and blocklist: the ledger or the loader is behind",
        ));
        return Ok(Looked::default());
    };
    looked.differences = Some(Differences::default());
    if first.is_empty() {
        return Ok(looked);
    }
    context.pause(BEFORE_SECOND_LOOK);
    let mut again = Looked::default();
    let Some(second) = once(context, replica, deltas, budgets, number, &mut again)? else {
        notes.push(Note::behind(
            "ledger and blocklist: the ledger or the loader is behind",
        ));
        return Ok(Looked::default());
    };
    let mut differences = Differences::default();
    for (key, difference) in second {
        if first.contains_key(&key) {
            differences.push(difference);
        }
    }
    again.differences = Some(differences);
    Ok(again)
}

/// `None` where ledger or loader do not come far enough in time.
fn once(
    context: &Context<'_>,
    replica: &mut LedgerReplica,
    deltas: &DeltaLog,
    budgets: &BudgetsInForce,
    number: &mut u64,
    looked: &mut Looked,
) -> Result<Option<Found>, AuditError> {
    if !replica.catch_up(context, deltas)? || !context.wait_until_loaded()? {
        return Ok(None);
    }
    *number += 1;
    let by_any = replica.latest_applied();
    let cut = Cut {
        by_all: std::iter::zip(deltas.compared(), &by_any)
            .map(|(told, applied)| {
                if told == 0 {
                    *applied
                } else {
                    told.min(*applied)
                }
            })
            .collect(),
        by_any,
    };
    let mut found = Found::new();
    for counted in budgets.budgets.iter().filter(|one| one.is_in_rows) {
        let id = counted.compiled.budget.id.to_string();
        let compared = &mut looked.compared;
        for (key, difference) in
            windows::compare(context, replica, counted, &cut, *number, compared)?
        {
            found.insert((id.clone(), key), difference);
        }
    }
    looked.entries = compare_blocklist(replica, budgets, &mut found);
    Ok(Some(found))
}

/// Compares the blocklist with what the ledger published; the number of entries.
fn compare_blocklist(replica: &LedgerReplica, budgets: &BudgetsInForce, found: &mut Found) -> u64 {
    let mut compared = 0;
    for (key, entry) in &replica.entries {
        let Some((budget, scope)) = key.split_once('|') else {
            continue;
        };
        let now = replica.marks[entry.partition as usize].now;
        if entry.told.expires_at.is_some_and(|at| at <= now) {
            continue;
        }
        compared += 1;
        let start = entry.told.start.0;
        let published = published(replica, budget, scope, start);
        let changes = replica.changes.get(key).map_or(&[][..], Vec::as_slice);
        let is_told_since = changes.iter().any(|(_, told)| match (told, published) {
            (Some(told), Some(published)) => told.is(published),
            (None, published) => published.is_none(),
            (Some(told), None) => told.start.0 != start,
        });
        if is_told_since {
            continue;
        }
        let difference = compare_published(entry.partition, key, &entry.told, published);
        if let Some(difference) = difference {
            found.insert((key.clone(), (String::new(), start)), difference);
        }
    }
    find_untold(replica, budgets, found);
    compared
}

fn published<'a>(
    replica: &'a LedgerReplica,
    budget: &str,
    scope: &str,
    start: i64,
) -> Option<&'a spendfuse_engine::audit::Published> {
    let accounts = replica.accounts.get(budget)?;
    let account = accounts.get(&(scope.to_owned(), start))?;
    account.published.as_ref()
}

/// What the ledger published and the blocklist does not have.
fn find_untold(replica: &LedgerReplica, budgets: &BudgetsInForce, found: &mut Found) {
    let in_force = |budget: &str| {
        let mut budgets = budgets.budgets.iter();
        budgets.any(|counted| counted.compiled.budget.id.as_str() == budget)
    };
    for (budget, accounts) in &replica.accounts {
        for ((scope, start), account) in accounts {
            let Some(published) = &account.published else {
                continue;
            };
            let now = replica.marks[account.partition as usize].now;
            let is_over = published.expires_at.is_some_and(|at| at <= now);
            let key = format!("{budget}|{scope}");
            let is_told = replica
                .entries
                .get(&key)
                .is_some_and(|entry| entry.told.start.0 == *start)
                || replica.changes.contains_key(&key);
            if is_over || is_told || !in_force(budget) {
                continue;
            }
            let difference = Difference {
                kind: Kind::BlocklistDiffers,
                site: Site::Ledger(account.partition),
                seq: None,
                expected: Tally::default(),
                found: Tally::default(),
                detail: format!(
                    "{key}, window from {}: published by the ledger, not on the blocklist",
                    UnixMillis(*start)
                ),
            };
            found.insert((key, (String::new(), *start)), difference);
        }
    }
}
