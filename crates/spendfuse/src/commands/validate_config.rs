//! `spendfuse validate-config`: whether a configuration can be used, before anything is started by it.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use spendfuse_warehouse::Warehouse;

use super::output::{self, counted};
use super::{Failure, found_wrong};
use crate::settings::{ProcessEnvironment, Settings, Source, unknown_variables};

#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  spendfuse validate-config --config imported/spendfuse.toml\n\nExit code 2 for what no role would start with, 1 for what is probably a mistake."
)]
pub struct ValidateConfigArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The settings were read before: whatever is wrong with one has ended the command by then.
pub fn run(settings: &Settings, args: &ValidateConfigArgs) -> Result<ExitCode, Failure> {
    let given = settings.resolved().values();
    let given = given
        .filter(|found| found.source != Source::Default)
        .count();
    let (proxy, sidecar) = settings.proxy();
    let keys = settings.keys().len();
    proxy.validate(&sidecar.keys).map_err(Failure::usage)?;
    sidecar.validate().map_err(Failure::usage)?;
    Warehouse::new(settings.warehouse()).map_err(Failure::warehouse)?;
    let doubts = unknown_variables(&ProcessEnvironment);
    if args.json {
        output::json(&json!({
            "valid": true, "settings": given, "keys": keys,
            "upstreams": proxy.upstreams.keys().collect::<Vec<_>>(), "doubts": doubts,
        }));
    } else {
        output::line(format!(
            "valid: {}, {}, {}",
            counted(given as u64, "setting"),
            counted(proxy.upstreams.len() as u64, "upstream"),
            counted(keys as u64, "key"),
        ));
    }
    Ok(match doubts.is_empty() {
        true => ExitCode::SUCCESS,
        false => found_wrong(),
    })
}
