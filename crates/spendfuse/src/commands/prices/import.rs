//! `spendfuse prices import FILE`: LiteLLM's price file as a version.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};
use spendfuse_pricing::PriceBook;
use spendfuse_pricing::import::{self, Report};

use super::super::output::{self, Side, counted, grouped, print_table, table};
use super::publish::{publish, tell};
use super::{Failure, book};
use crate::settings::Settings;

#[derive(Args, Debug)]
pub struct ImportArgs {
    /// LiteLLM's model_prices_and_context_window.json
    file: PathBuf,
    /// Beginning of the version's name
    #[arg(long, default_value = "litellm")]
    label: String,
    /// Where the prices are from, in words; the file's name if not given
    #[arg(long, value_name = "TEXT")]
    source: Option<String>,
    /// Write the book to this file instead of putting it into force
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Leave ClickHouse's table prices alone
    #[arg(long, conflicts_with = "out")]
    no_clickhouse: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(settings: &Settings, args: &ImportArgs) -> Result<ExitCode, Failure> {
    let bytes = book::read_file(&args.file)?;
    let file_name = args.file.file_name().unwrap_or(args.file.as_os_str());
    let file_name = file_name.to_string_lossy().into_owned();
    let source = args.source.clone().unwrap_or(file_name);
    let named =
        |error: &dyn std::fmt::Display| Failure::usage(format!("{}: {error}", args.file.display()));
    let imported = import::litellm(&bytes, &args.label, &source).map_err(|error| named(&error))?;
    if imported.draft.models.is_empty() {
        return Err(named(
            &"no entry has a price; this is not LiteLLM's price file",
        ));
    }
    let new = imported.draft.finish().map_err(|error| named(&error))?;
    if !args.json {
        print_report(&new, &imported.report);
    }
    let is_new = match &args.out {
        Some(path) => {
            fs::write(path, new.text())
                .map_err(|error| Failure::work(format!("{}: {error}", path.display())))?;
            if !args.json {
                output::line(format!("written to {}", path.display()));
            }
            None
        }
        None => {
            let is_new = publish(settings, &new, !args.no_clickhouse)?;
            if !args.json {
                tell(&new, is_new);
            }
            Some(is_new)
        }
    };
    if args.json {
        output::json(&report_json(&new, &imported.report, is_new));
    }
    Ok(ExitCode::SUCCESS)
}

fn print_report(new: &PriceBook, report: &Report) {
    let read = counted(report.models_read as u64, "entry").replace("entrys", "entries");
    output::line(format!(
        "{read} read, {} priced, {} merged under one name, {} without a usable price",
        counted(report.models_priced as u64, "model"),
        grouped(report.merged.len() as u64),
        grouped(report.unpriced.len() as u64),
    ));
    if !report.skipped_fields.is_empty() {
        output::line("fields that look like prices and were not taken over:");
        let mut rows = table([
            ("FIELD", Side::Left),
            ("ENTRIES", Side::Right),
            ("FOR EXAMPLE", Side::Left),
            ("WHY", Side::Left),
        ]);
        for (field, skipped) in &report.skipped_fields {
            rows.add_row([
                field.clone(),
                grouped(skipped.count as u64),
                skipped.example.clone(),
                skipped.reason.to_owned(),
            ]);
        }
        print_table(&rows);
    }
    output::line(format!("version {}", new.version()));
}

fn report_json(new: &PriceBook, report: &Report, is_new: Option<bool>) -> Value {
    let skipped: serde_json::Map<String, Value> = report
        .skipped_fields
        .iter()
        .map(|(field, skipped)| {
            let value = json!({
                "entries": skipped.count, "reason": skipped.reason, "example": skipped.example,
            });
            (field.clone(), value)
        })
        .collect();
    json!({
        "version": new.version(),
        "sha256": new.sha256(),
        "entries_read": report.models_read,
        "models_priced": report.models_priced,
        "merged": report.merged,
        "unpriced": report.unpriced,
        "skipped_fields": skipped,
        "published": is_new,
    })
}
