//! `spendfuse config`: the configuration in force and where each value came from.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::Failure;
use super::output::{self, Side, print_table, table};
use crate::settings::{SETTINGS, Settings, shown};

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  spendfuse config\n  spendfuse config --json | jq '.\"kafka.brokers\"'"
)]
pub struct ConfigArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(settings: &Settings, args: &ConfigArgs) -> Result<ExitCode, Failure> {
    if args.json {
        let entries = settings.resolved().iter().map(|(key, resolved)| {
            let value = shown(key, &resolved.value);
            (
                key.clone(),
                json!({"value": value, "source": resolved.source.to_string()}),
            )
        });
        let all: serde_json::Map<_, _> = entries.collect();
        output::json(&serde_json::Value::Object(all));
        return Ok(ExitCode::SUCCESS);
    }
    let help = |key: &str| {
        SETTINGS
            .iter()
            .find(|setting| setting.key == key)
            .map_or("", |setting| setting.help)
    };
    let mut rows = table([
        ("SETTING", Side::Left),
        ("VALUE", Side::Left),
        ("FROM", Side::Left),
        ("WHAT FOR", Side::Left),
    ]);
    for (key, resolved) in settings.resolved() {
        rows.add_row([
            key.clone(),
            shown(key, &resolved.value),
            resolved.source.to_string(),
            help(key).to_owned(),
        ]);
    }
    output::keep_whole(&mut rows, &[0]);
    output::hide_below(&mut rows, 3, 100);
    print_table(&rows);
    Ok(ExitCode::SUCCESS)
}
