//! `spendfuse budgets apply FILE`: the file against the records in force, and one transaction.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Map, Value, json};
use spendfuse_bus::{OutputRecord, write_in_one_transaction};
use spendfuse_domain::UnixMillis;
use spendfuse_domain::budget::diff::{Change, FieldChange, Missing, Plan};
use spendfuse_domain::budget::{Budget, BudgetsRecord};

use super::super::found_wrong;
use super::super::kafka::{self, PATIENCE};
use super::super::output::{self, Colour, counted};
use super::in_force::{self, InForce};
use super::{Failure, mistake_lines, read_file, records_in_force, standing, unknown_places};
use crate::settings::Settings;

#[derive(Args, Debug)]
pub struct ApplyArgs {
    /// Budgets file (YAML)
    file: PathBuf,
    /// Also remove budgets and detector rules that the file does not have
    #[arg(long)]
    prune: bool,
    /// Only show what would change
    #[arg(long)]
    dry_run: bool,
    /// Do not wait until every partition of the processor and the sidecar use the budgets
    #[arg(long)]
    no_wait: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(settings: &Settings, args: &ApplyArgs) -> Result<ExitCode, Failure> {
    let file = read_file(&args.file)?.map_err(|mistakes| {
        let count = counted(mistakes.len() as u64, "mistake");
        Failure::budgets_file(
            format!("{count} in the budgets file, nothing was changed"),
            mistake_lines(&args.file, &mistakes),
        )
    })?;
    let unknown = unknown_places(settings, &args.file, &file);
    if !unknown.is_empty() {
        let count = counted(unknown.len() as u64, "place");
        let summary =
            format!("{count} to be told that the settings do not know, nothing was changed");
        return Err(Failure::budgets_file(summary, unknown));
    }
    let missing = if args.prune {
        Missing::Remove
    } else {
        Missing::Keep
    };
    let now = output::now();
    let mut plan = Plan::new(&records_in_force(settings)?, &file, now, missing);
    if in_force::newest_version(settings)? == 0 {
        plan.go_on_with(&known_counts(settings, now)?);
    }
    let too_late = plan.openings_too_late(now);
    if !too_late.is_empty() {
        let summary = "an opening would change nothing, so nothing was changed".to_owned();
        return Err(Failure::budgets_file(summary, too_late));
    }
    let writes = plan.writes();
    // People see what is going to happen before it does.
    if !args.json {
        print_plan(&plan);
    }
    let applied = !args.dry_run && !writes.is_empty();
    if applied {
        write(settings, &writes)?;
    }
    // Also where nothing was written: the apply before may not have waited.
    let in_force = match args.dry_run || args.no_wait {
        true => None,
        false => Some(in_force::wait(
            settings,
            in_force::newest_version(settings)?,
        )?),
    };
    if args.json {
        output::json(&plan_json(&plan, applied, in_force.as_ref()));
    } else if args.dry_run {
        output::line("dry run: nothing was changed");
    } else {
        print_outcome(applied, in_force.as_ref());
    }
    Ok(match in_force {
        Some(InForce::NotAt(_)) => found_wrong(),
        _ => ExitCode::SUCCESS,
    })
}

/// Since when each budget counts that a topic before this one had, as readers of the blocklist know.
fn known_counts(
    settings: &Settings,
    now: UnixMillis,
) -> Result<BTreeMap<String, UnixMillis>, Failure> {
    let mut known = BTreeMap::new();
    for entry in standing::read(settings, now)?.scopes {
        let counted = entry.count_since.unwrap_or(entry.counted_from);
        let since: &mut UnixMillis = known.entry(entry.budget).or_insert(counted);
        *since = counted.max(*since);
    }
    Ok(known)
}

fn print_outcome(applied: bool, in_force: Option<&InForce>) {
    let done = if applied {
        "applied"
    } else {
        "nothing to do: these budgets are written"
    };
    match in_force {
        None => output::line(done),
        Some(InForce::Everywhere) => {
            output::line(format!("{done}, and in force: the next event counts"));
        }
        Some(InForce::NoProcessor) => output::line(format!(
            "{done}; no processor runs now, so they are in force from its start on"
        )),
        Some(InForce::NotAt(behind)) => {
            output::line(format!("{done}, but not in force everywhere after 10 s:"));
            for one in behind {
                output::line(format!("  {one}"));
            }
            output::line(
                "they follow by themselves once they run; run the command again to wait for them",
            );
        }
    }
}

fn write(settings: &Settings, writes: &[(String, Option<Vec<u8>>)]) -> Result<(), Failure> {
    let topic = settings.topics().budgets;
    let records: Vec<OutputRecord> = writes
        .iter()
        .map(|(key, value)| OutputRecord {
            topic: topic.clone(),
            partition: 0,
            key: Some(key.clone().into_bytes()),
            value: value.clone(),
            headers: Vec::new(),
        })
        .collect();
    let id = kafka::transactional_id(settings, "budgets");
    write_in_one_transaction(&settings.kafka(), &id, &records, PATIENCE)
        .map_err(|error| kafka::failure(settings, &error))
}

fn print_plan(plan: &Plan) {
    for line in plan.to_string().lines() {
        let colour = match line.as_bytes().first() {
            Some(b'+') => Some(Colour::Green),
            Some(b'-') => Some(Colour::Red),
            Some(b'~') => Some(Colour::Yellow),
            _ => None,
        };
        output::parts(&[(line, colour)]);
    }
}

fn plan_json(plan: &Plan, applied: bool, in_force: Option<&InForce>) -> Value {
    let changes: Vec<Value> = plan.changes.iter().map(change_json).collect();
    let (everywhere, behind) = match in_force {
        None => (Value::Null, &[][..]),
        Some(InForce::Everywhere) => (Value::Bool(true), &[][..]),
        Some(InForce::NoProcessor) => (Value::Bool(false), &[][..]),
        Some(InForce::NotAt(behind)) => (Value::Bool(false), behind.as_slice()),
    };
    json!({"applied": applied, "in_force": everywhere, "behind": behind, "changes": changes})
}

fn change_json(change: &Change) -> Value {
    let (verb, before, record) = match change {
        Change::Created(record) => ("created", None, record),
        Change::Changed { before, after } => ("changed", Some(&**before), &**after),
        Change::Unchanged(record) => ("unchanged", None, record),
        Change::Removed(record) => ("removed", None, record),
        Change::Kept(record) => ("kept", None, record),
    };
    let (kind, id) = match record {
        BudgetsRecord::Budget(budget) => ("budget", budget.id.as_str()),
        BudgetsRecord::Detector(rule) => ("detector", rule.id.as_str()),
    };
    let mut told = json!({"change": verb, "kind": kind, "id": id, "fields": fields_json(change)});
    let is_written = matches!(change, Change::Created(_) | Change::Changed { .. });
    if let (BudgetsRecord::Budget(budget), true) = (record, is_written) {
        let before = match before {
            Some(BudgetsRecord::Budget(before)) => Some(before),
            _ => None,
        };
        let keeps = before.map(|before| budget.counts_like(before));
        told["keeps_count"] = json!(keeps);
        told["counted_from"] = json!(budget.counted_from);
        told["opening_window"] = json!(opening_window(before, budget));
    }
    told
}

/// The fields that differ, as people see them; of a new record all of them.
fn fields_json(change: &Change) -> Vec<Value> {
    if let Change::Created(record) = change {
        let fields: Map<String, Value> =
            serde_json::from_slice(&record.to_record()).unwrap_or_default();
        let hidden = ["v", "id", "counted_from"];
        let shown = { fields.into_iter() }.filter(|(name, _)| !hidden.contains(&name.as_str()));
        return shown
            .map(|(name, new)| json!({"field": name, "old": null, "new": new}))
            .collect();
    }
    let parsed = |text: Option<String>| -> Value {
        text.and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or(Value::Null)
    };
    let fields = change.fields().into_iter();
    fields
        .map(|FieldChange { name, old, new }| {
            json!({"field": name, "old": parsed(old), "new": parsed(new)})
        })
        .collect()
}

/// In which window alone an opening counts, where it is new.
fn opening_window(before: Option<&Budget>, budget: &Budget) -> Option<String> {
    let is_known = before.is_some_and(|before| {
        before.opening == budget.opening && before.counted_from == budget.counted_from
    });
    let is_new = budget.opening.is_some() && !is_known;
    let window = budget.window_of_opening().filter(|_| is_new)?;
    Some(window.label)
}
