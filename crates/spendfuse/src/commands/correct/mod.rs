//! `spendfuse correct void|amend|list`: entries that should not stand as they were counted.
//!
//! An entry is looked up in ClickHouse, and what stands for it goes into a record of the corrections
//! topic together with what is to stand from now on. The meter that counted the entry writes signed
//! rows and sums of the difference.

mod change;
pub(super) mod entry;
mod list;
pub(super) mod record;
pub(super) mod rest;
pub(super) mod rows;
mod send;
pub mod twice;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use spendfuse_domain::correction::{EntryPlace, MAX_TEXT_BYTES};

use super::prices::book;
use super::{Failure, found_wrong, ingest, kafka, output, signals, topics, warehouse};
use crate::settings::Settings;

#[derive(Args, Debug)]
pub struct CorrectArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Take an entry back: it was sent twice, or never happened; or take a correction back
    #[command(
        after_help = "Examples:\n  spendfuse correct void --workspace acme --source checkout-api \\\n    --id chatcmpl-9x --reason 'sent twice' --dry-run\n  spendfuse correct void --address 1/3/4711/0 --reason 'sent twice, ticket 77'\n\nAn address is epoch/meter_partition/meter_seq/meter_index of a row of table spend. The address of a\ncorrection takes that correction back: what stood before it stands again. The event stays known, and\nis a duplicate when it is sent again. The same command twice changes nothing."
    )]
    Void(VoidArgs),
    /// Let other counts, another attribution or another cost stand for an entry
    #[command(
        after_help = "Examples:\n  spendfuse correct amend --workspace acme --source agent --id msg_7 \\\n    --output-tokens 380 --reason 'only the first count was kept'\n  spendfuse correct amend --address 1/3/4711/0 --customer c-42 \\\n    --feature search --reason 'wrong customer'\n  spendfuse correct amend --address 1/3/4711/0 --cost 0.0125 --reason invoice\n\nOther counts, another model or another account are priced by the price book of the entry; --cost\nsays the cost instead. An empty value takes a dimension away: --customer ''. What is told of\nthe call later is not counted, so the command waits until nobody tells more of it."
    )]
    Amend(Box<change::AmendArgs>),
    /// Show the corrections of the last days, the latest first
    #[command(
        after_help = "Examples:\n  spendfuse correct list\n  spendfuse correct list --days 30 --workspace acme --json\n  spendfuse correct list --job prices-of-may"
    )]
    List(list::ListArgs),
}

#[derive(Args, Debug)]
struct VoidArgs {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    common: CommonArgs,
}

/// Which entry.
#[derive(Args, Debug)]
struct Which {
    /// Its address: epoch/meter_partition/meter_seq/meter_index
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["workspace", "source", "id"], required_unless_present = "id")]
    address: Option<EntryPlace>,
    /// Its event's workspace
    #[arg(long, value_name = "NAME", requires = "id")]
    workspace: Option<String>,
    /// Its event's source
    #[arg(long, value_name = "NAME", requires = "id")]
    source: Option<String>,
    /// Its event's id
    #[arg(long, requires = "workspace", requires = "source")]
    id: Option<String>,
}

/// Who corrects and why, and how the command goes about it.
#[derive(Args, Debug)]
struct CommonArgs {
    /// Why, for those who read the ledger later
    #[arg(long, value_name = "TEXT", value_parser = text_of_ledger)]
    reason: String,
    /// Who corrects; without it the user of this process ($USER)
    #[arg(long, value_name = "NAME", value_parser = text_of_ledger)]
    by: Option<String>,
    /// Only show what would change: rows, cost, windows of budgets
    #[arg(long)]
    dry_run: bool,
    /// Do not wait until the correction is in ClickHouse
    #[arg(long, conflicts_with = "dry_run")]
    no_wait: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl CommonArgs {
    /// What a killed command has left open would be waited for.
    fn end_left_open(&self, settings: &Settings) -> Result<(), Failure> {
        match self.dry_run {
            true => Ok(()),
            false => kafka::end_left_open(settings),
        }
    }

    fn by(&self) -> Result<String, Failure> {
        who(self.by.as_ref(), self.dry_run)
    }
}

/// Stands for whoever would correct, where nobody does.
const NOBODY: &str = "nobody";

/// Who corrects: whoever is named, else the user of this process. A dry run does without.
pub(super) fn who(named: Option<&String>, is_dry_run: bool) -> Result<String, Failure> {
    let user = || std::env::var("USER").ok();
    let named = named.cloned().or_else(user);
    let named = named.filter(|name| !name.is_empty());
    named
        .or_else(|| is_dry_run.then(|| NOBODY.to_owned()))
        .ok_or_else(|| {
            Failure::usage("nobody is named who corrects, and $USER is not set; write --by NAME")
        })
}

pub(super) fn text_of_ledger(text: &str) -> Result<String, String> {
    match text.len() {
        0 => Err("it must say something".to_owned()),
        1..=MAX_TEXT_BYTES => Ok(text.to_owned()),
        bytes => Err(format!(
            "it has {bytes} bytes, at most {MAX_TEXT_BYTES} are kept"
        )),
    }
}

pub fn run(settings: &Settings, args: &CorrectArgs) -> Result<ExitCode, Failure> {
    signals::end_between_transactions()?;
    match &args.action {
        Action::Void(args) => change::void(settings, &args.which, &args.common),
        Action::Amend(args) => change::amend(settings, args),
        Action::List(args) => list::run(settings, args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dry_run_needs_nobodys_name() {
        let nobody = String::new();
        assert_eq!(who(Some(&nobody), true).ok().as_deref(), Some(NOBODY));
        assert!(who(Some(&nobody), false).is_err());
    }
}
