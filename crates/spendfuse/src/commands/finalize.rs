//! `spendfuse finalize`: from now on records may be stored as only this release reads them.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use spendfuse_domain::installation::NEWEST_FORMAT;

use super::{Failure, output};
use crate::commands::topics::looked;
use crate::installation;
use crate::settings::Settings;

#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  spendfuse finalize --yes\n\nProcesses follow within 15 s. There is no way back to the release before."
)]
pub struct FinalizeArgs {
    /// Say that every process of this installation runs this release
    #[arg(long)]
    yes: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(settings: &Settings, args: &FinalizeArgs) -> Result<ExitCode, Failure> {
    let known = looked(settings)?;
    if known.installation.topics.is_none() {
        return Err(Failure::work(
            "nothing is recorded about the topics yet: run `spendfuse topics create`, then this again",
        ));
    }
    let changes = known.installation.format < NEWEST_FORMAT;
    if changes && !args.yes {
        return Err(Failure::usage(format!(
            "records will be stored in format {NEWEST_FORMAT}, which older releases cannot read, and \
             Kafka does not tell which release a process is: see that every processor, loader and \
             sidecar runs this one, then add --yes"
        )));
    }
    if changes {
        installation::record_format(settings)
            .map_err(|error| super::kafka::failure(settings, &error))?;
    }
    if args.json {
        output::json(&json!({"format": NEWEST_FORMAT, "changed": changes}));
    } else {
        let what = if changes { "finalized " } else { "in order  " };
        output::line(format!("{what} format {NEWEST_FORMAT}"));
    }
    Ok(ExitCode::SUCCESS)
}
