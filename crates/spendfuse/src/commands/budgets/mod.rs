//! `spendfuse budgets validate|apply|list|status`.

mod apply;
mod held;
mod in_force;
mod list;
pub(super) mod standing;
mod status;
mod validate;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use spendfuse_domain::UnixMillis;
use spendfuse_domain::budget::file::{BudgetsFile, Mistake};
use spendfuse_domain::budget::{BudgetsRecord, CompiledBudget};

use super::{Failure, kafka, output};
use crate::settings::Settings;

#[derive(Args, Debug)]
pub struct BudgetsArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Check a budgets file; every mistake with its line and what to write instead, and places of
    /// alerts that the settings do not know
    #[command(after_help = "Example:\n  spendfuse budgets validate budgets.yaml")]
    Validate(FileArgs),
    /// Show what a budgets file changes, then put it into force, all at once
    #[command(
        after_help = "Examples:\n  spendfuse budgets apply budgets.yaml --dry-run\n  spendfuse budgets apply budgets.yaml --prune"
    )]
    Apply(apply::ApplyArgs),
    /// Show the budgets and detector rules in force
    #[command(after_help = "Example:\n  spendfuse budgets list")]
    List(ListArgs),
    /// Show what is spent of every budget, the tightest first
    #[command(
        after_help = "Examples:\n  spendfuse budgets status\n  spendfuse budgets status --budget cap-per-customer --scope acme/customer=c-\n  spendfuse budgets status --json | jq '.scopes[] | select(.verdict == \"block\")'"
    )]
    Status(status::StatusArgs),
}

#[derive(Args, Debug)]
struct FileArgs {
    /// Budgets file (YAML)
    file: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct ListArgs {
    /// Print JSON: the records of the budgets topic
    #[arg(long)]
    json: bool,
}

pub fn run(settings: &Settings, args: &BudgetsArgs) -> Result<ExitCode, Failure> {
    match &args.action {
        Action::Validate(args) => validate::run(settings, args),
        Action::Apply(args) => apply::run(settings, args),
        Action::List(args) => list::run(settings, args.json),
        Action::Status(args) => status::run(settings, args),
    }
}

/// Some hundred thousand budgets; what is longer is another file.
const LONGEST_FILE: u64 = 64 * 1024 * 1024;

/// A budgets file as it was read, or its mistakes.
pub fn read_file(path: &Path) -> Result<Result<BudgetsFile, Vec<Mistake>>, Failure> {
    let wrong = |why: String| {
        let place = path.display();
        Failure::usage(format!("{place}: {why}; name a budgets file in YAML"))
    };
    let mut text = String::new();
    let read = File::open(path)
        .and_then(|file| file.take(LONGEST_FILE + 1).read_to_string(&mut text))
        .map_err(|error| wrong(error.to_string()))?;
    if read as u64 > LONGEST_FILE {
        return Err(wrong("it has more than 64 MiB".to_owned()));
    }
    Ok(BudgetsFile::parse(&text))
}

/// The mistakes of a file, one a line, as editors and CI understand them.
pub fn mistake_lines(path: &Path, mistakes: &[Mistake]) -> Vec<String> {
    let lines = mistakes.iter();
    lines
        .map(|mistake| format!("{}:{mistake}", path.display()))
        .collect()
}

/// A budget whose alerts would reach nobody is a mistake, too: what the settings say against its places,
/// one a line.
fn unknown_places(settings: &Settings, path: &Path, file: &BudgetsFile) -> Vec<String> {
    let mut mistakes = Vec::new();
    for draft in &file.budgets {
        let budget = draft.counting_from(UnixMillis(0));
        let places = budget.alert.iter();
        let complaints = places.filter_map(|place| settings.complaint_about_place(place));
        let id = &budget.id;
        let path = path.display();
        mistakes.extend(complaints.map(|complaint| format!("{path}: alert of {id}: {complaint}")));
    }
    mistakes
}

/// The budgets in force.
pub fn compiled_in_force(settings: &Settings) -> Result<Vec<CompiledBudget>, Failure> {
    let records = records_in_force(settings)?.into_iter();
    let compiled = records.filter_map(|record| match record {
        BudgetsRecord::Budget(budget) => Some(CompiledBudget::new(budget)),
        BudgetsRecord::Detector(_) => None,
    });
    Ok(compiled.collect())
}

/// The records in force. One that cannot be read is told and left out.
pub fn records_in_force(settings: &Settings) -> Result<Vec<BudgetsRecord>, Failure> {
    let table = kafka::read_table(settings, &settings.topics().budgets)?;
    let mut records = Vec::with_capacity(table.len());
    for (key, value) in table {
        match BudgetsRecord::parse(&key, &value) {
            Ok(record) => records.push(record),
            Err(error) => output::warning(format!("{error}; it is left out")),
        }
    }
    Ok(records)
}
