//! `spendfuse budgets status`: what is spent, of what, until when, and what is not counted.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};
use spendfuse_domain::verdict::{BlocklistEntry, FIGURES, budget_key};
use spendfuse_domain::{Amount, BudgetId, UnixMillis};

use super::super::dlq::{self, NotCounted};
use super::super::output::{self, Cell, Side, ago, counted, grouped, print_table, table};
use super::held::{self, AllHeld, Held};
use super::{Failure, standing};
use crate::settings::Settings;

#[derive(Args, Debug)]
pub struct StatusArgs {
    /// Only budgets whose id begins with this
    #[arg(long, value_name = "PREFIX")]
    budget: Option<String>,
    /// Only scopes that begin with this, such as acme/customer=c-
    #[arg(long, value_name = "PREFIX")]
    scope: Option<String>,
    /// Rows to print at most; 0 = all
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
    /// Print JSON, always with all rows
    #[arg(long)]
    json: bool,
}

pub fn run(settings: &Settings, args: &StatusArgs) -> Result<ExitCode, Failure> {
    let now = output::now();
    // What is held before what is spent: what has left the one since is in the other.
    let held = held::read(settings, now)?;
    let mut standing = standing::read(settings, now)?;
    let begins = |text: &str, prefix: &Option<String>| {
        prefix
            .as_ref()
            .is_none_or(|prefix| text.starts_with(prefix.as_str()))
    };
    standing
        .scopes
        .retain(|entry| begins(&entry.budget, &args.budget) && begins(&entry.scope, &args.scope));
    standing
        .without_spend
        .retain(|id| begins(id, &args.budget) && args.scope.is_none());
    let waiting = dlq::waiting_by_reason(settings)?;
    let waiting_events: u64 = waiting.by_reason.values().sum();
    if args.json {
        output::json(&json!({
            "scopes": standing.scopes.iter().map(|entry| scope_json(entry, &held)).collect::<Vec<_>>(),
            "without_spend": standing.without_spend,
            "reported_at": standing.reported_at,
            "figures": FIGURES,
            "not_counted": {
                "events": waiting_events, "by_reason": waiting.by_reason, "since": waiting.since,
            },
        }));
        return Ok(ExitCode::SUCCESS);
    }
    print_scopes(&standing.scopes, &held, args.limit, now);
    if !standing.without_spend.is_empty() {
        let ids = standing.without_spend.join(", ");
        output::line(format!("nothing spent yet: {ids}"));
    }
    if standing.scopes.is_empty() && standing.without_spend.is_empty() {
        output::line("no budgets match; `spendfuse budgets list` shows those in force");
    }
    print_counted_from(&standing.scopes);
    print_age(settings, standing.reported_at, now)?;
    print_not_counted(&waiting);
    Ok(ExitCode::SUCCESS)
}

/// What sidecars told of an entry's budget and scope.
fn held_of(entry: &BlocklistEntry, held: &AllHeld) -> Option<Held> {
    let key = BudgetId::new(&entry.budget).map(|id| budget_key(&id, &entry.scope))?;
    held.get(&key).copied()
}

/// The entry, and what is held where anybody has told that.
fn scope_json(entry: &BlocklistEntry, held: &AllHeld) -> Value {
    let mut line = json!(entry);
    let told = held_of(entry, held);
    let figures = told.and_then(|held| Some((held.figures(entry)?, held.amounts(entry)?.1)));
    if let (Some((figures, bound)), Some(line)) = (figures, line.as_object_mut()) {
        if let Value::Object(figures) = json!(figures) {
            line.extend(figures);
        }
        let (name, bound) = match bound {
            Amount::Usd(bound) => ("bound_usd", json!(bound)),
            Amount::Tokens(bound) => ("bound_tokens", json!(u64::try_from(bound).unwrap_or(0))),
            Amount::Calls(bound) => ("bound_calls", json!(u64::try_from(bound).unwrap_or(0))),
        };
        line.insert(name.to_owned(), bound);
    }
    line
}

