//! `spendfuse doctor`: looks at everything that spendfuse stands on, and says what will hurt.
//!
//! It reads only. Each line is one look: what was found, and where something is to be done, what.

mod clocks;
mod kafka;
mod positions;
mod prices;
mod report;
mod warehouse;

use std::process::ExitCode;

use clap::Args;

use super::{Failure, found_wrong};
use crate::settings::Settings;
use report::Report;

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  spendfuse doctor")]
pub struct DoctorArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(settings: &Settings, args: &DoctorArgs) -> Result<ExitCode, Failure> {
    let mut report = Report::default();
    let version = env!("CARGO_PKG_VERSION");
    report.ok("program", format!("spendfuse {version}"));
    if kafka::look(settings, &mut report) {
        positions::look(settings, &mut report);
        clocks::of_brokers(settings, &mut report);
        prices::look(settings, &mut report);
        kafka::rejected(settings, &mut report);
    }
    warehouse::look(settings, &mut report);
    kafka::sidecar(settings, version, &mut report);
    report.print(args.json);
    Ok(match report.is_well() {
        true => ExitCode::SUCCESS,
        false => found_wrong(),
    })
}
