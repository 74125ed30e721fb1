//! What the accounts, and the lines of closed windows, must come to: the rows.

use std::collections::HashMap;

use spendfuse_domain::budget::Spend;
use spendfuse_domain::routing::partition_of;
use spendfuse_domain::scope::{Dimension, scope_of};
use spendfuse_domain::{UnixMillis, Window};
use spendfuse_engine::audit::{AccountSums, Difference, compare_account};
use spendfuse_warehouse::client::quoted;

use crate::beginning::{Beginning, KeptWindow, KnownBeginning};
use crate::budgets::{CountedBudget, SAME_TIME_MILLIS};
use crate::context::Context;
use crate::error::AuditError;
use crate::ledger::{LedgerReplica, WindowKey};
use crate::sql;

const DAY_MILLIS: i64 = 24 * 60 * 60 * 1000;
/// Closed windows are compared for this long after their grace.
const CLOSED_MILLIS: i64 = 7 * DAY_MILLIS;
/// Senders may be five minutes ahead: a window that begins soon may have spend.
const AHEAD_MILLIS: i64 = 10 * 60_000;
/// A ledger may count deltas of rows that arrived this long before a budget took effect, if another
/// budget counts the same series.
const IN_FLIGHT_MILLIS: i64 = 10 * 60_000;
/// Scopes in one answer, about.
const SCOPES_A_QUESTION: usize = 50_000;

/// Up to where the ledger's state goes.
#[derive(Clone, Debug)]
pub struct Cut {
    /// Per meter partition: every ledger partition has applied everything up to this commit.
    pub by_all: Vec<u64>,
    /// Per meter partition: no ledger partition has applied anything beyond.
    pub by_any: Vec<u64>,
}

/// What was compared.
#[derive(Clone, Copy, Debug, Default)]
pub struct Compared {
    /// Windows of scopes.
    pub windows: u64,
    /// Those that could not be compared, because the budget's count began at an unknown row.
    pub began_unknown: u64,
    /// Periods of budgets that are not compared, because the warehouse keeps no rows as old as theirs.
    pub expired: u64,
}