fn print_scopes(scopes: &[BlocklistEntry], held: &AllHeld, limit: usize, now: UnixMillis) {
    if scopes.is_empty() {
        return;
    }
    let is_held = |entry: &BlocklistEntry| held_of(entry, held).is_some();
    let has_held = scopes.iter().any(is_held);
    let shown = if limit == 0 { scopes.len() } else { limit };
    let mut rows = table([
        ("BUDGET", Side::Left),
        ("SCOPE", Side::Left),
        ("SPENT", Side::Right),
        ("LIMIT", Side::Right),
        ("USED", Side::Right),
        ("VERDICT", Side::Left),
        ("WINDOW", Side::Left),
        ("RESETS", Side::Left),
    ]);
    for entry in scopes.iter().take(shown) {
        rows.add_row(status_row(entry, now));
    }
    output::hide_below(&mut rows, 6, 100);
    output::keep_whole(&mut rows, &[2, 3, 4, 5, 7]);
    print_table(&rows);
    if has_held {
        print_held(&scopes[..shown.min(scopes.len())], held);
    }
    if scopes.len() > shown {
        let more = grouped((scopes.len() - shown) as u64);
        output::line(format!("and {more} more; --limit 0 prints all"));
    }
}

/// What calls under way hold of those that are near their limits.
fn print_held(scopes: &[BlocklistEntry], held: &AllHeld) {
    for entry in scopes {
        let told = held_of(entry, held).and_then(|held| held.amounts(entry));
        if let Some((held, bound)) = told {
            output::line(format!(
                "{} {}: calls under way hold {held:#}; they may pass the limit by {bound:#} at most, and calls that reserve nothing by what they cost",
                entry.budget, entry.scope
            ));
        }
    }
}

/// Budgets whose current count began later than the window.
fn print_counted_from(scopes: &[BlocklistEntry]) {
    let late = scopes.iter().filter(|entry| counts_late(entry));
    let since: BTreeMap<&str, UnixMillis> = late
        .map(|entry| (entry.budget.as_str(), entry.counted_from))
        .collect();
    for (budget, from) in since {
        output::line(format!(
            "{budget} counts from {from} on, later than its window began"
        ));
    }
}

/// Whether spend of the window's beginning is missing in the count. Of a scope that the ledger has
/// told nothing of, nothing is known to be missing.
fn counts_late(entry: &BlocklistEntry) -> bool {
    let is_lifetime = entry.resets_at.is_none() || entry.version == 0;
    let has_limit = entry.figures.limit.is_some();
    !is_lifetime && has_limit && entry.counted_from > entry.window_start
}

fn status_row(entry: &BlocklistEntry, now: UnixMillis) -> Vec<Cell> {
    let percent = match entry.percent {
        Some(percent) => format!("{:.1}%", percent.as_f64()),
        None => "-".to_owned(),
    };
    let (spent, limit) = output::figures(entry.figures);
    vec![
        Cell::from(&entry.budget),
        Cell::from(&entry.scope),
        Cell::from(spent),
        Cell::from(limit),
        Cell::from(percent),
        output::verdict_cell(entry.verdict),
        Cell::from(&entry.window),
        Cell::from(output::resets(
            &entry.window,
            entry.resets_at.or(entry.expires_at),
            now,
        )),
    ]
}

/// Warns where the figures are old.
fn print_age(
    settings: &Settings,
    reported_at: Option<UnixMillis>,
    now: UnixMillis,
) -> Result<(), Failure> {
    let stale_after = settings.values.sidecar.stale_after.0.as_millis();
    let text = match reported_at {
        None => "no processor has reported yet: spend is not being counted".to_owned(),
        Some(at) if now.since(at) > i64::try_from(stale_after).unwrap_or(i64::MAX) => format!(
            "the processor last reported {}: the figures are that old",
            ago(at, now)
        ),
        Some(_) => {
            output::note(FIGURES);
            return Ok(());
        }
    };
    output::coloured_line(&text, output::Colour::Yellow);
    Ok(())
}

fn print_not_counted(waiting: &NotCounted) {
    let events: u64 = waiting.by_reason.values().sum();
    if events == 0 {
        return;
    }
    let reasons: Vec<String> = waiting
        .by_reason
        .iter()
        .map(|(reason, count)| format!("{} {reason}", grouped(*count)))
        .collect();
    let since = match waiting.since {
        Some(since) => format!(" of those set aside since {since}"),
        None => String::new(),
    };
    let text = format!(
        "spend not counted: {} in the DLQ{since} ({}); see `spendfuse dlq list`",
        counted(events, "event"),
        reasons.join(", ")
    );
    output::coloured_line(&text, output::Colour::Yellow);
}
