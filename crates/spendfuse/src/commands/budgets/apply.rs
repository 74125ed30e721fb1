//! `spendfuse budgets apply FILE`: the file against the records in force, and one transaction.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};
use spendfuse_bus::{OutputRecord, write_in_one_transaction};
use spendfuse_domain::UnixMillis;
use spendfuse_domain::budget::BudgetsRecord;
use spendfuse_domain::budget::diff::{Change, FieldChange, Missing, Plan};
use spendfuse_domain::budget::file::BudgetsFile;

use super::super::found_wrong;
use super::super::kafka::{self, PATIENCE};
use super::super::output::{self, Colour, counted};
use super::in_force::{self, InForce};
use super::{Failure, mistake_lines, read_file, records_in_force, standing};
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
    refuse_unknown_places(settings, &args.file, &file)?;
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

/// A budget whose alerts would reach nobody is a mistake, too.
fn refuse_unknown_places(
    settings: &Settings,
    path: &Path,
    file: &BudgetsFile,
) -> Result<(), Failure> {
    let mut mistakes = Vec::new();
    for draft in &file.budgets {
        let budget = draft.counting_from(UnixMillis(0));
        let places = budget.alert.iter();
        let complaints = places.filter_map(|place| settings.complaint_about_place(place));
        let id = &budget.id;
        let path = path.display();
        mistakes.extend(complaints.map(|complaint| format!("{path}: alert of {id}: {complaint}")));
    }
    match mistakes.is_empty() {
        true => Ok(()),
        false => Err(Failure::budgets_file(
            format!(
                "{} to be told that the settings do not know, nothing was changed",
                counted(mistakes.len() as u64, "place")
            ),
            mistakes,
        )),
    }
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
    let (verb, record) = match change {
        Change::Created(record) => ("created", record),
        Change::Changed { after, .. } => ("changed", &**after),
        Change::Unchanged(record) => ("unchanged", record),
        Change::Removed(record) => ("removed", record),
        Change::Kept(record) => ("kept", record),
    };
    let (kind, id) = match record {
        BudgetsRecord::Budget(budget) => ("budget", budget.id.as_str()),
        BudgetsRecord::Detector(rule) => ("detector", rule.id.as_str()),
    };
    let parsed = |text: Option<String>| -> Value {
        text.and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or(Value::Null)
    };
    let fields: Vec<Value> = change
        .fields()
        .into_iter()
        .map(|FieldChange { name, old, new }| {
            json!({"field": name, "old": parsed(old), "new": parsed(new)})
        })
        .collect();
    json!({"change": verb, "kind": kind, "id": id, "fields": fields})
}