/// Compares every window of a budget; a difference comes with its scope and window.
pub fn compare(
    context: &Context<'_>,
    replica: &mut LedgerReplica,
    counted: &CountedBudget,
    cut: &Cut,
    look: u64,
    compared: &mut Compared,
) -> Result<Vec<(WindowKey, Difference)>, AuditError> {
    let id = counted.compiled.budget.id.to_string();
    let beginning = match Beginning::of(replica, counted) {
        Beginning::KnownToSome => {
            compared.began_unknown += 1;
            return Ok(Vec::new());
        }
        Beginning::Unknown => None,
        Beginning::Known(known) => Some(known),
    };
    let windows = windows_of(context, counted, replica.now());
    let kept_from = replica.now().plus(-context.kept_millis);
    let mut kept = Vec::new();
    let starts = match &beginning {
        None => starts_of_kept(&windows, counted, kept_from),
        Some(_) => {
            let oldest = match windows[0].start < kept_from {
                true => oldest_hour(context)?,
                false => kept_from,
            };
            let grace = context.dedupe_horizon_millis + DAY_MILLIS;
            kept = KnownBeginning::windows(&windows, counted, kept_from, oldest, grace);
            kept.iter().map(KeptWindow::start).collect()
        }
    };
    compared.expired += (windows.len() - starts.len()) as u64;
    if starts.is_empty() {
        return Ok(Vec::new());
    }
    let lines = written_off(context, counted, &id, starts[0])?;
    let scopes = replica.accounts.get(&id).map_or(0, HashMap::len);
    let dimensions = counted.compiled.budget.scope.shape();
    let slices = match dimensions.is_empty() {
        true => 1,
        false => (scopes / SCOPES_A_QUESTION + 1) as u64,
    };
    let partitions = replica.marks.len() as u32;
    let holds_all = |key: &WindowKey| {
        let ledger = partition_of(key.0.as_bytes(), partitions);
        let known = beginning.as_ref();
        known.is_some_and(|known| known.holds_all(ledger, key.1, &kept))
    };
    let mut differences = Vec::new();
    for slice in 0..slices {
        let in_slice = sql::in_slice(&dimensions, (slice, slices));
        let epoch = context.epoch;
        let question = match &beginning {
            None => question(context, counted, &dimensions, &starts, cut, &in_slice),
            Some(known) => known.question(epoch, counted, &dimensions, &starts, cut, &in_slice),
        };
        let mut sums: HashMap<WindowKey, AccountSums> = HashMap::new();
        for row in context.ask(&question)? {
            match &beginning {
                None => add_row(&row, &dimensions, replica, &mut sums)?,
                Some(known) => known.add_row(&row, &dimensions, replica, &kept, &mut sums)?,
            }
        }
        for (key, mut rows) in sums {
            let found = found_of(replica, counted, &id, &key, &lines, look);
            let Some((found, opening)) = found else {
                continue;
            };
            if !holds_all(&key) {
                rows.opening = opening;
            }
            if counted.began_before && rows.perhaps != Spend::default() {
                compared.began_unknown += 1;
                continue;
            }
            compared.windows += 1;
            let start = UnixMillis(key.1);
            if let Some(difference) = compare_account(&id, &key.0, start, &rows, &found) {
                differences.push((key, difference));
            }
        }
    }
    // What is left has no rows at all.
    let Some(accounts) = replica.accounts.get(&id) else {
        return Ok(differences);
    };
    for (key, account) in accounts {
        let is_comparable = account.looked != look
            && account
                .count
                .goes_on_in(counted.compiled.count, UnixMillis(key.1))
            && starts.contains(&key.1);
        if !is_comparable {
            continue;
        }
        compared.windows += 1;
        let start = UnixMillis(key.1);
        let rows = match holds_all(key) {
            true => AccountSums::default(),
            false => AccountSums {
                opening: account.opening,
                ..AccountSums::default()
            },
        };
        if let Some(difference) = compare_account(&id, &key.0, start, &rows, &account.spend) {
            differences.push((key.clone(), difference));
        }
    }
    Ok(differences)
}

/// The budget's windows without a gap, the oldest first: those that run or begin soon, those that
/// wait for late spend, and those that were closed lately.
fn windows_of(context: &Context<'_>, counted: &CountedBudget, now: UnixMillis) -> Vec<Window> {
    let oldest = now.plus(-(context.dedupe_horizon_millis + DAY_MILLIS + CLOSED_MILLIS));
    let (kind, zone) = (
        counted.compiled.budget.window,
        counted.compiled.budget.timezone.zone(),
    );
    let mut windows = vec![Window::containing(kind, zone, now.plus(AHEAD_MILLIS))];
    while let Some(first) = windows.last()
        && first.end.is_some()
        && first.start > oldest
    {
        windows.push(Window::containing(kind, zone, first.start.plus(-1)));
    }
    windows.reverse();
    windows
}

/// Starts of the windows whose every counted row the warehouse still has: rows of before the budget
/// began do not count, and those of before `kept_from` may have expired.
fn starts_of_kept(windows: &[Window], counted: &CountedBudget, kept_from: UnixMillis) -> Vec<i64> {
    let first_counted = match counted.began_before {
        true => UnixMillis(0),
        false => counted.began_at,
    };
    let is_kept = |window: &&Window| window.start.max(first_counted) >= kept_from;
    let kept = windows.iter().filter(is_kept);
    kept.map(|window| window.start.0).collect()
}

/// What lines of a window say.
#[derive(Clone, Copy, Debug, Default)]
struct Lines {
    /// Those of its close, and of late spend.
    spend: Spend,
    /// What the last one says of what was spent before the count began, contained in that of its
    /// close.
    opening: Spend,
}

/// Lines of windows from `first` on.
fn written_off(
    context: &Context<'_>,
    counted: &CountedBudget,
    id: &str,
    first: i64,
) -> Result<HashMap<WindowKey, Lines>, AuditError> {
    let spent = "toInt128(spent * 1000000000)";
    let adds = "kind IN ('close', 'late')";
    let last = "(stage_seq, stage_index), kind = 'opening'";
    let question = format!(
        "SELECT scope, toUnixTimestamp64Milli(window_start) AS start, \
                sumIf({spent}, {adds}), sumIf(tokens, {adds}), sumIf(calls, {adds}), \
                argMaxIf({spent}, {last}), argMaxIf(tokens, {last}), argMaxIf(calls, {last}) \
         FROM budget_windows \
         WHERE epoch = {} AND budget = {} AND kind != 'spent' AND window_start >= {} \
               AND at >= if(kind = 'opening', {}, {}) \
         GROUP BY scope, start",
        context.epoch,
        quoted(id),
        sql::time(UnixMillis(first)),
        // An opening stands in the ledger's own time, which is behind by a tick.
        sql::time(counted.began_at.plus(-SAME_TIME_MILLIS)),
        sql::time(counted.began_at),
    );
    let mut lines = HashMap::new();
    for row in context.ask(&question)? {
        let of_window = Lines {
            spend: sql::spend(&row, 2)?,
            opening: sql::spend(&row, 5)?,
        };
        lines.insert((row[0].clone(), sql::cell(&row, 1)?), of_window);
    }
    Ok(lines)
}

/// The oldest hour of which anything is known; far in the future where nothing is.
fn oldest_hour(context: &Context<'_>) -> Result<UnixMillis, AuditError> {
    let question = "SELECT if(count() = 0, toInt64(4000000000), toInt64(toUnixTimestamp(min(hour)))) * 1000 \
                    FROM spend_hourly";
    let rows = context.ask(question)?;
    let oldest = rows.first().map(|row| sql::cell(row, 0)).transpose()?;
    Ok(UnixMillis(oldest.unwrap_or(0)))
}

/// Sums of the rows by scope and window, of a count that began before its beginning was written down.
/// Rows that only some ledger partitions have applied are given commit by commit.
fn question(
    context: &Context<'_>,
    counted: &CountedBudget,
    dimensions: &[Dimension],
    starts: &[i64],
    cut: &Cut,
    in_slice: &str,
) -> String {
    let epoch = context.epoch;
    let in_flight_from = match counted.began_before {
        true => UnixMillis(0),
        false => counted.began_at.plus(-IN_FLIGHT_MILLIS),
    };
    let is_sure = format!("budget_version > {}", counted.began_offset);
    let select: String = dimensions.iter().map(sql::selected).collect();
    // Whether such a count has the entry that is corrected is said by nobody; in windows that began
    // after it, it has all.
    let counted_from = counted.compiled.budget.counted_from;
    let has_all = match counted.compiled.window(counted_from) {
        window if window.start == counted_from => Some(counted_from),
        window => window.end,
    };
    let of_whole = match has_all {
        Some(from) => format!("time >= {}", sql::time(from)),
        None => "0".to_owned(),
    };
    let is_certain = format!(
        "{is_sure} AND (src_topic != {} OR {of_whole})",
        quoted(&context.topics.corrections)
    );
    let spend = |condition: &str| {
        format!(
            "sumIf({}, {condition}), sumIf({}, {condition}), sumIf(calls, {condition})",
            sql::NANOS,
            sql::tokens()
        )
    };
    format!(
        "SELECT {select}\
                {}, \
                if(meter_seq <= {by_all}, 0, meter_partition), \
                if(meter_seq <= {by_all}, 0, meter_seq), \
                {}, {} \
         FROM spend \
         WHERE epoch = {epoch} AND kind != 'revenue' AND {} AND time >= {} AND meter_seq <= {} \
               AND ({is_sure} OR received_at >= {}) AND {in_slice} \
         GROUP BY {}",
        sql::window_start(sql::MILLIS, starts),
        spend(&is_certain),
        spend(&format!("NOT ({is_certain})")),
        sql::counts_in(&counted.compiled.budget),
        sql::time(UnixMillis(starts[0])),
        sql::of_partition(&cut.by_any),
        sql::time(in_flight_from),
        sql::listed(1..=dimensions.len() + 3),
        by_all = sql::of_partition(&cut.by_all),
    )
}

fn add_row(
    row: &[String],
    dimensions: &[Dimension],
    replica: &LedgerReplica,
    sums: &mut HashMap<WindowKey, AccountSums>,
) -> Result<(), AuditError> {
    let scope = scope_of(dimensions.iter().zip(row.iter().map(String::as_str)));
    let place = dimensions.len();
    let (start, meter, seq) = (
        sql::cell(row, place)?,
        sql::cell::<usize>(row, place + 1)?,
        sql::cell::<u64>(row, place + 2)?,
    );
    if seq > 0 {
        let ledger = partition_of(scope.as_bytes(), replica.marks.len() as u32);
        let applied = replica.marks[ledger as usize].chains.get(meter);
        if applied.is_none_or(|applied| *applied < seq) {
            return Ok(());
        }
    }
    let rows = sums.entry((scope, start)).or_default();
    rows.sure.add(sql::spend(row, place + 3)?);
    rows.perhaps.add(sql::spend(row, place + 6)?);
    Ok(())
}

/// Account and lines of a window, and what of it was spent before the count began; `None` where the account belongs to another count and will be
/// judged anew.
fn found_of(
    replica: &mut LedgerReplica,
    counted: &CountedBudget,
    id: &str,
    key: &WindowKey,
    lines: &HashMap<WindowKey, Lines>,
    look: u64,
) -> Option<(Spend, Spend)> {
    let Lines {
        spend: mut found,
        mut opening,
    } = lines.get(key).copied().unwrap_or_default();
    let accounts = replica.accounts.get_mut(id);
    if let Some(account) = accounts.and_then(|accounts| accounts.get_mut(key)) {
        account.looked = look;
        let count = counted.compiled.count;
        if !account.count.goes_on_in(count, UnixMillis(key.1)) {
            return None;
        }
        found.add(account.spend);
        opening = account.opening;
    }
    Some((found, opening))
}

#[cfg(test)]
mod tests {
    use super::*;
    use spendfuse_domain::budget::{Budget, CompiledBudget};

    fn budget() -> CompiledBudget {
        let record = br#"{"v":1,"scope":{"workspace":"acme"},"window":"lifetime","limit":"1.00","steps":[{"at":100,"do":"block"}],"counted_from":"2026-01-01T00:00:00Z"}"#;
        CompiledBudget::new(Budget::from_record("all", record).expect("a good record"))
    }

    #[test]
    fn a_window_whose_rows_have_expired_is_not_compared() {
        let compiled = budget().budget;
        let lifetime =
            Window::containing(compiled.window, compiled.timezone.zone(), UnixMillis(1_000));
        let lifetime = std::slice::from_ref(&lifetime);
        let began = |began_at, began_before| CountedBudget {
            compiled: budget(),
            began_offset: 0,
            began_at: UnixMillis(began_at),
            began_before,
            is_in_rows: true,
        };
        let kept_from = UnixMillis(1_000);
        assert_eq!(
            starts_of_kept(lifetime, &began(2_000, false), kept_from),
            [0]
        );
        assert!(starts_of_kept(lifetime, &began(500, false), kept_from).is_empty());
        assert!(starts_of_kept(lifetime, &began(2_000, true), kept_from).is_empty());
    }
}
